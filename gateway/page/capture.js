// Sound from the microphone or a file. Both pass the same worklet, which makes 16 kHz mono chunks of 20 ms.

import { PageError } from "./errors.js";

// A chunk that waited longer than this for a busy page is left out: a live face must not fall behind.
const STALE_SECONDS = 1;

/** @typedef {"unplugged" | "finished"} EndReason why no more sound comes */

export class Capture {
  /**
   * @param {(samples: Float32Array<ArrayBuffer>) => void} onChunk gets 320 samples at a time
   * @param {(why: EndReason) => void} onEnd
   */
  constructor(onChunk, onEnd) {
    this.onChunk = onChunk;
    this.onEnd = onEnd;
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {MediaStream | null} */
    this.stream = null;
    /** @type {AudioWorkletNode | null} */
    this.node = null;
    this.live = false; // whether the sound comes from the microphone
    this.stale = 0; // chunks left out
    this.startedAt = 0;
    this.duration = 0; // of a file, in seconds
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
    await context.resume();
  }

  async startMicrophone() {
    if (!navigator.mediaDevices?.getUserMedia) throw new PageError("insecure");
    this.live = true;
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    if (!this.context || !this.node) {
      // The person pressed Stop while the browser asked: the microphone must not stay on.
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => this.onEnd("unplugged"));
    this.context.createMediaStreamSource(stream).connect(this.node);
  }

  /** @param {File} file */
  async startFile(file) {
    this.live = false;
    const decoded = await this.decode(file);
    // The person pressed Stop while the file was decoded.
    if (!this.context || !this.node) return;
    if (decoded.duration < 0.05) throw new PageError("bad_file", file.name);
    const source = new AudioBufferSourceNode(this.context, { buffer: decoded });
    source.connect(this.node);
    source.addEventListener("ended", () => this.onEnd("finished"));
    this.duration = decoded.duration;
    this.startedAt = this.context.currentTime;
    source.start();
  }

  /** @param {File} file */
  async decode(file) {
    try {
      const data = await file.arrayBuffer();
      if (!this.context) throw new Error("closed");
      return await this.context.decodeAudioData(data);
    } catch {
      throw new PageError("bad_file", file.name);
    }
  }

  // How much of a file has been sent, from 0 to 1.
  get progress() {
    if (!this.duration || !this.context) return 0;
    return Math.min(1, (this.context.currentTime - this.startedAt) / this.duration);
  }

  // A file stands still until resume(). The microphone's chunks are dropped elsewhere meanwhile.
  pause() {
    if (!this.live) this.context?.suspend();
  }

  resume() {
    this.context?.resume();
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk({ samples, time }) {
    if (!this.context) return;
    if (this.live && this.context.currentTime - time > STALE_SECONDS) {
      this.stale += 1;
      return;
    }
    this.onChunk(samples);
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.node) {
      this.node.port.onmessage = null;
      this.node.port.postMessage("stop");
      this.node.disconnect();
    }
    this.context?.close();
    this.context = null;
    this.stream = null;
    this.node = null;
  }
}
