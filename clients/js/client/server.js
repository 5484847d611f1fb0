// A server: its address, the token that opens it, and its answers to plain requests.

import { ClientError } from "./errors.js";
import { SUBPROTOCOL } from "./messages.js";

const SUBPROTOCOL_OF_TOKEN = "echomimic-live.token.";
const REASON_WITHIN = 2000; // milliseconds to wait for the reason of a refusal

export class Server {
  /**
   * @param {string | URL} address of the server's page, or of a page beside it
   * @param {string} token empty for none
   * @param {typeof WebSocket} [Socket] the class of its websocket, where the platform has none of its own
   */
  constructor(address, token = "", Socket = undefined) {
    this.base = new URL(".", address);
    this.token = token;
    this.Socket = Socket;
  }

  /** Address of the websocket. */
  get socketAddress() {
    const address = new URL("ws", this.base);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    return address;
  }

  /** A new websocket of version 2. The token is a subprotocol: a browser can set no header there. */
  open() {
    const subprotocols = this.token ? [SUBPROTOCOL, SUBPROTOCOL_OF_TOKEN + this.token] : [SUBPROTOCOL];
    const Socket = this.Socket ?? WebSocket;
    return new Socket(this.socketAddress, subprotocols);
  }

  /**
   * @param {string} path relative to the page
   * @param {RequestCache} cache
   * @param {number} within milliseconds after which it is given up; 0 for no limit
   * @returns {Promise<Response>}
   */
  async fetch(path, cache = "no-store", within = 0) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : undefined;
    const giveUp = new AbortController();
    const timer = within ? setTimeout(() => giveUp.abort(), within) : 0;
    try {
      return await fetch(new URL(path, this.base), { cache, headers, signal: giveUp.signal });
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Why the server does not let this client's websocket in. Null where it does, or is not reached.
   *
   * @returns {Promise<ClientError | null>}
   */
  async askReason() {
    // A program of its own has no origin, and a page must name it.
    const origin = globalThis.location?.origin;
    const query = origin ? `?origin=${encodeURIComponent(origin)}` : "";
    try {
      const answer = await this.fetch(`door.json${query}`, "no-store", REASON_WITHIN);
      const { open, code, message } = await answer.json();
      return open ? null : new ClientError(String(code), String(message));
    } catch {
      return null;
    }
  }
}
