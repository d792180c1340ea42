// Two pictures with a divider between them, or all pictures side by side.
const stage = byId('stage'), viewButtons = [...byId('views').children];
const [COMPARE, ROUND_TRIP, ALL] = [0, 1, 2];  // the views
let dividerAt = 50;  // percent of the width
let stageAspect = 1;  // of the stage's pictures, width by height

function markView(view, available) {
  viewButtons.forEach((button, i) => {
    button.hidden = !available.includes(i);
    button.setAttribute('aria-pressed', i === view);
  });
  byId('flip').disabled = view === ALL;
}
// Puts pictures in a row or a column, whichever shows them larger.
function arrange(aspect = stageAspect) {
  stageAspect = aspect;
  const n = stage.children.length;
  const { clientWidth: width, clientHeight: height } = stage;
  stage.className = Math.min(width / n, height * aspect)
    >= Math.min(width, height / n * aspect) ? 'row' : '';
}
new ResizeObserver(() => arrange()).observe(stage);
// Adds a frame, to which the caller adds figures: .after, then .before.
function addSlider(aspect, labels) {
  const cell = addElement('div', stage, { class: 'cell' });
  const frame = addElement('div', cell, { class: 'frame slider' });
  frame.style.setProperty('--aspect', aspect);
  const range = addElement('input', frame, { type: 'range', min: 0, max: 100,
    'aria-label': `Divider: ${labels[0]} left, ${labels[1]} right` });
  addElement('span', frame, { class: 'divider' }).innerHTML =
    '<svg viewBox="0 0 18 18"><path d="M6 4L1 9l5 5M12 4l5 5-5 5"/></svg>';
  range.oninput = () => moveDivider(+range.value);
  const drag = event => {
    const { left, width } = frame.getBoundingClientRect();
    moveDivider(100 * (event.clientX - left) / width);
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
  moveDivider(dividerAt);
  return frame;
}
function moveDivider(percent) {
  const frame = stage.querySelector('.slider');
  if (!frame) return;
  dividerAt = Math.max(0, Math.min(100, percent));
  const range = frame.querySelector('input');
  frame.style.setProperty('--at', `${dividerAt}%`);
  range.value = dividerAt;
  range.setAttribute('aria-valuetext',
    `${Math.round(dividerAt)} % of the input`);
}
function flip() {
  const frame = stage.querySelector('.slider');
  if (!frame) return;
  moveDivider(dividerAt === 100 ? 0 : 100);
  byId('announcement').textContent = frame.querySelector(
    dividerAt ? '.before figcaption' : '.after figcaption').textContent;
}
byId('flip').onclick = flip;
