// The browser translates: the page loads what that takes, a worker computes.
const AGAIN = 'Try again';
const UNREADABLE = 'The browser can not read this file: it is damaged, or no '
  + 'image, or of a format that it does not know.';
const MEGABYTE = 2 ** 20, MEGAPIXEL = 1e6;
const BACKENDS = { webgpu: 'WebGPU', wasm: 'WASM' };
const loads = new Map();  // promises of blobs by file
const received = new Map();  // bytes by file
let onReceived = () => {};
let cache = 'no-cache';  // another export may have the same address
let backend, hasFailed = false, worker;

const state = text => { byId('state').textContent = text; };
const megabytes = bytes => (bytes / MEGABYTE).toFixed(bytes < MEGABYTE ? 1 : 0);
const sum = (files, bytesOf) => files.reduce(
  (total, file) => total + bytesOf(file), 0);

// What there is, and what it takes.
async function findBackend() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const isFit = data.dtype === 'float32' || adapter?.features.has('shader-f16');
  backend = adapter && isFit ? 'webgpu' : 'wasm';
  const bytes = sum(filesFor(direction()), file => file.bytes);
  state(`${BACKENDS[backend]}, ${megabytes(bytes)} MB to load once`);
}
const filesFor = way => [data.runtimes[backend].wasm, data.networks[way]];
async function load(files, signal) {
  const total = sum(files, file => file.bytes);
  onReceived = () => {
    const here = sum(files, file => received.get(file.name) ?? 0);
    tell(`Loading the network: ${megabytes(here)} of ${megabytes(total)} MB`,
      here / total);
  };
  const isNew = files.some(file => received.get(file.name) !== file.bytes);
  if (isNew) onReceived();
  try {
    // What is loaded is kept, whoever still waits for it.
    return await Promise.race([Promise.all(files.map(fetched)),
      new Promise((_, leave) => {
        signal.addEventListener('abort', () => leave(signal.reason));
      })]);
  } finally {
    onReceived = () => {};
  }
}
function fetched(file) {
  if (!loads.has(file.name)) {
    const loading = fetchFile(file);
    loads.set(file.name, loading);
    loading.catch(() => loads.delete(file.name));
  }
  return loads.get(file.name);
}
async function fetchFile({ name, bytes }) {
  const chunks = [];
  let here = 0;
  try {
    const answer = await fetch(name, { cache });
    if (!answer.ok) throw failure(`The server has no ${name} (status ${
      answer.status}).`, AGAIN);
    for (const reader = answer.body.getReader();;) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      here += value.length;
      received.set(name, here);
      onReceived();
    }
  } catch (error) {
    received.delete(name);
    if (error.help) throw error;
    throw failure(`${name} could not be loaded: the server does not answer.`,
      AGAIN);
  }
  if (here === bytes) return new Blob(chunks);
  throw failure(`${name} is not the file that was exported with this page: it `
    + `has ${count(here)} bytes, not ${count(bytes)}. Reload the page, or copy `
    + 'the folder to the server again.', AGAIN, loadAnew);
}
function loadAnew() {
  cache = 'reload';
  loads.clear();
  received.clear();
}

// An image, and what becomes of it.
async function openPicture(blob) {
  const url = URL.createObjectURL(blob);
  try {
    return { blob, ...await seen(url) };
  } catch {
    URL.revokeObjectURL(url);
    throw failure(UNREADABLE);
  }
}
function tooLarge(picture, most, text) {
  return failure(text, 'Make it smaller', () => { picture.most = most; });
}
async function translatePicture(picture, way, signal) {
  const { blob, width, height } = picture;
  const most = picture.most ?? data.max_pixels;
  if (width * height > most && !picture.most)
    throw tooLarge(picture, most, `The image has ${width} x ${height} pixels, `
      + `and here at most ${(most / MEGAPIXEL).toPrecision(3)} megapixels are `
      + 'translated.');
  await known;
  const [wasm, network] = await load(filesFor(way), signal);
  const script = data.runtimes[backend].script;
  try {
    return await compute({ blob, most, way, backend, script, wasm, network,
      treatment: data.treatment, channels: data.networks[way].channels },
    signal);
  } catch (error) {
    signal.throwIfAborted();
    if (error.isOfImage) throw failure(UNREADABLE);
    if (backend === 'webgpu') {
      console.info(`WebGPU failed: ${error.message}`);
      [backend, hasFailed] = ['wasm', true];
      return await translatePicture(picture, way, signal);
    }
    if (/memory|alloc|abort/i.test(error.message) && !data.treatment.side)
      throw tooLarge(picture, Math.min(width * height, most) / 4,
        `There is not enough memory for ${width} x ${height} pixels.`);
    throw failure(`The network failed: ${error.message}.`, AGAIN, loadAnew);
  }
}
function compute(task, signal) {
  worker ??= new Worker(data.worker, { type: 'module' });
  return new Promise((resolve, reject) => {
    const end = () => {
      worker?.terminate();
      worker = undefined;
    };
    // A network that computes can't be told to stop, so its worker ends.
    signal.onabort = () => { end(); reject(signal.reason); };
    worker.onerror = event => {
      event.preventDefault();
      end();
      reject(new Error(event.message ?? 'its worker can not be loaded'));
    };
    worker.onmessage = ({ data: { doing, threads, made, error, isOfImage } }) => {
      if (doing) tell(doing);
      else if (threads) state(`Ready: ${BACKENDS[task.backend]}${
        threads > 1 ? `, ${threads} threads` : ''}${
        hasFailed ? ' (WebGPU failed)' : ''}`);
      else if (made) {
        signal.onabort = null;
        resolve(made);
      } else {
        if (!isOfImage) end();  // it may be in any state
        reject(Object.assign(new Error(error), { isOfImage }));
      }
    };
    worker.postMessage(task);
  });
}

let known;
if (location.protocol === 'file:') {
  for (const id of ['choice', 'drop']) byId(id).hidden = true;
  byId('from-disk').hidden = false;
} else known = findBackend();
