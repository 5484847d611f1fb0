// The websocket: version 2 of the wire (protocol/SPEC.md). It connects again after a lost connection.

import { SAMPLE_RATE } from "./clock.js";
import { PageError, isPassing, needsToken } from "./errors.js";
import { askReason } from "./server-watch.js";

const SUBPROTOCOL = "echomimic-live.v2";
const FRAME = 1;
const AUDIO = 2;
const FRAME_HEADER = 24;
const AUDIO_HEADER = 32;
const RETRY_SECONDS = [0.5, 1, 2, 4, 8, 15];
// Sound beyond this that the network has not taken is left out, so that the face stays live.
const MAX_UNSENT_BYTES = SAMPLE_RATE * 4;

/**
 * @import { Access } from "./access.js"
 * @typedef {{epoch: number, seq: number, pts: number}} Place
 * @typedef {Place & {kind: "frame", index: number, count: number, jpeg: Uint8Array<ArrayBuffer>}} FrameMessage
 * @typedef {Place & {
 *   kind: "audio", position: number, pictures: boolean, samples: Float32Array<ArrayBuffer>,
 * }} AudioMessage
 * @typedef {{epoch: number, width: number, height: number, notice: string}} ReadyFields the used ones of `ready`
 * @typedef {{
 *   notice: string, clips_waiting: number, seconds_waiting: number, frames_dropped: number, frames_lost: number,
 * }} StatusFields the used ones of `status`
 * @typedef {{avatar?: string, pose?: string}} Options
 * @typedef {"connecting" | "live" | "waiting" | "ended"} WireState
 * @typedef {{again?: boolean, notice?: string, seconds?: number, error?: unknown}} StateDetails
 *   `again` with connecting, `notice` with live, `seconds` and `error` with waiting, `error` with ended
 * @typedef {{
 *   ready: (fields: ReadyFields) => void,
 *   status: (fields: StatusFields) => void,
 *   frame: (message: FrameMessage) => void,
 *   audio: (message: AudioMessage) => void,
 *   state: (name: WireState, details: StateDetails) => void,
 * }} WireHandlers
 */

/**
 * A binary message; null for a kind that this page does not know.
 *
 * @param {ArrayBuffer} buffer
 * @returns {FrameMessage | AudioMessage | null}
 */
export function decode(buffer) {
  const view = new DataView(buffer);
  const kind = view.getUint8(0);
  const place = () => ({
    epoch: view.getUint32(8, true),
    seq: view.getUint32(12, true),
    pts: Number(view.getBigUint64(16, true)),
  });
  if (kind === FRAME && buffer.byteLength > FRAME_HEADER) {
    const index = view.getUint16(2, true);
    const count = view.getUint16(4, true);
    return { kind: "frame", ...place(), index, count, jpeg: new Uint8Array(buffer, FRAME_HEADER) };
  }
  if (kind === AUDIO && buffer.byteLength >= AUDIO_HEADER) {
    const position = Number(view.getBigUint64(24, true));
    const pictures = (view.getUint8(1) & 1) === 0;
    return { kind: "audio", ...place(), position, pictures, samples: new Float32Array(buffer, AUDIO_HEADER) };
  }
  return null;
}

/** @param {CloseEvent} event */
function closeError({ reason }) {
  const [code] = reason.split(":");
  return new PageError(/^[a-z_]+$/.test(code) ? code : "lost", reason);
}

export class Wire {
  /**
   * @param {Access} access
   * @param {Options} options
   * @param {WireHandlers} on
   */
  constructor(access, options, on) {
    this.access = access;
    this.options = options;
    this.on = on;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.live = false;
    this.attempt = 0;
    this.unsent = 0; // chunks left out
    /** @type {PageError | null} */
    this.error = null; // the server's, which comes before the close
    this.timer = 0;
    this.closed = false;
  }

  connect() {
    this.on.state("connecting", { again: this.attempt > 0 });
    const address = new URL("ws", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    this.error = null;
    const socket = new WebSocket(address, this.access.subprotocols(SUBPROTOCOL));
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.send({ type: "hello", ...this.options, sample_rate: SAMPLE_RATE });
    };
    socket.onmessage = ({ data }) => this.takeMessage(data);
    socket.onclose = (event) => this.connectionLost(event, opened);
  }

  /** @param {string | ArrayBuffer} data */
  takeMessage(data) {
    if (typeof data !== "string") {
      const message = decode(data);
      if (message?.kind === "frame") this.on.frame(message);
      if (message?.kind === "audio") this.on.audio(message);
      return;
    }
    const fields = JSON.parse(data);
    if (fields.type === "ready") {
      this.live = true;
      this.attempt = 0;
      this.on.ready(fields);
      this.on.state("live", fields);
    } else if (fields.type === "status") {
      this.on.status(fields);
    } else if (fields.type === "error") {
      this.error = new PageError(fields.code, fields.message);
    }
  }

  /**
   * @param {CloseEvent} event
   * @param {boolean} opened whether the server had let the page in
   */
  async connectionLost(event, opened) {
    this.live = false;
    this.socket = null;
    if (this.closed) return;
    let error = this.error ?? closeError(event);
    // A browser does not tell a page why a websocket was refused, but the server does.
    if (!opened) error = (await askReason(this.access)) ?? error;
    if (this.closed) return;
    if (needsToken(error.code)) {
      // retry() goes on with another one.
      this.on.state("waiting", { error });
      return;
    }
    if (!isPassing(error.code)) {
      this.close();
      this.on.state("ended", { error });
      return;
    }
    const seconds = RETRY_SECONDS[Math.min(this.attempt, RETRY_SECONDS.length - 1)] * (0.8 + 0.4 * Math.random());
    this.attempt += 1;
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
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(fields));
  }

  /**
   * @param {Float32Array<ArrayBuffer>} samples
   * @returns {boolean} false when the samples were left out
   */
  sendAudio(samples) {
    if (!this.live || !this.socket || this.socket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.unsent += this.live ? 1 : 0;
      return false;
    }
    this.socket.send(samples);
    return true;
  }

  /** @param {Options} options */
  change(options) {
    Object.assign(this.options, options);
    if (this.live) this.send({ type: "options", ...options });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close(1000);
    this.socket = null;
    this.live = false;
  }
}
