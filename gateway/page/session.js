// One press of Start: capture, wire and play-out together, until Stop or the end of the file.

import { Capture } from "./capture.js";
import { PageError } from "./errors.js";
import { Playout } from "./playout.js";
import { Stats } from "./stats.js";
import { Wire } from "./wire.js";

const DRAINED_AFTER = 6000; // milliseconds after which a file that ended is over in any case

export class Session {
  // on: {state(name, details), ready(fields), picture(), level(0..1)}
  constructor(canvas, options, on) {
    this.on = on;
    this.stats = new Stats();
    this.position = 0; // samples sent on this connection
    this.firstPicture = true;
    this.over = false;
    this.playout = new Playout(canvas, this.stats, (frame) => this.shown(frame));
    this.capture = new Capture((samples) => this.chunk(samples), (why) => this.captureEnded(why));
    this.wire = new Wire(options, {
      ready: (fields) => this.ready(fields),
      status: (fields) => {
        this.stats.server = fields;
      },
      frame: (message) => this.playout.picture(message),
      audio: (message) => this.playout.audio(message),
      state: (name, details) => this.state(name, details),
    });
  }

  // `file`: null for the microphone. Rejects with what describe() understands.
  async start(file, muted) {
    this.playout.muted = muted;
    try {
      await Promise.all([this.playout.open(), this.capture.open()]);
      this.file = file;
      if (!file) await this.capture.startMicrophone();
    } catch (error) {
      this.stop();
      throw error;
    }
    if (this.over) return;
    this.wire.connect();
    this.stayAwake();
  }

  // A phone's screen stays on while a face speaks.
  async stayAwake() {
    try {
      this.lock = await navigator.wakeLock?.request("screen");
      if (this.over) this.lock?.release();
    } catch {
      // not granted: the screen may go dark, nothing else changes
    }
  }

  async ready(fields) {
    this.playout.reset(fields.epoch);
    this.on.ready(fields);
    if (fields.epoch === 0) this.position = 0; // a new connection counts anew
    if (fields.epoch === 0) this.stats.sent = [];
    if (this.file && !this.capture.duration) {
      try {
        await this.capture.startFile(this.file);
      } catch (error) {
        this.end(error);
      }
    }
  }

  state(name, details) {
    if (name === "live") this.capture.resume();
    if (name === "waiting") this.capture.pause();
    if (name === "ended") {
      this.end(details.error);
      return;
    }
    this.on.state(name, details);
  }

  chunk(samples) {
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    this.on.level(Math.min(1, 4 * Math.sqrt(sum / samples.length)));
    if (this.wire.sendAudio(samples)) {
      this.position += samples.length;
      this.stats.sentAudio(this.position, performance.now());
    }
    this.stats.unsent = this.wire.unsent + this.capture.stale;
  }

  shown({ epoch, seq, index }) {
    this.wire.send({ type: "shown", epoch, seq, index });
    if (this.firstPicture) {
      this.firstPicture = false;
      this.on.picture();
    }
  }

  captureEnded(why) {
    if (this.over) return;
    if (why !== "finished") {
      this.end(new PageError(why));
      return;
    }
    this.wire.send({ type: "flush" });
    const ended = performance.now();
    const wait = setInterval(() => {
      const server = this.stats.server;
      const waits = !server || server.clips_waiting > 0 || server.seconds_waiting > 0;
      const passed = performance.now() - ended;
      if (!this.over && (passed < 1200 || waits || !this.playout.idle) && passed < DRAINED_AFTER) return;
      clearInterval(wait);
      this.end(null);
    }, 100);
  }

  // Other options for what runs: {avatar} or {pose}.
  change(options) {
    this.wire.change(options);
  }

  mute(muted) {
    this.playout.mute(muted);
  }

  end(error) {
    if (this.over) return;
    this.stop();
    this.on.state("ended", { error });
  }

  stop() {
    this.over = true;
    this.lock?.release();
    this.wire.close();
    this.capture.close();
    this.playout.close();
  }
}
