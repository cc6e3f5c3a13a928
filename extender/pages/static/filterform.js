// The filters as the user sees them, and the page's address, which keeps them so that a link can be shared.

import { make } from "./dom.js";
import { Filters } from "./selection.js";

export class FilterForm {
  #form = document.getElementById("filters");
  #node = document.getElementById("filter-node");
  #model = document.getElementById("filter-model");
  #namespace = document.getElementById("filter-namespace");
  #problems = document.getElementById("filter-problems");
  #clear = document.getElementById("filter-clear");
  #onChange;
  #offered = ""; // what the two choices were last filled with

  constructor(onChange) {
    this.#onChange = onChange;
    this.#show(Filters.fromAddress(location.search));
    this.offer({ models: [], namespaces: [] });
    this.#form.addEventListener("input", () => this.#read());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.#set(new Filters());
      this.#node.focus();
    });
    addEventListener("popstate", () => this.#set(Filters.fromAddress(location.search)));
    addEventListener("keydown", (event) => {
      const isTyping = event.target.closest?.("input, select, textarea");
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#node.focus();
      this.#node.select();
    });
    queueMicrotask(() => this.#read());
  }

  /** Fill the choices; what is chosen stays, also where the cluster has none of it now. */
  offer({ models, namespaces }) {
    const offered = JSON.stringify([models, namespaces]);
    if (offered === this.#offered) return;
    this.#offered = offered;
    fill(this.#model, models);
    fill(this.#namespace, namespaces);
  }

  #set(filters) {
    this.#show(filters);
    this.#read();
  }

  #show({ node, model, namespace, problems }) {
    this.#node.value = node;
    choose(this.#model, model);
    choose(this.#namespace, namespace);
    this.#problems.checked = problems;
  }

  #read() {
    const filters = new Filters({
      node: this.#node.value.trim(),
      model: this.#model.value,
      namespace: this.#namespace.value,
      problems: this.#problems.checked,
    });
    this.#clear.hidden = filters.isEmpty;
    const address = location.pathname + filters.toAddress() + location.hash;
    if (address !== location.pathname + location.search + location.hash) history.replaceState(null, "", address);
    this.#onChange(filters);
  }
}

function fill(select, names) {
  const chosen = select.value;
  select.replaceChildren(make("option", "", { value: "" }, "all"), ...names.map((name) => make("option", "", { value: name }, name)));
  choose(select, chosen);
}

function choose(select, value) {
  if (value && ![...select.options].some((option) => option.value === value)) {
    select.append(make("option", "", { value }, `${value} (none)`));
  }
  select.value = value;
}
