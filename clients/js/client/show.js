// A face on a canvas of any page: it speaks what the program pushes, with sound and pictures in step.

import { SAMPLE_RATE } from "./clock.js";
import { ClientError } from "./errors.js";
import { PacedSpeech } from "./paced-speech.js";
import { Server } from "./server.js";
import { Session } from "./session.js";

/**
 * @import { Options } from "./messages.js"
 * @import { StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, muted?: boolean, onState?: (name: WireState, details: StateDetails) => void,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} ShowOptions
 */

export class ShownFace {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {string | URL} address
   * @param {ShowOptions} options
   */
  constructor(canvas, address, { token, avatar, pose, fps, onState = () => {}, onText }) {
    this.speech = new PacedSpeech();
    this.session = new Session(canvas, this.speech, new Server(address, token), { avatar, pose, fps }, null, {
      state: onState,
      ready: () => {},
      picture: () => {},
      level: () => {},
      text: onText,
    });
    this.speech.onFlush = () => this.session.flush();
  }

  /**
   * Speaks: the samples follow what was pushed before.
   *
   * @param {Float32Array} samples mono, from -1 to 1
   * @param {number} rate samples a second
   */
  push(samples, rate = SAMPLE_RATE) {
    const refusal = this.speech.add(samples, rate);
    if (refusal) throw new ClientError("bad_audio", refusal);
  }

  /** The sentence is complete: its end need not wait for more. */
  flush() {
    this.speech.flush();
  }

  /** Falls silent at once, and forgets what was still to be said. */
  interrupt() {
    this.session.interrupt();
  }

  /** Live figures: frame rate, latency, offset of sound and picture, buffer. */
  get stats() {
    return this.session.stats;
  }

  /** @param {Options} options the face goes on with these */
  change(options) {
    this.session.change(options);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.session.mute(muted);
  }

  close() {
    this.session.stop();
  }
}

/**
 * Call it from a click: browsers let sound out only then.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {string | URL} address of the server's page
 * @param {ShowOptions} options
 * @returns {Promise<ShownFace>}
 */
export async function show(canvas, address, options = {}) {
  const face = new ShownFace(canvas, address, options);
  await face.session.start(options.muted ?? false);
  return face;
}
