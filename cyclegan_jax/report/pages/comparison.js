const { runs, charts } = data;
const isOn = runs.map(() => true);
for (const line of document.querySelectorAll('i.line'))
  paint(line, +line.className.match(/l(\d+)$/)[1]);

// Runs: shown or hidden everywhere at once.
function toggle(run) {
  isOn[run] = !isOn[run];
  document.querySelector(`[data-toggle="${run}"]`)
    .setAttribute('aria-pressed', isOn[run]);
  for (const node of document.querySelectorAll(`[data-run="${run}"]`))
    node.hidden = !isOn[run];
  drawAll();
}
for (const button of document.querySelectorAll('[data-toggle]'))
  button.onclick = () => toggle(+button.dataset.toggle);

// Curves: a chart a metric, in groups by the first part of their names.
const groups = new Map();
for (const chart of charts) {
  const prefix = chart.name.includes('/') ? chart.name.split('/')[0] : 'other';
  groups.set(prefix, [...groups.get(prefix) ?? [], chart]);
}
for (const [prefix, inside] of groups) {
  const details = make('details', byId('groups'));
  make('summary', details, {}, spoken(prefix));
  details.open = prefix !== 'diagnostics' || groups.size === 1;
  details.ontoggle = drawAll;
  const grid = make('div', details, { class: 'charts' });
  for (const { name, curves } of inside) {
    for (const one of curves) Object.assign(one, {
      label: runs[one.run],
      color: one.run,
      isOn: () => isOn[one.run],
      toggle: () => toggle(one.run),
    });
    addChart(grid, name.replace(/^[^/]*\//, ''), curves, { words: name });
  }
}
startCharts();

// Pictures: of one size in the tables, and one at a time as large as it goes.
const size = byId('size'), large = byId('large');
(size.oninput = () => document.documentElement.style.setProperty(
  '--cell', `${size.value}px`))();
let shown = null;
function enlarge(button) {
  shown = button;
  const from = button.querySelector('img'), to = large.querySelector('img');
  to.src = from.src;
  to.alt = from.alt;
  to.className = from.className;
  large.querySelector('p').textContent = from.alt;
  if (!large.open) large.showModal();
}
function neighbour(button, right, down) {
  const cell = button.closest('td'), row = cell.parentNode;
  if (down) {
    const next = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    return next && [...next.querySelectorAll('button')].find(
      each => each.closest('td').dataset.run === cell.dataset.run);
  }
  const all = [...row.querySelectorAll('button')].filter(
    each => !each.closest('td').hidden);
  return all[all.indexOf(button) + right];
}
for (const button of document.querySelectorAll('.picture'))
  button.onclick = () => enlarge(button);
large.onclick = () => large.close();
large.onclose = () => shown?.focus();
large.onkeydown = event => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
    ArrowDown: [0, 1] }[event.key];
  if (!move) return;
  event.preventDefault();
  const next = neighbour(shown, ...move);
  if (next) enlarge(next);
};
