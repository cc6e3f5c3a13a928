// The connection to the extender: its server-sent events, read by fetch.
//
// Not by EventSource: that neither shows the comment lines by which a connection proves that it lives (a cable pulled
// out would go unnoticed for many minutes), nor says why the server refused, nor comes back after an HTTP error.

const SILENCE_MS = 40_000; // the extender writes a line every 15 s
const FIRST_DELAY_MS = 1_000;
const LONGEST_DELAY_MS = 15_000;

/**
 * Follows a stream of events for ever.
 *
 * `onEvent(name, data)` gets each event with its JSON decoded; `onState(state)` gets
 * {isLive, heard: Date|null, problem: "", retryAt: Date|null} whenever one of these but `heard` changes.
 */
export class Stream {
  #url;
  #onEvent;
  #onState;
  #abort = null;
  #wake = null;
  #delay = FIRST_DELAY_MS;
  #heard = null;
  #isPaused = false;
  #lastSign = 0; // when the current attempt began or heard anything, comments included

  constructor(url, { onEvent, onState }) {
    this.#url = url;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  async run() {
    for (;;) {
      const problem = await this.#follow();
      const wait = this.#delay * (0.75 + Math.random() / 2); // a restarted extender is not met by all pages at once
      this.#delay = Math.min(LONGEST_DELAY_MS, this.#delay * 2);
      this.#onState({ isLive: false, heard: this.#heard, problem, retryAt: new Date(Date.now() + wait) });
      await this.#sleep(wait);
      while (this.#isPaused) await this.#sleep(null);
      this.#onState({ isLive: false, heard: this.#heard, problem, retryAt: null });
    }
  }

  /** Try at once, where it waits to try again. */
  retry() {
    this.#wake?.();
  }

  /** Let go of the connection until `resume`: the extender has room for a few dozen of them. */
  pause() {
    this.#isPaused = true;
    this.#abort?.abort(new Error("this page was hidden"));
  }

  resume() {
    this.#isPaused = false;
    this.check();
    this.retry();
  }

  /** Give the connection up if nothing was heard for too long; timers of hidden pages are late, so also when shown. */
  check() {
    if (this.#abort && this.#lastSign && Date.now() - this.#lastSign > SILENCE_MS) {
      this.#abort.abort(new Error(`nothing was heard for ${Math.round((Date.now() - this.#lastSign) / 1000)} s`));
    }
  }

  /** One connection, to its end; returns why it ended. */
  async #follow() {
    this.#abort = new AbortController();
    this.#lastSign = Date.now();
    const watch = setInterval(() => this.check(), 5_000);
    try {
      const answer = await fetch(this.#url, {
        cache: "no-store",
        headers: { accept: "text/event-stream" },
        signal: this.#abort.signal,
      });
      if (!answer.ok) return `the extender answered ${answer.status}: ${await explanation(answer)}`;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new Events();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "the extender closed the connection";
        this.#lastSign = Date.now();
        this.#heard = new Date();
        for (const { name, data } of events.feed(value)) {
          try {
            this.#onEvent(name, JSON.parse(data));
          } catch (error) {
            console.error(error);
            return `this page could not read what the extender sent (${error.message})`;
          }
          this.#delay = FIRST_DELAY_MS;
          this.#onState({ isLive: true, heard: this.#heard, problem: "", retryAt: null });
        }
      }
    } catch {
      if (this.#abort.signal.aborted) return String(this.#abort.signal.reason.message);
      return "the extender cannot be reached"; // the browser tells pages no more than that
    } finally {
      clearInterval(watch);
      this.#abort.abort(new Error("done")); // whatever ended it, the connection must not stay open
    }
  }

  /** Until that time is over or `retry` is called; null is for ever. */
  #sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds === null ? 0 : setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** The lines of an event stream, whose pieces end anywhere. */
class Events {
  #pieces = []; // of the line that has not ended yet
  #name = "";
  #data = [];

  *feed(text) {
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this.#pieces.push(text.slice(from, end));
      from = end + 1;
      const line = this.#pieces.length === 1 ? this.#pieces[0] : this.#pieces.join("");
      this.#pieces = [];
      const event = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (event) yield event;
    }
    if (from < text.length) this.#pieces.push(text.slice(from));
  }

  #line(line) {
    if (line === "") {
      const event = { name: this.#name || "message", data: this.#data.join("\n") };
      const isWhole = this.#data.length > 0;
      this.#name = "";
      this.#data = [];
      return isWhole ? event : null;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#name = value;
    if (field === "data") this.#data.push(value);
    return null;
  }
}

async function explanation(answer) {
  const text = (await answer.text()).slice(0, 300);
  try {
    return String(JSON.parse(text).error ?? text);
  } catch {
    return text || answer.statusText;
  }
}
