// The browser translates: the page loads the files, a worker computes.
const TRY_AGAIN = 'Try again';
const UNREADABLE = 'The browser cannot read this file: it is damaged, not an '
  + 'image, or of an unknown format.';
const MEGABYTE = 2 ** 20, MEGAPIXEL = 1e6;
const BACKENDS = { webgpu: 'WebGPU', wasm: 'WASM' };
const downloads = new Map();  // promises of blobs by file
const receivedBytes = new Map();  // by file
let onReceived = () => {};
let cache = 'no-cache';  // an older export may have had the same address
let backend, hasWebGpuFailed = false, worker;

const showState = text => { byId('state').textContent = text; };
const megabytes = bytes => (bytes / MEGABYTE).toFixed(bytes < MEGABYTE ? 1 : 0);
const sum = (files, bytesOf) => files.reduce(
  (total, file) => total + bytesOf(file), 0);

// Choosing the backend and loading the network.
async function findBackend() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const canRun = data.dtype === 'float32'
    || adapter?.features.has('shader-f16');
  backend = adapter && canRun ? 'webgpu' : 'wasm';
  const bytes = sum(filesFor(chosenDirection()), file => file.bytes);
  showState(`${BACKENDS[backend]}, ${megabytes(bytes)} MB to load once`);
}
const filesFor = direction =>
  [data.runtimes[backend].wasm, data.networks[direction]];
async function load(files, signal) {
  const total = sum(files, file => file.bytes);
  onReceived = () => {
    const bytes = sum(files, file => receivedBytes.get(file.name) ?? 0);
    showProgress(`Loading the network: ${megabytes(bytes)} of ${
      megabytes(total)} MB`, bytes / total);
  };
  const isNew = files.some(file => receivedBytes.get(file.name) !== file.bytes);
  if (isNew) onReceived();
  try {
    // An abort leaves the downloads running, for the next task.
    return await Promise.race([Promise.all(files.map(downloadOnce)),
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      })]);
  } finally {
    onReceived = () => {};
  }
}
function downloadOnce(file) {
  if (!downloads.has(file.name)) {
    const download = downloadFile(file);
    downloads.set(file.name, download);
    download.catch(() => downloads.delete(file.name));
  }
  return downloads.get(file.name);
}
async function downloadFile({ name, bytes }) {
  const chunks = [];
  let numReceived = 0;
  try {
    const response = await fetch(name, { cache });
    if (!response.ok) throw userError(`The server has no ${name} (status ${
      response.status}).`, TRY_AGAIN);
    for (const reader = response.body.getReader();;) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      numReceived += value.length;
      receivedBytes.set(name, numReceived);
      onReceived();
    }
  } catch (error) {
    receivedBytes.delete(name);
    if (error.remedy) throw error;
    throw userError(`${name} could not be loaded: the server does not answer.`,
      TRY_AGAIN);
  }
  if (numReceived === bytes) return new Blob(chunks);
  throw userError(`${name} is not the file that was exported with this page: `
    + `it has ${formatCount(numReceived)} bytes, not ${formatCount(bytes)}. `
    + 'Reload the page, or copy the folder to the server again.', TRY_AGAIN,
    forgetDownloads);
}
function forgetDownloads() {
  cache = 'reload';
  downloads.clear();
  receivedBytes.clear();
}

// Opening and translating images.
async function openPicture(blob) {
  const url = URL.createObjectURL(blob);
  try {
    return { blob, ...await loadPicture(url) };
  } catch {
    URL.revokeObjectURL(url);
    throw userError(UNREADABLE);
  }
}
function tooLargeError(picture, maxPixels, text) {
  return userError(text, 'Make it smaller', () => {
    picture.maxPixels = maxPixels;
  });
}
async function translatePicture(picture, direction, signal) {
  const { blob, width, height } = picture;
  const maxPixels = picture.maxPixels ?? data.max_pixels;
  if (width * height > maxPixels && !picture.maxPixels)
    throw tooLargeError(picture, maxPixels, `The image has ${width} x ${
      height} pixels, more than the limit of ${
      (maxPixels / MEGAPIXEL).toPrecision(3)} megapixels.`);
  await backendChosen;
  const [wasm, network] = await load(filesFor(direction), signal);
  const script = data.runtimes[backend].script;
  try {
    const { sizing, networks: { [direction]: { channels } } } = data;
    return await compute({ blob, maxPixels, direction, backend, script, wasm,
      network, sizing, channels }, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (error.isUnreadable) throw userError(UNREADABLE);
    if (backend === 'webgpu') {
      console.info(`WebGPU failed: ${error.message}`);
      [backend, hasWebGpuFailed] = ['wasm', true];
      return await translatePicture(picture, direction, signal);
    }
    if (/memory|alloc|abort/i.test(error.message) && !data.sizing.side)
      throw tooLargeError(picture, Math.min(width * height, maxPixels) / 4,
        `There is not enough memory for ${width} x ${height} pixels.`);
    throw userError(`The network failed: ${error.message}.`, TRY_AGAIN,
      forgetDownloads);
  }
}
function compute(task, signal) {
  worker ??= new Worker(data.worker, { type: 'module' });
  return new Promise((resolve, reject) => {
    const endWorker = () => {
      worker?.terminate();
      worker = undefined;
    };
    // A running network cannot be interrupted, so its worker ends.
    signal.onabort = () => { endWorker(); reject(signal.reason); };
    worker.onerror = event => {
      event.preventDefault();
      endWorker();
      reject(new Error(event.message ?? 'its worker cannot be loaded'));
    };
    worker.onmessage = ({ data: message }) => {
      const { progress, threads, translated, error, isUnreadable } = message;
      if (progress) showProgress(progress);
      else if (threads) showState(`Ready: ${BACKENDS[task.backend]}${
        threads > 1 ? `, ${threads} threads` : ''}${
        hasWebGpuFailed ? ' (WebGPU failed)' : ''}`);
      else if (translated) {
        signal.onabort = null;
        resolve(translated);
      } else {
        if (!isUnreadable) endWorker();  // it may be in any state
        reject(Object.assign(new Error(error), { isUnreadable }));
      }
    };
    worker.postMessage(task);
  });
}

let backendChosen;
if (location.protocol === 'file:') {
  for (const id of ['choice', 'drop']) byId(id).hidden = true;
  byId('from-disk').hidden = false;
} else backendChosen = findBackend();
