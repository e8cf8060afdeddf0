// Converts the networks of two npm packages to safetensors, without changing a number more than it says here.
//
//   npm pack nsfwjs@4.3.0 @upscalerjs/esrgan-slim@1.0.0     and unpack both
//   node convert.mjs <folder of nsfwjs> <folder of esrgan-slim>
//
// The names are Keras' own. Weights of nsfwjs are bytes with a smallest value and a step for each tensor, and stay so: beside
// each tensor stands `<name>/range`, two f64, so that a value is byte * step + smallest. Those of esrgan-slim are rounded from
// f32 to f16.
import { createRequire } from 'node:module';
import { copyFileSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { safetensors } from './safetensors.mjs';

const require = createRequire(import.meta.url);
const here = join(dirname(fileURLToPath(import.meta.url)), '..');
const [nsfwjs, esrgan] = process.argv.slice(2).map((folder) => resolve(folder));

// The nearest f16, ties to even.
function halfBits(value) {
  const word = new DataView(new ArrayBuffer(4));
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 127 + 15;
  if (exponent >= 31) throw new Error(`${value} is no f16`);
  let mantissa = (bits & 0x7fffff) | 0x800000;
  const shift = exponent > 0 ? 13 : 14 - exponent;
  if (shift > 24) return sign;
  const half = 1 << (shift - 1);
  const rest = mantissa & ((1 << shift) - 1);
  mantissa >>>= shift;
  if (rest > half || (rest === half && mantissa & 1)) mantissa += 1;
  // A carry out of the mantissa raises the exponent by itself.
  return sign | (exponent > 0 ? ((exponent - 1) << 10) + mantissa : mantissa);
}

function classifier() {
  const folder = join(nsfwjs, 'dist/models/mobilenet_v2');
  const model = require(join(folder, 'model.min.js'));
  const data = Buffer.from(require(join(folder, 'group1-shard1of1.min.js')), 'base64');
  const tensors = new Map();
  let at = 0;
  for (const { name, shape, quantization } of model.weightsManifest.flatMap((group) => group.weights)) {
    if (quantization?.dtype !== 'uint8') throw new Error(`${name} is not kept in bytes`);
    const size = shape.reduce((a, b) => a * b, 1);
    tensors.set(name, { dtype: 'U8', shape, bytes: data.subarray(at, at + size) });
    const range = Buffer.alloc(16);
    range.writeDoubleLE(quantization.min, 0);
    range.writeDoubleLE(quantization.scale, 8);
    tensors.set(`${name}/range`, { dtype: 'F64', shape: [2], bytes: range });
    at += size;
  }
  if (at !== data.length) throw new Error('not all bytes belong to a tensor');
  safetensors(join(here, 'weights/nsfw_mobilenet_v2.safetensors'), tensors, { from: 'npm nsfwjs 4.3.0', licence: 'MIT' });
}

function upscaler(scale) {
  const folder = join(esrgan, `models/x${scale}`);
  const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
  const data = readFileSync(join(folder, 'group1-shard1of1.bin'));
  const tensors = new Map();
  let at = 0;
  for (const { name, shape, dtype } of model.weightsManifest.flatMap((group) => group.weights)) {
    if (dtype !== 'float32') throw new Error(`${name} is not f32`);
    const size = shape.reduce((a, b) => a * b, 1);
    const bytes = Buffer.alloc(size * 2);
    for (let i = 0; i < size; i++) bytes.writeUInt16LE(halfBits(data.readFloatLE(at + i * 4)), i * 2);
    tensors.set(name, { dtype: 'F16', shape, bytes });
    at += size * 4;
  }
  if (at !== data.length) throw new Error('not all bytes belong to a tensor');
  const about = { from: `npm @upscalerjs/esrgan-slim 1.0.0, x${scale}`, licence: 'MIT' };
  safetensors(join(here, `weights/esrgan_slim_x${scale}.safetensors`), tensors, about);
}

classifier();
upscaler(2);
upscaler(4);
copyFileSync(join(nsfwjs, 'LICENSE'), join(here, 'licences/nsfwjs.txt'));
copyFileSync(join(esrgan, 'LICENSE'), join(here, 'licences/esrgan-slim.txt'));
