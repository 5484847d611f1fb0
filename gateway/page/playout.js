// Sound and pictures in step: both are placed on one timeline by their pts.
//
// A clip's sound comes first and gets its place on the timeline. Its pictures follow it there. The place is as soon
// as possible plus a small buffer. The buffer grows when clips come late and shrinks again in quiet moments.

import { SAMPLE_RATE } from "./clock.js";
import { Timeline } from "./timeline.js";

/**
 * @import { FramePlace, Stats } from "./stats.js"
 * @import { AudioMessage, FrameMessage } from "./wire.js"
 * @typedef {FramePlace & {due: number, bitmap: ImageBitmap}} DecodedFrame `due` in time of the timeline
 * @typedef {{node: AudioBufferSourceNode | null, seq: number, start: number, end: number}} ScheduledSound
 */

const LEAST_LEAD = 0.04; // seconds of buffer to begin with: from a clip's arrival to its first sample
const MOST_LEAD = 0.4;
const MOST_AHEAD = 1.5; // seconds of sound in hand beyond which the oldest is left out: a live face stays live
const SPARE = 0.08; // seconds of buffer too much from which quiet moments are used to win it back
const REMEMBERED = 10; // clips by which the buffer is judged
const STEP = 160; // samples: 10 ms
const QUIET = 0.006; // root mean square below which nobody misses a few milliseconds
const TOO_LATE = 0.045; // seconds after its time beyond which a picture gives way to the next one
const HALF_REFRESH = 8; // milliseconds: a picture is painted at the refresh nearest to its time

/** @param {Float32Array} samples */
function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}

export class Playout {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Stats} stats
   * @param {(frame: DecodedFrame) => void} onShown is told of every picture painted or passed over
   */
  constructor(canvas, stats, onShown) {
    this.canvas = canvas;
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
    this.stats = stats;
    this.onShown = onShown;
    this.timeline = new Timeline();
    this.closed = false;
    this.muted = false;
    this.loop = 0;
    this.timer = 0;
    /** @type {DecodedFrame[]} */
    this.frames = []; // in the order of their due times
    this.end = 0; // time at which the last clip's sound ends
    this.lead = LEAST_LEAD;
    /** @type {ScheduledSound[]} */
    this.sources = [];
    this.epoch = 0;
    /** @type {Map<number, {start: number, pts: number}>} */
    this.clips = new Map(); // seq → the clip's start, and its pts
    /** @type {number | null} */
    this.anchor = null; // time of pts 0
    this.next = -1; // pts that would follow the last clip without a pause
    /** @type {number[]} */
    this.early = []; // of the latest clips: how long before their time they came, in seconds
  }

  /**
   * Begins to paint, and asks for sound unless it is muted. Without sound the pictures go on by themselves.
   *
   * @returns {Promise<boolean>} whether sound is as wanted
   */
  async open() {
    if (!this.loop) {
      const step = () => {
        this.paint();
        this.loop = requestAnimationFrame(step);
      };
      this.loop = requestAnimationFrame(step);
      // Browsers do not ask a hidden page to paint. Its pictures are passed over, so that the server keeps sending.
      this.timer = setInterval(() => document.hidden && this.paint(), 200);
    }
    return this.muted || this.timeline.open(this.muted);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    this.timeline.mute(muted);
    if (!muted && !this.timeline.context && !this.closed) this.timeline.open(muted);
  }

  /**
   * Positions start anew with an epoch. Sound and pictures that have their place already keep it.
   *
   * @param {number} epoch
   */
  reset(epoch) {
    this.epoch = epoch;
    this.clips = new Map();
    this.anchor = null;
    this.next = -1;
    this.early = [];
  }

  // Whether everything that came has been played.
  get idle() {
    return this.closed || this.timeline.now > this.end + 0.05;
  }

  /** @param {AudioMessage} message */
  audio(message) {
    if (message.epoch !== this.epoch || this.closed) return;
    const now = this.timeline.now;
    const joined = message.pts === this.next;
    let wanted = this.anchor === null ? -1 : this.anchor + message.pts / SAMPLE_RATE;
    if (wanted - now > MOST_AHEAD) {
      this.leaveOut(now);
      wanted = this.end;
      this.anchor = wanted - message.pts / SAMPLE_RATE;
    }
    let start = Math.max(wanted, this.end);
    let skip = 0;
    if (wanted < now) {
      if (joined) this.ranDry(now - wanted);
      start = Math.max(now + this.lead, this.end);
    } else {
      this.early.push(wanted - now);
      if (this.early.length > REMEMBERED) this.early.shift();
      skip = this.shorten(message.samples);
    }
    start = Math.ceil(start * SAMPLE_RATE) / SAMPLE_RATE;
    const origin = start - skip / SAMPLE_RATE;
    this.anchor = origin - message.pts / SAMPLE_RATE;
    this.next = message.pts + message.samples.length;
    this.clips.set(message.seq, { start: origin, pts: message.pts });
    this.clips.delete(message.seq - 16);
    this.play(message, start, skip);
    this.stats.clip(message, this.early.at(-1) ?? this.lead);
  }

  /**
   * A clip came after its turn: keep more in hand from now on.
   *
   * @param {number} seconds
   */
  ranDry(seconds) {
    this.stats.underruns += 1;
    this.lead = Math.min(MOST_LEAD, this.lead + 0.02 + seconds / 2);
    this.early = [];
  }

  /**
   * Samples to leave out at a clip's quiet beginning because all the latest clips came earlier than needed.
   *
   * @param {Float32Array} samples
   */
  shorten(samples) {
    if (this.early.length < REMEMBERED) return 0;
    const excess = Math.min(...this.early) - this.lead;
    if (excess < SPARE) return 0;
    const most = Math.min(Math.floor(excess * SAMPLE_RATE), samples.length >> 1);
    let skip = 0;
    while (skip + STEP <= most && loudness(samples.subarray(skip, skip + STEP)) < QUIET) skip += STEP;
    if (skip === 0) return 0;
    this.early = this.early.map((seconds) => seconds - skip / SAMPLE_RATE);
    this.lead = Math.max(LEAST_LEAD, this.lead * 0.95);
    return skip;
  }

  /**
   * Drop everything that has not begun to play: much came at once after the server or the network was stuck.
   *
   * @param {number} now
   */
  leaveOut(now) {
    const begun = this.sources.filter(({ start }) => start <= now + 0.01);
    for (const { node, seq } of this.sources.filter((sound) => !begun.includes(sound))) {
      node?.stop();
      this.clips.delete(seq);
    }
    this.sources = begun;
    this.end = Math.max(now + this.lead, ...begun.map(({ end }) => end));
    const left = this.frames.filter(({ due }) => due < this.end);
    for (const frame of this.frames) if (frame.due >= this.end) frame.bitmap.close();
    this.stats.passedOver += this.frames.length - left.length;
    this.frames = left;
    this.early = [];
  }

  /**
   * @param {AudioMessage} message
   * @param {number} start
   * @param {number} skip samples to leave out
   */
  play({ samples, seq }, start, skip) {
    this.end = start + (samples.length - skip) / SAMPLE_RATE;
    if (!samples.length) return;
    const node = this.timeline.play(samples, start, skip);
    const now = this.timeline.now;
    this.sources = this.sources.filter(({ end }) => end > now);
    this.sources.push({ node, seq, start, end: this.end });
  }

  /** @param {FrameMessage} message */
  async picture(message) {
    const clip = this.clips.get(message.seq);
    if (message.epoch !== this.epoch || !clip || this.closed) return;
    const due = clip.start + (message.pts - clip.pts) / SAMPLE_RATE;
    const { epoch, seq, index } = message;
    try {
      const bitmap = await createImageBitmap(new Blob([message.jpeg], { type: "image/jpeg" }));
      this.add({ epoch, seq, index, due, bitmap });
    } catch {
      this.stats.passedOver += 1; // the picture is damaged: the one before stays
    }
  }

  /** @param {DecodedFrame} frame */
  add(frame) {
    if (this.closed) {
      frame.bitmap.close();
      return;
    }
    // Decoding may finish out of order.
    let place = this.frames.length;
    while (place > 0 && this.frames[place - 1].due > frame.due) place -= 1;
    this.frames.splice(place, 0, frame);
  }

  paint() {
    if (!this.frames.length) return;
    const limit = this.timeline.heard(performance.now() + HALF_REFRESH);
    if (this.frames[0].due > limit) return;
    // After a hitch, pictures that are a little late are shown at successive refreshes rather than left out.
    const late = document.hidden ? limit : limit - TOO_LATE;
    while (this.frames.length > 1 && this.frames[1].due <= limit && this.frames[0].due < late) {
      this.frames.shift()?.bitmap.close();
      this.stats.passedOver += document.hidden ? 0 : 1;
    }
    const frame = this.frames.shift();
    if (!frame) return;
    if (!document.hidden) this.draw(frame);
    frame.bitmap.close();
    this.onShown(frame);
  }

  /** @param {DecodedFrame} frame */
  draw(frame) {
    const { width, height } = frame.bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.pen.drawImage(frame.bitmap, 0, 0);
    const now = performance.now();
    this.stats.painted(frame, now, (this.timeline.heard(now) - frame.due) * 1000);
  }

  close() {
    cancelAnimationFrame(this.loop);
    clearInterval(this.timer);
    for (const frame of this.frames) frame.bitmap.close();
    this.frames = [];
    this.sources = [];
    this.end = 0;
    this.closed = true;
    this.timeline.close();
  }
}
