// Speech that a program hands over in pieces of any length. It goes to the server at the pace of speaking.

import { SAMPLE_RATE } from "./clock.js";
import { Resampler } from "./resampler.js";

/** @import { EndReason } from "./source.js" */

const TICK = 20; // milliseconds between two looks
const AHEAD = 200; // milliseconds that speech is sent before its turn, so that a late tick leaves no gap
const MOST_WAITING = 600; // seconds of speech that may wait
const PIECE = 1600; // samples of a message at most
const BLOCK = 8192; // samples that are resampled at once
const LOWEST_RATE = 8000;
const HIGHEST_RATE = 192000;

export class PacedSpeech {
  constructor() {
    /** @type {(samples: Float32Array<ArrayBuffer>) => void} */
    this.onChunk = () => {};
    /** @type {(why: EndReason) => void} */
    this.onEnd = () => {};
    this.onFlush = () => {}; // all speech before the flush has been sent
    this.stale = 0;
    this.live = false;
    /** @type {Float32Array<ArrayBuffer>[]} */
    this.queue = []; // at 16 kHz
    this.waiting = 0; // samples in the queue
    this.sentAt = 0; // when the last samples were sent, on the clock of performance.now()
    this.turn = 0; // when the next samples have their turn
    this.flushing = false;
    this.paused = true;
    this.timer = 0;
    /** @type {Resampler | null} */
    this.resampler = null;
    this.rate = 0;
  }

  get empty() {
    return this.waiting === 0;
  }

  /**
   * @param {Float32Array} samples mono
   * @param {number} rate samples a second
   * @returns {string} the reason why they were refused; empty when they were taken
   */
  add(samples, rate) {
    if (!Number.isInteger(rate) || rate < LOWEST_RATE || rate > HIGHEST_RATE) {
      return `The sample rate must be a whole number from ${LOWEST_RATE} to ${HIGHEST_RATE}.`;
    }
    if (samples.some((sample) => !(Math.abs(sample) <= 16))) return "The samples must be numbers from -1 to 1.";
    if (this.waiting + (samples.length * SAMPLE_RATE) / rate > MOST_WAITING * SAMPLE_RATE) {
      return `More than ${MOST_WAITING} seconds of speech wait already.`;
    }
    // After a pause in the speech its turn begins now.
    if (this.empty) this.turn = Math.max(this.turn, performance.now());
    for (let start = 0; start < samples.length; start += BLOCK) {
      this.append(samples.subarray(start, start + BLOCK), rate);
    }
    this.flushing = false;
    return "";
  }

  /**
   * @param {Float32Array} samples
   * @param {number} rate
   */
  append(samples, rate) {
    if (rate !== this.rate) {
      this.rate = rate;
      this.resampler = rate === SAMPLE_RATE ? null : new Resampler(rate, SAMPLE_RATE);
    }
    const resampled = this.resampler ? Float32Array.from(this.resampler.process(samples)) : Float32Array.from(samples);
    if (!resampled.length) return;
    this.queue.push(resampled);
    this.waiting += resampled.length;
  }

  // The speech so far is complete: the server need not wait whether more comes.
  flush() {
    // The resampler holds back its last few samples until silence pushes them out.
    if (this.resampler && !this.empty) this.append(new Float32Array(this.resampler.half + 1), this.rate);
    this.rate = 0;
    this.flushing = true;
  }

  // Forgets the speech that waits.
  drop() {
    this.queue = [];
    this.waiting = 0;
    this.flushing = false;
    this.rate = 0;
  }

  tick() {
    if (this.paused) return;
    const now = performance.now();
    // Browsers look into hidden pages once a second, so that much is made up for.
    while (this.queue.length && this.turn <= now + AHEAD) this.sendPiece(now);
    if (!this.queue.length && this.flushing) {
      this.flushing = false;
      this.onFlush();
    }
  }

  /** @param {number} now */
  sendPiece(now) {
    const [first] = this.queue;
    const piece = first.slice(0, PIECE);
    if (piece.length === first.length) this.queue.shift();
    else this.queue[0] = first.subarray(PIECE);
    this.waiting -= piece.length;
    this.turn += (piece.length / SAMPLE_RATE) * 1000;
    this.sentAt = now;
    this.onChunk(piece);
  }

  // ---- as a Source

  async open() {}

  async begin() {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.tick(), TICK);
    this.resume();
  }

  pause() {
    this.paused = true;
  }

  resume() {
    if (this.paused) this.turn = Math.max(this.turn, performance.now());
    this.paused = false;
  }

  close() {
    clearInterval(this.timer);
    this.paused = true;
    this.queue = [];
    this.waiting = 0;
  }
}
