// Speech from a microphone.

import { Capture } from "./capture.js";
import { ClientError } from "./client/errors.js";

// A chunk that waited longer than this for a busy page is left out: a live face must not fall behind.
const STALE_SECONDS = 1;
const SILENT_AFTER = 3; // seconds of nothing but zeros
const ZERO = 1e-5; // a microphone that works is never that quiet: -100 dB
const CHUNK_SECONDS = 0.01;
const USUAL_RATES = [48000, 44100];
const ASKING_LONG = 3000; // milliseconds after which a person is told that the browser asks
const WANTED = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** @param {unknown} error whether the wanted device is not there, as browsers say it */
function isMissing(error) {
  return error instanceof Error && ["OverconstrainedError", "NotFoundError"].includes(error.name);
}

export class Microphone extends Capture {
  /** @param {string} device its id; empty for the browser's choice */
  constructor(device = "") {
    super();
    this.live = true;
    this.device = device;
    /** @type {MediaStream | null} */
    this.stream = null;
    this.zeros = 0; // seconds since the last sound
    this.askedAt = 0; // since when the browser asks the person
    this.gone = false; // whether the wanted device was not there
  }

  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new ClientError("insecure");
    await Promise.all([super.open(), this.ask()]);
    await this.connectInput();
    this.look();
  }

  async ask() {
    this.askedAt = performance.now();
    let stream;
    try {
      stream = await this.getStream();
    } finally {
      this.askedAt = 0;
    }
    const [track] = stream.getAudioTracks();
    if (this.closed || !track) {
      // The person pressed Stop while the browser asked: the microphone must not stay on.
      stream.getTracks().forEach((each) => each.stop());
      if (!this.closed) throw new ClientError("no_microphone");
      return;
    }
    this.release();
    this.stream = stream;
    track.addEventListener("ended", () => this.stream === stream && this.lost());
  }

  /** The wanted microphone, or another one where that is not there. @returns {Promise<MediaStream>} */
  async getStream() {
    const { mediaDevices } = navigator;
    if (this.device) {
      try {
        return await mediaDevices.getUserMedia({ audio: { ...WANTED, deviceId: { exact: this.device } } });
      } catch (error) {
        if (!isMissing(error)) throw error;
        this.gone = true;
      }
    }
    return mediaDevices.getUserMedia({ audio: WANTED });
  }

  // Firefox joins a microphone only to a graph of its own rate.
  async connectInput() {
    const { stream } = this;
    if (!stream) return;
    const own = stream.getAudioTracks()[0].getSettings().sampleRate;
    for (const rate of [0, ...(own ? [own] : []), ...USUAL_RATES]) {
      if (this.closed) return;
      if (rate) await this.build(rate);
      try {
        if (this.node) this.context?.createMediaStreamSource(stream).connect(this.node);
        if (rate) this.start();
        return;
      } catch {
        // The next rate may do.
      }
    }
    throw new ClientError("odd_rate");
  }

  // It was unplugged: another one takes over where there is one.
  async lost() {
    this.gone = true;
    this.device = "";
    try {
      await this.ask();
      await this.connectInput();
    } catch {
      this.onEnd("unplugged");
    }
  }

  /** @param {string} device the id of the one to take from now on */
  async use(device) {
    this.device = device;
    this.gone = false;
    this.zeros = 0;
    await this.ask();
    await this.rebuild();
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk(chunk) {
    const silent = chunk.samples.every((sample) => Math.abs(sample) < ZERO);
    this.zeros = silent ? this.zeros + CHUNK_SECONDS : 0;
    if (this.context && this.context.currentTime - chunk.time > STALE_SECONDS) this.stale += 1;
    else super.takeChunk(chunk);
  }

  look() {
    super.look();
    if (this.trouble === "speech_stopped") return;
    if (this.zeros >= SILENT_AFTER) this.trouble = "microphone_silent";
    else if (this.askedAt && performance.now() - this.askedAt > ASKING_LONG) this.trouble = "microphone_asks";
    else this.trouble = this.gone ? "microphone_switched" : "";
  }

  release() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
  }

  close() {
    super.close();
    this.release();
  }
}
