// Making and changing elements. Everything that comes from the cluster goes through `textContent` or attributes that
// hold text: a pod may be named anything, and nothing of it is ever read as HTML.

/** A new element with a class, attributes and children (elements or text). */
export function make(tag, className = "", attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set the text; nothing happens where it is the same, so that unchanged parts stay untouched. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function setClass(element, className) {
  if (element.className !== className) element.className = className;
}

/** Set a style by the object model, which a Content-Security-Policy without inline styles allows. */
export function setStyle(element, property, value) {
  if (element.style.getPropertyValue(property) !== value) element.style.setProperty(property, value);
}

/**
 * Make the children of an element those of `items`, in their order, and keep what is there already.
 *
 * `parts` is the memory between calls: key -> child. `create(item)` makes a child, `update(child, item)` fills it.
 */
export function keyed(parent, parts, items, { key, create, update }) {
  const wanted = new Set(items.map(key));
  for (const [name, child] of parts) {
    if (!wanted.has(name)) {
      child.remove(); // first of all: what stays is then in place already, and a moved element would lose the focus
      parts.delete(name);
    }
  }
  let previous = null;
  for (const item of items) {
    const name = key(item);
    let child = parts.get(name);
    if (!child) parts.set(name, (child = create(item)));
    const place = previous ? previous.nextSibling : parent.firstChild;
    if (child !== place) parent.insertBefore(child, place);
    update(child, item);
    previous = child;
  }
}
