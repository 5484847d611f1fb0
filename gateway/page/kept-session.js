// The place of this page in its session, kept over a reload in the tab's storage.
//
// It lies there only between the end of one page and the beginning of the next. So a duplicated tab, whose storage
// is a copy, finds nothing and takes nothing.

const KEPT = "echomimic-session";
const GOOD_FOR = 30000; // milliseconds for which a server keeps a session for its page

/**
 * @import { Options } from "./client/messages.js"
 * @import { Resume } from "./client/whereabouts.js"
 * @typedef {{place: Resume, options: Options, microphone: boolean}} Kept
 */

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
