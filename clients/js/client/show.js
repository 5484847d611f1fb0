// A face on a canvas of any page: it speaks what the program pushes, with sound and pictures in step.

import { SAMPLE_RATE } from "./clock.js";
import { ClientError } from "./errors.js";
import { PacedSpeech } from "./paced-speech.js";
import { Says } from "./says.js";
import { Server } from "./server.js";
import { Session } from "./session.js";

/**
 * @import { Options } from "./messages.js"
 * @import { SayEnd } from "./says.js"
 * @import { StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, muted?: boolean, onState?: (name: WireState, details: StateDetails) => void,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} ShowOptions
 */

export class ShownFace {
  /**
   * @param {HTMLCanvasElement | null} canvas
   * @param {string | URL} address
   * @param {ShowOptions} options
   */
  constructor(canvas, address, { token, avatar, pose, fps, video, onState = () => {}, onText }) {
    this.speech = new PacedSpeech();
    this.says = new Says();
    this.engine = ""; // the server's, which speaks texts
    const wishes = { avatar, pose, fps, video };
    const drawn = canvas ?? document.createElement("canvas");
    this.session = new Session(drawn, this.speech, new Server(address, token), wishes, null, {
      state: (name, details) => {
        if (name === "ended") this.says.endAll("lost", "the session is over");
        onState(name, details);
      },
      ready: ({ voice_engine: engine = "" }) => {
        this.engine = engine;
      },
      picture: () => {},
      level: () => {},
      text: (fields) => {
        this.says.take(fields);
        onText?.(fields);
      },
    });
    this.session.playout.timeline.heardHere = canvas !== null;
    this.speech.onFlush = () => this.session.flush();
  }

  /**
   * What is shown and heard, for the `srcObject` of a video element, a call or a recorder. A hidden page paints nothing,
   * so the pictures stand still there.
   *
   * @returns {MediaStream}
   */
  get stream() {
    return this.session.playout.stream;
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

  /**
   * Speaks a text by the server's engine.
   *
   * @param {string} text plain, of at most 2000 characters
   * @param {string} voice the engine's name of one; empty for the usual one
   * @returns {Promise<SayEnd>} how it ended
   */
  say(text, voice = "") {
    if (this.session.wire.live && !this.engine) {
      throw new ClientError("unsupported", "The server has no speech engine for texts.");
    }
    const { id, ended } = this.says.begin();
    this.session.say(text, id, voice);
    return ended;
  }

  /** Falls silent at once, and forgets what was still to be said. */
  interrupt() {
    this.says.endAll("interrupted");
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
    this.says.endAll("lost", "the session is over");
    this.session.stop();
  }
}

/**
 * Call it from a click: browsers let sound out only then.
 *
 * @param {HTMLCanvasElement | null} canvas null for a page that takes the face's `stream` alone, with its sound
 * @param {string | URL} address of the server's page
 * @param {ShowOptions} options
 * @returns {Promise<ShownFace>}
 */
export async function show(canvas, address, options = {}) {
  const face = new ShownFace(canvas, address, options);
  await face.session.start(options.muted ?? false);
  return face;
}
