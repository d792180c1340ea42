const drop = byId('drop'), choice = byId('choice'), shutter = byId('shutter');
const images = [];  // {name, file, input, made: results by task}
let current, view = 0, job;  // the image shown; the task that is being done
const [COMPARE, ROUND_TRIP, ALL] = [0, 1, 2];
const POLL = { busy: 400, idle: 3000 };  // milliseconds

// What is chosen.
const model = () => data.models[byId('model').value];
const direction = () => choice.elements.direction.value;
const other = way => way === 'ab' ? 'ba' : 'ab';
const canReturn = () => model().directions.includes(other(direction()));
const taskOf = role => `${byId('model').value}/${direction()}/${role}`;
const resultOf = (image, role) => image.made.get(taskOf(role));
const isDone = result => result?.picture !== undefined;
const letter = domain => domain.toUpperCase();
function labels() {
  const [from, to] = direction();
  return [`Input (${letter(from)})`, `Translated (${letter(to)})`,
    `Back again (${letter(from)})`];
}

// Talking to the server: errors have a text for the user, and tell whether
// it may go better another time.
function failure(text, again) {
  return Object.assign(new Error(text), { again });
}
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
      throw failure('The server does not answer.', true);
    }
    if (answer.ok) return await answer.blob();
    if (answer.status !== 503) {
      const told = await answer.json().catch(() => ({}));
      const text = told.error ?? `status ${answer.status}`;
      throw failure(`${text[0].toUpperCase()}${text.slice(1)}.`,
        answer.status >= 500);
    }
    tell('The queue is full: trying again');
    await sleep(1000 * (answer.headers.get('Retry-After') ?? 3));
    signal.throwIfAborted();
  }
}
async function seen(url) {
  const img = new Image();
  img.src = url;
  await img.decode();
  return { url, width: img.naturalWidth, height: img.naturalHeight };
}
// A file as it is shown: by the browser, or as the server draws it.
async function pictureOf(blob, index, domain, signal) {
  const url = URL.createObjectURL(blob);
  try {
    return { blob, ...await seen(url) };
  } catch {
    URL.revokeObjectURL(url);
    const shown = await ask('preview', { model: index, domain }, blob, signal);
    return { blob, ...await seen(URL.createObjectURL(shown)) };
  }
}

// One task at a time: first what is looked at, then what was brought along.
function nextTask() {
  const roles = view === COMPARE || !canReturn() ? [1] : [1, 2];
  for (const role of roles)
    if (current && !resultOf(current, role)
      && (role === 1 || isDone(resultOf(current, 1))))
      return { image: current, role };
  const image = images.find(each => !resultOf(each, 1));
  return image && { image, role: 1 };
}
const isWanted = task => images.includes(task.image)
  && task.key === taskOf(task.role);
async function work() {
  if (job && !isWanted(job)) job.control.abort();
  if (job) return;
  const task = nextTask();
  if (!task) return;
  job = { ...task, key: taskOf(task.role), control: new AbortController(),
    id: Array.from(crypto.getRandomValues(new Uint8Array(16)),
      byte => byte.toString(16).padStart(2, '0')).join('') };
  const { image, role, key, id, control: { signal } } = job;
  const index = byId('model').value;
  const way = role === 1 ? direction() : other(direction());
  tell('Sending');
  draw();
  try {
    if (!image.input)
      image.input = await pictureOf(image.file, index, way[0], signal);
    draw();
    const source = role === 1 ? image.file : resultOf(image, 1).picture.blob;
    if (source.size > data.max_bytes)
      throw failure(`The file is larger than ${
        Math.round(data.max_bytes / 2 ** 20)} MB.`);
    const blob = await ask('translate', { model: index, direction: way,
      job: id }, source, signal);
    image.made.set(key, { picture: await pictureOf(blob, index, way[1],
      signal) });
    if (image === current) say(`${labels()[role]}: ${image.name} is here`);
  } catch (error) {
    if (!signal.aborted) image.made.set(key, { error });
  }
  job = undefined;
  draw();
  work();
}

// How far things are.
function tell(text, share) {
  byId('how').textContent = text;
  if (share === undefined || share === null)
    byId('share').removeAttribute('value');
  else byId('share').value = share;
}
const say = text => { byId('said').textContent = text; };
const some = (number, thing) => `${count(number)} ${thing}${
  number === 1 ? '' : 's'}`;
async function poll() {
  try {
    const answer = await fetch(`/status?job=${job?.id ?? ''}`);
    showStatus(await answer.json());
  } catch {
    byId('queue').className = 'soft lost';
    byId('queue').textContent = 'The server does not answer';
  }
}
function showStatus(status) {
  const warm = status.networks - status.warming;
  const text = status.queue ? `${some(status.queue, 'image')} in the queue`
    : status.warming ? `Warming up: ${warm} of ${some(status.networks,
      'network')}` : 'Ready';
  byId('queue').className = 'soft';
  if (byId('queue').textContent !== text) byId('queue').textContent = text;
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

// What is seen.
function figure(parent, picture, role, kind) {
  const node = make('figure', parent, { class: kind });
  const img = make('img', node, { src: picture.url, draggable: false,
    alt: `${labels()[role]}: ${current.name}` });
  if (Math.max(picture.width, picture.height) <= 256) img.className = 'pixels';
  make('figcaption', node, {}, labels()[role]);
  return node;
}
function draw() {
  byId('work').hidden = !images.length;
  document.body.classList.toggle('busy', images.length > 0);
  drawList();
  if (!current) return;
  const { input } = current;
  const [first, back] = [1, 2].map(role => resultOf(current, role));
  const now = canReturn() || view !== ROUND_TRIP ? view : COMPARE;
  markView(now, canReturn() ? [COMPARE, ROUND_TRIP, ALL] : [COMPARE, ALL]);
  const shape = input ? input.width / input.height : 1;
  const pictures = [input, first?.picture, back?.picture];
  const second = now === ROUND_TRIP ? 2 : 1;
  stage.replaceChildren();
  byId('flip').disabled = now === ALL || !pictures[second];
  if (now !== ALL && pictures[second]) {
    const frame = makeSlider(shape, [labels()[0], labels()[second]]);
    figure(frame, pictures[second], second, 'after');
    figure(frame, input, 0, 'before');
  } else pictures.forEach((picture, role) => {
    if (!picture || (now !== ALL && role)) return;
    const cell = make('div', stage, { class: 'cell' });
    figure(cell, picture, role, 'frame').style.setProperty('--shape', shape);
  });
  arrange(shape);
  const box = stage.parentNode;
  box.style.setProperty('--shape', shape);
  box.classList.toggle('all', now === ALL);
  const failed = first?.error ?? (now === COMPARE ? undefined : back?.error);
  const lacks = !isDone(first) || (now !== COMPARE && canReturn()
    && !isDone(back));
  byId('wait').hidden = !lacks || failed !== undefined;
  if (job?.image !== current && lacks) tell('Waiting for the others');
  byId('trouble').hidden = failed === undefined;
  byId('trouble').firstChild.textContent = failed?.message ?? '';
  byId('again').hidden = !failed?.again;
  offer(first);
}
function offer(result) {
  const link = byId('download');
  link.removeAttribute('href');
  if (!isDone(result)) return;
  const { blob } = result.picture;
  const stem = current.name.replace(/\.[^.]*$/, '');
  const ending = blob.type === 'image/tiff' ? 'tif' : 'png';
  link.download = `${stem}_${direction()}.${ending}`;
  // What is shown may be a preview; what is saved is the file.
  URL.revokeObjectURL(link.dataset.url);
  link.href = link.dataset.url = URL.createObjectURL(blob);
}
function drawList() {
  for (const image of images) {
    const result = resultOf(image, 1), button = image.item.firstChild;
    button.className = `thumb${isDone(result) ? ' done' : ''}${
      result?.error ? ' failed' : ''}`;
    button.setAttribute('aria-current', image === current);
    if (image.input && !button.firstChild)
      make('img', button, { src: image.input.url, alt: '' });
  }
}

// Images come and go.
function add(files) {
  const before = images.length;
  for (const file of files) {
    const name = file.name || `picture ${images.length + 1}.png`;
    const item = make('li', byId('images'));
    const image = { name, file, item, made: new Map() };
    const button = make('button', item, { 'aria-label': name, title: name });
    button.onclick = () => show(image);
    const thumb = make('img', button, { alt: '',
      src: URL.createObjectURL(file) });
    thumb.onload = () => URL.revokeObjectURL(thumb.src);
    thumb.onerror = () => thumb.remove();  // the server draws it
    const remove = make('button', item, { class: 'remove',
      'aria-label': `Remove ${name}`, title: 'Remove' });
    remove.innerHTML =
      '<svg viewBox="0 0 10 10"><path d="M1 1l8 8M9 1L1 9"/></svg>';
    remove.onclick = () => forget(image);
    images.push(image);
  }
  if (images.length > before) show(images[before]);
}
function show(image) {
  current = image;
  draw();
  work();
}
function forget(image) {
  const at = images.indexOf(image);
  images.splice(at, 1);
  image.item.remove();
  const shown = [image.input, ...[...image.made.values()].map(
    result => result.picture)];
  for (const picture of shown) URL.revokeObjectURL(picture?.url);
  if (current === image) current = images[Math.min(at, images.length - 1)];
  (current?.item.firstChild ?? byId('files')).focus();
  draw();
  work();
}
byId('files').onchange = event => {
  add(event.target.files);
  event.target.value = '';  // so that the same file may be chosen again
};
addEventListener('paste', event => add([...event.clipboardData.files]));
const hasFiles = event => event.dataTransfer.types.includes('Files');
addEventListener('dragover', event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.add('over');
});
addEventListener('dragleave', event => {
  if (!event.relatedTarget) drop.classList.remove('over');
});
addEventListener('drop', event => {
  if (!hasFiles(event)) return;
  event.preventDefault();  // or the browser would open it
  drop.classList.remove('over');
  add([...event.dataTransfer.files]);
});

// The camera.
let film, facing = 'environment';
async function openCamera() {
  closeCamera();
  byId('blind').hidden = true;
  if (!shutter.open) shutter.showModal();
  try {
    film = await navigator.mediaDevices.getUserMedia({ audio: false,
      video: { facingMode: facing, width: { ideal: 1920 },
        height: { ideal: 1920 } } });
    const devices = await navigator.mediaDevices.enumerateDevices();
    byId('turn').hidden = devices.filter(each =>
      each.kind === 'videoinput').length < 2;
  } catch (error) {
    byId('blind').hidden = false;
    byId('blind').textContent = `There is no picture: ${error.message}.`;
  }
  if (!shutter.open) closeCamera();  // meanwhile
  byId('film').srcObject = film ?? null;
  byId('shoot').disabled = !film;
}
function closeCamera() {
  film?.getTracks().forEach(track => track.stop());
  film = undefined;
}
byId('camera').hidden = !navigator.mediaDevices?.getUserMedia;
byId('camera').onclick = openCamera;
byId('turn').onclick = () => {
  facing = facing === 'user' ? 'environment' : 'user';
  openCamera();
};
byId('cancel').onclick = () => shutter.close();
shutter.onclose = closeCamera;
byId('shoot').onclick = () => {
  const canvas = document.createElement('canvas'), video = byId('film');
  if (!video.videoWidth) return;
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  canvas.toBlob(blob => {
    add([new File([blob], `camera ${images.length + 1}.png`,
      { type: blob.type })]);
    shutter.close();
  });
};

// What is chosen changes what is made.
function chosen() {
  byId('about').textContent = model().about;
  const radios = [...choice.elements.direction];
  const known = radios.filter(each => {
    const isKnown = model().directions.includes(each.value);
    each.parentNode.hidden = !isKnown;
    each.parentNode.classList.toggle('only', model().directions.length === 1);
    return isKnown;
  });
  if (!known.some(each => each.checked)) known[0].checked = true;
  draw();
  work();
}
choice.onchange = chosen;
choice.onsubmit = () => false;
function choose(i) {
  if (views[i].hidden) return;
  view = i;
  draw();
  work();
}
[...views].forEach((button, i) => { button.onclick = () => choose(i); });
byId('again').onclick = () => {
  for (const role of [1, 2])
    if (resultOf(current, role)?.error) current.made.delete(taskOf(role));
  draw();
  work();
};
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !current) return;
  if (shutter.open || event.target.closest?.('select, .choices')) return;
  const onButton = event.target.closest?.('button, a, input[type=file]');
  if (event.key === ' ' && !onButton) flip();
  else if ('123'.includes(event.key)) choose(event.key - 1);
  else return;
  event.preventDefault();
});
chosen();
