// One picture over another with a divider between, or all beside each other.
const stage = byId('stage'), views = byId('views').children;
let at = 50;  // where the divider is, in percent
let stageShape = 1;  // of its pictures, width by height

function markView(now, known) {
  [...views].forEach((button, i) => {
    button.hidden = !known.includes(i);
    button.setAttribute('aria-pressed', i === now);
  });
  byId('flip').disabled = now === 2;
}
// Side by side, or one below the other: what is larger.
function arrange(shape = stageShape) {
  stageShape = shape;
  const n = stage.children.length;
  const { clientWidth: width, clientHeight: height } = stage;
  stage.className = Math.min(width / n, height * shape)
    >= Math.min(width, height / n * shape) ? 'row' : '';
}
new ResizeObserver(() => arrange()).observe(stage);
// Of figures that are put into what it returns: .after, then .before.
function makeSlider(shape, labels) {
  const cell = make('div', stage, { class: 'cell' });
  const frame = make('div', cell, { class: 'frame slider' });
  frame.style.setProperty('--shape', shape);
  const range = make('input', frame, { type: 'range', min: 0, max: 100,
    'aria-label': `Divider: ${labels[0]} left, ${labels[1]} right` });
  make('span', frame, { class: 'divider' }).innerHTML =
    '<svg viewBox="0 0 18 18"><path d="M6 4L1 9l5 5M12 4l5 5-5 5"/></svg>';
  range.oninput = () => divide(+range.value);
  const drag = event => {
    const { left, width } = frame.getBoundingClientRect();
    divide(100 * (event.clientX - left) / width);
  };
  frame.onpointerdown = event => {
    if (event.button || !event.isPrimary) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    drag(event);
  };
  frame.onpointermove = event => {
    if (frame.hasPointerCapture(event.pointerId)) drag(event);
  };
  divide(at);
  return frame;
}
function divide(percent) {
  const frame = stage.querySelector('.slider');
  if (!frame) return;
  at = Math.max(0, Math.min(100, percent));
  const range = frame.querySelector('input');
  frame.style.setProperty('--at', `${at}%`);
  range.value = at;
  range.setAttribute('aria-valuetext', `${Math.round(at)} % of the input`);
}
function flip() {
  const frame = stage.querySelector('.slider');
  if (!frame) return;
  divide(at === 100 ? 0 : 100);
  byId('said').textContent = frame.querySelector(
    at ? '.before figcaption' : '.after figcaption').textContent;
}
byId('flip').onclick = flip;
