// Runs networks on images, away from the page, which stays alive.
const MOST_THREADS = 8;  // with more, they wait for each other
let ort;
const sessions = new Map();

onmessage = async ({ data: task }) => {
  let bitmap;
  try {
    bitmap = await decode(task.blob);
  } catch {
    postMessage({ error: 'it can not be decoded', isOfImage: true });
    return;
  }
  try {
    const image = pixelsOf(bitmap, task.most);
    postMessage({ doing: 'Preparing the network' });
    const session = await sessionOf(task);
    // Here alone: loading may have found that threads are not to be had.
    postMessage({ threads: threadsOf(task) });
    postMessage({ doing: 'Translating' });
    const pixels = await translate(image, session, task);
    postMessage({ made: await encodePng(image, pixels) });
  } catch (error) {
    postMessage({ error: error?.message ?? String(error) });
  }
};

async function sessionOf({ way, backend, script, wasm, network }) {
  if (!ort) {
    ort = await import(script);
    ort.env.logLevel = 'error';
    ort.env.wasm.wasmBinary = await wasm.arrayBuffer();
    ort.env.wasm.numThreads = crossOriginIsolated
      ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  }
  if (!sessions.has(way)) {
    const bytes = new Uint8Array(await network.arrayBuffer());
    sessions.set(way, await ort.InferenceSession.create(bytes, {
      executionProviders: [backend] }));
  }
  return sessions.get(way);
}
const threadsOf = ({ backend }) =>
  backend === 'wasm' ? ort.env.wasm.numThreads : 1;

// The treatment is the translator's, pixel by pixel.
async function translate(image, session, { treatment, channels }) {
  const { width, height } = image;
  const { side, multiple, interpolation } = treatment;
  const [across, down] = side ? [side, side]
    : [width, height].map(length => bucket(length, multiple));
  const size = across * down;
  const input = new Float32Array(channels[0] * size);
  for (let c = 0; c < channels[0]; c++) {
    const plane = { width, height, values: planeOf(image, c, channels[0]) };
    const fit = side ? resize(plane, side, side, interpolation)
      : pad(plane, across, down);
    input.set(fit.values, c * size);
  }
  const tensor = new ort.Tensor('float32', input,
    [1, channels[0], down, across]);
  const { output } = await session.run({ input: tensor });
  const values = await output.getData();
  const planes = Array.from({ length: channels[1] }, (_, c) => {
    const plane = { width: across, height: down,
      values: values.subarray(c * size, (c + 1) * size) };
    return toBytes(side ? resize(plane, width, height, interpolation) : plane,
      width, height);
  });
  output.dispose();
  return planes;
}
