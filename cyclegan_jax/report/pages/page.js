const byId = id => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);
const count = number => number.toLocaleString('en');
function make(tag, parent, attributes = {}, text = '') {
  const svg = tag === 'svg' || parent.namespaceURI.endsWith('svg');
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  node.textContent = text;
  return parent.appendChild(node);
}
