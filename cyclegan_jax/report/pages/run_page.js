const { samples, charts } = data;

// The sample sheets: one at a time, chosen by slider, keys or playback.
let shown = samples.length - 1, timer = 0;
const PLAY = 'M2 1v12l10-6z', PAUSE = 'M2 1h3.5v12H2zM8.5 1H12v12H8.5z';
function showSheet(index) {
  shown = Math.max(0, Math.min(samples.length - 1, index));
  const { step, src } = samples[shown];
  byId('sheet').src = byId('frame').href = src;
  byId('sheet').alt = `Sample sheet of step ${step}`;
  byId('slider').value = shown;
  byId('slider').setAttribute('aria-valuetext', `step ${step}`);
  byId('step').textContent = `step ${formatCount(step)}`;
  byId('back').disabled = shown === 0;
  byId('next').disabled = shown === samples.length - 1;
  if (samples[shown + 1]) new Image().src = samples[shown + 1].src;
  drawAllPointers();
}
function setPlaying(isPlaying) {
  clearInterval(timer);
  timer = 0;
  if (isPlaying) {
    if (shown === samples.length - 1) showSheet(0);
    timer = setInterval(() => {
      if (shown === samples.length - 1) setPlaying(false);
      else showSheet(shown + 1);
    }, 500);
  }
  const icon = byId('play').querySelector('path');
  icon.setAttribute('d', isPlaying ? PAUSE : PLAY);
  byId('play').setAttribute('aria-label', isPlaying ? 'Pause' : 'Play');
}
function pauseAt(index) {
  setPlaying(false);
  showSheet(index);
}
if (samples.length) {
  byId('samples').hidden = false;
  byId('slider').max = samples.length - 1;
  byId('slider').oninput = event => pauseAt(+event.target.value);
  byId('back').onclick = () => pauseAt(shown - 1);
  byId('next').onclick = () => pauseAt(shown + 1);
  byId('play').onclick = () => setPlaying(!timer);
  addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const control = event.target.closest('input, button, summary, a');
    if (['range', 'search'].includes(control?.type)) return;
    if (control && event.key === ' ') return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) pauseAt(shown + by);
    else if (event.key === ' ') setPlaying(!timer);
    else return;
    event.preventDefault();
  });
} else byId('no-samples').hidden = false;

// The curves: a chart for each family of metrics, all with the same axis.
const lastStep = Math.max(1, ...data.steps.map(steps => steps.at(-1)));
const sampleSteps = samples.map(sample => sample.step);
const grid = addElement('div', byId('groups'), { class: 'charts' });
for (const { name, curves } of charts) {
  curves.forEach((curve, index) => {
    let isOn = true;
    Object.assign(curve, {
      label: readable(curve.name),
      color: index,
      isOn: () => isOn,
      toggle: () => { isOn = !isOn; drawAll(); },
    });
  });
  new Chart(grid, name, curves, {
    searchText: curves.map(curve => `${name}/${curve.name}`).join(' '),
    lastStep,
    markedStep: () => sampleSteps[shown] ?? null,
    onClick: step => {
      if (samples.length) pauseAt(nearestIndex(sampleSteps, step));
    },
  });
}
startCharts();
if (samples.length) showSheet(shown);
