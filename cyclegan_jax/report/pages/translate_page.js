// Takes images, translates them one after another, and shows them. The script
// that the page adds defines two functions:
// - openPicture(blob, domain, signal) makes an image file visible and returns
//   {blob, url, width, height};
// - translatePicture(picture, direction, signal) returns the translated file.
const images = [];  // {name, file, item, input, results by task key}
let current, view = COMPARE;  // the image and the view that are shown
let job;  // the task that is running
const [INPUT, TRANSLATED, BACK] = [0, 1, 2];  // the roles of pictures

// The chosen model and direction.
const choice = byId('choice');
const chosenModel = () => data.models[byId('model').value];
const chosenDirection = () => choice.elements.direction.value;
const namesOf = direction => [...direction].map(
  domain => chosenModel().names[domain]);
const reverse = direction => direction === 'ab' ? 'ba' : 'ab';
const canTranslateBack = () => chosenModel().directions.includes(
  reverse(chosenDirection()));
function roleLabels() {
  const [from, to] = namesOf(chosenDirection());
  return [`Input (${from})`, `Translated (${to})`, `Back again (${from})`];
}

// Tasks: making the picture of a role.
const taskKey = role =>
  `${byId('model').value}/${chosenDirection()}/${role}`;
const resultOf = (image, role) => image.results.get(taskKey(role));
const isDone = result => result?.picture !== undefined;
const shownRoles = () => view === COMPARE || !canTranslateBack()
  ? [TRANSLATED] : [TRANSLATED, BACK];
// First what is looked at, then the other images.
function nextTask() {
  const role = current && shownRoles().find(role => !resultOf(current, role));
  if (role === TRANSLATED || role && isDone(resultOf(current, TRANSLATED)))
    return { image: current, role };
  const image = images.find(image => !resultOf(image, TRANSLATED));
  return image && { image, role: TRANSLATED };
}
async function runTasks() {
  const isWanted = job && images.includes(job.image)
    && job.key === taskKey(job.role);
  if (job && !isWanted) job.control.abort();
  if (job) return;
  const task = nextTask();
  if (!task) return;
  job = { ...task, key: taskKey(task.role), control: new AbortController() };
  const { image, role, key, control: { signal } } = job;
  const direction = role === TRANSLATED ? chosenDirection()
    : reverse(chosenDirection());
  showProgress('');
  draw();
  try {
    image.input ??= await openPicture(image.file, direction[0], signal);
    draw();
    const source = role === TRANSLATED ? image.input
      : resultOf(image, TRANSLATED).picture;
    const blob = await translatePicture(source, direction, signal);
    const picture = await openPicture(blob, direction[1], signal);
    image.results.set(key, { picture });
    if (image === current) byId('announcement').textContent =
      `${roleLabels()[role]}: ${image.name} is here`;
  } catch (error) {
    if (!signal.aborted) image.results.set(key, { error });
  }
  job = undefined;
  draw();
  runTasks();
}
// An error whose message is for the user. Its remedy, if any, is the text of a
// button, which calls `beforeRetry` and tries again.
function userError(message, remedy = '', beforeRetry = () => {}) {
  return Object.assign(new Error(message), { remedy, beforeRetry });
}
async function loadPicture(url) {
  const img = new Image();
  img.src = url;
  await img.decode();
  return { url, width: img.naturalWidth, height: img.naturalHeight };
}
function showProgress(text, share) {
  byId('progress-text').textContent = text;
  if (share === undefined || share === null)
    byId('progress').removeAttribute('value');
  else byId('progress').value = share;
}

// The stage: pictures, progress, errors.
function addFigure(parent, picture, role, kind) {
  const label = roleLabels()[role];
  const figure = addElement('figure', parent, { class: kind });
  const img = addElement('img', figure, { src: picture.url, draggable: false,
    alt: `${label}: ${current.name}` });
  if (Math.max(picture.width, picture.height) <= 256) img.className = 'pixels';
  addElement('figcaption', figure, {}, label);
  return figure;
}
function draw() {
  byId('work').hidden = !images.length;
  document.body.classList.toggle('busy', images.length > 0);
  drawThumbnails();
  if (!current) return;
  const results = [{ picture: current.input }, resultOf(current, TRANSLATED),
    resultOf(current, BACK)];
  drawPictures(results.map(result => result?.picture));
  drawMessages(shownRoles().map(role => results[role]));
  updateDownload(results[TRANSLATED]);
}
function drawPictures(pictures) {
  const input = pictures[INPUT];
  const shownView = canTranslateBack() || view !== ROUND_TRIP ? view : COMPARE;
  markView(shownView, canTranslateBack() ? [COMPARE, ROUND_TRIP, ALL]
    : [COMPARE, ALL]);
  const aspect = input ? input.width / input.height : 1;
  const role = shownView === ROUND_TRIP ? BACK : TRANSLATED;
  stage.replaceChildren();
  if (shownView !== ALL && pictures[role]) {
    const frame = addSlider(aspect, [INPUT, role].map(i => roleLabels()[i]));
    addFigure(frame, pictures[role], role, 'after');
    addFigure(frame, input, INPUT, 'before');
  } else {
    byId('flip').disabled = true;
    pictures.forEach((picture, role) => {
      if (!picture || (shownView !== ALL && role !== INPUT)) return;
      const cell = addElement('div', stage, { class: 'cell' });
      addFigure(cell, picture, role, 'frame')
        .style.setProperty('--aspect', aspect);
    });
  }
  arrange(aspect);
  stage.parentNode.style.setProperty('--aspect', aspect);
  stage.parentNode.classList.toggle('all', shownView === ALL);
}
function drawMessages(results) {
  const error = results.find(result => result?.error)?.error;
  const isWaiting = !error && !results.every(isDone);
  if (isWaiting && job?.image !== current)
    showProgress('Waiting for the others');
  byId('waiting').hidden = !isWaiting;
  byId('error').hidden = !error;
  byId('error').firstChild.textContent = error?.message ?? '';
  byId('retry').hidden = !error?.remedy;
  byId('retry').textContent = error?.remedy ?? '';
}
function updateDownload(result) {
  const link = byId('download');
  link.removeAttribute('href');
  if (!isDone(result)) return;
  const { blob } = result.picture;
  const stem = current.name.replace(/\.[^.]*$/, '');
  const ending = blob.type === 'image/tiff' ? 'tif' : 'png';
  link.download = `${stem}_${chosenDirection()}.${ending}`;
  // The file itself, of which the picture may be a preview.
  URL.revokeObjectURL(link.dataset.url);
  link.href = link.dataset.url = URL.createObjectURL(blob);
}
function drawThumbnails() {
  for (const image of images) {
    const result = resultOf(image, TRANSLATED), button = image.item.firstChild;
    button.className = `thumb${isDone(result) ? ' done' : ''}${
      result?.error ? ' failed' : ''}`;
    button.setAttribute('aria-current', image === current);
    if (image.input && !button.firstChild)
      addElement('img', button, { src: image.input.url, alt: '' });
  }
}

// Images are added, shown and removed.
function addFiles(files) {
  const numBefore = images.length;
  for (const file of files) {
    const name = file.name || `picture ${images.length + 1}.png`;
    const item = addElement('li', byId('images'));
    const image = { name, file, item, results: new Map() };
    const button = addElement('button', item, { 'aria-label': name,
      title: name });
    button.onclick = () => showImage(image);
    const thumbnail = addElement('img', button, { alt: '',
      src: URL.createObjectURL(file) });
    thumbnail.onload = () => URL.revokeObjectURL(thumbnail.src);
    thumbnail.onerror = () => thumbnail.remove();
    const remove = addElement('button', item, { class: 'remove',
      'aria-label': `Remove ${name}`, title: 'Remove' });
    remove.innerHTML =
      '<svg viewBox="0 0 10 10"><path d="M1 1l8 8M9 1L1 9"/></svg>';
    remove.onclick = () => removeImage(image);
    images.push(image);
  }
  if (images.length > numBefore) showImage(images[numBefore]);
}
function update() {
  draw();
  runTasks();
}
function showImage(image) {
  current = image;
  update();
}
function removeImage(image) {
  const index = images.indexOf(image);
  images.splice(index, 1);
  image.item.remove();
  const pictures = [image.input,
    ...[...image.results.values()].map(result => result.picture)];
  for (const picture of pictures) URL.revokeObjectURL(picture?.url);
  if (current === image) current = images[Math.min(index, images.length - 1)];
  (current?.item.firstChild ?? byId('files')).focus();
  update();
}
byId('files').onchange = event => {
  addFiles(event.target.files);
  event.target.value = '';  // so that the same file may be chosen again
};
addEventListener('paste', event => addFiles([...event.clipboardData.files]));
const drop = byId('drop');
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
  event.preventDefault();  // or the browser opens the file
  drop.classList.remove('over');
  addFiles([...event.dataTransfer.files]);
});

// The camera.
const camera = byId('camera'), video = camera.querySelector('video');
let stream, facing = 'environment';
async function openCamera() {
  closeCamera();
  byId('camera-error').hidden = true;
  if (!camera.open) camera.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: false,
      video: { facingMode: facing, width: { ideal: 1920 },
        height: { ideal: 1920 } } });
    const devices = await navigator.mediaDevices.enumerateDevices();
    byId('switch-camera').hidden = devices.filter(device =>
      device.kind === 'videoinput').length < 2;
  } catch (error) {
    byId('camera-error').hidden = false;
    byId('camera-error').textContent = `There is no picture: ${error.message}.`;
  }
  if (!camera.open) closeCamera();  // the user closed it meanwhile
  video.srcObject = stream ?? null;
  byId('take-picture').disabled = !stream;
}
function closeCamera() {
  stream?.getTracks().forEach(track => track.stop());
  stream = undefined;
}
byId('open-camera').hidden = !navigator.mediaDevices?.getUserMedia;
byId('open-camera').onclick = openCamera;
byId('switch-camera').onclick = () => {
  facing = facing === 'user' ? 'environment' : 'user';
  openCamera();
};
byId('close-camera').onclick = () => camera.close();
camera.onclose = closeCamera;
byId('take-picture').onclick = () => {
  if (!video.videoWidth) return;
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  canvas.toBlob(blob => {
    addFiles([new File([blob], `camera ${images.length + 1}.png`,
      { type: blob.type })]);
    camera.close();
  });
};

// Controls.
function onChoice() {
  const { about, directions } = chosenModel();
  byId('about').textContent = about;
  const radios = [...choice.elements.direction];
  for (const radio of radios) {
    const { value, parentNode: label } = radio, names = namesOf(value);
    radio.setAttribute('aria-label', `From ${names.join(' to ')}`);
    label.lastElementChild.textContent = names.join(' → ');
    label.hidden = !directions.includes(value);
    label.classList.toggle('only', directions.length === 1);
  }
  const available = radios.filter(radio => directions.includes(radio.value));
  if (!available.some(radio => radio.checked)) available[0].checked = true;
  update();
}
choice.onchange = onChoice;
choice.onsubmit = () => false;
function chooseView(index) {
  if (viewButtons[index].hidden) return;
  view = index;
  update();
}
viewButtons.forEach((button, i) => { button.onclick = () => chooseView(i); });
byId('retry').onclick = () => {
  for (const role of [TRANSLATED, BACK]) {
    const error = resultOf(current, role)?.error;
    if (!error) continue;
    error.beforeRetry?.();
    current.results.delete(taskKey(role));
  }
  update();
};
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !current) return;
  if (camera.open || event.target.closest?.('select, .choices')) return;
  const onButton = event.target.closest?.('button, a, input[type=file]');
  if (event.key === ' ' && !onButton) flip();
  else if ('123'.includes(event.key)) chooseView(event.key - 1);
  else return;
  event.preventDefault();
});
onChoice();
