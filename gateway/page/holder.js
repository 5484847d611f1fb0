// Messages between /embed and the page that holds it in a frame. Each is an object with its kind in `echomimic`.
//
// The browser shows this page only inside the origins that the server names (--embed-origins). So the parent is
// one of them, and no window but the parent is listened to. Nothing is said before the parent has spoken, and
// then only to the origin that it spoke from.

/** @typedef {Record<string, unknown>} Message */

export class Holder {
  /** @param {(kind: string, message: Message) => void} onMessage */
  constructor(onMessage) {
    this.origin = ""; // of the parent, once it has spoken
    this.held = window.parent !== window;
    if (!this.held) return;
    window.addEventListener("message", ({ source, origin, data }) => {
      if (source !== window.parent || origin === "null" || typeof data?.echomimic !== "string") return;
      this.origin = origin;
      onMessage(data.echomimic, data);
    });
  }

  /**
   * @param {string} kind
   * @param {Message} fields
   */
  tell(kind, fields = {}) {
    if (this.origin) window.parent.postMessage({ echomimic: kind, ...fields }, this.origin);
  }
}
