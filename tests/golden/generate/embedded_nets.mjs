// What TensorFlow.js gives for the networks of crates/embedded-nets, on pictures that are drawn here.
//
// Run it in a folder with the packages:
//   npm install nsfwjs@4.3.0 @upscalerjs/esrgan-slim@1.0.0 @tensorflow/tfjs@4.22.0
//   node <here>/embedded_nets.mjs
//
// Everything is drawn with whole numbers, so that the pictures are the same on every machine.
import { createRequire } from 'node:module';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { safetensors } from '../../../crates/embedded-nets/convert/safetensors.mjs';

const require = createRequire(join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');
const nsfwjs = require('nsfwjs');
const golden = join(dirname(fileURLToPath(import.meta.url)), '..');

// A picture from a function of x, y, width, height to [r, g, b].
function draw(width, height, colour) {
  const pixels = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) pixels.set(colour(x, y, width, height).map((v) => v & 255), (y * width + x) * 3);
  }
  return { width, height, pixels };
}

function noise(x, y) {
  let n = (Math.imul(x, 374761393) + Math.imul(y, 668265263)) | 0;
  n = Math.imul(n ^ (n >>> 13), 1274126177);
  return (n ^ (n >>> 16)) & 255;
}

const within = (x, y, cx, cy, rx, ry) => (x - cx) ** 2 * ry * ry + (y - cy) ** 2 * rx * rx <= rx * rx * ry * ry;

// A drawn head and shoulders: skin, hair, eyes.
function portrait(x, y, w, h) {
  const shade = ((x * 24) / w) | 0;
  if (within(x, y, w * 0.42, h * 0.38, w * 0.025, h * 0.02) || within(x, y, w * 0.58, h * 0.38, w * 0.025, h * 0.02)) return [40, 30, 30];
  if (within(x, y, w / 2, h * 0.53, w * 0.07, h * 0.02)) return [170, 70, 70];
  if (within(x, y, w / 2, h * 0.42, w * 0.2, h * 0.24)) return [226 - shade, 178 - shade, 150 - shade];
  if (within(x, y, w / 2, h * 0.34, w * 0.25, h * 0.28)) return [70, 45, 30];
  if (within(x, y, w / 2, h * 1.05, w * 0.42, h * 0.38)) return [214 - shade, 166 - shade, 138 - shade];
  return [150 + ((y * 60) / h | 0), 170, 190];
}

const landscape = (x, y, w, h) => {
  const n = noise(x, y) >> 4;
  if (within(x, y, w * 0.75, h * 0.2, w * 0.08, w * 0.08)) return [250, 240, 190];
  if (y * 3 < h * 2 - ((Math.abs(x * 2 - w) * h) / (2 * w))) return [110 + ((y * 90) / h | 0), 150 + ((y * 60) / h | 0), 215];
  return [60 + n, 110 + n * 2, 40 + n];
};

const pictures = {
  landscape: draw(120, 80, landscape),
  portrait: draw(96, 128, portrait),
  exact_size: draw(224, 224, (x, y, w, h) => portrait(x, y, w, h).map((v) => v - (noise(x, y) >> 4) + 15)),
  large: draw(301, 237, (x, y, w, h) => landscape(y, x, h, w)),
  noise: draw(64, 64, (x, y) => [noise(x, y), noise(x + 999, y), noise(x, y + 999)]),
  skin: draw(72, 54, (x, y) => [222 - (x >> 2), 172 - (y >> 2), 142 + ((x + y) >> 4)]),
  checks: draw(50, 70, (x, y) => ((x >> 3) + (y >> 3)) & 1 ? [240, 240, 240] : [200, 30, 60]),
  black: draw(8, 8, () => [0, 0, 0]),
  white_line: draw(40, 1, () => [255, 255, 255]),
  one: draw(1, 1, () => [90, 160, 30]),
  shapes: draw(90, 90, (x, y, w, h) => (within(x, y, 30, 35, 22, 22) ? [220, 60, 60] : within(x, y, 60, 60, 24, 15) ? [60, 80, 220] : [245, 235, 160])),
  body: draw(80, 150, (x, y, w, h) => {
    const skin = [224 - (x >> 1), 176 - (x >> 1), 148 - (x >> 1)];
    if (within(x, y, 40, 22, 13, 17) || within(x, y, 40, 75, 22, 38) || within(x, y, 31, 128, 10, 40) || within(x, y, 49, 128, 10, 40)) return skin;
    return [120 + (y >> 1), 90, 80 + (noise(x, y) >> 5)];
  }),
};

const u8 = (p) => ({ dtype: 'U8', shape: [p.height, p.width, 3], bytes: p.pixels });
const f32 = (values, shape) => ({ dtype: 'F32', shape, bytes: Buffer.from(new Float32Array(values).buffer) });
const about = (reference) => ({ about: JSON.stringify({ script: 'embedded_nets.mjs', versions: { tfjs: tf.version.tfjs, ...reference } }) });

async function classes() {
  const net = await nsfwjs.load('MobileNetV2');
  const tensors = new Map();
  for (const [name, picture] of Object.entries(pictures)) {
    const x = tf.tensor3d(new Int32Array(picture.pixels), [picture.height, picture.width, 3], 'int32');
    const found = await net.classify(x, 5);
    const order = ['Drawing', 'Hentai', 'Neutral', 'Porn', 'Sexy'];
    const scores = order.map((label) => found.find((one) => one.className === label).probability);
    const features = await net.infer(x, 'average_pooling2d_1').data();
    tensors.set(`${name}.picture`, u8(picture));
    tensors.set(`${name}.scores`, f32(scores, [5]));
    tensors.set(`${name}.features`, f32(features, [1280]));
    console.log(name, scores.map((s) => s.toFixed(4)).join(' '));
  }
  safetensors(join(golden, 'embedded_nets/classes.safetensors'), tensors, about({ nsfwjs: '4.3.0' }));
}

async function enlarged() {
  const picture = draw(48, 40, (x, y, w, h) => (x < 24 ? landscape(x * 2, y, w, h) : portrait((x - 24) * 2, y, w, h)));
  const tensors = new Map([['picture', u8(picture)]]);
  for (const scale of [2, 4]) {
    const folder = join(process.cwd(), 'node_modules/@upscalerjs/esrgan-slim/models', `x${scale}`);
    const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
    const data = readFileSync(join(folder, 'group1-shard1of1.bin'));
    const artifacts = {
      modelTopology: model.modelTopology,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.length),
    };
    const net = await tf.loadLayersModel(tf.io.fromMemory(artifacts));
    const x = tf.tensor4d(new Float32Array(picture.pixels), [1, picture.height, picture.width, 3]);
    const y = net.predict(x);
    tensors.set(`x${scale}`, f32(await y.data(), y.shape.slice(1)));
    console.log(scale, y.shape);
  }
  safetensors(join(golden, 'embedded_nets/enlarged.safetensors'), tensors, about({ 'esrgan-slim': '1.0.0' }));
}

await tf.setBackend('cpu');
mkdirSync(join(golden, 'embedded_nets'), { recursive: true });
await classes();
await enlarged();
