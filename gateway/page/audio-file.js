// Speech from a file, of any length: the browser decodes it piece by piece while it is spoken.
//
// A machine without a sound device plays nothing, so there the file is decoded whole, up to a bound.

import { Capture } from "./capture.js";
import { SAMPLE_RATE } from "./client/clock.js";
import { ClientError } from "./client/errors.js";
import { PacedSpeech } from "./client/paced-speech.js";

const LOADED_WITHIN = 20000; // milliseconds
const LEAST_SECONDS = 0.05;
const AFTER_END = 200; // milliseconds until the last sound of the file has passed the graph
const WHOLE_BYTES = 64 << 20; // of a file that is decoded whole
const WHOLE_SECONDS = 600;

export class AudioFile extends Capture {
  /** @param {File} file */
  constructor(file) {
    super();
    this.file = file;
    this.address = "";
    this.element = new Audio();
    this.begun = false;
    this.ended = false;
    /** @type {PacedSpeech | null} */
    this.whole = null; // without a sound device
    this.wholeLength = 0; // samples
  }

  async open() {
    this.address = URL.createObjectURL(this.file);
    this.element.preload = "auto";
    this.element.src = this.address;
    this.element.addEventListener("ended", () => this.fileEnded());
    try {
      await super.open();
      await this.connectInput();
    } catch (error) {
      if (!(error instanceof ClientError) || error.code !== "no_sound" || this.closed) throw error;
      await this.decodeWhole();
    }
  }

  async connectInput() {
    const { context, node } = this;
    if (!context || !node) return;
    // An element belongs to one graph for ever, so a new graph gets a new one.
    if (this.begun) this.replaceElement();
    context.createMediaElementSource(this.element).connect(node);
  }

  replaceElement() {
    const { currentTime } = this.element;
    this.element.pause();
    this.element = new Audio(this.address);
    this.element.currentTime = currentTime;
    this.element.addEventListener("ended", () => this.fileEnded());
    if (this.flowing) this.element.play().catch(() => {});
  }

  async decodeWhole() {
    if (this.file.size > WHOLE_BYTES) throw new ClientError("no_sound");
    const offline = new OfflineAudioContext(1, 1, SAMPLE_RATE);
    let buffer;
    try {
      buffer = await offline.decodeAudioData(await this.file.arrayBuffer());
    } catch {
      throw new ClientError("bad_file", this.file.name);
    }
    if (buffer.duration < LEAST_SECONDS) throw new ClientError("bad_file", this.file.name);
    if (buffer.duration > WHOLE_SECONDS) throw new ClientError("no_sound");
    const mono = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
      const samples = buffer.getChannelData(channel);
      for (let n = 0; n < mono.length; n += 1) mono[n] += samples[n] / buffer.numberOfChannels;
    }
    const whole = new PacedSpeech();
    whole.onChunk = (samples) => this.onChunk(samples);
    whole.onFlush = () => this.onEnd("finished");
    whole.add(mono, SAMPLE_RATE);
    whole.flush();
    this.whole = whole;
    this.wholeLength = mono.length;
  }

  // Speaks the file, once: after a lost connection it goes on where it stood.
  async begin() {
    if (this.begun || this.closed) return;
    this.begun = true;
    if (this.whole) {
      await this.whole.begin();
      return;
    }
    await this.loaded();
    if (this.closed) return;
    if (this.element.duration < LEAST_SECONDS) throw new ClientError("bad_file", this.file.name);
    this.resume();
  }

  /** Waits until the browser knows what the file is. @returns {Promise<void>} */
  loaded() {
    const { element } = this;
    return new Promise((resolve, reject) => {
      const bad = () => reject(new ClientError("bad_file", this.file.name));
      if (element.error) bad();
      else if (element.readyState >= HTMLMediaElement.HAVE_METADATA) resolve();
      element.addEventListener("loadedmetadata", () => resolve(), { once: true });
      element.addEventListener("error", bad, { once: true });
      setTimeout(bad, LOADED_WITHIN);
    });
  }

  fileEnded() {
    this.ended = true;
    setTimeout(() => {
      this.flow(false);
      if (!this.closed) this.onEnd("finished");
    }, AFTER_END);
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk(chunk) {
    if (this.flowing) super.takeChunk(chunk);
  }

  // How much of the file has been spoken, from 0 to 1; of a stream without an end it is 0.
  get progress() {
    if (this.whole) return 1 - this.whole.waiting / this.wholeLength;
    const { currentTime, duration } = this.element;
    return duration > 0 && Number.isFinite(duration) ? Math.min(1, currentTime / duration) : 0;
  }

  // The file stands still until resume().
  pause() {
    this.whole?.pause();
    this.element.pause();
    this.flow(false);
  }

  resume() {
    if (!this.begun || this.ended) return;
    if (this.whole) {
      this.whole.resume();
      return;
    }
    this.start();
    this.flow(true);
    this.element.play().catch((error) => {
      // A pause that follows at once ends a play too.
      if (!this.closed && error instanceof Error && error.name !== "AbortError") this.onEnd("bad_file");
    });
  }

  close() {
    super.close();
    this.whole?.close();
    this.element.pause();
    this.element.removeAttribute("src");
    this.element.load();
    URL.revokeObjectURL(this.address);
  }
}
