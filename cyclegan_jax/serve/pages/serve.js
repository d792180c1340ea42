// The server translates.
const POLL = { busy: 400, idle: 3000 };  // milliseconds
const AGAIN = 'Try again';
const sleep = time => new Promise(done => setTimeout(done, time));
async function ask(path, query, body, signal) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(`/${path}?${new URLSearchParams(query)}`, {
        method: 'POST', body, signal,
        headers: { 'Content-Type': 'application/octet-stream' } });
    } catch (error) {
      if (signal.aborted) throw error;
      throw failure('The server does not answer.', AGAIN);
    }
    if (answer.ok) return await answer.blob();
    if (answer.status !== 503) {
      const told = await answer.json().catch(() => ({}));
      const text = told.error ?? `status ${answer.status}`;
      throw failure(`${text[0].toUpperCase()}${text.slice(1)}.`,
        answer.status >= 500 ? AGAIN : '');
    }
    tell('The queue is full: trying again');
    await sleep(1000 * (answer.headers.get('Retry-After') ?? 3));
    signal.throwIfAborted();
  }
}
// A file as it is shown: by the browser, or as the server draws it.
async function openPicture(blob, domain, signal) {
  const url = URL.createObjectURL(blob);
  try {
    return { blob, ...await seen(url) };
  } catch {
    URL.revokeObjectURL(url);
    const shown = await ask('preview', { model: byId('model').value, domain },
      blob, signal);
    return { blob, ...await seen(URL.createObjectURL(shown)) };
  }
}
async function translatePicture({ blob }, direction, signal) {
  if (blob.size > data.max_bytes)
    throw failure(`The file is larger than ${
      Math.round(data.max_bytes / 2 ** 20)} MB.`);
  job.id = Array.from(crypto.getRandomValues(new Uint8Array(16)),
    byte => byte.toString(16).padStart(2, '0')).join('');
  tell('Sending');
  return await ask('translate', { model: byId('model').value, direction,
    job: job.id }, blob, signal);
}

// How far it is.
const some = (number, thing) => `${count(number)} ${thing}${
  number === 1 ? '' : 's'}`;
async function poll() {
  try {
    const answer = await fetch(`/status?job=${job?.id ?? ''}`);
    showStatus(await answer.json());
  } catch {
    byId('state').className = 'soft lost';
    byId('state').textContent = 'The server does not answer';
  }
}
function showStatus(status) {
  const warm = status.networks - status.warming;
  const text = status.queue ? `${some(status.queue, 'image')} in the queue`
    : status.warming ? `Warming up: ${warm} of ${some(status.networks,
      'network')}` : 'Ready';
  byId('state').className = 'soft';
  if (byId('state').textContent !== text) byId('state').textContent = text;
  const mine = job && status.job;
  if (!mine) return;
  if (mine.running) tell(mine.share === null ? 'Translating'
    : mine.share === 1 ? 'Writing the file'
      : `Translating: ${Math.floor(100 * mine.share)} %`, mine.share);
  else if (mine.ahead) tell(`Waiting: ${some(mine.ahead, 'image')} before it`);
  else tell(status.warming ? 'Waiting: the network is warming up' : 'Waiting');
}
(async () => {
  for (;; await sleep(job ? POLL.busy : POLL.idle))
    if (!document.hidden) await poll();
})();

