const entries = data.entries.map(([name, key, sizes, kind]) => ({
  name, key, sizes, isClip: kind === 'clip',
  text: name.normalize('NFC').toLowerCase() }));
const grid = byId('grid'), viewer = byId('viewer');
const PLAIN = 12;  // the longest shape, in widths, that is shown as it is

const isSmall = size => Math.max(...size) <= data.thumbnail;
function address(entry, role, thumb = false) {
  const end = isSmall(entry.sizes[role]) ? '.png'
    : thumb ? '_thumb.jpg' : '.jpg';
  return `${data.folder}/${entry.key.slice(0, 2)}/`
    + `${entry.key}_${data.roles[role]}${end}`;
}
// Control characters as pictures of themselves.
const visible = text => text.replace(/[\x00-\x1f\x7f]/g, c =>
  String.fromCharCode(c === '\x7f' ? 0x2421 : 0x2400 + c.charCodeAt(0)));
function nameInto(parent, name) {
  const cut = name.lastIndexOf('/') + 1;
  if (cut) make('span', parent, { class: 'soft' }, visible(name.slice(0, cut)));
  make('b', parent, {}, visible(name.slice(cut)));
}
// Bytes that are no text came as lone surrogates.
const fileOf = name => './' + name.split(/(\p{Cs})/u).map((part, i) => i % 2
  ? `%${(part.charCodeAt(0) & 0xff).toString(16)}`
  : encodeURIComponent(part).replaceAll('%2F', '/')).join('');
const shapeOf = ([width, height]) =>
  Math.max(1 / PLAIN, Math.min(PLAIN, width / height));
const sizeOf = size => size.map(count).join(' × ');

// The grid.
const tiles = entries.reduce((n, { sizes }) => Math.max(n, sizes.length), 2);
function makeCard(i) {
  const entry = entries[i], item = document.createElement('div');
  item.setAttribute('role', 'listitem');
  const card = make('a', item, { class: 'card', href: `#${i + 1}`,
    'aria-label': visible(entry.name) + (entry.isClip ? ', clip' : '') });
  const strip = make('span', card, { class: 'strip' });
  for (let role = 0; role < tiles; role++) {
    const tile = make('span', strip, { class: 'tile' });
    const size = entry.sizes[role];
    if (!size) continue;
    tile.dataset.label = data.labels[role];
    const img = make('img', tile, { loading: 'lazy', decoding: 'async',
      alt: '', src: address(entry, role, true) });
    img.onerror = () => {
      img.remove();
      tile.classList.add('missing');
    };
    if (Math.max(...size) <= 96) img.className = 'pixels';
    if (size[0] / size[1] > PLAIN) img.style.height = '9%';
    else if (size[1] / size[0] > PLAIN) img.style.width = '9%';
    else continue;
    img.style.objectFit = 'fill';  // a line would not be seen
  }
  if (entry.isClip) make('span', strip, { class: 'badge' }, 'clip');
  const caption = make('span', card, { class: 'caption' });
  const name = make('span', caption, { class: 'name',
    title: visible(entry.name) });
  nameInto(name, entry.name);
  make('span', caption, { class: 'size soft' }, sizeOf(entry.sizes[0]));
  return item;
}
function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
document.documentElement.style.setProperty('--tiles', tiles);
const ratio = entries.length ? Math.max(2 / 3, Math.min(3 / 2, median(
  entries.map(({ sizes }) => shapeOf(sizes[0]))))) : 1;
const tools = byId('tools'), list = byId('window');
let shown = entries.map((_, i) => i);  // what the search lets through
let current = 0;  // the card that the keyboard is at
let columns = 1, height = 0, gap = 16, laidOut = 0, cards = new Map();

// Cards are of one height, so that where each one is needs no measuring.
const rowTop = row => grid.offsetTop + row * (height + gap);
function layOut() {
  const first = firstInSight();
  const isPast = scrollY > grid.offsetTop;
  const width = laidOut = grid.clientWidth;
  gap = width < 560 ? 12 : 16;
  const least = Math.min(width, byId('side').value * tiles);
  columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  const card = (width - gap * (columns - 1)) / columns;
  height = Math.round((card - 2 - 2 * (tiles - 1)) / tiles / ratio) + 41;
  list.style.gap = `${gap}px`;
  list.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  list.style.setProperty('--height', `${height}px`);
  const rows = Math.ceil(shown.length / columns);
  grid.style.height = `${Math.max(0, rows * (height + gap) - gap)}px`;
  if (isPast) scrollTo(0, rowTop(Math.floor(first / columns))
    - tools.offsetHeight - gap / 2);
  render();
}
// The first place whose card is in sight as a whole.
function firstInSight() {
  const top = scrollY + tools.offsetHeight - grid.offsetTop;
  const row = Math.ceil((top - gap) / (height + gap));
  return Math.max(0, Math.min(row * columns, shown.length - 1));
}
function render() {
  const near = innerHeight / 2 + 300;
  const start = grid.offsetTop, rowAt = y => (y - start) / (height + gap);
  tools.classList.toggle('stuck', scrollY > start - tools.offsetHeight);
  const from = columns * Math.max(0, Math.floor(rowAt(scrollY - near)));
  const to = Math.min(shown.length,
    columns * Math.ceil(rowAt(scrollY + innerHeight + near)));
  const old = cards;
  cards = new Map();
  for (const i of shown.slice(from, to))
    cards.set(i, old.get(i) ?? makeCard(i));
  for (const [i, item] of old) if (!cards.has(i)) item.remove();
  let before = list.firstChild, place = from;
  const stop = cards.has(current) ? current : shown[firstInSight()];
  for (const [i, item] of cards) {  // those that stay are not touched
    if (item === before) before = item.nextSibling;
    else list.insertBefore(item, before);
    item.setAttribute('aria-posinset', ++place);
    item.setAttribute('aria-setsize', shown.length);
    item.firstChild.tabIndex = i === stop ? 0 : -1;
  }
  list.style.top = `${from / columns * (height + gap)}px`;
}
addEventListener('scroll', render, { passive: true });
addEventListener('resize', render);  // of another height
new ResizeObserver(() => {
  if (grid.clientWidth !== laidOut) layOut();
}).observe(grid);
byId('side').oninput = layOut;

function search() {
  const text = byId('search').value;
  const words = text.normalize('NFC').toLowerCase().split(/\s+/);
  shown = entries.flatMap((entry, i) =>
    words.every(word => entry.text.includes(word)) ? [i] : []);
  const all = count(entries.length);
  byId('count').textContent = shown.length === entries.length ? ''
    : `${count(shown.length)} of ${all}`;
  byId('empty').textContent = entries.length
    ? `No name has “${visible(text.trim())}” in it.` : 'No image yet.';
  byId('empty').hidden = shown.length > 0;
  if (!shown.includes(current)) current = shown[0] ?? 0;
  scrollTo(0, Math.min(scrollY, grid.offsetTop - tools.offsetHeight));
  layOut();
}
function goTo(place) {
  if (!shown.length) return;
  place = Math.max(0, Math.min(shown.length - 1, place));
  current = shown[place];
  const top = rowTop(Math.floor(place / columns));
  const high = top - tools.offsetHeight - gap / 2;
  const low = top + height + gap - innerHeight;
  if (place < columns) scrollTo(0, 0);
  else if (scrollY > high || scrollY < low)
    scrollTo(0, scrollY > high ? high : low);
  render();
  cards.get(current).firstChild.focus({ preventScroll: true });
}
function gridKey(event) {
  const onCard = event.target.closest?.('.card');
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns,
    ArrowDown: columns }[event.key];
  const at = shown.indexOf(current);
  if (event.key === '/') byId('search').focus();
  else if (by && !onCard) goTo(firstInSight());
  else if (by) {
    // Up and down stay in their column; below it is only the last row.
    const last = shown.length - 1, row = n => Math.floor(n / columns);
    const sideways = Math.abs(by) === 1 && event.key !== 'ArrowUp'
      && event.key !== 'ArrowDown';
    if (sideways || (at + by >= 0 && at + by <= last)) goTo(at + by);
    else if (by > 0 && row(at) < row(last)) goTo(last);
  } else if (event.key === 'Home') goTo(0);
  else if (event.key === 'End') goTo(shown.length - 1);
  else if (event.key === ' ' && onCard) onCard.click();
  else return;
  event.preventDefault();
}

// The viewer: an image of the list, under an address of its own.
let view = 0, open = -1, isOurs = false;
const pairs = [[0, 1], [0, 2]];
const viewsOf = entry => entry.sizes.length > 2 ? [0, 1, 2] : [0, 2];
const place = i => `#${i + 1}`;
grid.onclick = event => {
  if (!event.target.closest('.card')) return;
  isOurs = true;
  // On the way back the list is scrolled to what was seen last instead.
  history.scrollRestoration = 'manual';
};
function route() {
  const number = /^#(\d{1,9})$/.exec(location.hash)?.[1];
  if (entries[number - 1]) show(number - 1);
  else {
    if (viewer.open) viewer.close();
    history.scrollRestoration = 'auto';
  }
}
addEventListener('hashchange', route);
function show(i) {
  if (!shown.includes(i)) {
    byId('search').value = '';
    search();
  }
  open = i;
  if (location.hash !== place(i)) history.replaceState(null, '', place(i));
  if (!viewer.open) {
    viewer.showModal();
    viewer.focus();  // of itself it would take the first button
  }
  const entry = entries[i], n = shown.indexOf(i);
  byId('name').replaceChildren();
  nameInto(byId('name'), entry.name);
  byId('name').title = visible(entry.name);
  const sizes = [...new Set(entry.sizes.map(sizeOf))];
  byId('facts').textContent = `${count(n + 1)} of `
    + `${count(shown.length)} · ${sizes.join(' → ')}`
    + (entry.isClip ? ' · clip, its first frame' : '');
  byId('file').href = fileOf(entry.name);
  byId('file').textContent = entry.isClip ? 'Open clip' : 'Open full size';
  byId('back').disabled = n === 0;
  byId('next').disabled = n === shown.length - 1;
  draw();
  for (const near of [shown[n + 1], shown[n - 1]]) {
    if (near === undefined) continue;
    entries[near].sizes.forEach((_, role) => {
      new Image().src = address(entries[near], role);
    });
  }
}
function picture(parent, entry, role, tag = 'figure', kind = '') {
  const figure = make(tag, parent, { class: kind });
  const img = make('img', figure, { src: address(entry, role), alt:
    `${data.labels[role]}: ${visible(entry.name)}`, draggable: false });
  if (isSmall(entry.sizes[role])) img.className = 'pixels';
  // Shown until the large one is there.
  else img.style.backgroundImage = `url(${address(entry, role, true)})`;
  img.onerror = () => {
    img.remove();
    figure.classList.add('missing');
  };
  make('figcaption', figure, {}, data.labels[role]);
  return figure;
}
function draw() {
  const entry = entries[open], known = viewsOf(entry);
  const now = known.includes(view) ? view : 0;
  markView(now, known);
  stage.replaceChildren();
  if (now === 2) {
    entry.sizes.forEach((size, role) => {
      const cell = make('div', stage, { class: 'cell' });
      picture(cell, entry, role, 'figure', 'frame')
        .style.setProperty('--shape', shapeOf(size));
    });
  } else {
    const frame = makeSlider(shapeOf(entry.sizes[0]),
      pairs[now].map(role => data.labels[role]));
    for (const [side, role] of [['after', 1], ['before', 0]])
      picture(frame, entry, pairs[now][role], 'figure', side);
  }
  arrange(shapeOf(entry.sizes[0]));
}
function choose(i) {
  if (!viewsOf(entries[open]).includes(i)) return;
  view = i;
  draw();
}
const step = by => {
  const n = shown.indexOf(open) + by;
  if (n >= 0 && n < shown.length) show(shown[n]);
};
viewer.onclose = () => {
  const last = open;
  open = -1;
  stage.replaceChildren();
  // Back to where the list was, which leaves no trail of addresses.
  if (/^#\d/.test(location.hash)) {
    if (isOurs) history.back();
    else history.replaceState(null, '', location.pathname + location.search);
  }
  isOurs = false;
  goTo(shown.indexOf(last));
};
byId('close').onclick = () => viewer.close();
byId('back').onclick = () => step(-1);
byId('next').onclick = () => step(1);
[...views].forEach((button, i) => {
  button.onclick = () => choose(i);
});
viewer.addEventListener('click', event => {
  if (event.detail) viewer.focus();  // a mouse leaves the keys to the viewer
});
function viewerKey(event) {
  const onRange = event.target.type === 'range';
  const onButton = event.target.closest('button');
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1,
    ArrowDown: 1 }[event.key];
  if (event.key === ' ' && !onButton) flip();
  else if (by && event.shiftKey) divide(at + 5 * by);
  else if (onRange) return;  // it moves by arrows, Home and End of its own
  else if (by) step(by);
  else if (event.key === 'Home') show(shown[0]);
  else if (event.key === 'End') show(shown.at(-1));
  else if ('123'.includes(event.key)) choose(event.key - 1);
  else if (event.key === 'f') byId('file').click();
  else return;
  event.preventDefault();
}
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (viewer.open) viewerKey(event);
  else if (event.target === byId('search')) {
    if (event.key === 'Enter' || event.key === 'ArrowDown') goTo(0);
    else return;
    event.preventDefault();
  } else if (event.target.type !== 'range') gridKey(event);
});
byId('search').oninput = search;
tools.hidden = !entries.length;
search();  // with the text that a reload keeps
route();
