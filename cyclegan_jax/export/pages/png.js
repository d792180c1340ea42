// Writes PNG files: a canvas would round colors with alpha, and has no gray.
const COLOR_TYPES = [undefined, 0, 4, 2, 6];  // by number of channels
const SUB = 1;  // the filter of each row: differences to the previous pixel

// Encodes planes of bytes, gray or R, G, B, and the alpha of an RGBA image if
// any of it is transparent.
async function encodePng({ width, height, data }, planes) {
  const alpha = data.filter((_, i) => i % 4 === 3);
  const all = alpha.every(byte => byte === 255) ? planes : [...planes, alpha];
  const n = all.length, stride = 1 + n * width;
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    rows[y * stride] = SUB;
    for (let c = 0; c < n; c++) {
      let previous = 0;
      for (let x = 0, at = y * stride + 1 + c; x < width; x++, at += n) {
        const byte = all[c][y * width + x];
        rows[at] = byte - previous;
        previous = byte;
      }
    }
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);  // bits
  header.setUint8(9, COLOR_TYPES[n]);
  const compressed = new Blob([rows]).stream().pipeThrough(
    new CompressionStream('deflate'));
  return new Blob([Uint8Array.from([137, 80, 78, 71, 13, 10, 26, 10]),
    ...chunk('IHDR', new Uint8Array(header.buffer)),
    ...chunk('IDAT', new Uint8Array(
      await new Response(compressed).arrayBuffer())),
    ...chunk('IEND', new Uint8Array(0))], { type: 'image/png' });
}
function chunk(kind, bytes) {
  const length = new DataView(new ArrayBuffer(4));
  const check = new DataView(new ArrayBuffer(4));
  const name = new TextEncoder().encode(kind);
  length.setUint32(0, bytes.length);
  check.setUint32(0, ~crc(bytes, crc(name, -1)));
  return [length, name, bytes, check];
}
const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++)
    byte = byte & 1 ? byte >>> 1 ^ 0xedb88320 : byte >>> 1;
  return byte;
});
function crc(bytes, state) {
  for (const byte of bytes)
    state = CRC_TABLE[(state ^ byte) & 255] ^ state >>> 8;
  return state;
}
