// Sound that passes through the browser's audio graph: a worklet makes 16 kHz mono chunks of 10 ms of it.
//
// Browsers stop that graph for many reasons: another program takes the sound device, the device goes away, a phone
// rings, the machine sleeps. They often tell nobody. So this looks whether chunks come, and starts the graph again.

import { ClientError } from "./client/errors.js";
import { settledWithin } from "./client/waiting.js";

/** @import { EndReason, Trouble } from "./client/source.js" */

const SOUND_WITHIN = 2500; // milliseconds that the browser's sound may take to start
const MODULE_WITHIN = 10000; // and the worklet to load
const LOOK_EVERY = 500; // milliseconds
const STOPPED_AFTER = 2000; // milliseconds without a chunk after which the graph counts as stopped
const BUILD_EVERY = 5000; // milliseconds without a chunk after which a new graph is built

export class Capture {
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
    /** @type {Trouble} */
    this.trouble = "";
    this.closed = false;
    this.flowing = false; // whether chunks are expected
    this.chunkAt = 0; // when the last one came
    this.builtAt = 0;
    this.lookedAt = 0;
    this.looking = 0;
  }

  // Must be called from a click or key press, or browsers keep the context silent.
  async open() {
    await this.build();
    // Without a sound device, or without a click, the browser never starts the context.
    if (this.context && !(await settledWithin(this.context.resume(), SOUND_WITHIN))) throw new ClientError("no_sound");
    this.lookedAt = performance.now();
    this.looking = setInterval(() => this.look(), LOOK_EVERY);
  }

  /** @param {number} [rate] of the graph, where the browser's own will not do */
  async build(rate) {
    this.takeDown();
    const context = new AudioContext({ latencyHint: "interactive", sampleRate: rate });
    this.context = context;
    this.builtAt = performance.now();
    const module = context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    if (!(await settledWithin(module, MODULE_WITHIN))) throw new ClientError("lost");
    if (this.context !== context) return; // it was closed meanwhile
    const node = new AudioWorkletNode(context, "capture", {
      numberOfInputs: 1,
      numberOfOutputs: 1,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    this.node = node;
    node.port.onmessage = ({ data }) => {
      this.chunkAt = performance.now();
      if (this.trouble === "speech_stopped") this.trouble = "";
      this.takeChunk(data);
    };
    // The node's output is silence, but browsers may not run a node that leads nowhere.
    node.connect(context.destination);
  }

  /** @param {{samples: Float32Array<ArrayBuffer>, time: number}} chunk */
  takeChunk({ samples }) {
    if (this.context) this.onChunk(samples);
  }

  // Joins what is captured to the node of a new graph.
  async connectInput() {}

  async begin() {
    this.flow(true);
  }

  pause() {}

  resume() {
    this.start();
  }

  // Some browsers leave the promise open for ever, and reject it when the context is closed.
  start() {
    this.context?.resume().catch(() => {});
  }

  /** @param {boolean} flowing whether chunks are expected from now on */
  flow(flowing) {
    this.flowing = flowing;
    this.chunkAt = performance.now();
  }

  look() {
    const now = performance.now();
    // After a sleep of the machine, or of a hidden page, chunks need a moment.
    if (now - this.lookedAt > STOPPED_AFTER) this.chunkAt = now;
    this.lookedAt = now;
    if (!this.flowing || now - this.chunkAt < STOPPED_AFTER) return;
    this.trouble = "speech_stopped";
    this.start();
    if (now - Math.max(this.chunkAt, this.builtAt) > BUILD_EVERY) this.rebuild();
  }

  async rebuild() {
    try {
      await this.build();
      if (this.closed) return;
      await this.connectInput();
      this.start();
    } catch {
      // The next look tries again.
    }
  }

  takeDown() {
    if (this.node) {
      this.node.port.onmessage = null;
      this.node.port.postMessage("stop");
      this.node.disconnect();
    }
    this.context?.close().catch(() => {});
    this.context = null;
    this.node = null;
  }

  close() {
    this.closed = true;
    clearInterval(this.looking);
    this.takeDown();
  }
}
