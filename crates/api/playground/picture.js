// Pictures from files: brought to a size that the server paints, and read for what a picture of ours says of itself.

/** Sides are multiples of this for every checkpoint. */
const STEP = 8;
/** ModelsLab's smallest side. */
const LEAST = 64;
/** A text chunk of ours is far smaller. */
const MOST_TEXT = 1 << 20;
/** The server takes files up to 30 MiB; what a person drops is made smaller here before it is sent. */
const MOST_BYTES = 100 << 20;

/** @returns {Promise<ImageBitmap>} upright, whatever the camera wrote */
export async function decode(blob) {
  if (blob.size > MOST_BYTES) throw new Error('This file has more than 100 MB.');
  try {
    return await createImageBitmap(blob, { imageOrientation: 'from-image' });
  } catch {
    throw new Error('This file is no picture that your browser can read; PNG, JPEG and WebP always work.');
  }
}

/** The size within `longest`, in steps of 8, and never larger than the picture itself by more than a step. */
export function fitted({ width, height }, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const side = (pixels) => Math.min(longest, Math.max(LEAST, Math.round((pixels * scale) / STEP) * STEP));
  return { width: side(width), height: side(height) };
}

/** Draws the picture so that it fills the canvas: what is too much at two sides is cut off. */
export function draw(canvas, bitmap, size) {
  Object.assign(canvas, size);
  const scale = Math.max(size.width / bitmap.width, size.height / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, (size.width - width) / 2, (size.height - height) / 2, width, height);
}

/** @returns {Promise<Blob>} */
export const png = (canvas) =>
  new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error('The picture cannot be written.'))), 'image/png'));

/** @returns {Promise<string>} base64 without a prefix */
export const base64 = (blob) =>
  new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).split(',', 2)[1] ?? '');
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });

/**
 * The JSON that the server writes into its PNG files, in an iTXt chunk named `pentimento` (PNG, third edition, 11.3.3.4).
 * @returns {Promise<Record<string, any> | null>} null for pictures of others
 */
export async function parametersIn(blob) {
  const head = new Uint8Array(await blob.slice(0, 8).arrayBuffer());
  if (String.fromCharCode(...head.slice(1, 4)) !== 'PNG') return null;
  for (let at = 8; at + 12 <= blob.size; ) {
    const view = new DataView(await blob.slice(at, at + 8).arrayBuffer());
    const length = view.getUint32(0);
    const kind = String.fromCharCode(...new Uint8Array(view.buffer, 4));
    if (kind === 'iTXt' && length <= MOST_TEXT) {
      const found = await read(new Uint8Array(await blob.slice(at + 8, at + 8 + length).arrayBuffer()));
      if (found) return found;
    }
    if (kind === 'IEND') return null;
    at += 12 + length;
  }
  return null;
}

async function read(chunk) {
  const end = (from) => chunk.indexOf(0, from);
  const keyword = end(0);
  if (new TextDecoder().decode(chunk.slice(0, keyword)) !== 'pentimento') return null;
  const isCompressed = chunk[keyword + 1] === 1;
  // Two flags, the language and the translated keyword, each ended by a zero.
  const start = end(end(keyword + 3) + 1) + 1;
  try {
    const text = chunk.slice(start);
    const plain = isCompressed ? await inflate(text) : text;
    const parameters = JSON.parse(new TextDecoder().decode(plain));
    return parameters !== null && typeof parameters === 'object' ? parameters : null;
  } catch {
    return null;
  }
}

async function inflate(packed) {
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  const pieces = [];
  for (let total = 0; ; ) {
    const { value, done } = await reader.read();
    if (done) return new Uint8Array(await new Blob(pieces).arrayBuffer());
    total += value.length;
    // A small chunk can hold a large text.
    if (total > MOST_TEXT) throw new Error('too long');
    pieces.push(value);
  }
}
