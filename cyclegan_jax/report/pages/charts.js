// Charts of curves, in plain SVG. What follows the pointer is a layer on top.
const COLORS = 6, DASHES = ['', '7 4', '1.5 4'];
const BORDERS = ['solid', 'dashed', 'dotted'];
const MARGIN = { right: 10, top: 12, bottom: 22 };
const ENLARGE = 'M8.5 1.5H12.5V5.5M12 2L8 6M5.5 12.5H1.5V8.5M2 12L6 8';
const colorOf = index => `var(--c${index % COLORS})`;
const dashOf = index => Math.floor(index / COLORS) % DASHES.length;
function styleSample(line, index) {
  line.style.borderTopColor = colorOf(index);
  line.style.borderTopStyle = BORDERS[dashOf(index)];
}
const readable = name => name.replaceAll('_', ' ');
const smoothing = byId('smoothing'), logScale = byId('log-scale');
const cutOutliers = byId('cut-outliers');
const isMissing = y => y === null || y === undefined;
const formatValue = y => isMissing(y) ? '–' : y === 0 ? '0'
  : Math.abs(y) >= 1e5 || Math.abs(y) < 1e-3
    ? y.toExponential(2).replace(/\.?0+e/, 'e')
    : String(+y.toPrecision(4));
// Weighted means with weights exp(-distance / reach). One pass for each side,
// so that the curve does not lag behind.
function smoothed(xs, ys, reach) {
  const sums = new Float64Array(ys.length), weights = sums.slice();
  for (const step of [1, -1]) {
    let sum = 0, weight = 0, previous = null;
    for (let i = step > 0 ? 0 : ys.length - 1; i >= 0 && i < ys.length;
      i += step) {
      const decay = previous === null ? 0
        : Math.exp(-Math.abs(xs[i] - previous) / reach);
      sum *= decay; weight *= decay; previous = xs[i];
      if (step < 0) { sums[i] += sum; weights[i] += weight; }
      if (ys[i] !== null) { sum += ys[i]; weight += 1; }
      if (step > 0) { sums[i] += sum; weights[i] += weight; }
    }
  }
  return ys.map((y, i) => y === null ? null : sums[i] / weights[i]);
}
function linearTicks(low, high, number) {
  const rough = (high - low) / number;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find(u => u * power >= rough) * power;
  const ticks = [];
  for (let k = Math.ceil(low / unit - 1e-9); k * unit <= high + unit * 1e-9;
    k++) ticks.push(+(k * unit).toPrecision(12));
  return ticks;
}
function logTicks(low, high) {
  if (high / low < 6) return linearTicks(low, high, 4);
  const ticks = [], stride = Math.ceil(Math.log10(high / low) / 5) || 1;
  for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e += stride)
    for (const m of high / low > 100 ? [1] : [1, 2, 5])
      if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
  return ticks;
}
function nearestIndex(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}
function valueRange(curves, isLog) {
  const ys = curves.flatMap(curve => cutOutliers.checked ? curve.y
    : [...curve.low ?? curve.y, ...curve.high ?? []])
    .filter(y => y !== null && (!isLog || y > 0)).sort((a, b) => a - b);
  if (!ys.length) return isLog ? [0.1, 1] : [0, 1];
  const numCut = cutOutliers.checked ? Math.floor(ys.length * 0.02) : 0;
  let low = ys[numCut], high = ys[ys.length - 1 - numCut];
  if (!isLog && low >= 0 && low < high / 2) low = 0;
  if (low === high) [low, high] = isLog ? [low / 2, high * 2]
    : [low - (low ? Math.abs(low) : 0), high + (Math.abs(high) || 1)];
  return [low, high];
}

const allCharts = [];
const drawAll = () => allCharts.forEach(chart => chart.draw());
const drawAllPointers = () => allCharts.forEach(chart => chart.drawPointer());
let hoveredStep = null;  // the step under the pointer, in any chart
let isDrawPending = false;
function setHoveredStep(step) {
  hoveredStep = step;
  if (isDrawPending) return;
  isDrawPending = true;
  requestAnimationFrame(() => {
    isDrawPending = false;
    drawAllPointers();
  });
}
// A chart of curves. Each curve is {label, color: an index, isOn(), toggle(),
// x: an index into data.steps, y, last} and, where a point stands for several
// values, low and high; and not_finite: steps. Options:
// - searchText: by which the chart is found;
// - lastStep: end of the axis; by default that of the curves;
// - markedStep(): a step or null;
// - onClick(step).
class Chart {
  constructor(parent, name, curves, options) {
    this.curves = curves;
    this.options = options;
    this.searchText = options.searchText.toLowerCase();
    this.card = addElement('div', parent, { class: 'card chart' });
    const head = addElement('div', this.card, { class: 'head' });
    addElement('h3', head, {}, readable(name));
    this.position = addElement('span', head, { class: 'soft' });
    const enlarge = addElement('button', head, { title: 'Larger',
      'aria-label': 'Larger', 'aria-pressed': false });
    addElement('path', addElement('svg', enlarge, { viewBox: '0 0 14 14' }), {
      d: ENLARGE, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 });
    enlarge.onclick = () => {
      const isLarge = this.card.classList.toggle('large');
      enlarge.setAttribute('aria-pressed', isLarge);
      this.draw();
    };
    this.svg = addElement('svg', this.card, { class: 'plot', role: 'img',
      'aria-label': name });
    const values = addElement('div', this.card, { class: 'values' });
    for (const curve of curves) {
      curve.steps = data.steps[curve.x];
      curve.button = addElement('button', values, { title: curve.label });
      styleSample(addElement('i', curve.button, { class: 'line' }),
        curve.color);
      addElement('bdi', curve.button, {}, curve.label);
      curve.value = addElement('b', curve.button);
      curve.button.onclick = curve.toggle;
    }
    this.svg.onpointermove = event => {
      const step = this.stepAt(event);
      const nearest = this.shownCurves().map(({ steps }) =>
        steps[nearestIndex(steps, step)]);
      setHoveredStep(nearest.length ? nearest.reduce((best, other) =>
        Math.abs(other - step) < Math.abs(best - step) ? other : best) : null);
    };
    this.svg.onpointerleave = () => setHoveredStep(null);
    this.svg.onclick = event => options.onClick?.(this.stepAt(event));
    this.clipId = `clip${allCharts.length}`;
    allCharts.push(this);
  }
  shownCurves() {
    return this.curves.filter(curve => curve.isOn());
  }
  stepAt(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const share = (x - this.left) / (this.width - this.left - MARGIN.right);
    return Math.max(0, Math.min(this.last, share * this.last));
  }
  draw() {
    const { svg } = this;
    svg.replaceChildren();
    [this.width, this.height] = [svg.clientWidth, svg.clientHeight];
    if (!this.width) return;  // in a closed group
    for (const curve of this.curves)
      curve.button.setAttribute('aria-pressed', curve.isOn());
    const shown = this.shownCurves();
    this.setScales(shown);
    this.drawAxes();
    const clip = addElement('clipPath', svg, { id: this.clipId });
    addElement('rect', clip, { x: this.left - 2, y: MARGIN.top - 4,
      width: Math.max(0, this.width - this.left),
      height: this.height - MARGIN.top - MARGIN.bottom + 6 });
    const plot = addElement('g', svg, { 'clip-path': `url(#${this.clipId})` });
    const reach = (+smoothing.value / 100) ** 2 * 0.2 * this.last;
    for (const curve of shown) {
      curve.shown = reach ? smoothed(curve.steps, curve.y, reach) : curve.y;
      if (curve.low) this.drawBand(plot, curve);
      if (reach && curve.y.length > 2 && !curve.low)
        this.drawLine(plot, curve, curve.y, 'raw');
      this.drawLine(plot, curve, curve.shown, 'main');
      this.drawNotFinite(curve);
    }
    this.drawChanges();
    this.pointer = addElement('g', svg);
    this.drawPointer();
  }
  // A line at each step where the run continued with other options.
  drawChanges() {
    for (const { step, text } of data.changes ?? []) {
      const x = this.px(step);
      const line = addElement('line', this.svg, { class: 'change', x1: x,
        x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom });
      addElement('title', line, {}, `step ${formatCount(step)}: ${text}`);
    }
  }
  setScales(shown) {
    const { width, height } = this;
    this.last = this.options.lastStep
      ?? Math.max(1, ...shown.map(curve => curve.steps.at(-1)));
    this.isLog = logScale.checked
      && shown.some(curve => curve.y.some(y => y > 0));
    const [low, high] = valueRange(shown, this.isLog);
    this.yTicks = this.isLog ? logTicks(low, high) : linearTicks(low, high, 4);
    const labelLengths = this.yTicks.map(y => formatValue(y).length);
    const left = this.left = 14 + 6.2 * Math.max(2, ...labelLengths);
    const scale = this.isLog ? Math.log : y => y;
    this.px = x => left + x / this.last * (width - left - MARGIN.right);
    this.py = y => height - MARGIN.bottom - (scale(y) - scale(low))
      / (scale(high) - scale(low)) * (height - MARGIN.top - MARGIN.bottom);
  }
  drawAxes() {
    const { svg, width, height, left, px, py } = this;
    for (const y of this.yTicks) {
      addElement('line', svg, { class: 'grid', x1: left,
        x2: width - MARGIN.right, y1: py(y), y2: py(y) });
      addElement('text', svg, { x: left - 7, y: py(y) + 4,
        'text-anchor': 'end' }, formatValue(y));
    }
    const numTicks = Math.max(2, Math.min(10, width / 90));
    for (const x of linearTicks(0, this.last, numTicks)) {
      if (!Number.isInteger(x)) continue;
      const label = formatCount(x);
      addElement('text', svg, { x: Math.min(px(x), width - 3.6 * label.length),
        y: height - 5, 'text-anchor': 'middle' }, label);
    }
  }
  canDraw(y) {
    return y !== null && (!this.isLog || y > 0);
  }
  pointAt(curve, ys, i) {
    return `${this.px(curve.steps[i]).toFixed(1)} ${this.py(ys[i]).toFixed(1)}`;
  }
  drawBand(plot, curve) {
    const color = colorOf(curve.color);
    for (let i = 0; i < curve.y.length; i++) {
      const from = i;
      while (i < curve.y.length && this.canDraw(curve.low[i])) i++;
      if (i - from < 2) continue;
      const indices = Array.from({ length: i - from }, (_, k) => from + k);
      const d = [...indices.map(j => this.pointAt(curve, curve.high, j)),
        ...indices.reverse().map(j => this.pointAt(curve, curve.low, j))];
      addElement('path', plot, { class: 'band', d: `M${d.join('L')}Z`,
        style: `fill: ${color}; stroke: ${color}` });
    }
  }
  drawLine(plot, curve, ys, kind) {
    const color = colorOf(curve.color);
    const isGap = i => i < 0 || i >= ys.length || !this.canDraw(ys[i]);
    let d = '';
    ys.forEach((y, i) => {
      if (isGap(i)) return;
      d += (isGap(i - 1) ? 'M' : 'L') + this.pointAt(curve, ys, i);
      if (ys.length < 16 || isGap(i - 1) && isGap(i + 1))
        addElement('circle', plot, { r: 2.4, cx: this.px(curve.steps[i]),
          cy: this.py(y), fill: color });
    });
    addElement('path', plot, { d, class: kind, style: `stroke: ${color}`,
      'stroke-dasharray': DASHES[dashOf(curve.color)] });
  }
  drawNotFinite(curve) {
    for (const step of curve.not_finite ?? []) {
      const sign = addElement('text', this.svg, { class: 'not-finite',
        x: this.px(step), y: MARGIN.top - 1, 'text-anchor': 'middle',
        style: `fill: ${colorOf(curve.color)}` }, '×');
      addElement('title', sign, {}, `${curve.label}: not finite at step `
        + formatCount(step));
    }
  }
  drawPointer() {
    const { pointer, px, py } = this;
    if (!pointer || !this.svg.clientWidth) return;
    pointer.replaceChildren();
    const bottom = this.height - MARGIN.bottom;
    const suffix = +smoothing.value ? ', smoothed' : '';
    this.position.textContent = hoveredStep === null ? ''
      : `step ${formatCount(hoveredStep)}${suffix}`;
    const marked = this.options.markedStep?.() ?? null;
    for (const [kind, step] of [['marked', marked], ['hovered', hoveredStep]])
      if (step !== null && step >= 0 && step <= this.last)
        addElement('line', pointer, { class: kind, x1: px(step), x2: px(step),
          y1: MARGIN.top, y2: bottom });
    for (const curve of this.curves) {
      let y = curve.last;
      if (!curve.isOn()) y = undefined;
      else if (hoveredStep !== null) {
        const i = this.indexNear(curve, hoveredStep);
        y = i === null ? undefined : curve.shown[i];
        const cy = isMissing(y) ? NaN : py(y);
        if (cy > MARGIN.top - 5 && cy < bottom + 3)
          addElement('circle', pointer, { r: 3.2, cx: px(curve.steps[i]), cy,
            fill: colorOf(curve.color) });
      }
      curve.value.textContent = y === null ? 'NaN' : formatValue(y);
    }
  }
  // The index of the point at a step; null where the curve has none nearby.
  indexNear({ steps }, step) {
    const i = nearestIndex(steps, step), end = steps.length - 1;
    const spacing = (steps[end] - steps[0]) / Math.max(1, end);
    const maxDistance = Math.max(spacing, this.last / 50);
    return Math.abs(steps[i] - step) <= maxDistance ? i : null;
  }
}
function startCharts() {
  const isLong = data.charts.some(
    ({ curves }) => curves.some(curve => curve.y.length > 100));
  smoothing.value = isLong ? 25 : 0;
  byId('controls').hidden = !data.charts.length;
  byId('no-curves').hidden = data.charts.length > 0;
  smoothing.oninput = logScale.onchange = cutOutliers.onchange = drawAll;
  byId('filter').oninput = event => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const { card, searchText } of allCharts) card.hidden = !words.every(
      word => searchText.includes(word) || readable(searchText).includes(word));
    for (const group of byId('groups').children)
      group.hidden = !group.querySelector('.chart:not([hidden])');
    drawAll();
  };
  addEventListener('resize', drawAll);
  drawAll();
}
