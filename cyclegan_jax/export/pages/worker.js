// Runs networks on images, so that the page stays responsive.
const MAX_THREADS = 8;  // more threads wait for each other
let ort;
const sessions = new Map();

onmessage = async ({ data: task }) => {
  let bitmap;
  try {
    bitmap = await decode(task.blob);
  } catch {
    postMessage({ error: 'it cannot be decoded', isUnreadable: true });
    return;
  }
  try {
    const image = pixelsOf(bitmap, task.maxPixels);
    postMessage({ progress: 'Preparing the network' });
    const session = await sessionOf(task);
    // Only now: loading may have found that there are no threads.
    postMessage({ threads: threadsOf(task) });
    postMessage({ progress: 'Translating' });
    const planes = await translate(image, session, task);
    postMessage({ translated: await encodePng(image, planes) });
  } catch (error) {
    postMessage({ error: error?.message ?? String(error) });
  }
};

async function sessionOf({ direction, backend, script, wasm, network }) {
  if (!ort) {
    ort = await import(script);
    ort.env.logLevel = 'error';
    ort.env.wasm.wasmBinary = await wasm.arrayBuffer();
    ort.env.wasm.numThreads = crossOriginIsolated
      ? Math.min(MAX_THREADS, navigator.hardwareConcurrency) : 1;
  }
  if (!sessions.has(direction)) {
    const bytes = new Uint8Array(await network.arrayBuffer());
    sessions.set(direction, await ort.InferenceSession.create(bytes, {
      executionProviders: [backend] }));
  }
  return sessions.get(direction);
}
const threadsOf = ({ backend }) =>
  backend === 'wasm' ? ort.env.wasm.numThreads : 1;

// Pads or resizes an image as the package's translator does, and runs the
// network. Returns a plane of bytes for each channel.
async function translate(image, session, { sizing, channels }) {
  const { width, height } = image;
  const { side, multiple, interpolation } = sizing;
  const [netWidth, netHeight] = side ? [side, side]
    : [width, height].map(length => paddedLength(length, multiple));
  const size = netWidth * netHeight;
  const input = new Float32Array(channels[0] * size);
  for (let c = 0; c < channels[0]; c++) {
    const plane = { width, height, values: planeOf(image, c, channels[0]) };
    const fit = side ? resize(plane, side, side, interpolation)
      : pad(plane, netWidth, netHeight);
    input.set(fit.values, c * size);
  }
  const tensor = new ort.Tensor('float32', input,
    [1, channels[0], netHeight, netWidth]);
  const { output } = await session.run({ input: tensor });
  const values = await output.getData();
  const planes = Array.from({ length: channels[1] }, (_, c) => {
    const plane = { width: netWidth, height: netHeight,
      values: values.subarray(c * size, (c + 1) * size) };
    return toBytes(side ? resize(plane, width, height, interpolation) : plane,
      width, height);
  });
  output.dispose();
  return planes;
}
