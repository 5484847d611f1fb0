// The text box: the face speaks a text by the server's engine.

import { typed } from "./elements.js";
import { sentence, t } from "./text.js";

const MOST_KEPT = 20; // texts that the arrow keys bring back

/** A source without sound: the session's texts alone are spoken. */
export class Quiet {
  constructor() {
    this.stale = 0;
    this.live = false;
    this.onChunk = () => {};
    this.onEnd = () => {};
  }

  async open() {}
  async begin() {}
  pause() {}
  resume() {}
  close() {}
}

export class SayBox {
  /** @param {(text: string, id: string) => void} say has the face speak a text */
  constructor(say) {
    this.form = typed("say", HTMLFormElement);
    this.field = typed("say-text", HTMLInputElement);
    this.note = typed("say-note", HTMLParagraphElement);
    this.count = 0;
    this.waiting = 0; // texts whose end was not told
    /** @type {string[]} */
    this.before = [];
    this.place = 0; // of the text that the arrow keys show
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.field.value.trim();
      if (!text) return;
      this.remember(text);
      this.count += 1;
      this.waiting += 1;
      this.tell("");
      say(text, `page-${this.count}`);
    });
    this.field.addEventListener("keydown", (event) => this.keyPressed(event));
  }

  /** @param {string} engine of the server; empty where it has none, and the box stays hidden */
  offer(engine) {
    this.form.hidden = !engine;
  }

  /** @param {Record<string, unknown> & {type: string}} fields a text of the server */
  take({ type, outcome, message, phrase }) {
    if (type !== "say_ended") return;
    this.waiting = Math.max(0, this.waiting - 1);
    this.tell(outcome === "failed" ? t("say.failed", { reason: sentence(phrase, String(message)) }) : "");
  }

  // The session is over: nobody tells how its texts end.
  over() {
    this.waiting = 0;
    this.tell("");
  }

  /** @param {string} text */
  tell(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
    this.form.dataset.speaking = String(this.waiting > 0);
  }

  /** @param {string} text */
  remember(text) {
    this.before = [...this.before.filter((one) => one !== text), text].slice(-MOST_KEPT);
    this.place = this.before.length;
    this.field.value = "";
  }

  /** @param {KeyboardEvent} event */
  keyPressed(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !this.before.length) return;
    event.preventDefault();
    this.place = Math.min(this.before.length, Math.max(0, this.place + step));
    this.field.value = this.before[this.place] ?? "";
  }
}
