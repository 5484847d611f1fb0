// Sound from the microphone or a file. Both pass the same worklet, which makes 16 kHz mono chunks of 20 ms.

import { ClientError } from "./client/errors.js";
import { settledWithin } from "./client/waiting.js";

// A chunk that waited longer than this for a busy page is left out: a live face must not fall behind.
const STALE_SECONDS = 1;
const SOUND_WITHIN = 2500; // milliseconds that the browser's sound may take to start

/** @import { EndReason } from "./client/source.js" */

class Capture {
  constructor() {
    /** @type {(samples: Float32Array<ArrayBuffer>) => void} */
    this.onChunk = () => {};
    /** @type {(why: EndReason) => void} */
    this.onEnd = () => {};
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {AudioWorkletNode | null} */
    this.node = null;
    this.stale = 0;
    this.live = false;
  }

  // Must be called from a click or key press, or browsers keep the context silent.
  async open() {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    await context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "capture", {
      numberOfInputs: 1,
      numberOfOutputs: 1,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    this.node = node;
    node.port.onmessage = ({ data }) => this.takeChunk(data);
    // The node's output is silence, but browsers may not run a node that leads nowhere.
    node.connect(context.destination);
    // Without a sound device, or without a click, the browser never starts the context.
    if (!(await settledWithin(context.resume(), SOUND_WITHIN))) throw new ClientError("no_sound");
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk({ samples }) {
    if (this.context) this.onChunk(samples);
  }

  async begin() {}

  pause() {}

  resume() {
    this.context?.resume();
  }

  close() {
    if (this.node) {
      this.node.port.onmessage = null;
      this.node.port.postMessage("stop");
      this.node.disconnect();
    }
    this.context?.close();
    this.context = null;
    this.node = null;
  }
}

export class Microphone extends Capture {
  constructor() {
    super();
    this.live = true;
    /** @type {MediaStream | null} */
    this.stream = null;
  }

  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new ClientError("insecure");
    await Promise.all([super.open(), this.ask()]);
    if (this.stream && this.node) this.context?.createMediaStreamSource(this.stream).connect(this.node);
  }

  async ask() {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    if (!this.context) {
      // The person pressed Stop while the browser asked: the microphone must not stay on.
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => this.onEnd("unplugged"));
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk(chunk) {
    if (this.context && this.context.currentTime - chunk.time > STALE_SECONDS) this.stale += 1;
    else super.takeChunk(chunk);
  }

  close() {
    super.close();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
  }
}

export class AudioFile extends Capture {
  /** @param {File} file */
  constructor(file) {
    super();
    this.file = file;
    this.startedAt = 0;
    this.duration = 0; // seconds
  }

  // Plays the file into the worklet, once: after a lost connection it goes on where it stood.
  async begin() {
    if (this.duration) return;
    const decoded = await this.decode();
    // The person pressed Stop while the file was decoded.
    if (!this.context || !this.node) return;
    if (decoded.duration < 0.05) throw new ClientError("bad_file", this.file.name);
    const source = new AudioBufferSourceNode(this.context, { buffer: decoded });
    source.connect(this.node);
    source.addEventListener("ended", () => this.onEnd("finished"));
    this.duration = decoded.duration;
    this.startedAt = this.context.currentTime;
    source.start();
  }

  async decode() {
    try {
      const data = await this.file.arrayBuffer();
      if (!this.context) throw new Error("closed");
      return await this.context.decodeAudioData(data);
    } catch {
      throw new ClientError("bad_file", this.file.name);
    }
  }

  // How much of the file has been sent, from 0 to 1.
  get progress() {
    if (!this.duration || !this.context) return 0;
    return Math.min(1, (this.context.currentTime - this.startedAt) / this.duration);
  }

  // The file stands still until resume().
  pause() {
    this.context?.suspend();
  }
}
