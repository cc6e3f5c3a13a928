// The panel with everything about one node, GPU or pod; it follows what happens to it.

import { describeGpu, podKey, stateOf } from "./bars.js";
import { hueOf } from "./colours.js";
import { make, setText } from "./dom.js";
import { free } from "./selection.js";
import { count, part, size } from "./text.js";

const known = (mib) => (mib === null ? "not measured" : size(mib));

export class Details {
  #element = document.getElementById("details");
  #title = document.getElementById("details-title");
  #body = document.getElementById("details-body");
  #cluster;
  #target = null; // {node, gpu, pod}: names and keys; null where it is closed
  #onClose;

  /** `onClose` is told when the panel was closed while it had the focus, to put that back. */
  constructor(cluster, { onClose }) {
    this.#cluster = cluster;
    this.#onClose = onClose;
    document.getElementById("details-close").addEventListener("click", () => this.close());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#target) this.close();
    });
  }

  open(target) {
    this.#target = target;
    this.#element.hidden = false;
    this.#fill();
    this.#title.focus();
  }

  close() {
    const hadFocus = this.#element.contains(document.activeElement);
    this.#target = null;
    this.#element.hidden = true;
    if (hadFocus) this.#onClose();
  }

  /** These nodes changed. */
  refresh(names) {
    if (this.#target && names.has(this.#target.node)) this.#fill();
  }

  #fill() {
    const node = this.#cluster.nodes.get(this.#target.node)?.picture;
    const gpu = node?.gpus.find((found) => found.uuid === this.#target.gpu);
    const pod = gpu?.pods.find((found) => podKey(found) === this.#target.pod);
    const scrolled = this.#element.scrollTop;
    if (!node) this.#gone(`Node ${this.#target.node}`, "This node is no longer in the cluster.");
    else if (!this.#target.gpu) this.#show(`Node ${node.name}`, nodeParts(node));
    else if (!gpu) this.#gone(`A GPU of ${node.name}`, "The node no longer has this GPU.");
    else if (!this.#target.pod) this.#show(`GPU ${gpu.index} of ${node.name}`, gpuParts(gpu, node));
    else if (!pod) this.#show(this.#title.textContent, [note("This pod is no longer on this GPU."), ...gpuParts(gpu, node)]);
    else this.#show(`${pod.namespace}/${pod.name}`, podParts(pod, gpu, node));
    this.#element.scrollTop = scrolled;
  }

  #show(title, parts) {
    setText(this.#title, title);
    this.#body.replaceChildren(...parts);
  }

  #gone(title, text) {
    this.#show(title, [note(text)]);
  }
}

const note = (text) => make("p", "note", {}, text);

function facts(pairs) {
  const list = make("dl", "facts");
  for (const [name, value] of pairs) if (value !== "") list.append(make("dt", "", {}, name), make("dd", "", {}, value));
  return list;
}

function table(headings, rows) {
  const head = make("tr", "", {}, ...headings.map((text) => make("th", "", { scope: "col" }, text)));
  const body = rows.map(({ cells, className = "" }) => make("tr", className, {}, ...cells.map((cell) => make("td", "", {}, cell))));
  return make("div", "scroll", {}, make("table", "", {}, make("thead", "", {}, head), make("tbody", "", {}, ...body)));
}

function podParts(pod, gpu, node) {
  return [
    facts([
      ["Namespace", pod.namespace],
      ["Granted", size(pod.takenMiB)],
      ["Used", known(pod.usedMiB)],
      ["Seats", pod.seats ? count(pod.seats) : ""],
      ["State", stateOf(pod)],
      [pod.containers.length === 1 ? "Container" : "Containers", pod.containers.join(", ")],
      ["UID", pod.uid],
    ]),
    make("h3", "", {}, `On GPU ${gpu.index} of ${node.name}`),
    ...gpuParts(gpu, node, podKey(pod)),
  ];
}

function gpuParts(gpu, node, key = "") {
  const problem = gpu.problem || (gpu.healthy ? "" : "It is not healthy; nothing is placed there.");
  const parts = [
    facts([
      ["Problem", problem],
      ["Model", gpu.product],
      ["UUID", gpu.uuid],
      ["Memory", size(gpu.memoryMiB)],
      ["Offered", size(gpu.offeredMiB)],
      ["Taken", part(gpu.takenMiB, gpu.offeredMiB)],
      ["Used", known(gpu.usedMiB)],
      ["Free", size(free(gpu, node))],
      ["Seats", gpu.seats ? `${gpu.seatsTaken} of ${gpu.seats} taken` : ""],
    ]),
  ];
  if (gpu.pods.length > 0) {
    const rows = gpu.pods.map((pod) => ({
      className: podKey(pod) === key ? "is-chosen" : "",
      cells: [
        make("span", `dot ${hueOf(pod.namespace)}`),
        `${pod.namespace}/${pod.name}`,
        size(pod.takenMiB),
        pod.usedMiB === null ? "–" : size(pod.usedMiB),
        stateOf(pod),
      ],
    }));
    parts.push(table(["", "Pod", "Granted", "Used", "State"], rows));
  } else {
    parts.push(note("No pod is on this GPU."));
  }
  return parts;
}

function nodeParts(node) {
  const rows = node.gpus.map((gpu) => ({
    className: gpu.healthy ? "" : "is-unwell",
    cells: [
      make("span", "", { "aria-label": describeGpu(gpu, node) }, count(gpu.index)),
      gpu.product,
      part(gpu.takenMiB, gpu.offeredMiB),
      gpu.usedMiB === null ? "–" : size(gpu.usedMiB),
      gpu.seats ? `${gpu.seatsTaken}/${gpu.seats}` : "–",
      gpu.healthy ? gpu.problem || "well" : gpu.problem || "not healthy",
    ],
  }));
  return [
    facts([["Problem", node.problem]]),
    table(["GPU", "Model", "Taken", "Used", "Seats", "Health"], rows),
  ];
}
