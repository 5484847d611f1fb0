// Asks the server again and again whether it is ready, and why not.

import { PageError, isPassing } from "./errors.js";

/**
 * @import { Access } from "./access.js"
 * @import { Catalogue } from "./ui.js"
 * @typedef {{
 *   ready: (catalogue: Catalogue) => void,
 *   loading: (stages: Record<string, string>) => void,
 *   refused: (error: PageError) => void,
 *   lost: () => void,
 * }} WatchHandlers
 */

const POLL = 1500; // milliseconds between two questions while the server is not ready
const CALM = 6000; // and while it is

/**
 * Why the server does not let this page in. Null where it does, or is not reached.
 *
 * @param {Access} access
 * @returns {Promise<PageError | null>}
 */
export async function askReason(access) {
  try {
    const answer = await access.fetch("admission.json");
    return await refusalOf(answer);
  } catch {
    return null;
  }
}

/**
 * @param {Response} answer
 * @returns {Promise<PageError | null>} null where the answer is no refusal
 */
async function refusalOf(answer) {
  const text = await answer.text();
  try {
    const { code, message } = JSON.parse(text);
    return typeof code === "string" && code !== "ok" ? new PageError(code, String(message ?? "")) : null;
  } catch {
    return answer.status >= 400 && answer.status < 500 ? new PageError("refused", text.trim()) : null;
  }
}

export class ServerWatch {
  /**
   * @param {Access} access
   * @param {WatchHandlers} on
   */
  constructor(access, on) {
    this.access = access;
    this.on = on;
    this.round = 0; // an answer of an earlier round counts no more
    this.timer = 0;
  }

  start() {
    this.stop();
    this.look(this.round);
  }

  stop() {
    this.round += 1;
    clearTimeout(this.timer);
  }

  /** @param {number} round */
  async look(round) {
    let again = POLL;
    try {
      const { ready, stages } = await (await this.access.fetch("readyz")).json();
      if (round !== this.round) return;
      if (ready) {
        const answer = await this.access.fetch("avatars.json");
        const refusal = answer.ok ? null : await refusalOf(answer);
        const catalogue = answer.ok ? await answer.json() : null;
        if (round !== this.round) return;
        again = this.tell(catalogue, refusal);
      } else {
        this.on.loading(stages);
      }
    } catch {
      const reason = await askReason(this.access);
      if (round !== this.round) return;
      if (reason) again = this.tell(null, reason);
      else this.on.lost();
    }
    this.timer = setTimeout(() => this.look(round), again);
  }

  /**
   * @param {Catalogue | null} catalogue
   * @param {PageError | null} refusal
   * @returns {number} milliseconds until the next question
   */
  tell(catalogue, refusal) {
    if (catalogue) this.on.ready(catalogue);
    else if (refusal) this.on.refused(refusal);
    else this.on.lost();
    return catalogue || (refusal && !isPassing(refusal.code)) ? CALM : POLL;
  }
}
