// The websocket: version 2 of the wire (protocol/SPEC.md). It connects again after a lost connection.

import { SAMPLE_RATE } from "./clock.js";
import { ClientError, isPassing, needsToken } from "./errors.js";
import { decode } from "./messages.js";
import { SpeechLog } from "./speech-log.js";
import { Whereabouts } from "./whereabouts.js";

// Seconds between two tries. After a lost connection a person waits: the server may be back at any moment.
const LOST_SECONDS = [0, 0.25, 0.5, 1, 1.5];
const REFUSED_SECONDS = [0.5, 1, 2, 4, 8, 15];
const HIDDEN_FACTOR = 4; // nobody looks at a hidden page
// Sound beyond this that the network has not taken waits in the client.
const MOST_BUFFERED = SAMPLE_RATE * 4;
// A server says something each second. One that is silent for longer is lost, whatever the network says.
const SILENT_AFTER = 5000; // milliseconds
const HELD_AFTER = 2000; // milliseconds after which a connection was no failed try
const LOOK_EVERY = 500; // milliseconds
const OPEN = 1; // state of a websocket
const AWAY_AFTER = 2000; // milliseconds between two looks after which the client itself was away

/**
 * @import { AudioMessage, FrameMessage, Interrupted, Options, ReadyFields, StatusFields } from "./messages.js"
 * @import { Server } from "./server.js"
 * @typedef {"new" | "same" | "next"} Coming what a `ready` begins: a session, nothing (the connection alone is new), or
 *   an epoch
 * @typedef {"connecting" | "live" | "waiting" | "ended"} WireState
 * @typedef {{again?: boolean, notice?: string, notice_phrase?: object, seconds?: number, error?: unknown}} StateDetails
 *   `again` with connecting, `notice` with live, `seconds` and `error` with waiting, `error` with ended
 * @typedef {{
 *   ready: (fields: ReadyFields, coming: Coming) => void,
 *   status: (fields: StatusFields) => void,
 *   frame: (message: FrameMessage) => void,
 *   audio: (message: AudioMessage, spokenAt: number | null) => void,
 *   state: (name: WireState, details: StateDetails) => void,
 *   interrupted?: (fields: Interrupted) => void,
 *   text?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} WireHandlers `text` is told of every text of the server, after the others
 */

/** @param {string} reason of a close */
function closeError(reason) {
  const [code] = reason.split(":");
  return new ClientError(/^[a-z_]+$/.test(code) ? code : "lost", reason);
}

/** Nobody looks at a hidden page. A program of its own has none. */
function isHidden() {
  return globalThis.document?.hidden ?? false;
}

export class Wire {
  /**
   * @param {Server} server
   * @param {Options} options
   * @param {WireHandlers} on
   * @param {Whereabouts} whereabouts where the client was, if it comes back
   */
  constructor(server, options, on, whereabouts = new Whereabouts()) {
    this.server = server;
    this.options = options;
    this.on = on;
    this.whereabouts = whereabouts;
    this.speech = new SpeechLog();
    this.ahead = Infinity; // samples that may be sent and not be back
    /** @type {Map<string, {fields: Record<string, unknown>, begun: boolean}>} */
    this.says = new Map(); // texts to be spoken whose end the server has not told, by their ids
    this.interrupting = false; // whether an interruption is not answered yet
    /** @type {WebSocket | null} */
    this.socket = null;
    this.live = false;
    this.attempt = 0; // since the last connection that held
    this.takenIn = false; // whether a server has ever taken this client in
    this.readyAt = 0; // when the server last took this client in
    this.resumed = 0; // how often the session went on at another connection
    this.taken = 0; // frames and sounds of this connection
    /** @type {ClientError | null} */
    this.error = null; // the server's, which comes before the close
    this.timer = 0;
    this.closed = false;
    this.heardAt = 0; // when the server last said something
    this.lookedAt = 0;
    this.looking = 0;
    this.hurry = () => isHidden() || this.retry();
  }

  open() {
    this.connect();
    this.looking = setInterval(() => this.look(), LOOK_EVERY);
    globalThis.document?.addEventListener("visibilitychange", this.hurry);
    globalThis.window?.addEventListener("online", this.hurry);
  }

  connect() {
    this.on.state("connecting", { again: this.attempt > 0 });
    this.error = null;
    this.taken = 0;
    const socket = this.server.open();
    this.socket = socket;
    this.heardAt = performance.now();
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.heardAt = performance.now();
      this.send({ type: "hello", ...this.options, sample_rate: SAMPLE_RATE, ...this.comingBack });
    };
    socket.onmessage = ({ data }) => this.takeMessage(data);
    const lost = (/** @type {string} */ reason) => this.socket === socket && this.connectionLost(reason, opened);
    socket.onclose = ({ reason }) => lost(reason);
    // Node.js tells of a connection that was never there by an error alone.
    socket.onerror = () => opened || lost("");
  }

  get comingBack() {
    return { live: this.speech.live, ...(this.whereabouts.place && { resume: this.whereabouts.place }) };
  }

  /** @param {string | ArrayBuffer} data */
  takeMessage(data) {
    this.heardAt = performance.now();
    if (typeof data !== "string") {
      this.takeBinary(data);
      return;
    }
    const fields = JSON.parse(data);
    if (fields.type === "ready") {
      this.serverReady(fields);
    } else if (fields.type === "status") {
      this.on.status(fields);
    } else if (fields.type === "error") {
      this.error = new ClientError(fields.code, fields.message, fields.phrase);
    } else if (fields.type === "interrupted") {
      this.interruptionAnswered(fields);
    } else if (fields.type === "say_started") {
      const say = this.says.get(fields.id);
      if (say) say.begun = true;
    } else if (fields.type === "say_ended") {
      this.says.delete(fields.id);
    }
    this.on.text?.(fields);
    this.pump();
  }

  /** @param {ArrayBuffer} data */
  takeBinary(data) {
    const message = decode(data);
    if (!message || this.interrupting) return;
    this.taken += 1;
    if (message.kind === "frame") {
      this.whereabouts.seen(message);
      this.on.frame(message);
    } else {
      this.whereabouts.heard(message);
      this.on.audio(message, this.speech.heard(message.position + message.own));
      if (this.ahead < Infinity) this.pump();
    }
  }

  /** @param {ReadyFields} fields */
  serverReady(fields) {
    const epoch = this.whereabouts.place?.epoch;
    /** @type {Coming} */
    let coming = fields.epoch === epoch && this.takenIn ? "same" : "next";
    if (!this.live) {
      // The first one of this connection.
      if (!fields.resumed) {
        coming = "new";
        this.whereabouts.forget();
        this.speech.startAnew();
      }
      this.resumed += fields.resumed ? 1 : 0;
      this.speech.goOnFrom(fields.position);
    }
    this.whereabouts.begin(fields);
    if (!this.live && this.interrupting) this.send({ type: "interrupt" });
    if (!this.live) {
      this.readyAt = performance.now();
      this.sayAgain(fields.saying ?? []);
    }
    this.takenIn = true;
    this.live = true;
    this.on.ready(fields, coming);
    this.on.state("live", fields);
  }

  /**
   * Texts that another connection's server does not know. One that had begun is not said twice.
   *
   * @param {string[]} known ids of those that go on there
   */
  sayAgain(known) {
    for (const [id, { fields, begun }] of [...this.says]) {
      if (known.includes(id)) continue;
      if (!begun) {
        this.send(fields);
        continue;
      }
      this.says.delete(id);
      this.on.text?.({ type: "say_ended", id, outcome: "lost", message: "the server was lost while it spoke" });
    }
  }

  // A network that stands still tells nobody, so the client looks by itself.
  look() {
    const now = performance.now();
    const away = now - this.lookedAt > AWAY_AFTER; // what the server said meanwhile is not read yet
    this.lookedAt = now;
    if (away) this.heardAt = Math.max(this.heardAt, now - SILENT_AFTER / 2);
    if (this.socket && now - this.heardAt > SILENT_AFTER) this.abandon();
    this.pump();
  }

  abandon() {
    const { socket } = this;
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.onerror = null;
    socket.close();
    this.connectionLost("", true);
  }

  /**
   * @param {string} reason of the close
   * @param {boolean} opened whether the server had let the client in
   */
  async connectionLost(reason, opened) {
    const wasLive = this.live;
    if (wasLive && performance.now() - this.readyAt > HELD_AFTER) this.attempt = 0;
    this.live = false;
    this.socket = null;
    if (this.closed) return;
    let error = this.error ?? closeError(reason);
    // A browser does not tell why a websocket was refused, but the server does.
    if (!opened) {
      error = (await this.server.askReason()) ?? error;
      if (this.closed || this.socket) return;
    }
    if (needsToken(error.code)) {
      // retry() goes on with another one.
      this.on.state("waiting", { error });
      return;
    }
    // A network that stood still looks like a slow client. One that is slow takes nothing of a whole connection.
    const stoodStill = error.code === "slow_client" && wasLive && this.taken > 0;
    if (!isPassing(error.code) && !stoodStill) {
      this.close();
      this.on.state("ended", { error });
      return;
    }
    this.wait(stoodStill ? new ClientError("lost") : error);
  }

  /** @param {ClientError} error after which the client connects again in a moment */
  wait(error) {
    const table = ["lost", "shutdown", "not_ready"].includes(error.code) ? LOST_SECONDS : REFUSED_SECONDS;
    const base = table[Math.min(this.attempt, table.length - 1)];
    const seconds = (base * (0.8 + 0.4 * Math.random()) + 0.05 * Math.random()) * (isHidden() ? HIDDEN_FACTOR : 1);
    this.attempt += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), seconds * 1000);
    this.on.state("waiting", { seconds, error });
  }

  // Connects at once if it waits to.
  retry() {
    if (this.closed || this.socket) return;
    clearTimeout(this.timer);
    this.connect();
  }

  /** @param {Record<string, unknown>} fields of a JSON text */
  send(fields) {
    if (this.socket?.readyState === OPEN) this.socket.send(JSON.stringify(fields));
  }

  /** @param {Float32Array<ArrayBuffer>} samples */
  sendAudio(samples) {
    if (!this.whereabouts.place) return; // no server has taken the client in yet
    this.speech.add(samples, performance.now());
    this.pump();
  }

  // Sends the speech that waits, as far as the network and the server take it.
  pump() {
    const { speech } = this;
    while (this.live && this.socket?.readyState === OPEN && this.socket.bufferedAmount < MOST_BUFFERED) {
      if (speech.takeEnd()) this.send({ type: "flush" });
      if (speech.sent - speech.start >= this.ahead) return;
      const samples = speech.next();
      if (!samples) return;
      this.socket.send(samples);
    }
  }

  /**
   * The server makes speech of a text, and the face speaks it.
   *
   * @param {string} text
   * @param {string} voice the engine's name of one; empty for the usual one
   * @param {string} id by which the server tells of it
   */
  say(text, voice, id) {
    const fields = { type: "say", text, id, ...(voice && { voice }) };
    this.says.set(id, { fields, begun: false });
    if (this.live) this.send(fields);
  }

  // Speech ends here for now: the begun clip needs no more of it.
  flush() {
    this.speech.endHere();
    this.pump();
  }

  // Drops all speech, here and at the server. What is added from now on begins a new epoch.
  interrupt() {
    this.speech.drop();
    this.says.clear();
    this.interrupting = true;
    if (this.live) this.send({ type: "interrupt" });
  }

  /** @param {Interrupted} fields */
  interruptionAnswered(fields) {
    this.interrupting = false;
    this.whereabouts.begin({ resume: this.whereabouts.place?.token, epoch: fields.epoch });
    this.on.interrupted?.(fields);
  }

  /** @param {Options} options */
  change(options) {
    Object.assign(this.options, options);
    if (this.live) this.send({ type: "options", ...options });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.looking);
    globalThis.document?.removeEventListener("visibilitychange", this.hurry);
    globalThis.window?.removeEventListener("online", this.hurry);
    this.socket?.close(1000);
    this.socket = null;
    this.live = false;
  }
}
