// Elements, and how a page that was drawn becomes the page that is drawn now without losing focus, scroll or what is open.
// Text is always set as text, never as markup; styles go through the CSSOM, so that the content security policy stays strict.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = Symbol("handlers");

function dispatch(event) {
  event.currentTarget[HANDLERS]?.[event.type]?.(event);
}

function listen(element, handlers) {
  const had = element[HANDLERS];
  for (const type of Object.keys(handlers)) if (!had?.[type]) element.addEventListener(type, dispatch);
  element[HANDLERS] = { ...Object.fromEntries(Object.keys(had ?? {}).map((type) => [type, undefined])), ...handlers };
}

function fill(element, attributes, children) {
  const handlers = {};
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") for (const [property, wanted] of Object.entries(value)) element.style.setProperty(property, wanted);
    else if (typeof value === "function") handlers[name.slice(2)] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  if (Object.keys(handlers).length) listen(element, handlers);
  element.append(...flat(children));
  return element;
}

const flat = (children) => [children].flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");

export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// What a person changed stays as it is: whether details are open, what was typed or ticked.
const LEFT_ALONE = new Set(["style", "open"]);
const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const alike = (old, made) => old.nodeType === made.nodeType && old.nodeName === made.nodeName && keyOf(old) === keyOf(made);

function adopt(old, made) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  for (const { name, value } of [...made.attributes]) {
    if (LEFT_ALONE.has(name) || old.getAttribute(name) === value) continue;
    old.setAttribute(name, value);
    if (name === "value" && "value" in old && document.activeElement !== old) old.value = value;
    if (name === "selected") old.selected = true;
  }
  for (const { name } of [...old.attributes]) if (!LEFT_ALONE.has(name) && !made.hasAttribute(name)) old.removeAttribute(name);
  if (old.style.cssText !== made.style.cssText) old.style.cssText = made.style.cssText;
  if (made[HANDLERS] || old[HANDLERS]) listen(old, made[HANDLERS] ?? {});
  if (!old.hasAttribute("data-own")) render(old, [...made.childNodes]);
}

export function render(parent, ...content) {
  // Make the children of an element these, keeping every element that is there already: by its data-key, or by its place.
  const nodes = flat(content).map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  const wanted = new Set(nodes.map(keyOf).filter(Boolean));
  const there = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key === null) continue;
    if (wanted.has(key)) there.set(key, child);
    else child.remove();
  }
  let at = parent.firstChild;
  for (const made of nodes) {
    const key = keyOf(made);
    const old = key === null ? at : there.get(key);
    if (!old || !alike(old, made)) {
      parent.insertBefore(made, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else parent.insertBefore(old, at);
    adopt(old, made);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
