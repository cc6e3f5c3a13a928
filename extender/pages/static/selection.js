// What is shown of the cluster: the filters, which live in the page's address, and sums over what they leave.

export const ROOM_SIZES_GIB = [1, 2, 4, 8, 16, 24, 40, 80, 141];

export class Filters {
  constructor({ node = "", model = "", namespace = "", problems = false } = {}) {
    Object.assign(this, { node, model, namespace, problems });
    this.words = node.toLowerCase().split(/\s+/).filter(Boolean);
  }

  static fromAddress(search) {
    const asked = new URLSearchParams(search);
    return new Filters({
      node: asked.get("node") ?? "",
      model: asked.get("model") ?? "",
      namespace: asked.get("namespace") ?? "",
      problems: asked.has("problems"),
    });
  }

  toAddress() {
    const asked = new URLSearchParams();
    for (const name of ["node", "model", "namespace"]) if (this[name]) asked.set(name, this[name]);
    if (this.problems) asked.set("problems", "1");
    const text = asked.toString();
    return text ? `?${text}` : "";
  }

  get isEmpty() {
    return this.toAddress() === "";
  }

  /** The GPUs of a node that are wanted; null where the node is not. */
  pick(node) {
    for (const word of this.words) if (!node.text.includes(word)) return null;
    if (this.model && !node.models.has(this.model)) return null;
    if (this.namespace && !node.namespaces.has(this.namespace)) return null;
    const { gpus, problem } = node.picture;
    if (!this.model && !this.namespace && !this.problems) return gpus;
    const found = gpus.filter(
      (gpu) =>
        (!this.model || gpu.product === this.model) &&
        (!this.namespace || gpu.pods.some((pod) => pod.namespace === this.namespace)) &&
        (!this.problems || problem || !gpu.healthy || gpu.problem),
    );
    const isWantedItself = problem && this.problems && !this.model && !this.namespace;
    return found.length > 0 || isWantedItself ? found : null;
  }
}

/** What can be given away of a GPU, in MiB. */
export function free(gpu, node) {
  return gpu.healthy && !node.problem ? Math.max(0, gpu.offeredMiB - gpu.takenMiB) : 0;
}

/** Sums over GPUs, in MiB; `room[i]` says how many pods of ROOM_SIZES_GIB[i] fit, if they were alone in coming. */
export class Sums {
  nodes = 0;
  gpus = 0;
  unhealthy = 0;
  offered = 0;
  taken = 0;
  own = 0; // what the chosen namespace takes of that
  used = 0;
  measured = 0; // GPUs of which the use is known
  seats = 0;
  seatsTaken = 0;
  free = 0;
  pieces = 0; // GPUs with anything free
  largest = 0;
  largestCount = 0;
  largestCard = 0; // the most that any of the GPUs offers
  room = ROOM_SIZES_GIB.map(() => 0);

  static of(node, gpus, { unit, namespace }) {
    const sums = new Sums();
    sums.nodes = 1;
    for (const gpu of gpus) sums.#addGpu(gpu, node.picture, { unit, namespace });
    return sums;
  }

  #addGpu(gpu, node, { unit, namespace }) {
    this.gpus += 1;
    this.unhealthy += gpu.healthy ? 0 : 1;
    this.offered += gpu.offeredMiB;
    this.taken += gpu.takenMiB;
    this.used += gpu.usedMiB ?? 0;
    this.measured += gpu.usedMiB === null ? 0 : 1;
    this.seats += gpu.seats;
    this.seatsTaken += gpu.seatsTaken;
    this.largestCard = Math.max(this.largestCard, gpu.offeredMiB);
    if (namespace) for (const pod of gpu.pods) this.own += pod.namespace === namespace ? pod.takenMiB : 0;
    const piece = free(gpu, node);
    if (piece === 0) return;
    this.free += piece;
    this.pieces += 1;
    this.#largest(piece, 1);
    for (let i = 0; i < ROOM_SIZES_GIB.length; i++) {
      this.room[i] += Math.floor(piece / (Math.ceil((ROOM_SIZES_GIB[i] * 1024) / unit) * unit));
    }
  }

  add(other) {
    for (const name of ["nodes", "gpus", "unhealthy", "offered", "taken", "own", "used", "measured", "seats", "seatsTaken"]) {
      this[name] += other[name];
    }
    this.largestCard = Math.max(this.largestCard, other.largestCard);
    this.free += other.free;
    this.pieces += other.pieces;
    if (other.largestCount) this.#largest(other.largest, other.largestCount);
    for (let i = 0; i < this.room.length; i++) this.room[i] += other.room[i];
  }

  #largest(piece, times) {
    if (piece > this.largest) [this.largest, this.largestCount] = [piece, times];
    else if (piece === this.largest) this.largestCount += times;
  }
}

/** The nodes that the filters leave, in order, each with its GPUs that they leave and their sums. */
export class Selection {
  #cluster;
  #found = new Map(); // node name -> {node, gpus, sums}
  filters = new Filters();
  shown = []; // the values of #found, in order

  constructor(cluster) {
    this.#cluster = cluster;
  }

  setFilters(filters) {
    this.filters = filters;
    this.#found.clear();
    for (const node of this.#cluster.nodes.values()) this.#look(node);
    this.#order();
  }

  /** Look again at nodes that changed. */
  refresh(names) {
    for (const name of names) {
      const node = this.#cluster.nodes.get(name);
      if (node) this.#look(node);
      else this.#found.delete(name);
    }
    this.#order();
  }

  sums() {
    const all = new Sums();
    for (const { sums } of this.shown) all.add(sums);
    return all;
  }

  waiting() {
    const { namespace } = this.filters;
    return namespace ? this.#cluster.waiting.filter((pod) => pod.namespace === namespace) : this.#cluster.waiting;
  }

  #look(node) {
    const gpus = this.filters.pick(node);
    const asked = { unit: this.#cluster.unit, namespace: this.filters.namespace };
    if (gpus) this.#found.set(node.name, { node, gpus, sums: Sums.of(node, gpus, asked) });
    else this.#found.delete(node.name);
  }

  #order() {
    this.shown = this.#cluster.names.map((name) => this.#found.get(name)).filter(Boolean);
  }
}
