// Writes a file of safetensors from a map of names to `{ dtype, shape, bytes }`.
import { writeFileSync } from 'node:fs';

// Sorted by name, so that the same input gives the same file.
export function safetensors(path, tensors, about) {
  const header = { __metadata__: about };
  const parts = [];
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of [...tensors].sort((a, b) => (a[0] < b[0] ? -1 : 1))) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    parts.push(bytes);
    end += bytes.length;
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8, ' ');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = Buffer.concat([length, Buffer.from(text), ...parts]);
  writeFileSync(path, file);
  console.log(`${path}: ${tensors.size} tensors, ${file.length} bytes`);
}
