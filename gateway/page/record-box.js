// Recording and snapshot: buttons below the face, and the files that the server made, to be saved.

import { knownCodecs } from "./client/pictures.js";
import { typed } from "./elements.js";
import { markedAsGenerated } from "./generated-mark.js";
import { numeral, sentence, t } from "./text.js";

const PIECE = 4 << 20; // bytes of a file that are asked for at once
const LOOK_EVERY = 500; // milliseconds between two looks for a file whose session is over
const MOST_LOOKS = 20;

/**
 * @import { Access } from "./access.js"
 * @import { Session } from "./client/session.js"
 * @typedef {{state: string, name: string, mime: string, seconds: number, bytes: number, reason: string, phrase?: object}} Told
 */

export class RecordBox {
  /**
   * @param {Access} access
   * @param {HTMLCanvasElement} canvas
   */
  constructor(access, canvas) {
    this.access = access;
    this.canvas = canvas;
    this.box = typed("record", HTMLDivElement);
    this.button = typed("record-button", HTMLButtonElement);
    this.note = typed("record-note", HTMLParagraphElement);
    this.files = typed("record-files", HTMLUListElement);
    this.generated = true; // whether files are to say that a model made them
    /** @type {Session | null} */
    this.session = null;
    this.name = ""; // of the session, as the server calls it
    this.running = ""; // name of the file that is being written
    this.button.addEventListener("click", () => this.toggle());
    typed("snapshot", HTMLButtonElement).addEventListener("click", () => this.snapshot());
  }

  /** @param {{record?: boolean, generated?: boolean}} catalogue of the server */
  offerAtAll({ record = false, generated = true }) {
    this.button.hidden = !record;
    this.generated = generated;
  }

  /**
   * @param {Session} session that runs now
   * @param {string} name
   */
  begin(session, name) {
    this.session = session;
    this.name = name;
    this.box.hidden = false;
  }

  // The session is over, and the server finishes the file.
  over() {
    if (this.running) this.await(this.running, this.name, MOST_LOOKS);
    this.session = null;
    this.show("");
    this.box.hidden = !this.files.children.length;
  }

  async toggle() {
    const { session } = this;
    if (!session) return;
    if (this.running) {
      session.wire.send({ type: "record", action: "stop" });
      return;
    }
    this.tell("");
    // On the same machine pictures come as JPEG, and a film of those is for few players.
    const { options } = session.wire;
    if (!options.video?.length && !session.playout.pictures.failed) {
      const video = await knownCodecs();
      if (video.length) session.change({ video });
    }
    session.wire.send({ type: "record", action: "start" });
  }

  /** @param {Record<string, unknown> & {type: string}} fields a text of the server */
  take(fields) {
    if (fields.type !== "recording") return;
    const told = /** @type {Told} */ (/** @type {unknown} */ (fields));
    if (told.state === "started") this.show(told.name);
    else if (told.state === "finished") {
      if (this.running === told.name) this.show("");
      this.offer(told);
    } else this.tell(t("record.failed", { reason: sentence(told.phrase, told.reason) }));
  }

  /** @param {string} name of the file that is being written, or empty */
  show(name) {
    this.running = name;
    const on = name !== "";
    this.button.setAttribute("aria-pressed", String(on));
    this.button.dataset.text = on ? "record.stop" : "record.start";
    this.button.textContent = t(on ? "record.stop" : "record.start");
  }

  /** @param {string} text */
  tell(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  /**
   * Looks for a file that nobody tells about any more.
   *
   * @param {string} name
   * @param {string} session
   * @param {number} looks left
   */
  async await(name, session, looks) {
    await new Promise((done) => {
      setTimeout(done, LOOK_EVERY);
    });
    const answer = await this.access.fetch(`recordings.json?session=${session}`).catch(() => null);
    const recordings = answer?.ok ? (await answer.json()).recordings : [];
    const told = recordings.find((/** @type {Told} */ one) => one.name === name);
    if (told?.state === "finished") this.offer(told);
    else if (looks > 1) this.await(name, session, looks - 1);
  }

  /** @param {Told} told */
  offer({ name, mime, seconds, bytes }) {
    const save = document.createElement("button");
    save.type = "button";
    save.className = "small";
    const length = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    save.textContent = t("record.save", { length, size: numeral(bytes / 1e6, 1) });
    save.addEventListener("click", () => this.save(save, name, mime));
    const item = document.createElement("li");
    item.append(save);
    this.files.append(item);
    this.box.hidden = false;
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {string} name
   * @param {string} mime
   */
  async save(button, name, mime) {
    button.disabled = true;
    try {
      saveAs(new Blob(await this.pieces(name), { type: mime }), `face${name.slice(name.lastIndexOf("."))}`);
    } catch {
      this.tell(t("record.gone"));
    }
    button.disabled = false;
  }

  /**
   * The file's contents. A link could not carry the token.
   *
   * @param {string} name
   */
  async pieces(name) {
    const { base, token } = this.access;
    const pieces = [];
    for (let at = 0, size = 1; at < size; ) {
      const headers = { Range: `bytes=${at}-${at + PIECE - 1}`, ...(token && { Authorization: `Bearer ${token}` }) };
      const answer = await fetch(new URL(`recordings/${name}`, base), { cache: "no-store", headers });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const piece = await answer.blob();
      size = Number(answer.headers.get("Content-Range")?.split("/")[1] ?? piece.size);
      at += piece.size;
      pieces.push(piece);
    }
    return pieces;
  }

  // The picture that is on the canvas now.
  async snapshot() {
    /** @type {Blob | null} */
    const blob = await new Promise((done) => {
      this.canvas.toBlob(done, "image/jpeg", 0.95);
    });
    if (blob) saveAs(this.generated ? await markedAsGenerated(blob) : blob, "face.jpg");
  }
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
