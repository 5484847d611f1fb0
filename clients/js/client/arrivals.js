// Pictures and sound that came: each once, with its place in time, kept until the program takes it.
//
// One timeline goes over all epochs and connections: an epoch begins where the one before it ended.

import { SAMPLE_RATE } from "./clock.js";

const MOST_SOUND = 60; // seconds of sound that wait for a program that takes none, before the oldest is dropped
const REMEMBERED = 64; // clips whose places are known; pictures come at most a few seconds after their sound

/**
 * @import { AudioMessage, FrameMessage, ReadyFields } from "./messages.js"
 * @typedef {{time: number, position: number, epoch: number, seq: number, pts: number}} Moment `time` is its place in
 *   the session's play-out in seconds, over all epochs; `position` counts all samples that were pushed, at 16 kHz
 * @typedef {Moment & {samples: Float32Array<ArrayBuffer>, rate: number, hasFrames: boolean}} Sound of one clip
 */

/** A picture. `Pictures.decode` takes it as it is. */
export class Frame {
  /** @param {Moment & FrameMessage} message with its place */
  constructor({ time, position, epoch, seq, pts, index, count, codec, key, idle, data }) {
    this.time = time; // see Moment
    this.position = position;
    this.epoch = epoch;
    this.seq = seq;
    this.pts = pts;
    this.index = index; // in its clip
    this.count = count; // pictures of its clip
    this.codec = codec; // jpeg, h264 (Annex B) or vp8
    this.key = key; // whether it can be decoded without those before it
    this.idle = idle; // whether nobody speaks in it
    this.data = data;
  }

  /** The JPEG. Throws a TypeError where the picture is coded otherwise. */
  get jpeg() {
    if (this.codec !== "jpeg") throw new TypeError(`The picture is no JPEG: it is coded as ${this.codec}.`);
    return this.data;
  }
}

export class Arrivals {
  /**
   * @param {boolean} keepFrames
   * @param {boolean} keepSounds
   */
  constructor(keepFrames, keepSounds) {
    this.keepFrames = keepFrames;
    this.keepSounds = keepSounds;
    /** @type {Frame[]} */
    this.frames = [];
    /** @type {Sound[]} */
    this.sounds = [];
    this.epoch = 0;
    this.offset = 0; // number, of all samples that were pushed, of the session's first one
    this.clipSeconds = 0.5;
    this.base = 0; // time of the epoch's beginning
    this.end = 0; // time at which the last sound ends
    this.heard = -1; // the clip whose sound came last
    this.seen = [-1, -1]; // clip and index of the picture that came last
    this.seenCount = 0; // pictures of that clip
    this.awaits = false; // whether the pictures of the last sound come
    /** @type {Map<number, {position: number, length: number, pts: number}>} */
    this.clips = new Map();
  }

  /** @param {ReadyFields & {clip_frames?: number, fps?: number}} ready */
  begin({ epoch, clip_frames: frames = 12, fps = 24 }) {
    this.clipSeconds = frames / fps;
    this.beginEpoch(epoch);
  }

  /** @param {number} epoch */
  beginEpoch(epoch) {
    this.epoch = epoch;
    this.base = this.end;
    this.heard = -1;
    this.seen = [-1, -1];
    this.awaits = false;
    this.clips.clear();
  }

  /** @param {AudioMessage} message */
  addSound({ epoch, seq, pts, position, samples, own, pictures }) {
    if (epoch !== this.epoch || seq <= this.heard) return;
    this.heard = seq;
    this.awaits = pictures;
    const first = this.offset + position;
    const time = this.base + pts / SAMPLE_RATE;
    this.end = Math.max(this.end, time + Math.max(this.clipSeconds, samples.length / SAMPLE_RATE));
    this.clips.set(seq, { position: first, length: own, pts });
    this.clips.delete(seq - REMEMBERED);
    if (!this.keepSounds) return;
    this.sounds.push({ time, position: first, epoch, seq, pts, samples, rate: SAMPLE_RATE, hasFrames: pictures });
    while (this.sounds[0].time < time - MOST_SOUND) this.sounds.shift();
  }

  /**
   * @param {FrameMessage} message
   * @returns {boolean} false for one that is here already, or of an epoch before
   */
  addFrame(message) {
    const { epoch, seq, pts, index, count } = message;
    const [clip, last] = this.seen;
    if (epoch !== this.epoch || seq < clip || (seq === clip && index <= last)) return false;
    this.seen = [seq, index];
    this.seenCount = count;
    if (!this.keepFrames) return true;
    const place = this.clips.get(seq) ?? { position: this.offset, length: 0, pts };
    // In a padded pause it is the sample after the clip's last one.
    const position = place.position + Math.min(place.length, Math.max(0, pts - place.pts));
    this.frames.push(new Frame({ ...message, time: this.base + pts / SAMPLE_RATE, position }));
    return true;
  }

  // Whether every picture of the last sound is here, or none comes.
  get lastClipWhole() {
    const [clip, index] = this.seen;
    return !this.awaits || clip > this.heard || (clip === this.heard && index === this.seenCount - 1);
  }

  // Nobody wants what is here.
  clear() {
    this.frames = [];
    this.sounds = [];
  }
}
