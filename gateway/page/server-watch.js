// Asks the server again and again whether it is ready, and why not.

import { PageError, isPassing, needsToken } from "./errors.js";

/**
 * @import { Access } from "./access.js"
 * @import { Catalogue } from "./ui.js"
 * @typedef {{
 *   ready: (catalogue: Catalogue) => void,
 *   loading: (stages: Record<string, string> | undefined) => void,
 *   refused: (error: PageError) => void,
 *   lost: () => void,
 * }} WatchHandlers
 */

const POLL = 1500; // milliseconds between two questions while the server is not ready
const CALM = 6000; // and while it is
const REASON_WITHIN = 2000; // milliseconds to wait for the reason of a refusal

/**
 * Why the server does not let this page's websocket in. Null where it does, or is not reached.
 *
 * @param {Access} access
 * @returns {Promise<PageError | null>}
 */
export async function askReason(access) {
  const address = `door.json?origin=${encodeURIComponent(window.location.origin)}`;
  try {
    const answer = await access.fetch(address, "no-store", REASON_WITHIN);
    const { open, code, message } = await answer.json();
    return open ? null : new PageError(String(code), String(message));
  } catch {
    return null;
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
    const refusal = await askReason(this.access);
    if (round !== this.round) return;
    if (refusal && refusal.code !== "busy") {
      this.on.refused(refusal);
      if (needsToken(refusal.code) && refusal.code !== "token_missing") return; // asking again would be guessing
      again = isPassing(refusal.code) ? POLL : CALM;
    } else {
      again = await this.askReady(round);
    }
    if (round === this.round) this.timer = setTimeout(() => this.look(round), again);
  }

  /**
   * @param {number} round
   * @returns {Promise<number>} milliseconds until the next question
   */
  async askReady(round) {
    try {
      const { ready, stages } = await (await this.access.fetch("readyz")).json();
      const catalogue = ready ? await (await this.access.fetch("avatars.json")).json() : null;
      if (round !== this.round) return POLL;
      if (catalogue) this.on.ready(catalogue);
      else this.on.loading(stages);
      return catalogue ? CALM : POLL;
    } catch {
      if (round === this.round) this.on.lost();
      return POLL;
    }
  }
}
