// The sums on top, and how much more would fit.

import { make, setAttribute, setClass, setStyle, setText } from "./dom.js";
import { ROOM_SIZES_GIB } from "./selection.js";
import { count, duration, part, percent, plural, size } from "./text.js";

export class Totals {
  #tiles = {};
  #bar;

  constructor(element) {
    for (const [key, title] of [
      ["gpus", "GPUs"],
      ["memory", "Memory taken"],
      ["used", "Memory used"],
      ["free", "Free"],
      ["waiting", "Waiting pods"],
      ["unhealthy", "Unhealthy GPUs"],
    ]) {
      const value = make("dd", "value");
      const more = make("dd", "more");
      const tile = make("dl", `tile tile-${key}`, {}, make("dt", "", {}, title), value, more);
      this.#tiles[key] = { tile, value, more };
      element.append(tile);
    }
    const taken = make("span", "taken");
    const used = make("span", "use");
    this.#bar = { taken, used, element: make("div", "meter", { role: "img" }, taken, used) };
    this.#tiles.memory.tile.append(this.#bar.element);
  }

  show(sums, { waiting, namespace, selected }) {
    this.#tile("gpus", count(sums.gpus), `on ${plural(sums.nodes, "node")}${selected ? " shown" : ""}`);
    this.#tile("memory", percent(sums.taken, sums.offered), `${part(sums.taken, sums.offered)}${namespace ? `, ${size(sums.own)} by ${namespace}` : ""}`);
    const isMeasured = sums.measured > 0;
    const measured = sums.measured < sums.gpus ? `on ${plural(sums.measured, "measured GPU")}` : "";
    this.#tile("used", isMeasured ? size(sums.used) : "–", isMeasured ? measured || `${percent(sums.used, sums.taken)} of what is taken` : "not measured");
    const pieces = `in ${plural(sums.pieces, "piece")}, the largest ${size(sums.largest)}`;
    this.#tile("free", size(sums.free), sums.pieces ? `${pieces}${sums.largestCount > 1 ? ` (${count(sums.largestCount)} ×)` : ""}` : "nothing");
    const since = waiting.length ? Date.parse(waiting[0].since) : NaN;
    const longest = Number.isNaN(since) ? "" : `the longest for ${duration(Date.now() - since)}`;
    this.#tile("waiting", count(waiting.length), waiting.length ? longest : namespace ? `none in ${namespace}` : "none");
    setClass(this.#tiles.waiting.tile, `tile tile-waiting${waiting.length ? " is-notable" : ""}`);
    this.#tile("unhealthy", count(sums.unhealthy), sums.unhealthy ? "nothing is placed there" : "none");
    setClass(this.#tiles.unhealthy.tile, `tile tile-unhealthy${sums.unhealthy ? " is-bad" : ""}`);
    const width = (value) => `${sums.offered ? ((100 * value) / sums.offered).toFixed(2) : 0}%`;
    setStyle(this.#bar.taken, "width", width(sums.taken));
    setStyle(this.#bar.used, "width", width(sums.used));
    setAttribute(this.#bar.element, "aria-label", `${percent(sums.taken, sums.offered)} taken, ${percent(sums.used, sums.offered)} used`);
  }

  #tile(key, value, more) {
    setText(this.#tiles[key].value, value);
    setText(this.#tiles[key].more, more);
  }
}

/** How many pods of each size would fit: free memory in small pieces is of no use to large pods. */
export class Room {
  #body = make("tbody");
  #rows = ROOM_SIZES_GIB.map((gib) => {
    const fit = make("td", "number");
    const bar = make("span", "usable");
    const share = make("td", "number");
    const row = make("tr", "", {}, make("th", "number", { scope: "row" }, `${gib} GiB`), fit, make("td", "bar-cell", {}, make("div", "meter", {}, bar)), share);
    return { row, fit, bar, share };
  });

  constructor(element) {
    const head = ["one pod of", "fits", "", "of free"].map((text) => make("th", "", { scope: "col" }, text));
    this.#body.append(...this.#rows.map(({ row }) => row));
    element.append(
      make("table", "room-table", {}, make("thead", "", {}, make("tr", "", {}, ...head)), this.#body),
      make("p", "hint", {}, "How often a pod of each size fits on one GPU, and how much of the free memory it could use: the rest is left over, in pieces too small for one more."),
    );
  }

  show(sums) {
    ROOM_SIZES_GIB.forEach((gib, i) => {
      const { row, fit, bar, share } = this.#rows[i];
      row.hidden = gib * 1024 > sums.largestCard;
      const usable = sums.room[i] * gib * 1024;
      setText(fit, `${count(sums.room[i])} ×`);
      setText(share, sums.free ? percent(usable, sums.free) : "–");
      setStyle(bar, "width", `${sums.free ? ((100 * usable) / sums.free).toFixed(1) : 0}%`);
    });
  }
}
