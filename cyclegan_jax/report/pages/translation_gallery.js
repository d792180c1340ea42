const entries = data.entries.map(([name, key, sizes, kind]) => ({
  name, key, sizes, isClip: kind === 'clip',
  text: name.normalize('NFC').toLowerCase() }));
const grid = byId('grid'), viewer = byId('viewer');
const MAX_ASPECT = 12;  // longer images are shown distorted

const isSmall = size => Math.max(...size) <= data.thumbnail;
function pictureUrl(entry, role, isThumbnail = false) {
  const ending = isSmall(entry.sizes[role]) ? '.png'
    : isThumbnail ? '_thumb.jpg' : '.jpg';
  return `${data.folder}/${entry.key.slice(0, 2)}/`
    + `${entry.key}_${data.roles[role]}${ending}`;
}
// Control characters become symbols of themselves.
const printable = text => text.replace(/[\x00-\x1f\x7f]/g, c =>
  String.fromCharCode(c === '\x7f' ? 0x2421 : 0x2400 + c.charCodeAt(0)));
function addName(parent, name) {
  const start = name.lastIndexOf('/') + 1;
  if (start) addElement('span', parent, { class: 'soft' },
    printable(name.slice(0, start)));
  addElement('b', parent, {}, printable(name.slice(start)));
}
// Bytes that are not UTF-8 came as lone surrogates.
const fileUrl = name => './' + name.split(/(\p{Cs})/u).map((part, i) => i % 2
  ? `%${(part.charCodeAt(0) & 0xff).toString(16)}`
  : encodeURIComponent(part).replaceAll('%2F', '/')).join('');
const aspectOf = ([width, height]) =>
  Math.max(1 / MAX_ASPECT, Math.min(MAX_ASPECT, width / height));
const sizeText = size => size.map(formatCount).join(' × ');

// The grid.
const tiles = entries.reduce((n, { sizes }) => Math.max(n, sizes.length), 2);
function makeCard(i) {
  const entry = entries[i], item = document.createElement('div');
  item.setAttribute('role', 'listitem');
  const card = addElement('a', item, { class: 'card', href: `#${i + 1}`,
    'aria-label': printable(entry.name) + (entry.isClip ? ', clip' : '') });
  const strip = addElement('span', card, { class: 'strip' });
  for (let role = 0; role < tiles; role++) {
    const tile = addElement('span', strip, { class: 'tile' });
    const size = entry.sizes[role];
    if (!size) continue;
    tile.dataset.label = data.labels[role];
    const img = addElement('img', tile, { loading: 'lazy', decoding: 'async',
      alt: '', src: pictureUrl(entry, role, true) });
    img.onerror = () => {
      img.remove();
      tile.classList.add('missing');
    };
    if (Math.max(...size) <= 96) img.className = 'pixels';
    if (size[0] / size[1] > MAX_ASPECT) img.style.height = '9%';
    else if (size[1] / size[0] > MAX_ASPECT) img.style.width = '9%';
    else continue;
    img.style.objectFit = 'fill';  // a thin line would be invisible
  }
  if (entry.isClip) addElement('span', strip, { class: 'badge' }, 'clip');
  const caption = addElement('span', card, { class: 'caption' });
  const name = addElement('span', caption, { class: 'name',
    title: printable(entry.name) });
  addName(name, entry.name);
  addElement('span', caption, { class: 'size soft' }, sizeText(entry.sizes[0]));
  return item;
}
function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
document.documentElement.style.setProperty('--tiles', tiles);
const ratio = entries.length ? Math.max(2 / 3, Math.min(3 / 2, median(
  entries.map(({ sizes }) => aspectOf(sizes[0]))))) : 1;
const tools = byId('tools'), list = byId('window');
let shown = entries.map((_, i) => i);  // indices that match the search
let current = 0;  // index of the card with the keyboard's focus
let columns = 1, height = 0, gap = 16, cards = new Map();
let widthOfLayout = 0;

// Cards have one height, so that their positions need no measuring.
const rowTop = row => grid.offsetTop + row * (height + gap);
function layOut() {
  const first = firstVisible();
  const isScrolled = scrollY > grid.offsetTop;
  const width = widthOfLayout = grid.clientWidth;
  gap = width < 560 ? 12 : 16;
  const minWidth = Math.min(width, byId('side').value * tiles);
  columns = Math.max(1, Math.floor((width + gap) / (minWidth + gap)));
  const card = (width - gap * (columns - 1)) / columns;
  height = Math.round((card - 2 - 2 * (tiles - 1)) / tiles / ratio) + 41;
  list.style.gap = `${gap}px`;
  list.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  list.style.setProperty('--height', `${height}px`);
  const rows = Math.ceil(shown.length / columns);
  grid.style.height = `${Math.max(0, rows * (height + gap) - gap)}px`;
  if (isScrolled) scrollTo(0, rowTop(Math.floor(first / columns))
    - tools.offsetHeight - gap / 2);
  render();
}
// The first position in `shown` whose card is entirely visible.
function firstVisible() {
  const top = scrollY + tools.offsetHeight - grid.offsetTop;
  const row = Math.ceil((top - gap) / (height + gap));
  return Math.max(0, Math.min(row * columns, shown.length - 1));
}
function render() {
  const margin = innerHeight / 2 + 300;
  const start = grid.offsetTop, rowAt = y => (y - start) / (height + gap);
  tools.classList.toggle('stuck', scrollY > start - tools.offsetHeight);
  const from = columns * Math.max(0, Math.floor(rowAt(scrollY - margin)));
  const to = Math.min(shown.length,
    columns * Math.ceil(rowAt(scrollY + innerHeight + margin)));
  const old = cards;
  cards = new Map();
  for (const i of shown.slice(from, to))
    cards.set(i, old.get(i) ?? makeCard(i));
  for (const [i, item] of old) if (!cards.has(i)) item.remove();
  let next = list.firstChild, position = from;
  const tabStop = cards.has(current) ? current : shown[firstVisible()];
  for (const [i, item] of cards) {  // cards that stay are not moved
    if (item === next) next = item.nextSibling;
    else list.insertBefore(item, next);
    item.setAttribute('aria-posinset', ++position);
    item.setAttribute('aria-setsize', shown.length);
    item.firstChild.tabIndex = i === tabStop ? 0 : -1;
  }
  list.style.top = `${from / columns * (height + gap)}px`;
}
addEventListener('scroll', render, { passive: true });
addEventListener('resize', render);  // the height may change alone
new ResizeObserver(() => {
  if (grid.clientWidth !== widthOfLayout) layOut();
}).observe(grid);
byId('side').oninput = layOut;

function search() {
  const text = byId('search').value;
  const words = text.normalize('NFC').toLowerCase().split(/\s+/);
  shown = entries.flatMap((entry, i) =>
    words.every(word => entry.text.includes(word)) ? [i] : []);
  const all = formatCount(entries.length);
  byId('count').textContent = shown.length === entries.length ? ''
    : `${formatCount(shown.length)} of ${all}`;
  byId('empty').textContent = entries.length
    ? `No name has “${printable(text.trim())}” in it.` : 'No image yet.';
  byId('empty').hidden = shown.length > 0;
  if (!shown.includes(current)) current = shown[0] ?? 0;
  scrollTo(0, Math.min(scrollY, grid.offsetTop - tools.offsetHeight));
  layOut();
}
// Moves the focus to a position in `shown`, and scrolls as little as needed.
function focusCard(position) {
  if (!shown.length) return;
  position = Math.max(0, Math.min(shown.length - 1, position));
  current = shown[position];
  const top = rowTop(Math.floor(position / columns));
  const maxScroll = top - tools.offsetHeight - gap / 2;
  const minScroll = top + height + gap - innerHeight;
  if (position < columns) scrollTo(0, 0);
  else if (scrollY > maxScroll) scrollTo(0, maxScroll);
  else if (scrollY < minScroll) scrollTo(0, minScroll);
  render();
  cards.get(current).firstChild.focus({ preventScroll: true });
}
function onGridKey(event) {
  const onCard = event.target.closest?.('.card');
  const position = shown.indexOf(current), last = shown.length - 1;
  const row = n => Math.floor(n / columns);
  if (event.key === '/') byId('search').focus();
  else if (event.key.startsWith('Arrow') && !onCard) focusCard(firstVisible());
  else if (event.key === 'ArrowLeft') focusCard(position - 1);
  else if (event.key === 'ArrowRight') focusCard(position + 1);
  else if (event.key === 'ArrowUp') {
    if (position >= columns) focusCard(position - columns);
  } else if (event.key === 'ArrowDown') {
    // From a full row, the shorter last row is entered at its end.
    if (row(position) < row(last)) focusCard(position + columns);
  } else if (event.key === 'Home') focusCard(0);
  else if (event.key === 'End') focusCard(shown.length - 1);
  else if (event.key === ' ' && onCard) onCard.click();
  else return;
  event.preventDefault();
}

// The viewer shows one image. Each image has an address.
let view = COMPARE, opened = -1;
let cameFromGrid = false;  // so that closing goes back in the history
const comparedRoles = { [COMPARE]: [0, 1], [ROUND_TRIP]: [0, 2] };
const viewsOf = entry => entry.sizes.length > 2 ? [COMPARE, ROUND_TRIP, ALL]
  : [COMPARE, ALL];
const hashOf = i => `#${i + 1}`;
grid.onclick = event => {
  if (!event.target.closest('.card')) return;
  cameFromGrid = true;
  // On the way back the list scrolls to the image that was seen last instead.
  history.scrollRestoration = 'manual';
};
function followHash() {
  const number = /^#(\d{1,9})$/.exec(location.hash)?.[1];
  if (entries[number - 1]) showEntry(number - 1);
  else {
    if (viewer.open) viewer.close();
    history.scrollRestoration = 'auto';
  }
}
addEventListener('hashchange', followHash);
function showEntry(i) {
  if (!shown.includes(i)) {
    byId('search').value = '';
    search();
  }
  opened = i;
  if (location.hash !== hashOf(i)) history.replaceState(null, '', hashOf(i));
  if (!viewer.open) {
    viewer.showModal();
    viewer.focus();  // by default the first button has the focus
  }
  const entry = entries[i], n = shown.indexOf(i);
  byId('name').replaceChildren();
  addName(byId('name'), entry.name);
  byId('name').title = printable(entry.name);
  const sizes = [...new Set(entry.sizes.map(sizeText))];
  byId('facts').textContent = `${formatCount(n + 1)} of `
    + `${formatCount(shown.length)} · ${sizes.join(' → ')}`
    + (entry.isClip ? ' · clip, its first frame' : '');
  byId('file').href = fileUrl(entry.name);
  byId('file').textContent = entry.isClip ? 'Open clip' : 'Open full size';
  byId('back').disabled = n === 0;
  byId('next').disabled = n === shown.length - 1;
  draw();
  for (const near of [shown[n + 1], shown[n - 1]]) {
    if (near === undefined) continue;
    entries[near].sizes.forEach((_, role) => {
      new Image().src = pictureUrl(entries[near], role);
    });
  }
}
function addFigure(parent, entry, role, kind) {
  const figure = addElement('figure', parent, { class: kind });
  const img = addElement('img', figure, { src: pictureUrl(entry, role), alt:
    `${data.labels[role]}: ${printable(entry.name)}`, draggable: false });
  if (isSmall(entry.sizes[role])) img.className = 'pixels';
  // The thumbnail is shown until the picture is loaded.
  else img.style.backgroundImage = `url(${pictureUrl(entry, role, true)})`;
  img.onerror = () => {
    img.remove();
    figure.classList.add('missing');
  };
  addElement('figcaption', figure, {}, data.labels[role]);
  return figure;
}
function draw() {
  const entry = entries[opened], available = viewsOf(entry);
  const shownView = available.includes(view) ? view : COMPARE;
  markView(shownView, available);
  stage.replaceChildren();
  if (shownView === ALL) {
    entry.sizes.forEach((size, role) => {
      const cell = addElement('div', stage, { class: 'cell' });
      addFigure(cell, entry, role, 'frame')
        .style.setProperty('--aspect', aspectOf(size));
    });
  } else {
    const [before, after] = comparedRoles[shownView];
    const frame = addSlider(aspectOf(entry.sizes[0]),
      [data.labels[before], data.labels[after]]);
    addFigure(frame, entry, after, 'after');
    addFigure(frame, entry, before, 'before');
  }
  arrange(aspectOf(entry.sizes[0]));
}
function chooseView(i) {
  if (!viewsOf(entries[opened]).includes(i)) return;
  view = i;
  draw();
}
function showNext(by) {
  const i = shown[shown.indexOf(opened) + by];
  if (i !== undefined) showEntry(i);
}
viewer.onclose = () => {
  const last = opened;
  opened = -1;
  stage.replaceChildren();
  // Back to the list, without leaving addresses in the history.
  if (/^#\d/.test(location.hash)) {
    if (cameFromGrid) history.back();
    else history.replaceState(null, '', location.pathname + location.search);
  }
  cameFromGrid = false;
  focusCard(shown.indexOf(last));
};
byId('close').onclick = () => viewer.close();
byId('back').onclick = () => showNext(-1);
byId('next').onclick = () => showNext(1);
viewButtons.forEach((button, i) => { button.onclick = () => chooseView(i); });
viewer.addEventListener('click', event => {
  if (event.detail) viewer.focus();  // after a click keys work in the viewer
});
function onViewerKey(event) {
  const onRange = event.target.type === 'range';
  const onButton = event.target.closest('button');
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1,
    ArrowDown: 1 }[event.key];
  if (event.key === ' ' && !onButton) flip();
  else if (by && event.shiftKey) moveDivider(dividerAt + 5 * by);
  else if (onRange) return;  // it handles arrows, Home and End itself
  else if (by) showNext(by);
  else if (event.key === 'Home') showEntry(shown[0]);
  else if (event.key === 'End') showEntry(shown.at(-1));
  else if ('123'.includes(event.key)) chooseView(event.key - 1);
  else if (event.key === 'f') byId('file').click();
  else return;
  event.preventDefault();
}
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (viewer.open) onViewerKey(event);
  else if (event.target === byId('search')) {
    if (event.key === 'Enter' || event.key === 'ArrowDown') focusCard(0);
    else return;
    event.preventDefault();
  } else if (event.target.type !== 'range') onGridKey(event);
});
byId('search').oninput = search;
tools.hidden = !entries.length;
search();  // with the text that a reload keeps
followHash();
