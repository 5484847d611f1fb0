// Sound and pictures in step: both are placed on one timeline by their pts.
//
// A clip's sound comes first and gets its place on the timeline. Its pictures follow it there. The place is as soon
// as possible plus a small buffer (buffer.js). The buffer shrinks and grows in pauses of the speech, where nobody hears
// it. While nobody hears the sound at all it does so at any time, and the pictures move a little faster or slower.
//
// After a network that stood still, much comes at once. Live sound then catches up: its pauses are cut, and it is
// played faster with its pitch kept. What would be later than MOST_AHEAD even so is left out.

import { PlayBuffer } from "./buffer.js";
import { SAMPLE_RATE } from "./clock.js";
import { cutsOf, evenCuts, isPause, placeInRest, total, withoutCuts } from "./hasten.js";
import { Pictures } from "./pictures.js";
import { Timeline } from "./timeline.js";

/**
 * @import { Cut } from "./hasten.js"
 * @import { AudioMessage, FrameMessage } from "./messages.js"
 * @import { Stats } from "./stats.js"
 * @import { FramePlace } from "./whereabouts.js"
 * @typedef {FramePlace & {idle: boolean, due: number, bitmap: ImageBitmap}} DecodedFrame `due` in time of the timeline
 * @typedef {{node: AudioBufferSourceNode | null, seq: number, start: number, end: number}} ScheduledSound
 */

const MOST_AHEAD = 1.5; // seconds of sound in hand beyond which the oldest is left out: a live face stays live
const SPARE = 0.08; // seconds of buffer too much at which speech that is played faster has caught up
const STEP = 0.015; // seconds of buffer too much that are won back: one fade
const UNHEARD_STEP = 0.008; // the same where nobody hears the sound, and seconds too few that are given
const UNHEARD_SHARE = 0.25; // of a clip by which its pictures are faster or slower for that
const GIVES = 0.5; // of the seconds too few, what one clip gives
const GIVES_FROM = 6; // clips that are known by then
const GAP = SAMPLE_RATE; // samples left out by the server after which sound from before them is of no use
const FAR_BEHIND = 0.35; // seconds of buffer too much from which speech is played faster
const STOOD_STILL = 1; // seconds without sound after which no buffer would have helped
const TOO_LATE = 0.045; // seconds after its time beyond which a picture gives way to the next one
const HALF_REFRESH = 8; // milliseconds: a picture is painted at the refresh nearest to its time

export class Playout {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Stats} stats
   * @param {{
   *   taken: (place: FramePlace, last: boolean) => void, shown: (place: FramePlace) => void,
   *   undecodable?: (error: unknown) => void,
   * }} on `taken` is told of every picture that is decoded or passed over, and whether it is the last of its clip; `shown` of
   *   every one whose time has come; `undecodable` when coded frames cannot be decoded: ask for JPEG
   */
  constructor(canvas, stats, on) {
    this.canvas = canvas;
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
    this.stats = stats;
    this.on = on;
    this.live = false; // whether sound that is late is to catch up
    this.behind = false; // whether it does
    this.text = false; // whether the last clip was made of a text
    this.timeline = new Timeline();
    /** @type {MediaStream | null} */
    this.shared = null; // what is shown and heard, for whom the page gives it to
    this.pictures = new Pictures((error) => this.on.undecodable?.(error));
    this.silenced = 0; // how often everything that came fell away
    this.closed = false;
    this.muted = false;
    this.loop = 0;
    this.timer = 0;
    /** @type {DecodedFrame[]} */
    this.frames = []; // in the order of their due times
    this.end = 0; // time at which the last clip's sound ends
    this.buffer = new PlayBuffer();
    /** @type {ScheduledSound[]} */
    this.sources = [];
    this.epoch = 0;
    /** @type {Map<number, {start: number, pts: number, cuts: Cut[]}>} */
    this.clips = new Map(); // seq → the clip's start, its pts, and the samples left out of it
    /** @type {number | null} */
    this.anchor = null; // time of pts 0
    this.position = Infinity; // that would follow the last clip if the server left nothing out
    this.next = -1; // pts that would follow the last clip without a pause
    this.idleAt = 0; // time of the last picture that belongs to no speech
    this.idlePts = 0;
    this.speechAt = Infinity; // start of speech that came after those
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
      this.timer = setInterval(() => {
        this.timeline.look();
        if (document.hidden) this.paint();
      }, 200);
    }
    return this.muted || this.timeline.open(this.muted);
  }

  // The pictures and the sound as a stream, for a video element, a call or a recorder.
  get stream() {
    if (!this.shared) {
      this.shared = this.canvas.captureStream();
      this.timeline.shareWith(this.shared);
    }
    return this.shared;
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
    this.buffer.forget();
    this.behind = false;
  }

  // Whether everything that came has been played.
  get idle() {
    return this.closed || this.timeline.now > this.end + 0.05;
  }

  /**
   * @param {AudioMessage} message
   * @param {number | null} spokenAt when its last sample was spoken, if that is known
   */
  audio(message, spokenAt) {
    if (message.epoch !== this.epoch || this.closed) return;
    const now = this.timeline.now;
    const joined = message.pts === this.next;
    let wanted = this.anchor === null ? -1 : this.anchor + message.pts / SAMPLE_RATE;
    const isText = message.own === 0;
    // A live client is left out while a text is spoken.
    const gap = isText || this.text ? 0 : message.position - this.position;
    this.position = message.position + message.own;
    this.text = isText;
    if (this.live && !isText && wanted > now && (wanted - now > MOST_AHEAD || gap > GAP)) {
      this.leaveOut(now);
      wanted = this.end;
    }
    const { buffer } = this;
    const seconds = message.samples.length / SAMPLE_RATE;
    /** @type {Cut[]} */
    let cuts = [];
    let start = Math.max(wanted, this.end);
    if (wanted < now) {
      const inHand = joined ? this.ranDry(message.seq, now - wanted) : buffer.start;
      start = Math.max(now + inHand, this.end);
    } else if (!isText) {
      buffer.inTime(message.seq, wanted - now, seconds || 1);
      cuts = this.shorten(message.samples);
      if (!cuts.length) start += this.give(message.samples);
    }
    start = Math.ceil(start * SAMPLE_RATE) / SAMPLE_RATE;
    this.speechAt = start;
    for (const frame of this.frames) if (frame.idle) frame.due = Math.min(frame.due, start);
    this.anchor = start - (message.pts + total(cuts)) / SAMPLE_RATE;
    this.next = message.pts + message.samples.length;
    this.clips.set(message.seq, { start, pts: message.pts, cuts });
    this.clips.delete(message.seq - 16);
    this.play(message.seq, cuts.length ? withoutCuts(message.samples, cuts) : message.samples, start);
    this.stats.clip(message, spokenAt, start - now);
  }

  /**
   * A clip came after its turn: keep more in hand from now on.
   *
   * @param {number} seq
   * @param {number} seconds
   * @returns {number} seconds that it is to have in hand
   */
  ranDry(seq, seconds) {
    this.stats.underruns += 1;
    if (seconds < STOOD_STILL) return this.buffer.late(seq, seconds, this.muted);
    this.buffer.forget();
    return this.buffer.start;
  }

  /**
   * Samples to leave out of a clip because the latest clips came earlier than needed.
   *
   * @param {Float32Array<ArrayBuffer>} samples
   */
  shorten(samples) {
    const { buffer, muted } = this;
    const latest = buffer.latest - buffer.start;
    this.behind = this.live && latest > (this.behind ? SPARE : FAR_BEHIND);
    if (!this.behind && !buffer.judges) return [];
    const excess = this.behind ? latest : buffer.excess;
    if (excess < (muted ? UNHEARD_STEP : STEP)) return [];
    const most = Math.floor(excess * SAMPLE_RATE);
    const cuts = muted
      ? evenCuts(samples.length, Math.min(most, UNHEARD_SHARE * samples.length))
      : cutsOf(samples, most, this.behind);
    const won = total(cuts) / SAMPLE_RATE;
    this.stats.faster += won;
    buffer.move(-won);
    return cuts;
  }

  /**
   * Seconds by which a clip begins later because the latest clips came too close to their time.
   *
   * @param {Float32Array<ArrayBuffer>} samples
   */
  give(samples) {
    const { buffer } = this;
    if (buffer.early.length < GIVES_FROM || buffer.excess > -UNHEARD_STEP) return 0;
    if (!this.muted && !isPause(samples)) return 0;
    const given = Math.min(-buffer.excess * GIVES, (UNHEARD_SHARE * samples.length) / SAMPLE_RATE);
    buffer.move(given);
    return given;
  }

  /**
   * Drop everything that has not begun to play: much came at once after the server or the network was stuck.
   *
   * @param {number} now
   */
  leaveOut(now) {
    const begun = this.sources.filter(({ start }) => start <= now + 0.01);
    for (const { node, seq, start, end } of this.sources.filter((sound) => !begun.includes(sound))) {
      node?.stop();
      this.stats.unheard += end - start;
      this.clips.delete(seq);
    }
    this.sources = begun;
    this.end = Math.max(now + this.buffer.start, ...begun.map(({ end }) => end));
    const left = this.frames.filter(({ due }) => due < this.end);
    for (const frame of this.frames) if (frame.due >= this.end) frame.bitmap.close();
    this.stats.passedOver += this.frames.length - left.length;
    this.frames = left;
    this.buffer.forget();
  }

  // Everything that came falls away, whether it has begun to play or not.
  silence() {
    for (const { node } of this.sources) node?.stop();
    for (const frame of this.frames) frame.bitmap.close();
    this.sources = [];
    this.frames = [];
    this.clips = new Map();
    this.silenced += 1;
    this.end = this.timeline.now;
  }

  /**
   * @param {number} seq
   * @param {Float32Array<ArrayBuffer>} samples
   * @param {number} start
   */
  play(seq, samples, start) {
    this.end = start + samples.length / SAMPLE_RATE;
    if (!samples.length) return;
    const node = this.timeline.play(samples, start);
    const now = this.timeline.now;
    this.sources = this.sources.filter(({ end }) => end > now);
    this.sources.push({ node, seq, start, end: this.end });
  }

  /** @param {FrameMessage} message */
  async picture(message) {
    if (message.epoch !== this.epoch || this.closed) return;
    const clip = this.clips.get(message.seq);
    const { epoch, seq, index, idle } = message;
    const { silenced } = this;
    this.stats.came(message);
    const idleDue = idle ? this.idleDue(message) : 0;
    const placed = idle || clip;
    // A coded frame is decoded even where it has no place: those after it refer to it.
    const bitmap = placed || message.codec !== "jpeg" ? await this.pictures.decode(message) : null;
    if (!bitmap) this.stats.passedOver += placed ? 1 : 0; // the one before stays
    else if (!placed || silenced !== this.silenced) bitmap.close();
    else {
      const due = clip
        ? clip.start + placeInRest(clip.cuts, message.pts - clip.pts) / SAMPLE_RATE
        : Math.min(idleDue, this.speechAt);
      this.add({ epoch, seq, index, idle, due, bitmap });
      if (clip && this.anchor !== null) {
        const turn = this.anchor + message.pts / SAMPLE_RATE; // as the next clips will have it
        this.buffer.picture(seq, turn - this.timeline.heard(performance.now()));
      }
    }
    this.on.taken({ epoch, seq, index }, index === message.count - 1);
  }

  /**
   * Nobody speaks, so there is no sound to follow: the server sends each picture at its time.
   *
   * @param {FrameMessage} message
   */
  idleDue(message) {
    // Pictures that the network kept together are shown apart, a little faster than they were made.
    const apart = Math.min(0.25, Math.max(0, message.pts - this.idlePts) / SAMPLE_RATE);
    this.idlePts = message.pts;
    this.speechAt = Infinity;
    this.idleAt = Math.max(this.timeline.now, this.end, this.idleAt + apart / 2);
    return this.idleAt;
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
    // Browsers let a hidden page look at the time once a second or once a minute.
    if (document.hidden) this.paint();
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
    this.on.shown(frame);
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
    this.pictures.close();
    this.timeline.close();
    for (const track of this.shared?.getTracks() ?? []) track.stop();
  }
}
