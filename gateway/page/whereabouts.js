// The page's place in its session: all that a server needs to go on where a lost connection ended.
//
// Over a reload it is kept in the tab's storage. It lies there only between the end of one page and the beginning
// of the next. So a duplicated tab, whose storage is a copy, finds nothing and takes nothing.

const KEPT = "echomimic-session";
const GOOD_FOR = 30000; // milliseconds for which a server keeps a session for its page

/**
 * @import { Options } from "./wire.js"
 * @typedef {{epoch: number, seq: number, index: number}} FramePlace
 * @typedef {{token: string, epoch: number, heard: number, seen_seq: number, seen_index: number, position: number}} Resume
 * @typedef {{place: Resume, options: Options, microphone: boolean}} Kept
 */

export class Whereabouts {
  /** @param {Resume | null} place of the page before a reload */
  constructor(place = null) {
    this.place = place;
  }

  /** @param {{resume?: string, epoch: number}} ready a `ready` of the server */
  begin({ resume, epoch }) {
    if (!resume) return;
    const position = this.place?.position ?? 0;
    const same = this.place?.epoch === epoch;
    const { heard = -1, seen_seq = -1, seen_index = -1 } = (same && this.place) || {};
    this.place = { token: resume, epoch, heard, seen_seq, seen_index, position };
  }

  /** @param {{epoch: number, seq: number, position: number, samples: Float32Array}} sound that came */
  heard({ epoch, seq, position, samples }) {
    if (!this.place || epoch !== this.place.epoch) return;
    this.place.heard = seq;
    this.place.position = position + samples.length;
  }

  /** @param {FramePlace} frame that came */
  seen({ epoch, seq, index }) {
    if (!this.place || epoch !== this.place.epoch) return;
    this.place.seen_seq = seq;
    this.place.seen_index = index;
  }

  // The session is over, or a new one begins.
  forget() {
    this.place = null;
  }
}

function keptUnder() {
  return KEPT + new URL(".", document.baseURI).pathname; // two servers may share an origin
}

/** @param {Kept | null} kept what the page after this one needs; null when it shall find nothing */
export function keepForReload(kept) {
  try {
    if (kept) window.sessionStorage.setItem(keptUnder(), JSON.stringify({ ...kept, at: Date.now() }));
    else window.sessionStorage.removeItem(keptUnder());
  } catch {
    // A browser that keeps nothing: the next page begins a new session.
  }
}

/** What the page before this one kept, which is taken away from there. @returns {Kept | null} */
export function takeKept() {
  try {
    const text = window.sessionStorage.getItem(keptUnder());
    window.sessionStorage.removeItem(keptUnder());
    const { at, ...kept } = JSON.parse(text ?? "null") ?? { at: 0 };
    return Math.abs(Date.now() - at) < GOOD_FOR && kept.place ? kept : null;
  } catch {
    return null;
  }
}
