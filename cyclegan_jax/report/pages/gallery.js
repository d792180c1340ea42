const { samples, charts } = data;
let shown = samples.length - 1;

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
  byId('step').textContent = `step ${count(step)}`;
  byId('back').disabled = shown === 0;
  byId('next').disabled = shown === samples.length - 1;
  if (samples[shown + 1]) new Image().src = samples[shown + 1].src;
  pointAll();
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
    const typed = ['range', 'search'].includes(own?.type);
    if (modified || typed || (own && event.key === ' ')) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) move(by);
    else if (event.key === ' ') play(!timer);
    else return;
    event.preventDefault();
  });
} else byId('no-samples').hidden = false;

// Curves: a chart a family of metrics, whose steps are the same in all.
const lastStep = Math.max(1, ...data.steps.map(steps => steps.at(-1)));
const grid = make('div', byId('groups'), { class: 'charts' });
for (const { name, curves } of charts) {
  curves.forEach((one, index) => {
    let isOn = true;
    Object.assign(one, {
      label: spoken(one.name),
      color: index,
      isOn: () => isOn,
      toggle: () => { isOn = !isOn; drawAll(); },
    });
  });
  addChart(grid, name, curves, {
    words: curves.map(one => `${name}/${one.name}`).join(' '),
    end: lastStep,
    marked: () => samples[shown]?.step ?? null,
    pick: samples.length && (step => {
      play(false);
      show(nearest(samples.map(each => each.step), step));
    }),
  });
}
startCharts();
if (samples.length) show(shown);
