// A node as it is drawn: its name, and a bar for each of its GPUs with a slice for each pod.
//
// Every named thing is a button, so that screen readers and keyboards find it: the node, each GPU, each slice.

import { hueOf } from "./colours.js";
import { keyed, make, setAttribute, setClass, setStyle, setText } from "./dom.js";
import { free } from "./selection.js";
import { part, plural, size } from "./text.js";

const STATES = {
  held: "held while the scheduler decides",
  binding: "being placed",
  bound: "placed, not on the GPU yet",
  granted: "on the GPU",
  ending: "ending",
};
const SHORT_STATES = { held: "held", binding: "starting", bound: "starting", granted: "", ending: "ending" };

export const stateOf = (pod) => STATES[pod.state] ?? pod.state;

/** A pod as one key: its UID, or its name where it is only known by that. */
export const podKey = (pod) => pod.uid || `${pod.namespace}/${pod.name}`;

/** A node's element; fill it with `updateNode`. */
export function createNode() {
  const name = make("button", "name", { type: "button", tabindex: "-1", "data-cell": "node" });
  const kind = make("span", "kind");
  const room = make("span", "room");
  const problem = make("span", "problem");
  const gpus = make("div", "gpus", { role: "list" });
  const element = make("article", "node", { role: "listitem" }, make("h3", "", {}, name, kind, problem, room), gpus);
  return { element, name, kind, room, problem, gpus, parts: new Map() };
}

export function updateNode(drawn, { node, gpus, sums }, { namespace, columns }) {
  const { picture } = node;
  const products = new Set(gpus.map((gpu) => gpu.product));
  const kind = products.size === 1 ? `${gpus.length} × ${gpus[0].product}` : plural(gpus.length, "GPU");
  const room = sums.free ? `${size(sums.free)} free` : "nothing free";
  setText(drawn.name, node.name);
  setText(drawn.kind, kind);
  setText(drawn.room, room);
  setText(drawn.problem, picture.problem);
  setAttribute(drawn.problem, "title", picture.problem);
  setAttribute(drawn.name, "aria-label", [`node ${node.name}`, kind, room, picture.problem].filter(Boolean).join(", "));
  setAttribute(drawn.gpus, "aria-label", `GPUs of ${node.name}`);
  const isMixed = products.size > 1;
  setStyle(drawn.gpus, "--columns", String(Math.min(columns, gpus.length || 1)));
  keyed(drawn.gpus, drawn.parts, gpus, {
    key: (gpu) => gpu.uuid,
    create: createGpu,
    update: (element, gpu) => updateGpu(element, gpu, { node: picture, isMixed, namespace }),
  });
}

function createGpu(gpu) {
  const label = make("button", "label", { type: "button", tabindex: "-1", "data-cell": "gpu" });
  const taken = make("b");
  const others = make("span");
  const numbers = make("span", "numbers", {}, taken, others);
  const bar = make("div", "track", { role: "list" });
  const element = make("div", "gpu", { role: "listitem", "data-gpu": gpu.uuid }, label, numbers, bar);
  element.drawn = { label, taken, others, bar, parts: new Map() };
  return element;
}

function updateGpu(element, gpu, { node, isMixed, namespace }) {
  const { label, taken, others, bar, parts } = element.drawn;
  const isUnwell = !gpu.healthy;
  const problem = gpu.problem || (isUnwell ? "not healthy" : "");
  const seats = gpu.seats ? `${gpu.seatsTaken}/${gpu.seats} seats` : "";
  const used = gpu.usedMiB === null || gpu.pods.length === 0 ? "" : `${size(gpu.usedMiB)} used`;
  setClass(element, `gpu${isUnwell ? " is-unwell" : ""}${problem ? " has-problem" : ""}`);
  setText(label, `${gpu.index}${isMixed ? ` ${gpu.product}` : ""}${problem ? ` ⚠ ${problem}` : ""}`);
  setAttribute(label, "title", [gpu.product, gpu.uuid, problem].filter(Boolean).join("\n"));
  setText(taken, part(gpu.takenMiB, gpu.offeredMiB));
  setText(others, isUnwell ? "" : [used, seats].filter(Boolean).map((text) => ` · ${text}`).join(""));
  setAttribute(label, "aria-label", describeGpu(gpu, node));
  const whole = Math.max(gpu.offeredMiB, gpu.takenMiB, 1);
  keyed(bar, parts, gpu.pods, {
    key: podKey,
    create: createSlice,
    update: (slice, pod) => updateSlice(slice, pod, { whole, isDim: Boolean(namespace) && pod.namespace !== namespace }),
  });
}

/** A GPU in one sentence, for those who do not see the bar. */
export function describeGpu(gpu, node) {
  return [
    `GPU ${gpu.index} of ${node.name}, ${gpu.product}`,
    gpu.healthy ? "" : "not healthy",
    gpu.problem,
    `${part(gpu.takenMiB, gpu.offeredMiB)} taken`,
    gpu.usedMiB === null ? "" : `${size(gpu.usedMiB)} used`,
    `${size(free(gpu, node))} free`,
    gpu.seats ? `${gpu.seatsTaken} of ${gpu.seats} seats` : "",
    plural(gpu.pods.length, "pod"),
  ]
    .filter(Boolean)
    .join(", ");
}

function createSlice(pod) {
  const name = make("span", "pod");
  const amount = make("span", "amount");
  const used = make("span", "used");
  const slice = make("button", "", { type: "button", tabindex: "-1", "data-cell": "pod" }, name, amount, used);
  slice.dataset.pod = podKey(pod);
  slice.drawn = { name, amount, used, item: make("div", "place", { role: "listitem" }, slice) };
  return slice.drawn.item;
}

function updateSlice(item, pod, { whole, isDim }) {
  const slice = item.firstChild;
  const { name, amount, used } = slice.drawn;
  const isOver = pod.usedMiB !== null && pod.usedMiB > pod.takenMiB;
  const state = SHORT_STATES[pod.state] ?? pod.state;
  setClass(slice, `slice ${hueOf(pod.namespace)} is-${pod.state}${isDim ? " is-dim" : ""}${isOver ? " is-over" : ""}`);
  setStyle(item, "width", `${((100 * pod.takenMiB) / whole).toFixed(3)}%`);
  setText(name, pod.name);
  const parts = [size(pod.takenMiB), state, pod.usedMiB === null ? "" : `${size(pod.usedMiB)} used`, pod.namespace];
  setText(amount, `${isOver ? "⚠ " : ""}${parts.filter(Boolean).join(" · ")}`);
  setClass(used, isOver ? "used over" : "used");
  setStyle(used, "width", `${Math.min(100, (100 * (pod.usedMiB ?? 0)) / Math.max(1, pod.takenMiB)).toFixed(1)}%`);
  const words = describePod(pod);
  setAttribute(slice, "aria-label", words);
  setAttribute(slice, "title", words);
}

export function describePod(pod) {
  return [
    `${pod.namespace}/${pod.name}`,
    `${size(pod.takenMiB)} granted`,
    pod.usedMiB === null ? "use not measured" : `${size(pod.usedMiB)} used`,
    pod.usedMiB !== null && pod.usedMiB > pod.takenMiB ? "more than granted" : "",
    pod.seats ? plural(pod.seats, "seat") : "",
    stateOf(pod),
  ]
    .filter(Boolean)
    .join(", ");
}
