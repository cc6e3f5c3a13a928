// The page: follows the extender's stream, and draws what the filters leave of the cluster, at most once per frame.

import { Cluster } from "./cluster.js";
import { expectNamespaces } from "./colours.js";
import { Details } from "./details.js";
import { FilterForm } from "./filterform.js";
import { Keyboard } from "./keyboard.js";
import { NodeList } from "./list.js";
import { Selection } from "./selection.js";
import { Stream } from "./stream.js";
import { Room, Totals } from "./totals.js";
import { count } from "./text.js";
import { setText } from "./dom.js";
import { Trouble } from "./trouble.js";
import { Waiting } from "./waiting.js";

const HIDDEN_MS = 60_000; // for so long a page that nobody sees keeps its connection
const AGING_MS = 10_000; // how long a pod has waited changes by itself

const element = (id) => document.getElementById(id);

const cluster = new Cluster();
const selection = new Selection(cluster);
const list = new NodeList(element("nodes"), { onDraw: () => keyboard.settle() });
const keyboard = new Keyboard(element("nodes"), { list });
const details = new Details(cluster, { onClose: () => keyboard.focus() });
const totals = new Totals(element("totals"));
const room = new Room(element("room"));
const waiting = new Waiting(element("waiting"));
const form = new FilterForm((filters) => {
  selection.setFilters(filters);
  draw(null);
});

let touched = new Set(); // names of nodes that changed since the last frame
let isFrameAsked = false;
let hasPicture = false;

function take(name, data) {
  if (name === "picture") {
    if (!hasPicture) expectNamespaces(namespacesOf(data));
    hasPicture = true;
    for (const node of cluster.replace(data)) touched.add(node);
  } else if (name === "change") {
    for (const node of cluster.apply(data)) touched.add(node);
  } else {
    return;
  }
  if (isFrameAsked) return;
  isFrameAsked = true;
  requestAnimationFrame(() => {
    isFrameAsked = false;
    const names = touched;
    touched = new Set();
    selection.refresh(names);
    form.offer({ models: cluster.modelNames(), namespaces: cluster.namespaceNames() });
    draw(names);
    details.refresh(names);
  });
}

function namespacesOf(picture) {
  const pods = picture.nodes.flatMap((node) => node.gpus.flatMap((gpu) => gpu.pods));
  return [...new Set([...pods, ...picture.waiting].map((pod) => pod.namespace))].sort();
}

/** Draw what is selected; `names` says which nodes changed, null that any may look different. */
function draw(names) {
  const { shown, filters } = selection;
  const sums = selection.sums();
  const pods = selection.waiting();
  list.show(shown, { namespace: filters.namespace, changed: names });
  totals.show(sums, { waiting: pods, namespace: filters.namespace, selected: !filters.isEmpty });
  room.show(sums);
  waiting.show(pods, { none: !hasPicture ? "" : filters.namespace ? `No pod of ${filters.namespace} waits.` : "No pod waits." });
  const all = cluster.nodes.size;
  setText(element("nodes-count"), filters.isEmpty ? `Nodes: ${count(all)}` : `Nodes: ${count(shown.length)} of ${count(all)}`);
  element("nodes-none").hidden = shown.length > 0 || !hasPicture;
  setText(
    element("nodes-none"),
    all > 0 ? "No node is as the filters want it." : "No node has told of GPUs yet: the device plugin of each node writes a GPUNode.",
  );
}

element("nodes").addEventListener("click", (event) => {
  const cell = event.target.closest("[data-cell]");
  if (!cell) return;
  details.open({
    node: cell.closest(".node").dataset.node,
    gpu: cell.closest(".gpu")?.dataset.gpu ?? null,
    pod: cell.dataset.pod ?? null,
  });
});

setInterval(() => draw(new Set()), AGING_MS);

// What sticks below the bar has to know how many lines that has.
new ResizeObserver(([{ target }]) => {
  document.documentElement.style.setProperty("--bar-height", `${target.offsetHeight}px`);
}).observe(document.querySelector(".bar"));

const trouble = new Trouble({ onRetry: () => stream.retry() });
const stream = new Stream("v1/cluster/changes", { onEvent: take, onState: (state) => trouble.show(state) });
addEventListener("online", () => stream.retry());
let hiding = 0;
function heed() {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => stream.pause(), HIDDEN_MS);
  else stream.resume();
}
document.addEventListener("visibilitychange", heed);
heed(); // it may have been opened behind another
stream.run();
