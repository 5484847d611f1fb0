// The clock of the play-out, in seconds. It is the sound's while the browser lets sound out, and the computer's
// otherwise: without a sound device, before the first tap, or where nobody wants to hear anything. It never jumps.

import { SAMPLE_RATE } from "./clock.js";
import { settledWithin } from "./waiting.js";

const PATIENCE = 1000; // milliseconds that sound may take to start before the pictures go on without it
const STUCK_AFTER = 1000; // milliseconds after which sound that says it runs, and stands still, counts as lost
const TRY_EVERY = 2000; // milliseconds between two tries to start sound that was lost
const BUILD_AFTER = 5000; // milliseconds after which a new context takes the place of a lost one

export class Timeline {
  constructor() {
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {GainNode | null} */
    this.gain = null;
    this.audible = false; // whether the sound's clock runs
    this.muted = false;
    /** @type {MediaStream | null} */
    this.stream = null; // which has the sound too
    this.heardHere = true; // whether the sound goes to the loudspeaker
    this.wasAudible = false; // whether sound has ever run
    this.stuck = false; // whether the browser says that sound runs, and it stands still
    this.seenTime = 0; // of the context, when it was looked at last
    this.movedAt = 0; // when that had moved last, by performance.now()
    this.lookedAt = 0;
    this.triedAt = 0;
    this.shift = 0; // audible: from the context's time to this clock's
    this.base = -performance.now() / 1000; // otherwise: from the computer's time to this clock's
  }

  /**
   * Asks the browser for sound. Some give it only within a click, a tap or a key press.
   *
   * @param {boolean} muted
   * @returns {Promise<boolean>} whether sound runs
   */
  async open(muted) {
    this.muted = muted;
    const context = this.context ?? this.newContext(muted);
    await settledWithin(context.resume(), PATIENCE);
    this.followState();
    return this.audible;
  }

  /** @param {boolean} muted */
  newContext(muted) {
    let context;
    try {
      context = new AudioContext({ sampleRate: SAMPLE_RATE, latencyHint: "interactive" });
    } catch {
      context = new AudioContext({ latencyHint: "interactive" });
    }
    context.addEventListener("statechange", () => this.context === context && this.followState());
    this.gain = new GainNode(context, { gain: muted ? 0 : 1 });
    if (this.heardHere) this.gain.connect(context.destination);
    this.context = context;
    this.fillStream();
    return context;
  }

  /** @param {MediaStream} stream gets the sound as a track, which is another one when the sound device was lost */
  shareWith(stream) {
    this.stream = stream;
    this.fillStream();
  }

  fillStream() {
    const { context, stream } = this;
    if (!context || !stream) return;
    for (const track of stream.getAudioTracks()) stream.removeTrack(track);
    const output = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    this.gain?.connect(output);
    for (const track of output.stream.getAudioTracks()) stream.addTrack(track);
  }

  followState() {
    const context = this.context;
    const audible = context?.state === "running" && !this.stuck;
    if (!context || audible === this.audible) return;
    const now = this.now;
    this.audible = audible;
    this.wasAudible ||= audible;
    // Whole samples: clips that follow each other meet at a sample.
    if (audible) this.shift = Math.round((now - context.currentTime) * SAMPLE_RATE) / SAMPLE_RATE;
    else this.base = now - performance.now() / 1000;
  }

  // Whether sound has run and does not now: its device went away, or another program took it.
  get lost() {
    return this.wasAudible && !this.audible;
  }

  // Browsers tell nobody when a sound device is gone, and some stop the sound for a phone call or a sleep and start
  // it no more. So this is called several times a second.
  look() {
    const { context } = this;
    if (!context) return;
    const at = performance.now();
    // A page that was away itself knows nothing yet.
    const away = at - this.lookedAt > STUCK_AFTER;
    this.lookedAt = at;
    if (context.currentTime !== this.seenTime || away || !this.wasAudible) {
      this.seenTime = context.currentTime;
      this.movedAt = at;
    }
    this.stuck = context.state === "running" && at - this.movedAt > STUCK_AFTER;
    this.followState();
    if (this.lost && at - this.triedAt > TRY_EVERY) {
      this.triedAt = at;
      if (at - this.movedAt > BUILD_AFTER) this.replace();
      this.context?.resume().catch(() => {});
    }
  }

  // A context that stands still for good gives way to a new one. What it was to play is lost.
  replace() {
    this.context?.close().catch(() => {});
    this.newContext(this.muted);
    this.stuck = false;
    this.movedAt = performance.now();
  }

  get now() {
    if (this.audible && this.context) return this.context.currentTime + this.shift;
    return performance.now() / 1000 + this.base;
  }

  /**
   * This clock's time of the sample that is heard at `when`.
   *
   * @param {number} when on the clock of performance.now()
   */
  heard(when) {
    const context = this.context;
    if (!this.audible || !context) return when / 1000 + this.base;
    // A stream has its sound before a loudspeaker would have it.
    if (!this.heardHere) return this.now + (when - performance.now()) / 1000;
    const { contextTime = 0, performanceTime = 0 } = context.getOutputTimestamp?.() ?? {};
    if (performanceTime > 0) return contextTime + (when - performanceTime) / 1000 + this.shift;
    return context.currentTime - (context.outputLatency || context.baseLatency || 0) + this.shift;
  }

  /**
   * Plays samples at a time of this clock.
   *
   * @param {Float32Array<ArrayBuffer>} samples
   * @param {number} start
   * @returns {AudioBufferSourceNode | null} null while there is no sound
   */
  play(samples, start) {
    if (!this.audible || !this.context || !this.gain) return null;
    const buffer = this.context.createBuffer(1, samples.length, SAMPLE_RATE);
    buffer.copyToChannel(samples, 0);
    const node = new AudioBufferSourceNode(this.context, { buffer });
    node.connect(this.gain);
    node.start(Math.max(0, start - this.shift));
    return node;
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    if (this.context) this.gain?.gain.setTargetAtTime(muted ? 0 : 1, this.context.currentTime, 0.02);
  }

  close() {
    this.context?.close().catch(() => {});
    this.context = null;
    this.audible = false;
  }
}
