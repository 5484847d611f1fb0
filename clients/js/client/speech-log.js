// Speech on its way: what was sent and did not come back yet, and what is still to be sent.
//
// Positions count the samples of the session. The server tells with `ready.position` how many it has had, and the
// log goes on from there after a lost connection.

import { SAMPLE_RATE } from "./clock.js";

const MOST_UNHEARD = 20 * SAMPLE_RATE; // samples that are kept for a server that lost them
const MOST_AT_ONCE = SAMPLE_RATE / 4; // samples of a message, where many wait
const MOST_PENDING = 8 * SAMPLE_RATE; // samples of live speech that wait to be sent

/**
 * @typedef {Float32Array<ArrayBuffer>} Samples
 * @typedef {{samples: Samples, at: number}} Piece `at` is when it was spoken, on the clock of performance.now()
 */

/** @param {Piece[]} pieces */
function count(pieces) {
  return pieces.reduce((sum, { samples }) => sum + samples.length, 0);
}

/**
 * @param {Piece[]} pieces at least one
 * @param {number} length samples in all of them
 * @returns {Piece}
 */
function joined(pieces, length) {
  if (pieces.length === 1) return pieces[0];
  const samples = new Float32Array(length);
  let at = 0;
  for (const piece of pieces) {
    samples.set(piece.samples, at);
    at += piece.samples.length;
  }
  return { samples, at: pieces[pieces.length - 1].at };
}

export class SpeechLog {
  constructor() {
    this.live = false; // whether old speech gives way to new
    this.sent = 0; // position of the next sample to send
    this.leftOut = 0; // samples that were never sent
    /** @type {Piece[]} */
    this.unheard = []; // they end at `sent`
    /** @type {Piece[]} */
    this.pending = []; // they begin at `sent`
    /** @type {number[]} */
    this.ends = []; // positions at which speech ends, still to be told
    /** @type {number[]} */
    this.told = []; // those that were told, of speech that did not come back
  }

  // Position of the oldest sample that is kept.
  get start() {
    return this.sent - count(this.unheard);
  }

  // Position after the last sample.
  get end() {
    return this.sent + count(this.pending);
  }

  /**
   * @param {Samples} samples
   * @param {number} at
   */
  add(samples, at) {
    this.pending.push({ samples, at });
    this.leaveOutOldest();
  }

  // Speech ends here for now: the server need not wait whether more of it comes.
  endHere() {
    if (this.ends.at(-1) !== this.end) this.ends.push(this.end);
  }

  /** Whether an end is to be told now. It counts as told. */
  takeEnd() {
    if (this.ends.length === 0 || this.ends[0] > this.sent) return false;
    this.told.push(Number(this.ends.shift()));
    return true;
  }

  // Nobody wants to hear the speech that did not come back.
  drop() {
    this.unheard = [];
    this.pending = [];
    this.ends = [];
    this.told = [];
  }

  // Of live speech that waits to be sent, only the newest is of use.
  leaveOutOldest() {
    let excess = this.live ? count(this.pending) - MOST_PENDING : 0;
    while (excess > 0) {
      const { samples, at } = this.pending[0];
      const part = Math.min(excess, samples.length);
      if (part === samples.length) this.pending.shift();
      else this.pending[0] = { samples: samples.slice(part), at };
      this.ends = this.ends.map((end) => Math.max(this.sent, end - part));
      this.leftOut += part;
      excess -= part;
    }
  }

  /** The next samples to send, which count as sent now. Null when none wait. @returns {Samples | null} */
  next() {
    const [first] = this.pending;
    if (!first) return null;
    let length = 0;
    let pieces = 0;
    for (const { samples } of this.pending) {
      if (pieces && (length + samples.length > MOST_AT_ONCE || this.ends[0] === this.sent + length)) break;
      length += samples.length;
      pieces += 1;
    }
    const piece = joined(this.pending.splice(0, pieces), length);
    this.unheard.push(piece);
    this.sent += length;
    if (this.sent - this.start > MOST_UNHEARD) this.unheard.shift();
    return piece.samples;
  }

  /**
   * The sound up to here came back and need not be kept.
   *
   * @param {number} position
   * @returns {number | null} when its last sample was spoken; null if that is not known
   */
  heard(position) {
    let at = null;
    let end = this.start;
    while (this.unheard.length) {
      const oldest = this.unheard[0];
      end += oldest.samples.length;
      if (end >= position) at = oldest.at;
      if (end > position) break;
      this.unheard.shift();
    }
    while (this.told.length && this.told[0] <= position) this.told.shift();
    return at;
  }

  /**
   * A server has had the samples up to here. It did not get those that were sent after them.
   *
   * @param {number} position
   */
  goOnFrom(position) {
    let back = Math.max(0, this.sent - position);
    while (back > 0 && this.unheard.length) {
      const { samples, at } = /** @type {Piece} */ (this.unheard.pop());
      const kept = Math.max(0, samples.length - back);
      if (kept) this.unheard.push({ samples: samples.slice(0, kept), at });
      this.pending.unshift({ samples: samples.slice(kept), at });
      back -= samples.length - kept;
    }
    this.sent = position;
    // An end at this very place may not have arrived. Told twice, it does nothing.
    while (this.told.length && this.told[this.told.length - 1] >= position) this.ends.unshift(Number(this.told.pop()));
    this.leaveOutOldest();
  }

  // A new session knows nothing of the speech before: its positions begin at 0 with what nobody has heard.
  startAnew() {
    const { start } = this;
    this.ends = [...this.told, ...this.ends].map((end) => Math.max(0, end - start));
    this.told = [];
    this.pending.unshift(...this.unheard);
    this.unheard = [];
    this.sent = 0;
    this.leaveOutOldest();
  }
}
