// The list of nodes, of which only those in sight are in the document.
//
// Rows have heights that follow from the number of GPUs, so where each node lies is known without drawing it. A node
// that has the focus stays in the document wherever the window is.

import { createNode, updateNode } from "./bars.js";
import { setAttribute, setStyle } from "./dom.js";

const MARGIN_PX = 800; // drawn above and below the window

export class NodeList {
  #element;
  #entries = []; // {node, gpus, sums}, as selected
  #tops = new Float64Array(1); // where each begins, in px; the last one is the whole height
  #places = new Map(); // node name -> its position in #entries
  #drawn = new Map(); // node name -> what createNode made
  #namespace = "";
  #sizes = { head: 0, gpu: 0, gap: 0, columns: 1 };

  /** `onDraw` is told after nodes came into the document or left it. */
  constructor(element, { onDraw }) {
    this.#element = element;
    this.onDraw = onDraw;
    addEventListener("scroll", () => this.#draw(), { passive: true });
    let width = 0;
    new ResizeObserver(() => {
      if (element.clientWidth === width) return; // its height is ours
      width = element.clientWidth;
      this.show(this.#entries, { namespace: this.#namespace });
    }).observe(element);
    addEventListener("resize", () => this.#draw());
  }

  get columns() {
    return this.#sizes.columns;
  }

  get entries() {
    return this.#entries;
  }

  /** Show these; `changed` names the nodes to fill again where they are drawn already, all if it is left out. */
  show(entries, { namespace = "", changed = null } = {}) {
    const anchor = this.#anchor();
    this.#measure();
    this.#entries = entries;
    this.#namespace = namespace;
    this.#tops = new Float64Array(entries.length + 1);
    this.#places.clear();
    entries.forEach((entry, place) => {
      this.#places.set(entry.node.name, place);
      this.#tops[place + 1] = this.#tops[place] + this.#height(entry);
    });
    setStyle(this.#element, "height", `${this.#tops[entries.length]}px`);
    this.#keep(anchor);
    this.#draw(changed ?? new Set(this.#drawn.keys()));
  }

  /** Where a node is in `entries`; -1 where it is not shown. */
  place(name) {
    return this.#places.get(name) ?? -1;
  }

  /** The element of a node, drawn now if it was not, and scrolled into sight. */
  reveal(name) {
    const place = this.place(name);
    if (place < 0) return null;
    this.#draw(new Set(), place);
    return this.#drawn.get(name).element;
  }

  drawnNode(name) {
    return this.#drawn.get(name)?.element ?? null;
  }

  /** The first node that is wholly in sight. */
  firstInSight() {
    const place = this.#at(this.#scrolled() + this.#sizes.head);
    return this.#entries[Math.min(place, this.#entries.length - 1)] ?? null;
  }

  #measure() {
    const style = getComputedStyle(this.#element);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const length = (name) => parseFloat(style.getPropertyValue(name)) * rem;
    const columns = Math.max(1, Math.floor(this.#element.clientWidth / length("--column")));
    this.#sizes = { head: length("--head"), gpu: length("--gpu"), gap: length("--gap"), columns };
  }

  #height({ gpus }) {
    const { head, gpu, gap, columns } = this.#sizes;
    return head + Math.ceil(gpus.length / columns) * gpu + gap;
  }

  /** How far the window's top is below the list's. */
  #scrolled() {
    return -this.#element.getBoundingClientRect().top;
  }

  /** The node at the window's top and how far it is scrolled over, to keep it there when others come and go. */
  #anchor() {
    const scrolled = this.#scrolled();
    if (scrolled <= 0 || this.#entries.length === 0) return null;
    const place = Math.min(this.#at(scrolled), this.#entries.length - 1);
    return { name: this.#entries[place].node.name, offset: scrolled - this.#tops[place] };
  }

  #keep(anchor) {
    const place = anchor ? this.place(anchor.name) : -1;
    if (place < 0) return;
    const moved = this.#tops[place] + anchor.offset - this.#scrolled();
    if (Math.abs(moved) >= 1) scrollBy({ top: moved, behavior: "instant" });
  }

  /** The position of the node at a height of the list. */
  #at(y) {
    let [low, high] = [0, this.#entries.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#tops[middle + 1] > y) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #draw(changed = new Set(), extra = -1) {
    const top = this.#scrolled();
    const first = this.#at(top - MARGIN_PX);
    const last = Math.min(this.#at(top + innerHeight + MARGIN_PX), this.#entries.length - 1);
    const wanted = new Set();
    for (let place = first; place <= last; place++) wanted.add(place);
    if (extra >= 0) wanted.add(extra);
    const focused = document.activeElement?.closest?.(".node");
    const focusedPlace = focused ? this.place(focused.dataset.node) : -1;
    if (focusedPlace >= 0) wanted.add(focusedPlace);

    let isOther = false;
    for (const [name, { element }] of this.#drawn) {
      if (!wanted.has(this.place(name))) {
        element.remove();
        this.#drawn.delete(name);
        isOther = true;
      }
    }
    for (const place of [...wanted].sort((a, b) => a - b)) {
      isOther = this.#drawOne(place, changed) || isOther;
    }
    if (isOther || changed.size > 0) this.onDraw();
  }

  #drawOne(place, changed) {
    const entry = this.#entries[place];
    const { name } = entry.node;
    let drawn = this.#drawn.get(name);
    const isNew = !drawn;
    if (isNew) {
      this.#drawn.set(name, (drawn = createNode()));
      drawn.element.dataset.node = name;
    }
    if (isNew || changed.has(name)) updateNode(drawn, entry, { namespace: this.#namespace, columns: this.#sizes.columns });
    setStyle(drawn.element, "transform", `translateY(${this.#tops[place]}px)`);
    setAttribute(drawn.element, "aria-posinset", String(place + 1));
    setAttribute(drawn.element, "aria-setsize", String(this.#entries.length));
    if (isNew) this.#element.insertBefore(drawn.element, this.#nextDrawn(place));
    return isNew;
  }

  /** The drawn node after this one: in the document they are in the order in which they are read. */
  #nextDrawn(place) {
    for (const child of this.#element.children) if (this.place(child.dataset.node) > place) return child;
    return null;
  }
}
