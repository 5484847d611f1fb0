// Runs in the audio thread: turns whatever plays into its node into 16 kHz mono, in chunks of 10 ms.

import { SAMPLE_RATE } from "./client/clock.js";
import { Resampler } from "./client/resampler.js";

const CHUNK = 160; // the end of a clip waits for that of the chunk, and longer chunks saved nothing

class CaptureProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, SAMPLE_RATE);
    this.chunk = new Float32Array(CHUNK);
    this.filled = 0;
    this.running = true;
    // Any message from the page means that it has stopped.
    this.port.onmessage = () => {
      this.running = false;
    };
  }

  /**
   * @param {Float32Array[][]} inputs
   * @returns {boolean} whether the browser should call again
   */
  process(inputs) {
    const mono = inputs[0][0];
    if (mono) this.add(this.resampler.process(mono));
    return this.running;
  }

  /** @param {number[]} samples */
  add(samples) {
    for (const sample of samples) {
      this.chunk[this.filled] = sample;
      this.filled += 1;
      if (this.filled === CHUNK) {
        this.port.postMessage({ samples: this.chunk, time: currentTime }, [this.chunk.buffer]);
        this.chunk = new Float32Array(CHUNK);
        this.filled = 0;
      }
    }
  }
}

registerProcessor("capture", CaptureProcessor);
