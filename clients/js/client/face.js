// A face for a program: speech goes up, and pictures and sound come down, each once and in order.

import { Arrivals } from "./arrivals.js";
import { SAMPLE_RATE } from "./clock.js";
import { ClientError } from "./errors.js";
import { Resampler } from "./resampler.js";
import { Says } from "./says.js";
import { Server } from "./server.js";
import { Wire } from "./wire.js";

const AHEAD = 8 * SAMPLE_RATE; // samples that may be sent and not be back
const QUIET = 1000; // milliseconds after the last message from which the server's word counts that nothing waits
const LOST = 25000; // and from which missing pictures count as lost without it
const BLOCK = 4096; // samples that are resampled at once

/**
 * @import { Frame } from "./arrivals.js"
 * @import { FrameMessage, Interrupted, Options, ReadyFields, StatusFields } from "./messages.js"
 * @import { SayEnd } from "./says.js"
 * @import { Coming, StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, live?: boolean, frames?: boolean, sounds?: boolean, acknowledge?: boolean, retryFor?: number,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void, WebSocket?: typeof WebSocket,
 * }} ConnectOptions `live`: the speech is a microphone's, and what is old is left out. `frames` and `sounds`: whether
 *   the program takes them (true). `acknowledge`: whether a picture counts as shown when it is handed out (true), else
 *   call shown(). `retryFor`: seconds for which a lost connection is tried again (30). `onText`: is told of every text
 *   of the server. `WebSocket`: the class, where the platform has none of its own.
 */

export class Face {
  /**
   * @param {string | URL} address
   * @param {ConnectOptions} options
   */
  constructor(address, options) {
    const { token, live = false, frames = true, sounds = true, acknowledge = true, retryFor = 30, onText } = options;
    const wishes = Object.fromEntries(
      ["avatar", "pose", "fps", "video", "idle"].flatMap((name) => (name in options ? [[name, Reflect.get(options, name)]] : [])),
    );
    /** @type {ReadyFields | null} */
    this.ready = null; // the session as the server runs it
    /** @type {StatusFields | null} */
    this.status = null; // the server's latest figures
    this.acknowledge = acknowledge;
    this.retryFor = retryFor;
    this.arrivals = new Arrivals(frames, sounds);
    this.pushed = 0; // samples at 16 kHz
    this.finished = false;
    this.closed = false;
    /** @type {ClientError | null} */
    this.failure = null;
    /** @type {Set<() => void>} */
    this.waiting = new Set(); // wakes those who wait for news
    /** @type {Interrupted | null} */
    this.interrupted = null;
    this.says = new Says();
    this.movedAt = 0;
    this.statusAt = 0;
    this.timer = 0;
    this.rate = SAMPLE_RATE;
    /** @type {Resampler | null} */
    this.resampler = null;
    const server = new Server(address, token, options.WebSocket);
    this.wire = new Wire(server, wishes, {
      ready: (fields, coming) => this.serverReady(fields, coming),
      status: (fields) => {
        this.status = fields;
        this.statusAt = performance.now();
        this.wake();
      },
      frame: (message) => this.frameCame(message),
      audio: (message) => {
        this.arrivals.addSound(message);
        this.moved();
      },
      state: (name, details) => this.wireChanged(name, details),
      interrupted: (fields) => {
        this.arrivals.beginEpoch(fields.epoch);
        this.interrupted = fields;
        this.wake();
      },
      text: (fields) => {
        this.says.take(fields);
        this.wake();
        onText?.(fields);
      },
    });
    this.wire.ahead = AHEAD;
    this.wire.speech.live = live;
  }

  // ---- up

  /**
   * Speaks: the samples follow what was pushed before. Any number, at any speed.
   *
   * @param {Float32Array | Int16Array} pcm mono, floats from -1 to 1
   * @param {number} rate samples a second
   */
  push(pcm, rate = SAMPLE_RATE) {
    this.check();
    if (this.finished) throw new ClientError("finished", "No speech can be pushed after finish().");
    if (!Number.isInteger(rate) || rate < 8000 || rate > 192000) {
      throw new ClientError("bad_audio", "The sample rate must be a whole number from 8000 to 192000.");
    }
    if (rate !== this.rate) {
      this.endResampling();
      this.rate = rate;
      this.resampler = rate === SAMPLE_RATE ? null : new Resampler(rate, SAMPLE_RATE);
    }
    const scale = pcm instanceof Int16Array ? 1 / 32768 : 1;
    for (let start = 0; start < pcm.length; start += BLOCK) {
      const block = Float32Array.from(pcm.subarray(start, start + BLOCK), (sample) => sample * scale);
      this.add(this.resampler ? Float32Array.from(this.resampler.process(block)) : block);
    }
  }

  /** @param {Float32Array<ArrayBuffer>} samples at 16 kHz */
  add(samples) {
    if (!samples.length) return;
    this.pushed += samples.length;
    this.wire.sendAudio(samples);
  }

  // The resampler holds back its last few samples until silence pushes them out.
  endResampling() {
    if (this.resampler) this.add(Float32Array.from(this.resampler.process(new Float32Array(this.resampler.half + 1))));
    this.resampler = null;
    this.rate = SAMPLE_RATE;
  }

  /**
   * Speaks a text by the server's engine, in turn with the speech that is pushed.
   *
   * @param {string} text plain, of at most 2000 characters
   * @param {string} voice the engine's name of one; empty for the usual one
   * @returns {Promise<SayEnd>} how it ended
   */
  say(text, voice = "") {
    this.check();
    if (!this.ready?.voice_engine) throw new ClientError("unsupported", "The server has no speech engine for texts.");
    const { id, ended } = this.says.begin();
    this.wire.say(text, voice, id);
    return ended;
  }

  /** A pause begins here: the face finishes the begun half second now. */
  flush() {
    this.check();
    this.endResampling();
    this.wire.flush();
  }

  /** Nothing more will be pushed: the iterators end when everything is back. */
  finish() {
    this.flush();
    this.finished = true;
    this.wake();
  }

  /**
   * Somebody speaks over the face. Drops everything that waits, here and at the server. What is pushed after the call
   * begins a new epoch.
   *
   * @returns {Promise<Interrupted>} the server's answer: `pts` of the last picture that was shown
   */
  async interrupt() {
    this.check();
    this.resampler = null;
    this.rate = SAMPLE_RATE;
    this.arrivals.clear();
    this.says.endAll("interrupted");
    this.interrupted = null;
    this.wire.interrupt();
    this.pushed = this.arrivals.offset + this.wire.speech.end;
    while (!this.interrupted) {
      this.check();
      await this.news();
    }
    return this.interrupted;
  }

  /** @param {Options} options the face goes on with these, in a new epoch */
  change(options) {
    this.check();
    this.wire.change(options);
  }

  /** @param {Frame} frame was shown, or passed over: for programs with `acknowledge: false` */
  shown({ epoch, seq, index }) {
    this.wire.send({ type: "shown", epoch, seq, index });
  }

  /** Leaves. The iterators end. */
  close() {
    this.closed = true;
    this.says.endAll("lost", "the session is over");
    this.wire.close();
    this.wake();
  }

  // ---- down

  /** The pictures, in order. Take them as they come: the server sends 1 s of them ahead and drops the oldest. */
  async *frames() {
    for (;;) {
      const frame = await this.next(this.arrivals, "frames");
      if (!frame) return;
      const { epoch, seq, index } = frame;
      this.wire.send({ type: this.acknowledge ? "shown" : "taken", epoch, seq, index });
      yield frame;
    }
  }

  /** The sound as it comes back, each clip once. */
  async *sounds() {
    for (;;) {
      const sound = await this.next(this.arrivals, "sounds");
      if (!sound) return;
      yield sound;
    }
  }

  /**
   * @template {"frames" | "sounds"} Kind
   * @param {Arrivals} arrivals
   * @param {Kind} kind
   * @returns {Promise<Arrivals[Kind][number] | undefined>} undefined when no more comes
   */
  async next(arrivals, kind) {
    for (;;) {
      const item = arrivals[kind].shift();
      if (item || this.over) return item;
      this.check();
      await this.news();
    }
  }

  // ---- state

  /** Seconds of speech that wait to be sent. */
  get secondsUnsent() {
    return (this.wire.speech.end - this.wire.speech.sent) / SAMPLE_RATE;
  }

  /** Seconds of speech that are not back. */
  get secondsUnanswered() {
    return (this.wire.speech.end - this.wire.speech.start) / SAMPLE_RATE;
  }

  /** How often the session went on at another connection. */
  get reconnects() {
    return this.wire.resumed;
  }

  // Whether no more comes, of a session that has not failed.
  get over() {
    if (this.closed) return true;
    if (this.failure || !this.finished || this.secondsUnsent > 0 || this.says.waiting.size) return false;
    const back = this.secondsUnanswered === 0;
    if (back && this.arrivals.lastClipWhole) return true;
    // Pictures may be lost, and live sound may be left out: the server's word counts when all is quiet.
    const { status } = this;
    const quiet = this.statusAt - this.movedAt > QUIET;
    if (status && quiet && !status.clips_waiting && !status.seconds_waiting) return true;
    return back && performance.now() - this.movedAt > LOST;
  }

  check() {
    if (this.failure) throw this.failure;
    if (this.closed) throw new ClientError("closed", "The session was closed.");
  }

  // ---- news

  async opened() {
    this.wire.open();
    while (!this.ready) {
      this.check();
      await this.news();
    }
  }

  /** @returns {Promise<void>} */
  news() {
    return new Promise((resolve) => {
      this.waiting.add(resolve);
    });
  }

  wake() {
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const resolve of waiting) resolve();
  }

  moved() {
    this.movedAt = performance.now();
    this.wake();
  }

  /** @param {FrameMessage} message */
  frameCame(message) {
    const added = this.arrivals.addFrame(message);
    const { epoch, seq, index } = message;
    if (added && !this.arrivals.keepFrames) this.wire.send({ type: "shown", epoch, seq, index });
    this.moved();
  }

  /**
   * @param {ReadyFields} fields
   * @param {Coming} coming
   */
  serverReady(fields, coming) {
    this.ready = fields;
    if (coming === "new") this.arrivals.offset = this.pushed - this.wire.speech.end;
    if (coming !== "same") this.arrivals.begin(fields);
    this.wake();
  }

  /**
   * @param {WireState} name
   * @param {StateDetails} details
   */
  wireChanged(name, { error }) {
    const reason = error instanceof ClientError ? error : new ClientError("lost");
    if (name === "live") {
      clearTimeout(this.timer);
      this.timer = 0;
    } else if (name === "ended" || (name === "waiting" && !this.ready)) {
      this.fail(reason);
    } else if (name === "waiting" && !this.timer) {
      this.timer = setTimeout(() => this.fail(reason), this.retryFor * 1000);
    }
  }

  /** @param {ClientError} reason */
  fail(reason) {
    this.says.endAll("lost", "the session is over");
    this.failure ??= reason;
    this.wire.close();
    this.wake();
  }
}

/**
 * A session with a face.
 *
 * @param {string | URL} address of the server's page
 * @param {ConnectOptions} options
 * @returns {Promise<Face>} rejects with a ClientError: nobody answers (`lost`), the door does not let the client in, or
 *   there is no place (`busy`)
 */
export async function connect(address, options = {}) {
  const face = new Face(address, options);
  await face.opened();
  return face;
}
