// Sound from the microphone or a file, both through the same worklet: 16 kHz mono in chunks of 20 ms.

import { PageError } from "./errors.js";

// A chunk that waited longer than this for a busy page is left out: a live face must not fall behind.
const STALE_SECONDS = 1;

export class Capture {
  // onChunk(samples) gets Float32Array(320); onEnd() is called when a file is over.
  constructor(onChunk, onEnd) {
    this.onChunk = onChunk;
    this.onEnd = onEnd;
    this.context = null;
    this.stream = null;
    this.node = null;
    this.stale = 0;
    this.startedAt = 0;
    this.duration = 0; // of a file, in seconds
  }

  // Must be called from a click or key press, or browsers keep the context silent.
  async open() {
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    this.node = new AudioWorkletNode(this.context, "capture", {
      numberOfInputs: 1,
      numberOfOutputs: 1,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    this.node.port.onmessage = ({ data }) => this.chunk(data);
    this.node.connect(this.context.destination); // its output is silence; unconnected nodes may not run
    await this.context.resume();
  }

  async startMicrophone() {
    if (!navigator.mediaDevices?.getUserMedia) throw new PageError("insecure");
    this.live = true;
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    const [track] = this.stream.getAudioTracks();
    track.addEventListener("ended", () => this.onEnd("unplugged"));
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  async startFile(file) {
    this.live = false;
    let decoded;
    try {
      decoded = await this.context.decodeAudioData(await file.arrayBuffer());
    } catch {
      throw new PageError("bad_file", file.name);
    }
    if (decoded.duration < 0.05) throw new PageError("bad_file", file.name);
    const source = new AudioBufferSourceNode(this.context, { buffer: decoded });
    source.connect(this.node);
    source.addEventListener("ended", () => this.onEnd("finished"));
    this.duration = decoded.duration;
    this.startedAt = this.context.currentTime;
    source.start();
  }

  // How much of a file has been sent, 0 to 1.
  get progress() {
    if (!this.duration || !this.context) return 0;
    return Math.min(1, (this.context.currentTime - this.startedAt) / this.duration);
  }

  // Nothing is captured, and a file stands still, until resume().
  pause() {
    if (!this.live) this.context?.suspend();
  }

  resume() {
    this.context?.resume();
  }

  chunk({ samples, time }) {
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
