const byId = id => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);
const formatCount = number => number.toLocaleString('en');
function addElement(tag, parent, attributes = {}, text = '') {
  const isSvg = tag === 'svg' || parent.namespaceURI.endsWith('svg');
  const element = isSvg
    ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.textContent = text;
  return parent.appendChild(element);
}
