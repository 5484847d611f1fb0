// A source of speech, the wire and the play-out together, until stop() or the end of the speech.

import { SAMPLE_RATE } from "./clock.js";
import { ClientError } from "./errors.js";
import { wantedCodecs } from "./pictures.js";
import { Playout } from "./playout.js";
import { Stats } from "./stats.js";
import { Whereabouts } from "./whereabouts.js";
import { Wire } from "./wire.js";

/**
 * @import { AudioMessage, Options, ReadyFields } from "./messages.js"
 * @import { Server } from "./server.js"
 * @import { EndReason, Source, Trouble } from "./source.js"
 * @import { FramePlace, Resume } from "./whereabouts.js"
 * @import { Coming, StateDetails, WireState } from "./wire.js"
 * @typedef {{
 *   state: (name: WireState, details: StateDetails) => void,
 *   ready: (fields: ReadyFields) => void,
 *   picture: (place: FramePlace) => void,
 *   level: (level: number) => void,
 *   text?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} SessionHandlers `picture` is called for every frame; `level` is the voice's, from 0 to 1; `text` is told of every
 *   text of the server
 */

const MOST_AHEAD = 5 * SAMPLE_RATE; // samples that may be unanswered before a source that can wait does so
const TELL_EVERY = 4; // frames taken after which the server is told
const CHUNK_SECONDS = 0.01; // of the microphone
const DRAINED_AFTER = 6000; // milliseconds after which speech that ended is over in any case

export class Session {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Source} source of the speech
   * @param {Server} server
   * @param {Options} options
   * @param {Resume | null} place of a client before this one, whose session this one takes over
   * @param {SessionHandlers} on
   */
  constructor(canvas, source, server, options, place, on) {
    this.on = on;
    this.stats = new Stats();
    this.over = false;
    this.held = false; // whether the source waits for the server
    /** @type {WakeLockSentinel | null | undefined} */
    this.lock = null;
    this.playout = new Playout(canvas, this.stats, {
      taken: ({ epoch, seq, index }, last) => {
        if (last || index % TELL_EVERY === 0) this.wire.send({ type: "taken", epoch, seq, index });
      },
      shown: ({ epoch, seq, index }) => {
        this.wire.send({ type: "shown", epoch, seq, index });
        this.on.picture({ epoch, seq, index });
      },
      undecodable: () => this.wire.change({ video: [] }),
    });
    this.playout.live = source.live;
    this.source = source;
    source.onChunk = (samples) => this.sendChunk(samples);
    source.onEnd = (why) => this.sourceEnded(why);
    /** @type {import("./wire.js").WireHandlers} */
    const handlers = {
      ready: (fields, coming) => this.serverReady(fields, coming),
      status: (fields) => {
        this.stats.server = fields;
      },
      frame: (message) => this.playout.picture(message),
      audio: (message, spokenAt) => this.soundCame(message, spokenAt),
      interrupted: ({ epoch }) => this.playout.reset(epoch),
      text: (fields) => this.on.text?.(fields),
      state: (name, details) => this.wireChanged(name, details),
    };
    this.wire = new Wire(server, { idle: "life", ...options }, handlers, new Whereabouts(place));
    this.wire.speech.live = source.live;
  }

  // What a client after this one needs to go on here; null if nothing is to go on.
  get place() {
    return this.over ? null : this.wire.whereabouts.place;
  }

  /**
   * Rejects with a ClientError, or with an error of the browser.
   *
   * @param {boolean} muted
   * @returns {Promise<boolean>} whether sound is as wanted: without, the pictures come alone
   */
  async start(muted) {
    this.playout.muted = muted;
    let heard = true;
    const { options, server } = this.wire;
    try {
      const [sound, codecs] = await Promise.all([
        this.playout.open(),
        options.video ?? wantedCodecs(server.base.hostname),
        this.source.open(),
      ]);
      heard = sound;
      options.video = codecs;
    } catch (error) {
      this.stop();
      throw error;
    }
    if (!this.over) {
      this.wire.open();
      this.stayAwake();
    }
    return heard;
  }

  // Keeps a phone's screen on while a face speaks. In a frame the screen is the holding page's affair.
  async stayAwake() {
    if (window.parent !== window) return;
    try {
      const lock = await navigator.wakeLock?.request("screen");
      this.lock = lock;
      if (this.over) lock?.release();
    } catch {
      // The browser did not grant it: the screen may go dark, and nothing else changes.
    }
  }

  /**
   * @param {ReadyFields} fields
   * @param {Coming} coming
   */
  async serverReady(fields, coming) {
    // The play-out of a session that goes on is left alone: its sound and pictures keep their places.
    if (coming !== "same") this.playout.reset(fields.epoch);
    if (coming === "new") this.stats.answered = 0;
    this.stats.resumed = this.wire.resumed;
    this.on.ready(fields);
    try {
      await this.source.begin();
    } catch (error) {
      this.end(error);
    }
  }

  /**
   * @param {WireState} name
   * @param {StateDetails} details
   */
  wireChanged(name, details) {
    if (name === "live" && !this.held) this.source.resume();
    if (name === "waiting") this.source.pause();
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
    this.wire.sendAudio(samples);
    const { leftOut, end, start } = this.wire.speech;
    this.stats.leftOut = leftOut / SAMPLE_RATE + this.source.stale * CHUNK_SECONDS;
    if (!this.source.live && !this.held && end - start > MOST_AHEAD) {
      this.held = true;
      this.source.pause();
    }
  }

  /**
   * @param {AudioMessage} message
   * @param {number | null} spokenAt
   */
  soundCame(message, spokenAt) {
    this.playout.audio(message, spokenAt);
    const { end, start } = this.wire.speech;
    if (this.held && end - start < MOST_AHEAD / 2) {
      this.held = false;
      this.source.resume();
    }
  }

  /** @param {EndReason} why */
  sourceEnded(why) {
    if (this.over) return;
    if (why !== "finished") {
      this.end(new ClientError(why));
      return;
    }
    this.flush();
    const ended = performance.now();
    const wait = setInterval(() => {
      if (!this.over && !this.drained(performance.now() - ended)) return;
      clearInterval(wait);
      this.end(null);
    }, 100);
  }

  // Speech has ended for now: the begun clip needs no more of it.
  flush() {
    this.wire.flush();
  }

  /**
   * The face speaks a text.
   *
   * @param {string} text
   * @param {string} id by which the server's texts tell of it
   * @param {string} voice the engine's name of one; empty for the usual one
   */
  say(text, id, voice = "") {
    this.wire.say(text, voice, id);
  }

  // Somebody speaks over the face: it falls silent at once, and forgets what was still to be said.
  interrupt() {
    this.source.drop?.();
    this.wire.interrupt();
    this.playout.silence();
  }

  /**
   * Whether all speech has been shown and heard.
   *
   * @param {number} passed milliseconds since its end was sent
   */
  drained(passed) {
    return passed >= DRAINED_AFTER || (this.stats.answered >= this.wire.speech.end && this.playout.idle);
  }

  /**
   * What keeps speech from coming or sound from being heard just now.
   *
   * @returns {Trouble | "sound_stopped" | "sound_withheld"}
   */
  get trouble() {
    const { timeline, muted } = this.playout;
    if (this.source.trouble) return this.source.trouble;
    if (muted || this.over || !this.wire.live) return "";
    if (timeline.lost) return "sound_stopped";
    return timeline.audible ? "" : "sound_withheld";
  }

  /** @param {Options} options other ones for the running session */
  change(options) {
    this.wire.change(options);
  }

  // Connects at once if it waits to: there is a new token.
  retry() {
    this.wire.retry();
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
    this.source.close();
    this.playout.close();
  }
}
