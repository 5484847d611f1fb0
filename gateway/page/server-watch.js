// Asks the server again and again whether it is ready, and why not.

import { isPassing, needsToken } from "./client/errors.js";

/**
 * @import { Access } from "./access.js"
 * @import { ClientError } from "./client/errors.js"
 * @import { Catalogue } from "./ui.js"
 * @typedef {{
 *   ready: (catalogue: Catalogue) => void,
 *   loading: (stages: Record<string, string> | undefined) => void,
 *   refused: (error: ClientError) => void,
 *   lost: () => void,
 * }} WatchHandlers
 */

const POLL = 1500; // milliseconds between two questions while the server is not ready
const CALM = 6000; // and while it is

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
    const refusal = await this.access.askReason();
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
