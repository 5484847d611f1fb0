// Errors in words for the person in front of the page.

import { ClientError } from "./client/errors.js";

/** @type {Record<string, string>} */
const TEXTS = {
  no_microphone: "No microphone was found. Plug one in, or choose an audio file instead.",
  denied: "The microphone is blocked. Allow it in the address bar, or choose an audio file instead.",
  in_use: "The microphone is used by another program. Close that one and try again.",
  unplugged: "The microphone went away. Plug it in and press Start.",
  insecure: "Browsers give the microphone only to https or localhost. Open this page there, or use an audio file.",
  no_sound: "The browser's sound does not start. Connect speakers or headphones, and press Start again.",
  bad_file: "This file could not be read as audio. Try WAV, MP3, M4A or Ogg.",
  no_file: "Choose an audio file first.",
  old_browser: "This browser is too old for this page. A current Chrome, Edge, Firefox or Safari works.",
  lost: "The connection was lost.",
  busy: "All places are taken right now.",
  not_ready: "The model is still loading.",
  slow_client: "This device or its network is too slow to keep up, so the session ended.",
  too_fast: "Sound arrived faster than it can be spoken, so the session ended.",
  token_missing: "This server asks for a token. Paste yours, or open the link that came with it.",
  token_wrong: "The server does not know this token. Check that it was copied whole, or ask for a new one.",
  token_expired: "This token has expired. Ask for a new one.",
  token_revoked: "This token was withdrawn. Ask for a new one.",
  token_scope: "This token does not open this page. Ask for one that is made for sessions.",
  throttled: "Too many wrong tokens came from this network. The page tries again by itself in a few seconds.",
  moved: "This session goes on in another tab or window, so it stopped here.",
  failed: "The server could not go on with this session.",
  unknown: "Something unexpected happened.",
};

/** The browser's errors by name. @type {Record<string, string>} */
const CODES = {
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotReadableError: "in_use",
  AbortError: "in_use",
};

/**
 * The code and the text of a ClientError, of one of the browser's errors, or of anything else that was thrown.
 *
 * @param {unknown} thrown
 */
export function describe(thrown) {
  const error = thrown instanceof Error || thrown instanceof DOMException ? thrown : new Error(String(thrown ?? ""));
  const code = error instanceof ClientError ? error.code : (CODES[error.name] ?? "unknown");
  const own = error instanceof ClientError ? error.detail : "";
  const text = TEXTS[code] ?? (own || TEXTS.unknown);
  const detail = code === "failed" || code === "unknown" ? own || error.message : "";
  return { code, text: detail ? `${text} (${detail})` : text };
}
