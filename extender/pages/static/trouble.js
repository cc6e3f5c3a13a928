// Whether the picture is live, and since when it is not.

import { setText } from "./dom.js";
import { clock } from "./text.js";

const PATIENCE_MS = 1_500; // a connection that comes back at once is not worth a word

export class Trouble {
  #status = document.getElementById("status");
  #box = document.getElementById("trouble");
  #text = document.getElementById("trouble-text");
  #timer = null;
  #state = null;

  constructor({ onRetry }) {
    document.getElementById("trouble-retry").addEventListener("click", onRetry);
    this.#say("connecting", "connecting");
  }

  show(state) {
    this.#state = state;
    if (state.isLive) {
      clearTimeout(this.#timer);
      this.#timer = null;
      this.#box.hidden = true;
      this.#say("live", "live");
    } else if (this.#timer === null) {
      this.#timer = setTimeout(() => this.#tell(), PATIENCE_MS);
    } else if (!this.#box.hidden) {
      this.#tell();
    }
  }

  #tell() {
    const { heard, problem } = this.#state;
    const since = heard ? clock(heard) : "";
    setText(
      this.#text,
      heard
        ? `Not connected since ${since}: ${problem}. What you see is the cluster as it was then. This page tries again by itself.`
        : `No picture of the cluster yet: ${problem}. This page tries again by itself.`,
    );
    this.#box.hidden = false;
    this.#say("lost", heard ? `stale since ${since}` : "not connected");
  }

  #say(state, words) {
    document.body.dataset.state = state;
    setText(this.#status, words);
    document.title = state === "lost" ? "fracgpu (not connected)" : "fracgpu";
  }
}
