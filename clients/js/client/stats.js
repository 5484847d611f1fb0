// Live figures of a session. `window.echomimic.stats` is one of these.

/**
 * @import { AudioMessage, FrameMessage, StatusFields } from "./messages.js"
 * @import { FramePlace } from "./whereabouts.js"
 */

const WINDOW = 48; // painted frames over which the offset is averaged
const CLIPS = 9; // clips over which the latency is taken
const SPAN = 2000; // milliseconds over which the frame rate is counted

/** @param {number[]} values */
function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

export class Stats {
  constructor() {
    this.shown = 0; // frames painted
    this.passedOver = 0; // frames that came too late to be painted
    this.underruns = 0; // times at which the sound ran dry
    this.clips = 0;
    this.answered = 0; // samples of this session whose clips came back
    this.resumed = 0; // how often the session went on at another connection
    this.leftOut = 0; // seconds of speech left out on their way to the server
    this.unheard = 0; // seconds of sound that came and were left out
    this.faster = 0; // seconds won by playing sound faster and pauses shorter
    this.codec = ""; // of the picture that came last
    this.pictureBytes = 0; // of all pictures that came
    /** @type {StatusFields | null} */
    this.server = null; // the latest status text
    this.buffer = 0; // seconds in hand when the latest clip came
    /** @type {number[]} */
    this.offsets = [];
    /** @type {number[]} */
    this.times = [];
    /** @type {number[]} */
    this.latencies = [];
    /** @type {Map<string, number>} */
    this.waiting = new Map(); // "epoch/seq" → when the clip's last sample was sent
  }

  /**
   * A clip's sound came. Its latency counts from the moment at which its last sample was spoken.
   *
   * @param {AudioMessage} message
   * @param {number | null} spokenAt that moment, if it is known
   * @param {number} buffer
   */
  clip(message, spokenAt, buffer) {
    this.clips += 1;
    this.buffer = buffer;
    this.answered = message.position + message.samples.length;
    if (spokenAt !== null && message.pictures) this.waiting.set(`${message.epoch}/${message.seq}`, spokenAt);
    if (this.waiting.size > 32) {
      const [oldest] = this.waiting.keys();
      this.waiting.delete(oldest);
    }
  }

  /** @param {FrameMessage} message a picture came */
  came({ codec, data }) {
    this.codec = codec;
    this.pictureBytes += data.length;
  }

  /**
   * @param {FramePlace} frame
   * @param {number} time
   * @param {number} offset milliseconds by which the sound is ahead
   */
  painted(frame, time, offset) {
    this.shown += 1;
    this.times.push(time);
    this.offsets.push(offset);
    if (this.offsets.length > WINDOW) this.offsets.shift();
    while (this.times[0] < time - SPAN) this.times.shift();
    const key = `${frame.epoch}/${frame.seq}`;
    const spoken = this.waiting.get(key);
    if (spoken !== undefined) {
      this.waiting.delete(key);
      if (frame.index === 0) this.latencies.push(time - spoken);
      if (this.latencies.length > CLIPS) this.latencies.shift();
    }
  }

  get fps() {
    const now = performance.now();
    const recent = this.times.filter((time) => time > now - SPAN);
    if (recent.length < 2) return 0;
    return ((recent.length - 1) * 1000) / (recent[recent.length - 1] - recent[0]);
  }

  // Milliseconds from a clip's last sample spoken to its first frame shown; null before the first.
  get latencyMs() {
    return median(this.latencies);
  }

  // Mean milliseconds by which the sound heard is ahead of the frame shown; null before the first.
  get offsetMs() {
    if (!this.offsets.length) return null;
    return this.offsets.reduce((sum, value) => sum + value, 0) / this.offsets.length;
  }

  get worstOffsetMs() {
    return this.offsets.length ? Math.max(...this.offsets.map(Math.abs)) : null;
  }

  // Frames of this session that were never shown, here or on the way.
  get drops() {
    const server = this.server;
    return this.passedOver + (server ? server.frames_dropped + server.frames_lost : 0);
  }

  toJSON() {
    const { shown, passedOver, underruns, clips, server, buffer } = this;
    const { resumed, leftOut, unheard, faster } = this;
    const { fps, latencyMs, offsetMs, worstOffsetMs, drops } = this;
    return {
      codec: this.codec,
      pictureBytes: this.pictureBytes,
      fps, latencyMs, offsetMs, worstOffsetMs, drops, shown, passedOver, underruns, clips, buffer, server,
      resumed, leftOut, unheard, faster,
    };
  }
}
