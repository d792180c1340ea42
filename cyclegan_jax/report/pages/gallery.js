const { samples, charts } = JSON.parse(
  document.getElementById('data').textContent);
const byId = id => document.getElementById(id);
const smooth = byId('smooth'), log = byId('log');
let shown = samples.length - 1, redraws = [];
const lastStep = charts.flatMap(({ curves }) => curves).reduce(
  (last, curve) => Math.max(last, curve.x.at(-1)), 1);

// Samples: one sheet at a time, by slider, keys or time.
let timer = 0;
const PLAY = 'M2 1v12l10-6z', PAUSE = 'M2 1h3.5v12H2zM8.5 1H12v12H8.5z';
function show(index) {
  shown = Math.max(0, Math.min(samples.length - 1, index));
  const { step, src } = samples[shown];
  byId('sheet').src = byId('frame').href = src;
  byId('sheet').alt = `Sample sheet of step ${step}`;
  byId('slider').value = shown;
  byId('slider').setAttribute('aria-valuetext', `step ${step}`);
  byId('step').textContent = `step ${step.toLocaleString('en')}`;
  if (samples[shown + 1]) new Image().src = samples[shown + 1].src;
  redraws.forEach(redraw => redraw());
}
function play(on) {
  clearInterval(timer);
  timer = 0;
  if (on) {
    if (shown === samples.length - 1) show(0);
    timer = setInterval(() => {
      if (shown === samples.length - 1) play(false);
      else show(shown + 1);
    }, 500);
  }
  byId('play').querySelector('path').setAttribute('d', on ? PAUSE : PLAY);
  byId('play').setAttribute('aria-label', on ? 'Pause' : 'Play');
}
function move(by) { play(false); show(shown + by); }
if (samples.length) {
  byId('samples').hidden = false;
  byId('slider').max = samples.length - 1;
  byId('slider').oninput = event => { play(false); show(+event.target.value); };
  byId('back').onclick = () => move(-1);
  byId('next').onclick = () => move(1);
  byId('play').onclick = () => play(!timer);
  addEventListener('keydown', event => {
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    const own = event.target.closest('input, button, summary, a');
    if (modified || (own && (event.key === ' ' || own.type === 'range')))
      return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) move(by);
    else if (event.key === ' ') play(!timer);
    else return;
    event.preventDefault();
  });
} else byId('no-samples').hidden = false;

// Curves: plain SVG, drawn again whenever something changes.
const format = y => y === null ? 'NaN' : y === 0 ? '0'
  : Math.abs(y) >= 1e5 || Math.abs(y) < 1e-3
    ? y.toExponential(2).replace(/\.?0+e/, 'e')
    : String(+y.toPrecision(4));
function smoothed(ys) {  // a centred mean, which does not lag behind
  const reach = Math.floor(ys.length / 40);
  return ys.map((y, i) => {
    const near = ys.slice(Math.max(0, i - reach), i + reach + 1)
      .filter(each => each !== null);
    return y === null ? null
      : near.reduce((sum, each) => sum + each, 0) / near.length;
  });
}
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(
    Math.log10(rough));
  const unit = [1, 2, 5, 10].find(u => u * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / unit - 1e-9); k * unit <= high + unit * 1e-9; k++)
    found.push(+(k * unit).toPrecision(12));
  return found;
}
function logTicks(low, high) {
  if (high / low < 6) return ticks(low, high, 4);
  const found = [], stride = Math.ceil(Math.log10(high / low) / 5) || 1;
  for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e += stride)
    for (const m of high / low > 100 ? [1] : [1, 2, 5])
      if (m * 10 ** e >= low && m * 10 ** e <= high) found.push(m * 10 ** e);
  return found;
}
function nearest(xs, x) {
  let best = 0;
  xs.forEach((each, i) => {
    if (Math.abs(each - x) < Math.abs(xs[best] - x)) best = i;
  });
  return best;
}
function make(tag, parent, attributes = {}, text = '') {
  const svg = parent.namespaceURI.endsWith('svg') || tag === 'svg';
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  node.textContent = text;
  return parent.appendChild(node);
}
function addChart({ name, curves }) {
  const card = make('div', byId('charts'), { class: 'card chart' });
  const head = make('div', card, { class: 'head' });
  make('h3', head, {}, name.replaceAll('_', ' '));
  const where = make('span', head, { class: 'soft' });
  const svg = make('svg', card, { role: 'img', 'aria-label': name });
  const legend = make('div', card, { class: 'legend' });
  const state = curves.map((curve, i) => {
    const color = `var(--c${i % 8})`;
    const button = make('button', legend, { 'aria-pressed': true });
    make('i', button, { style: `background: ${color}` });
    make('span', button, {}, curve.name.replaceAll('_', ' '));
    const one = { ...curve, color, on: true, value: make('b', button),
      mean: smoothed(curve.y) };
    button.onclick = () => {
      one.on = !one.on;
      button.setAttribute('aria-pressed', one.on);
      draw();
    };
    return one;
  });
  const xs = [...new Set(state.flatMap(one => one.x))];
  const x0 = 0, x1 = lastStep;  // the same of all charts
  let hover = null;
  const right = 10, top = 8, bottom = 22, height = 220;
  function draw() {
    svg.replaceChildren();
    const width = svg.clientWidth || 460;
    const on = state.filter(one => one.on);
    const drawn = on.flatMap(one => one.y).filter(y => y !== null);
    const isLog = log.checked && drawn.length && Math.min(...drawn) > 0;
    let low = Math.min(...drawn), high = Math.max(...drawn);
    if (!drawn.length) [low, high] = [0, 1];
    if (low >= 0 && !isLog) low = 0;
    if (low === high) [low, high] = isLog ? [low / 2, high * 2]
      : [low - (low ? Math.abs(low) : 0), high + (Math.abs(high) || 1)];
    const yTicks = isLog ? logTicks(low, high) : ticks(low, high, 4);
    const left = 14 + 6.2 * Math.max(2, ...yTicks.map(y => format(y).length));
    const scale = isLog ? Math.log : y => y;
    const px = x => left + (x - x0) / (x1 - x0) * (width - left - right);
    const py = y => height - bottom - (scale(y) - scale(low))
      / (scale(high) - scale(low)) * (height - top - bottom);
    for (const y of yTicks) {
      make('line', svg, { class: 'grid', x1: left, x2: width - right,
        y1: py(y), y2: py(y) });
      make('text', svg, { x: left - 7, y: py(y) + 4, 'text-anchor': 'end' },
        format(y));
    }
    for (const x of ticks(x0, x1, Math.max(2, Math.min(6, width / 90))))
      if (Number.isInteger(x))
        make('text', svg, { x: Math.min(px(x), width - 16), y: height - 5,
          'text-anchor': 'middle' }, x.toLocaleString('en'));
    const upright = (kind, x) => make('line', svg,
      { class: kind, x1: px(x), x2: px(x), y1: top, y2: height - bottom });
    const now = samples.length ? samples[shown].step : -1;
    if (now >= x0 && now <= x1) upright('now', now);
    const line = (one, ys, kind) => {
      let pen = 'M', d = '';
      ys.forEach((y, i) => {
        if (y === null) { pen = 'M'; return; }
        d += `${pen}${px(one.x[i]).toFixed(1)} ${py(y).toFixed(1)}`;
        pen = 'L';
      });
      make('path', svg, { d, class: kind, style: `stroke: ${one.color}` });
      const gap = i => i < 0 || i >= ys.length || ys[i] === null;
      ys.forEach((y, i) => {
        if (y !== null && gap(i - 1) && gap(i + 1)) make('circle', svg,
          { r: 2.4, cx: px(one.x[i]), cy: py(y), fill: one.color });
      });
    };
    for (const one of on) {
      if (smooth.checked) line(one, one.y, 'raw');
      line(one, smooth.checked ? one.mean : one.y, 'line');
    }
    if (hover !== null) {
      const at = Math.max(x0, Math.min(x1,
        x0 + (hover - left) / (width - left - right) * (x1 - x0)));
      const snapped = xs[nearest(xs, at)];
      upright('at', snapped);
      for (const one of on) {
        const i = nearest(one.x, snapped), y = one.y[i];
        if (y !== null) make('circle', svg, { r: 3, cx: px(one.x[i]),
          cy: py(smooth.checked ? one.mean[i] : y), fill: one.color });
      }
      where.textContent = `step ${snapped.toLocaleString('en')}`;
      state.forEach(one => {
        one.value.textContent = format(one.y[nearest(one.x, snapped)]);
      });
    } else {
      where.textContent = '';
      state.forEach(one => { one.value.textContent = format(one.y.at(-1)); });
    }
    svg.onclick = event => {
      if (!samples.length) return;
      const at = (inside(event) - left) / (width - left - right) * (x1 - x0);
      play(false);
      show(nearest(samples.map(each => each.step), x0 + at));
    };
  }
  const inside = event => event.clientX - svg.getBoundingClientRect().left;
  svg.onpointermove = event => { hover = inside(event); draw(); };
  svg.onpointerleave = () => { hover = null; draw(); };
  redraws.push(draw);
}
charts.forEach(addChart);
smooth.checked = charts.some(
  ({ curves }) => curves.some(curve => curve.x.length > 100));
byId('options').hidden = !charts.length;
byId('no-metrics').hidden = charts.length > 0;
for (const box of [smooth, log])
  box.onchange = () => redraws.forEach(redraw => redraw());
addEventListener('resize', () => redraws.forEach(redraw => redraw()));
if (samples.length) show(shown);
else redraws.forEach(redraw => redraw());
