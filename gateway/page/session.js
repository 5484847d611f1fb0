// One press of Start: capture, wire and play-out together, until Stop or the end of the file.

import { Capture } from "./capture.js";
import { PageError } from "./errors.js";
import { Playout } from "./playout.js";
import { Stats } from "./stats.js";
import { Wire } from "./wire.js";

/**
 * @import { EndReason } from "./capture.js"
 * @import { FramePlace } from "./stats.js"
 * @import { Options, ReadyFields, StateDetails, WireState } from "./wire.js"
 * @typedef {{
 *   state: (name: WireState, details: StateDetails) => void,
 *   ready: (fields: ReadyFields) => void,
 *   picture: () => void,
 *   level: (level: number) => void,
 * }} SessionHandlers `picture` is called once, with the first frame; `level` is the voice's, from 0 to 1
 */

const DRAINED_AFTER = 6000; // milliseconds after which a file that ended is over in any case

export class Session {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Options} options
   * @param {SessionHandlers} on
   */
  constructor(canvas, options, on) {
    this.on = on;
    this.stats = new Stats();
    this.position = 0; // samples sent on this connection
    this.firstPicture = true;
    this.over = false;
    /** @type {File | null} */
    this.file = null;
    /** @type {WakeLockSentinel | null | undefined} */
    this.lock = null;
    this.playout = new Playout(canvas, this.stats, (frame) => this.frameShown(frame));
    this.capture = new Capture((samples) => this.sendChunk(samples), (why) => this.captureEnded(why));
    this.wire = new Wire(options, {
      ready: (fields) => this.serverReady(fields),
      status: (fields) => {
        this.stats.server = fields;
      },
      frame: (message) => this.playout.picture(message),
      audio: (message) => this.playout.audio(message),
      state: (name, details) => this.wireChanged(name, details),
    });
  }

  /**
   * Rejects with an error that describe() understands.
   *
   * @param {File | null} file null for the microphone
   * @param {boolean} muted
   */
  async start(file, muted) {
    this.playout.muted = muted;
    this.file = file;
    try {
      await Promise.all([this.playout.open(), this.capture.open()]);
      if (!file) await this.capture.startMicrophone();
    } catch (error) {
      this.stop();
      throw error;
    }
    if (this.over) return;
    this.wire.connect();
    this.stayAwake();
  }

  // Keeps a phone's screen on while a face speaks.
  async stayAwake() {
    try {
      const lock = await navigator.wakeLock?.request("screen");
      this.lock = lock;
      if (this.over) lock?.release();
    } catch {
      // The browser did not grant it: the screen may go dark, and nothing else changes.
    }
  }

  /** @param {ReadyFields} fields */
  async serverReady(fields) {
    this.playout.reset(fields.epoch);
    this.on.ready(fields);
    if (fields.epoch === 0) {
      // A new connection counts anew.
      this.position = 0;
      this.stats.sent = [];
    }
    if (this.file && !this.capture.duration) {
      try {
        await this.capture.startFile(this.file);
      } catch (error) {
        this.end(error);
      }
    }
  }

  /**
   * @param {WireState} name
   * @param {StateDetails} details
   */
  wireChanged(name, details) {
    if (name === "live") this.capture.resume();
    if (name === "waiting") this.capture.pause();
    if (name === "ended") {
      this.end(details.error);
      return;
    }
    this.on.state(name, details);
  }

  /** @param {Float32Array<ArrayBuffer>} samples */
  sendChunk(samples) {
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    this.on.level(Math.min(1, 4 * Math.sqrt(sum / samples.length)));
    if (this.wire.sendAudio(samples)) {
      this.position += samples.length;
      this.stats.sentAudio(this.position, performance.now());
    }
    this.stats.unsent = this.wire.unsent + this.capture.stale;
  }

  /** @param {FramePlace} place */
  frameShown({ epoch, seq, index }) {
    this.wire.send({ type: "shown", epoch, seq, index });
    if (this.firstPicture) {
      this.firstPicture = false;
      this.on.picture();
    }
  }

  /** @param {EndReason} why */
  captureEnded(why) {
    if (this.over) return;
    if (why !== "finished") {
      this.end(new PageError(why));
      return;
    }
    this.wire.send({ type: "flush" });
    const ended = performance.now();
    const wait = setInterval(() => {
      const server = this.stats.server;
      const waits = !server || server.clips_waiting > 0 || server.seconds_waiting > 0;
      const passed = performance.now() - ended;
      if (!this.over && (passed < 1200 || waits || !this.playout.idle) && passed < DRAINED_AFTER) return;
      clearInterval(wait);
      this.end(null);
    }, 100);
  }

  /** @param {Options} options other ones for the running session */
  change(options) {
    this.wire.change(options);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.playout.mute(muted);
  }

  /** @param {unknown} error null at the end of a file */
  end(error) {
    if (this.over) return;
    this.stop();
    this.on.state("ended", { error });
  }

  stop() {
    this.over = true;
    this.lock?.release();
    this.wire.close();
    this.capture.close();
    this.playout.close();
  }
}
