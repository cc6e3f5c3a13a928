// The list of nodes by keyboard: one stop of the Tab key, and arrows within it.
//
// A stop for every slice would be 20,000 stops. The buttons stay buttons, so that screen readers read them in their own way too.

/** Where the focus was: enough to find it again when it is drawn anew. */
function whereIs(cell) {
  return {
    node: cell.closest(".node").dataset.node,
    gpu: cell.closest(".gpu")?.dataset.gpu ?? null,
    pod: cell.dataset.pod ?? null,
  };
}

const cellsOf = (element) => [...element.querySelectorAll("[data-cell]")];
const middle = (element) => {
  const { left, width } = element.getBoundingClientRect();
  return left + width / 2;
};

export class Keyboard {
  #element;
  #list;
  #stop = null; // the cell that Tab comes to
  #where = null; // of that cell
  #hasFocus = false;

  constructor(element, { list }) {
    this.#element = element;
    this.#list = list;
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("focusin", (event) => {
      this.#hasFocus = true;
      if (event.target.dataset.cell) this.#setStop(event.target);
    });
    element.addEventListener("focusout", (event) => {
      // An element that is taken out of the document takes the focus with it, to nowhere: that is ours to mend.
      if (event.relatedTarget) this.#hasFocus = false;
    });
    addEventListener("pointerdown", (event) => {
      if (!element.contains(event.target)) this.#hasFocus = false;
    });
  }

  /** After drawing: there is exactly one stop, and a focus that was in the list is still there. */
  settle() {
    if (!this.#stop?.isConnected) {
      const first = this.#list.firstInSight();
      const cell = this.#find(this.#where) ?? (first && cellsOf(this.#list.drawnNode(first.node.name) ?? this.#element)[0]);
      if (!cell) return;
      this.#setStop(cell);
      if (this.#hasFocus && document.activeElement === document.body) cell.focus({ preventScroll: true });
    }
  }

  /** Focus what was focused last. */
  focus() {
    const cell = this.#find(this.#where) ?? this.#stop;
    cell?.focus();
  }

  #find(where) {
    if (!where) return null;
    const node = this.#list.drawnNode(where.node);
    if (!node) return null;
    const cells = cellsOf(node);
    const is = (wanted) => (cell) => {
      const at = whereIs(cell);
      return at.gpu === wanted.gpu && at.pod === wanted.pod;
    };
    return cells.find(is(where)) ?? cells.find(is({ gpu: where.gpu, pod: null })) ?? cells[0];
  }

  #setStop(cell) {
    if (this.#stop !== cell) this.#stop?.setAttribute("tabindex", "-1");
    cell.setAttribute("tabindex", "0");
    this.#stop = cell;
    this.#where = whereIs(cell);
  }

  #key(event) {
    const cell = event.target.closest("[data-cell]");
    if (!cell || event.altKey || event.metaKey || event.shiftKey) return;
    const moves = {
      ArrowRight: () => this.#along(cell, 1),
      ArrowLeft: () => this.#along(cell, -1),
      ArrowDown: () => this.#across(cell, 1),
      ArrowUp: () => this.#across(cell, -1),
      PageDown: () => this.#toNode(this.#place(cell) + 1),
      PageUp: () => this.#toNode(this.#place(cell) - 1),
      Home: () => this.#toNode(0),
      End: () => this.#toNode(this.#list.entries.length - 1),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move()?.focus();
  }

  #place(cell) {
    return this.#list.place(cell.closest(".node").dataset.node);
  }

  /** The first cell of the node at a position; `which` picks another. */
  #toNode(place, which = (cells) => cells[0]) {
    const entry = this.#list.entries[place];
    const element = entry && this.#list.reveal(entry.node.name);
    return element ? which(cellsOf(element)) : null;
  }

  #along(cell, step) {
    const cells = cellsOf(cell.closest(".node"));
    const next = cells[cells.indexOf(cell) + step];
    return next ?? this.#toNode(this.#place(cell) + step, (others) => others.at(step > 0 ? 0 : -1));
  }

  #across(cell, step) {
    const node = cell.closest(".node");
    const gpus = [...node.querySelectorAll(".gpu")];
    const at = gpus.indexOf(cell.closest(".gpu"));
    const columns = Math.min(this.#list.columns, gpus.length);
    if (at < 0 && step < 0) return this.#toNode(this.#place(cell) - 1, (cells) => cells.findLast((c) => c.dataset.cell !== "pod"));
    const next = at < 0 ? 0 : at + step * columns;
    if (next < 0) return cellsOf(node)[0];
    if (next < gpus.length) return this.#nearest(gpus[next], cell);
    return this.#toNode(this.#place(cell) + 1);
  }

  /** From a slice to the slice above or below it; from a label to a label. */
  #nearest(gpu, cell) {
    const slices = cell.dataset.cell === "pod" ? [...gpu.querySelectorAll("[data-pod]")] : [];
    const x = middle(cell);
    return slices.sort((a, b) => Math.abs(middle(a) - x) - Math.abs(middle(b) - x))[0] ?? cellsOf(gpu)[0];
  }
}
