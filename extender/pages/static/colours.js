// Which of the stylesheet's eight hues a namespace has: the next free one when it is first seen, and that one from then on.

const HUES = 8;
const given = new Map(); // namespace -> class name

export function hueOf(namespace) {
  let hue = given.get(namespace);
  if (hue === undefined) given.set(namespace, (hue = `hue-${given.size % HUES}`));
  return hue;
}

/** Give out hues by name, so that the same cluster looks the same for everybody who opens the page. */
export function expectNamespaces(sortedNames) {
  for (const name of sortedNames) hueOf(name);
}
