const { runs, charts } = data;
const isOn = runs.map(() => true);
for (const line of document.querySelectorAll('i.line'))
  styleSample(line, +line.className.match(/l(\d+)$/)[1]);

// Runs are shown or hidden everywhere at once.
function toggleRun(run) {
  isOn[run] = !isOn[run];
  document.querySelector(`[data-toggle="${run}"]`)
    .setAttribute('aria-pressed', isOn[run]);
  for (const node of document.querySelectorAll(`[data-run="${run}"]`))
    node.hidden = !isOn[run];
  drawAll();
}
for (const button of document.querySelectorAll('[data-toggle]'))
  button.onclick = () => toggleRun(+button.dataset.toggle);

// A chart for each metric, in groups by the first part of the metric's name.
const groups = new Map();
for (const chart of charts) {
  const prefix = chart.name.includes('/') ? chart.name.split('/')[0] : 'other';
  groups.set(prefix, [...groups.get(prefix) ?? [], chart]);
}
for (const [prefix, groupCharts] of groups) {
  const details = addElement('details', byId('groups'));
  addElement('summary', details, {}, readable(prefix));
  details.open = prefix !== 'diagnostics' || groups.size === 1;
  details.ontoggle = drawAll;
  const grid = addElement('div', details, { class: 'charts' });
  for (const { name, curves } of groupCharts) {
    for (const curve of curves) Object.assign(curve, {
      label: runs[curve.run],
      color: curve.run,
      isOn: () => isOn[curve.run],
      toggle: () => toggleRun(curve.run),
    });
    new Chart(grid, name.replace(/^[^/]*\//, ''), curves,
      { searchText: name });
  }
}
startCharts();

// Pictures have one size in the tables; one at a time is enlarged.
const size = byId('size'), large = byId('large');
(size.oninput = () => document.documentElement.style.setProperty(
  '--cell-size', `${size.value}px`))();
let enlarged = null;  // the button of the enlarged picture
function enlarge(button) {
  enlarged = button;
  const from = button.querySelector('img'), to = large.querySelector('img');
  to.src = from.src;
  to.alt = from.alt;
  to.className = from.className;
  large.querySelector('p').textContent = from.alt;
  if (!large.open) large.showModal();
}
// The picture of the next run or of the next image.
function neighbor(button, right, down) {
  const cell = button.closest('td'), row = cell.parentNode;
  if (down) {
    const next = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    return next && [...next.querySelectorAll('button')].find(
      other => other.closest('td').dataset.run === cell.dataset.run);
  }
  const visible = [...row.querySelectorAll('button')].filter(
    other => !other.closest('td').hidden);
  return visible[visible.indexOf(button) + right];
}
for (const button of document.querySelectorAll('.picture'))
  button.onclick = () => enlarge(button);
large.onclick = () => large.close();
large.onclose = () => enlarged?.focus();
large.onkeydown = event => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
    ArrowDown: [0, 1] }[event.key];
  if (!move) return;
  event.preventDefault();
  const next = neighbor(enlarged, ...move);
  if (next) enlarge(next);
};
