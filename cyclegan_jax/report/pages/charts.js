// Curves: plain SVG. What follows the pointer lies on top of it.
const COLORS = 6, DASHES = ['', '7 4', '1.5 4'];
const BORDERS = ['solid', 'dashed', 'dotted'];
const color = index => `var(--c${index % COLORS})`;
const style = index => Math.floor(index / COLORS) % DASHES.length;
function paint(line, index) {
  line.style.borderTopColor = color(index);
  line.style.borderTopStyle = BORDERS[style(index)];
}
const spoken = name => name.replaceAll('_', ' ');
const smooth = byId('smooth'), log = byId('log'), cut = byId('cut');
const format = y => y === null || y === undefined ? '–' : y === 0 ? '0'
  : Math.abs(y) >= 1e5 || Math.abs(y) < 1e-3
    ? y.toExponential(2).replace(/\.?0+e/, 'e')
    : String(+y.toPrecision(4));
function smoothed(xs, ys, reach) {
  // Weights exp(-distance / reach) both ways, so that it does not lag behind;
  // a sum of two passes, each over one side.
  const sums = new Float64Array(ys.length), weights = sums.slice();
  for (const by of [1, -1]) {
    let sum = 0, weight = 0, before = null;
    for (let i = by > 0 ? 0 : ys.length - 1; i >= 0 && i < ys.length; i += by) {
      const fade = before === null ? 0
        : Math.exp(-Math.abs(xs[i] - before) / reach);
      sum *= fade; weight *= fade; before = xs[i];
      if (by < 0) { sums[i] += sum; weights[i] += weight; }
      if (ys[i] !== null) { sum += ys[i]; weight += 1; }
      if (by > 0) { sums[i] += sum; weights[i] += weight; }
    }
  }
  return ys.map((y, i) => y === null ? null : sums[i] / weights[i]);
}
function ticks(low, high, number) {
  const rough = (high - low) / number;
  const power = 10 ** Math.floor(Math.log10(rough));
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
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}
function range(curves, isLog) {
  let ys = curves.flatMap(one => cut.checked ? one.y
    : [...one.low ?? one.y, ...one.high ?? []]);
  ys = ys.filter(y => y !== null && (!isLog || y > 0)).sort((a, b) => a - b);
  if (!ys.length) return isLog ? [0.1, 1] : [0, 1];
  const edge = cut.checked ? Math.floor(ys.length * 0.02) : 0;
  let low = ys[edge], high = ys[ys.length - 1 - edge];
  if (!isLog && low >= 0 && low < high / 2) low = 0;
  if (low === high) [low, high] = isLog ? [low / 2, high * 2]
    : [low - (low ? Math.abs(low) : 0), high + (Math.abs(high) || 1)];
  return [low, high];
}
const drawn = [];
const drawAll = () => drawn.forEach(chart => chart.draw());
let hover = null, waits = false;  // the step under the pointer, in any chart
function setHover(step) {
  hover = step;
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => {
    waits = false;
    pointAll();
  });
}
const pointAll = () => drawn.forEach(chart => chart.point());
const WIDEN = 'M8.5 1.5H12.5V5.5M12 2L8 6M5.5 12.5H1.5V8.5M2 12L6 8';
/* A chart of curves, each { label, color: an index, isOn(), toggle(), x: which
   of data.steps, y, last and, where a point stands for several, low, high }.
   words: by which it is found; end: where the steps end, of themselves unless
   it is given; marked(): a step or null; pick(step): on a click. */
function addChart(parent, name, curves, { words, end, marked, pick }) {
  const card = make('div', parent, { class: 'card chart' });
  const head = make('div', card, { class: 'head' });
  make('h3', head, {}, spoken(name));
  const where = make('span', head, { class: 'soft' });
  const widen = make('button', head, { title: 'Larger', 'aria-label': 'Larger',
    'aria-pressed': false });
  make('path', make('svg', widen, { viewBox: '0 0 14 14' }), { d: WIDEN,
    fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 });
  const svg = make('svg', card, { class: 'plot', role: 'img',
    'aria-label': name });
  const values = make('div', card, { class: 'values' });
  const clip = `clip${drawn.length}`;
  for (const one of curves) {
    one.steps = data.steps[one.x];
    one.item = make('button', values, { title: one.label });
    paint(make('i', one.item, { class: 'line' }), one.color);
    make('bdi', one.item, {}, one.label);
    one.value = make('b', one.item);
    one.item.onclick = one.toggle;
  }
  const right = 10, top = 12, bottom = 22;
  let on = [], px, py, pointed = null, width, left, last, height;
  function draw() {
    svg.replaceChildren();
    width = svg.clientWidth, height = svg.clientHeight;
    if (!width) return;  // in a closed group
    for (const one of curves) one.item.setAttribute('aria-pressed', one.isOn());
    on = curves.filter(one => one.isOn());
    last = end ?? Math.max(1, ...on.map(one => one.steps.at(-1)));
    const isLog = log.checked && on.some(one => one.y.some(y => y > 0));
    const [low, high] = range(on, isLog);
    const yTicks = isLog ? logTicks(low, high) : ticks(low, high, 4);
    left = 14 + 6.2 * Math.max(2, ...yTicks.map(y => format(y).length));
    const scale = isLog ? Math.log : y => y;
    px = x => left + x / last * (width - left - right);
    py = y => height - bottom - (scale(y) - scale(low))
      / (scale(high) - scale(low)) * (height - top - bottom);
    for (const y of yTicks) {
      make('line', svg, { class: 'grid', x1: left, x2: width - right,
        y1: py(y), y2: py(y) });
      make('text', svg, { x: left - 7, y: py(y) + 4, 'text-anchor': 'end' },
        format(y));
    }
    for (const x of ticks(0, last, Math.max(2, Math.min(10, width / 90))))
      if (Number.isInteger(x))
        make('text', svg, { x: Math.min(px(x), width - 3.6 * count(x).length),
          y: height - 5, 'text-anchor': 'middle' }, count(x));
    const frame = make('clipPath', svg, { id: clip });
    make('rect', frame, { x: left - 2, width: Math.max(0, width - left),
      y: top - 4, height: height - top - bottom + 6 });
    const inside = make('g', svg, { 'clip-path': `url(#${clip})` });
    const fits = y => y !== null && (!isLog || y > 0);
    const at = (one, ys, i) =>
      `${px(one.steps[i]).toFixed(1)} ${py(ys[i]).toFixed(1)}`;
    const reach = (+smooth.value / 100) ** 2 * 0.2 * last;
    for (const one of on) {
      one.shown = reach ? smoothed(one.steps, one.y, reach) : one.y;
      if (one.low) {
        for (let i = 0; i < one.y.length; i++) {
          const from = i;
          while (i < one.y.length && fits(one.low[i])) i++;
          if (i - from < 2) continue;
          let d = 'M';
          for (let j = from; j < i; j++) d += `${at(one, one.high, j)}L`;
          for (let j = i; j-- > from;) d += `${at(one, one.low, j)}L`;
          make('path', inside, { class: 'band', d: `${d.slice(0, -1)}Z`, style:
            `fill: ${color(one.color)}; stroke: ${color(one.color)}` });
        }
      }
      const line = (ys, kind) => {
        let pen = 'M', d = '';
        ys.forEach((y, i) => {
          d += fits(y) ? pen + at(one, ys, i) : '';
          pen = fits(y) ? 'L' : 'M';
        });
        make('path', inside, { d, class: kind, 'stroke-dasharray':
          DASHES[style(one.color)], style: `stroke: ${color(one.color)}` });
        const isGap = i => i < 0 || i >= ys.length || !fits(ys[i]);
        ys.forEach((y, i) => {
          if (fits(y) && (ys.length < 16 || isGap(i - 1) && isGap(i + 1)))
            make('circle', inside, { r: 2.4, cx: px(one.steps[i]), cy: py(y),
              fill: color(one.color) });
        });
      };
      if (reach && one.y.length > 2 && !one.low) line(one.y, 'raw');
      line(one.shown, 'main');
      for (const step of one.odd ?? []) {
        const sign = make('text', svg, { class: 'odd', x: px(step), y: top - 1,
          'text-anchor': 'middle', style: `fill: ${color(one.color)}` }, '×');
        make('title', sign, {}, `${one.label}: not finite at step `
          + count(step));
      }
    }
    pointed = make('g', svg);
    point();
  }
  function upright(kind, step) {
    if (step !== null && step >= 0 && step <= last) make('line', pointed,
      { class: kind, x1: px(step), x2: px(step), y1: top, y2: height - bottom });
  }
  function point() {
    if (!pointed || !svg.clientWidth) return;
    pointed.replaceChildren();
    where.textContent = hover === null ? ''
      : `step ${count(hover)}${+smooth.value ? ', smoothed' : ''}`;
    upright('now', marked?.() ?? null);
    upright('at', hover);
    for (const one of curves) {
      let y = one.last;
      if (!one.isOn()) y = undefined;
      else if (hover !== null) {
        const i = nearest(one.steps, hover), end = one.steps.length - 1;
        const gap = (one.steps[end] - one.steps[0]) / Math.max(1, end);
        const isIn = Math.abs(one.steps[i] - hover) <= Math.max(gap, last / 50);
        y = isIn ? one.shown[i] : undefined;
        const cy = y === null || y === undefined ? NaN : py(y);
        if (Number.isFinite(cy) && cy > top - 5 && cy < height - bottom + 3)
          make('circle', pointed, { r: 3.2, cx: px(one.steps[i]), cy,
            fill: color(one.color) });
      }
      one.value.textContent = y === null ? 'NaN' : format(y);
    }
  }
  const stepAt = event => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    return Math.max(0, Math.min(last, (x - left) / (width - left - right) * last));
  };
  svg.onpointermove = event => {
    const at = stepAt(event);
    let best = null;
    for (const one of on) {
      const step = one.steps[nearest(one.steps, at)];
      if (best === null || Math.abs(step - at) < Math.abs(best - at))
        best = step;
    }
    setHover(best);
  };
  svg.onpointerleave = () => setHover(null);
  svg.onclick = event => pick?.(stepAt(event));
  widen.onclick = () => {
    widen.setAttribute('aria-pressed', card.classList.toggle('large'));
    draw();
  };
  drawn.push({ draw, point, card, words: words.toLowerCase() });
}
function startCharts() {
  const isLong = data.charts.some(
    ({ curves }) => curves.some(one => one.y.length > 100));
  smooth.value = isLong ? 25 : 0;
  byId('controls').hidden = !data.charts.length;
  byId('no-curves').hidden = data.charts.length > 0;
  smooth.oninput = log.onchange = cut.onchange = drawAll;
  byId('filter').oninput = event => {
    const asked = event.target.value.toLowerCase().split(/\s+/);
    for (const { card, words } of drawn) card.hidden = !asked.every(
      word => words.includes(word) || spoken(words).includes(word));
    for (const group of byId('groups').children)
      group.hidden = !group.querySelector('.chart:not([hidden])');
    drawAll();
  };
  addEventListener('resize', drawAll);
  drawAll();
}
