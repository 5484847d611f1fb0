// Texts that the face speaks, from their sending to their last word.

/**
 * @typedef {{outcome: string, message: string}} SayEnd `spoken`, `interrupted`, `failed` with the reason, or `lost` where
 *   nobody will tell
 */

export class Says {
  constructor() {
    this.count = 0;
    /** @type {Map<string, (ended: SayEnd) => void>} */
    this.waiting = new Map(); // those whose end was not told
  }

  /**
   * A text is sent.
   *
   * @returns {{id: string, ended: Promise<SayEnd>}} its name on the wire
   */
  begin() {
    this.count += 1;
    const id = `say-${this.count}`;
    /** @type {Promise<SayEnd>} */
    const ended = new Promise((resolve) => {
      this.waiting.set(id, resolve);
    });
    return { id, ended };
  }

  /** @param {Record<string, unknown>} fields of a text of the server */
  take({ type, id, outcome, message }) {
    if (type === "say_ended") this.end(String(id), { outcome: String(outcome), message: String(message ?? "") });
  }

  /**
   * @param {string} id
   * @param {SayEnd} ended
   */
  end(id, ended) {
    this.waiting.get(id)?.(ended);
    this.waiting.delete(id);
  }

  /**
   * @param {string} outcome of all that wait
   * @param {string} message
   */
  endAll(outcome, message = "") {
    for (const id of [...this.waiting.keys()]) this.end(id, { outcome, message });
  }
}
