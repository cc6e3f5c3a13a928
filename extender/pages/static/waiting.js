// The pods that wait, each with its reason, the longest first.

import { hueOf } from "./colours.js";
import { keyed, make, setAttribute, setText } from "./dom.js";
import { clock, count, duration } from "./text.js";

const STEP = 50; // thousands may wait, and nobody reads them all

export class Waiting {
  #list = make("ol", "waiting-list");
  #none = make("p", "none");
  #more = make("button", "more-button", { type: "button" });
  #parts = new Map(); // pod's UID -> its element
  #limit = STEP;
  #pods = [];
  #none_ = "";

  constructor(element) {
    element.append(this.#none, this.#list, this.#more);
    this.#more.addEventListener("click", () => {
      this.#limit += STEP;
      this.show(this.#pods, { none: this.#none_ });
    });
  }

  show(pods, { none }) {
    this.#pods = pods;
    this.#none_ = none;
    this.#none.hidden = pods.length > 0;
    setText(this.#none, none);
    keyed(this.#list, this.#parts, pods.slice(0, this.#limit), {
      key: (pod) => pod.uid || `${pod.namespace}/${pod.name}`,
      create: () => this.#create(),
      update: (element, pod) => this.#update(element, pod),
    });
    this.#list.hidden = pods.length === 0;
    this.#more.hidden = pods.length <= this.#limit;
    setText(this.#more, `Show ${count(Math.min(STEP, pods.length - this.#limit))} more of ${count(pods.length)}`);
  }

  #create() {
    const dot = make("span", "dot", { "aria-hidden": "true" });
    const namespace = make("span", "namespace");
    const name = make("strong");
    const needs = make("span", "needs");
    const time = make("time");
    const reason = make("p", "reason");
    const says = make("p");
    const scheduler = make("details", "says", {}, make("summary", "", {}, "kube-scheduler says"), says);
    const title = make("p", "title", {}, dot, make("span", "who", {}, namespace, name), time);
    const element = make("li", "", {}, title, needs, reason, scheduler);
    element.drawn = { dot, namespace, name, needs, time, reason, says, scheduler };
    return element;
  }

  #update(element, pod) {
    const { dot, namespace, name, needs, time, reason, says, scheduler } = element.drawn;
    setAttribute(dot, "class", `dot ${hueOf(pod.namespace)}`);
    setText(namespace, `${pod.namespace}/`);
    setText(name, pod.name);
    setText(needs, pod.needs ? `asks for ${pod.needs}` : "");
    setText(reason, pod.reason);
    setText(says, pod.schedulerSays);
    scheduler.hidden = !pod.schedulerSays;
    // Where there is room on a GPU, what keeps the pod away is known to kube-scheduler only.
    if (pod.hasRoom && !element.drawn.isOpened) scheduler.open = element.drawn.isOpened = true;
    const since = new Date(pod.since);
    if (Number.isNaN(since.getTime())) return;
    setAttribute(time, "datetime", pod.since);
    setAttribute(time, "title", `since ${clock(since)}`);
    setText(time, duration(Date.now() - since.getTime()));
  }
}
