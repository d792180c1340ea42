// The server translates.
const POLL_MS = { busy: 400, idle: 3000 };
const TRY_AGAIN = 'Try again';
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
async function post(path, query, body, signal) {
  for (;;) {
    let response;
    try {
      response = await fetch(`/${path}?${new URLSearchParams(query)}`, {
        method: 'POST', body, signal,
        headers: { 'Content-Type': 'application/octet-stream' } });
    } catch (error) {
      if (signal.aborted) throw error;
      throw userError('The server does not answer.', TRY_AGAIN);
    }
    if (response.ok) return await response.blob();
    if (response.status !== 503) {
      const { error } = await response.json().catch(() => ({}));
      const reason = error ?? `status ${response.status}`;
      throw userError(`${reason[0].toUpperCase()}${reason.slice(1)}.`,
        response.status >= 500 ? TRY_AGAIN : '');
    }
    showProgress('The queue is full: trying again');
    await sleep(1000 * (response.headers.get('Retry-After') ?? 3));
    signal.throwIfAborted();
  }
}
// The file itself, or the server's preview if the browser cannot show it.
async function openPicture(blob, domain, signal) {
  const url = URL.createObjectURL(blob);
  try {
    return { blob, ...await loadPicture(url) };
  } catch {
    URL.revokeObjectURL(url);
    const query = { model: byId('model').value, domain };
    const preview = await post('preview', query, blob, signal);
    return { blob, ...await loadPicture(URL.createObjectURL(preview)) };
  }
}
async function translatePicture({ blob }, direction, signal) {
  if (blob.size > data.max_bytes)
    throw userError(`The file is larger than ${
      Math.round(data.max_bytes / 2 ** 20)} MB.`);
  job.id = Array.from(crypto.getRandomValues(new Uint8Array(16)),
    byte => byte.toString(16).padStart(2, '0')).join('');
  showProgress('Sending');
  const query = { model: byId('model').value, direction, job: job.id };
  return await post('translate', query, blob, signal);
}

// The server's status.
const counted = (number, noun) =>
  `${formatCount(number)} ${noun}${number === 1 ? '' : 's'}`;
async function poll() {
  let text = 'The server does not answer', isLost = true;
  try {
    const response = await fetch(`/status?job=${job?.id ?? ''}`);
    const status = await response.json();
    text = queueText(status);
    isLost = false;
    if (job && status.job) showJob(status);
  } catch {}
  byId('state').classList.toggle('lost', isLost);
  // An equal text is not set: screen readers would read it again.
  if (byId('state').textContent !== text) byId('state').textContent = text;
}
function queueText({ queue, networks, warm_networks }) {
  if (queue) return `${counted(queue, 'image')} in the queue`;
  if (warm_networks < networks)
    return `Warming up: ${warm_networks} of ${counted(networks, 'network')}`;
  return 'Ready';
}
function showJob({ job: { running, share, ahead }, networks, warm_networks }) {
  if (running && share === null) showProgress('Translating');
  else if (running) showProgress(share === 1 ? 'Writing the file'
    : `Translating: ${Math.floor(100 * share)} %`, share);
  else if (ahead) showProgress(`Waiting: ${counted(ahead, 'image')} before it`);
  else showProgress(warm_networks < networks
    ? 'Waiting: the network is warming up' : 'Waiting');
}
(async () => {
  for (;; await sleep(job ? POLL_MS.busy : POLL_MS.idle))
    if (!document.hidden) await poll();
})();
