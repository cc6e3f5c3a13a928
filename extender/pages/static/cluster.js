// The cluster as the extender told it: whole at first, then change by change. Nothing is drawn here.

const byName = new Intl.Collator("en", { numeric: true }).compare; // node-2 before node-10

/**
 * A node as kept here: `picture` as it came, and what filters ask of it.
 *
 * @typedef {{name: string, picture: object, text: string, models: Set<string>, namespaces: Set<string>}} Node
 */

export class Cluster {
  nodes = new Map(); // name -> Node
  names = []; // of all nodes, in the order in which they are shown
  waiting = []; // waiting pods, the longest first
  unit = 512; // MiB
  models = new Tally();
  namespaces = new Tally(); // of nodes' pods; `namespaceNames` has those of waiting pods too

  /** Take over a whole picture; returns the names of the nodes that may have changed. */
  replace(picture) {
    const touched = new Set([...this.nodes.keys(), ...picture.nodes.map((node) => node.name)]);
    const present = new Set(picture.nodes.map((node) => node.name));
    for (const name of this.nodes.keys()) if (!present.has(name)) this.#remove(name);
    for (const node of picture.nodes) this.#put(node);
    this.unit = picture.memoryUnitMiB;
    this.#setWaiting(picture.waiting);
    this.#sort();
    return touched;
  }

  /** Take over a change; returns the names of the nodes that changed. */
  apply(change) {
    const before = this.nodes.size;
    let isNew = false;
    for (const name of change.gone) this.#remove(name);
    for (const node of change.nodes) {
      isNew ||= !this.nodes.has(node.name);
      this.#put(node);
    }
    if (isNew || this.nodes.size !== before) this.#sort();
    if (change.waiting) this.#setWaiting(change.waiting);
    return new Set([...change.gone, ...change.nodes.map((node) => node.name)]);
  }

  modelNames() {
    return this.models.names().sort(byName);
  }

  namespaceNames() {
    return [...new Set([...this.namespaces.names(), ...this.waiting.map((pod) => pod.namespace)])].sort(byName);
  }

  #put(picture) {
    this.#remove(picture.name);
    const models = new Set(picture.gpus.map((gpu) => gpu.product));
    const namespaces = new Set();
    for (const gpu of picture.gpus) for (const pod of gpu.pods) namespaces.add(pod.namespace);
    this.nodes.set(picture.name, { name: picture.name, picture, text: picture.name.toLowerCase(), models, namespaces });
    this.models.add(models);
    this.namespaces.add(namespaces);
  }

  #remove(name) {
    const node = this.nodes.get(name);
    if (!node) return;
    this.nodes.delete(name);
    this.models.take(node.models);
    this.namespaces.take(node.namespaces);
  }

  #sort() {
    this.names = [...this.nodes.keys()].sort(byName);
  }

  #setWaiting(waiting) {
    const since = (pod) => Date.parse(pod.since) || 0;
    this.waiting = [...waiting].sort((a, b) => since(a) - since(b) || byName(a.name, b.name));
  }
}

/** How many nodes have a thing, so that it is known when the last one is gone. */
class Tally {
  #counts = new Map(); // thing -> number of nodes

  add(things) {
    for (const thing of things) this.#counts.set(thing, (this.#counts.get(thing) ?? 0) + 1);
  }

  take(things) {
    for (const thing of things) {
      const left = this.#counts.get(thing) - 1;
      if (left > 0) this.#counts.set(thing, left);
      else this.#counts.delete(thing);
    }
  }

  names() {
    return [...this.#counts.keys()];
  }
}
