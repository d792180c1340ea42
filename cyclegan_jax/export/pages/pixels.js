// Pixels, processed as in the package's translator, to the bit where browsers
// allow it. A plane is {width, height, values}, with values by rows.

// Decodes an image file, upright, with its stored values.
const decode = blob => createImageBitmap(blob, {
  colorSpaceConversion: 'none', imageOrientation: 'from-image',
  premultiplyAlpha: 'none' });

// A bitmap as {width, height, data: RGBA}, reduced to at most maxPixels.
function pixelsOf(bitmap, maxPixels) {
  const numPixels = bitmap.width * bitmap.height;
  const scale = Math.min(1, Math.sqrt(maxPixels / numPixels));
  const [width, height] = [bitmap.width, bitmap.height].map(length =>
    Math.max(1, Math.floor(length * scale)));
  const canvas = new OffscreenCanvas(width, height);
  // Its pixels are read at once, so a graphics card would only slow it down.
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

// One of the network's input channels: gray, or R, G or B. Fully transparent
// pixels are white.
const NORMALIZED = Float32Array.from({ length: 256 }, (_, byte) =>
  (2 * byte - 255) / 255);
function planeOf({ data }, channel, channels) {
  const values = new Float32Array(data.length / 4);
  for (let i = 0, at = 0; i < values.length; i++, at += 4) {
    const byte = !data[at + 3] ? 255 : channels === 3 ? data[at + channel]
      : (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2]
        + 32768) >> 16;
    values[i] = NORMALIZED[byte];
  }
  return values;
}

// The top left [height, width] of an output plane, as bytes.
function toBytes({ width: stride, values }, width, height) {
  const bytes = new Uint8ClampedArray(width * height);  // rounds half to even
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at++)
      bytes[at] = Math.fround(Math.fround(values[y * stride + x] + 1) * 127.5);
  return bytes;
}

// The length to which a side is padded: a multiple, of which there are at most
// eight between two powers of two, so that few sizes are compiled.
function paddedLength(length, multiple) {
  const octave = 2 ** Math.max(0, Math.ceil(Math.log2(length)) - 1);
  const step = Math.max(multiple, Math.floor(octave / 8));
  return Math.ceil(length / step) * step;
}

// A plane padded to a size by reflection, at the right and below.
function pad({ width, height, values }, toWidth, toHeight) {
  const columns = reflected(width, toWidth);
  const rows = reflected(height, toHeight);
  const padded = new Float32Array(toWidth * toHeight);
  for (let y = 0, at = 0; y < toHeight; y++)
    for (let x = 0; x < toWidth; x++, at++)
      padded[at] = values[rows[y] * width + columns[x]];
  return { width: toWidth, height: toHeight, values: padded };
}
// The source of each pixel of a padded side. If it is shorter than its padding,
// it is mirrored back and forth with its ends repeated.
function reflected(size, padded) {
  return Int32Array.from({ length: padded }, (_, i) => {
    if (padded - size < size) return i < size ? i : 2 * (size - 1) - i;
    const turn = i % (2 * size);
    return turn < size ? turn : 2 * size - 1 - turn;
  });
}

// Resizes a plane as Pillow resizes floats, with a filter that widens when it
// shrinks. Values are clipped to the plane's own range.
const sinc = x => x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1;
const FILTERS = {  // [radius, weight at a distance]
  bilinear: [1, x => 1 - x],
  bicubic: [2, x => x < 1 ? (1.5 * x - 2.5) * x * x + 1
    : ((-0.5 * x + 2.5) * x - 4) * x + 2],
  lanczos: [3, x => sinc(x) * sinc(x / 3)],
};
function resize(plane, width, height, interpolation) {
  let { values } = plane;
  if (plane.width === width && plane.height === height) return plane;
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (plane.width !== width)
    values = resizeRows(values, plane.width, width, plane.height,
      interpolation);
  if (plane.height !== height)
    values = resizeColumns(values, plane.height, height, width, interpolation);
  for (let i = 0; i < values.length; i++)
    values[i] = Math.min(high, Math.max(low, values[i]));
  return { width, height, values };
}
// For each pixel of a resized side: the first source pixel, and weights.
function weightsFor(size, toSize, interpolation) {
  const [radius, weightAt] = FILTERS[interpolation];
  const scale = size / toSize, stretch = Math.max(1, scale);
  return Array.from({ length: toSize }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - radius * stretch + 0.5));
    const end = Math.min(size, Math.trunc(center + radius * stretch + 0.5));
    const weights = Float64Array.from({ length: end - first }, (_, k) => {
      const distance = Math.abs((first + k - center + 0.5) / stretch);
      return distance < radius ? weightAt(distance) : 0;
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map(weight => weight / total) };
  });
}
function resizeRows(values, width, toWidth, height, interpolation) {
  const taps = weightsFor(width, toWidth, interpolation);
  const resized = new Float32Array(toWidth * height);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < toWidth; x++, at++) {
      const { first, weights } = taps[x];
      let sum = 0;
      for (let k = 0; k < weights.length; k++)
        sum += weights[k] * values[y * width + first + k];
      resized[at] = sum;
    }
  return resized;
}
function resizeColumns(values, height, toHeight, width, interpolation) {
  const taps = weightsFor(height, toHeight, interpolation);
  const resized = new Float32Array(width * toHeight);
  const sums = new Float64Array(width);
  taps.forEach(({ first, weights }, y) => {
    sums.fill(0);
    for (let k = 0, from = first * width; k < weights.length; k++)
      for (let x = 0; x < width; x++, from++)
        sums[x] += weights[k] * values[from];
    resized.set(sums, y * width);
  });
  return resized;
}
