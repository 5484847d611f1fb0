// Errors in words for the person in front of the page.

import { ClientError } from "./client/errors.js";
import { currentLanguage, keyOf, sentence, t } from "./text.js";

/** The browser's errors by name. @type {Record<string, string>} */
const CODES = {
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotReadableError: "in_use",
  AbortError: "in_use",
};

// Codes whose own words have more than the catalogue's sentence: they name the address, the option or the fault.
const DETAILED = ["failed", "unknown", "bad_option", "bad_message", "bad_audio", "bad_request", "forbidden", "host", "origin"];
// Those of the door are whole sentences in English.
const SENTENCES = ["bad_request", "host", "origin"];

/**
 * The code and the text of a ClientError, of one of the browser's errors, or of anything else that was thrown.
 *
 * @param {unknown} thrown
 */
export function describe(thrown) {
  const error = thrown instanceof Error || thrown instanceof DOMException ? thrown : new Error(String(thrown ?? ""));
  const code = error instanceof ClientError ? error.code : (CODES[error.name] ?? "unknown");
  const own = error instanceof ClientError ? sentence(error.phrase, error.detail) : "";
  if (own && SENTENCES.includes(code) && currentLanguage() === "en") return { code, text: own };
  const key = keyOf(`error.${code}`);
  const text = key ? t(key) : own || t("error.unknown");
  const detail = DETAILED.includes(code) ? own || (error instanceof ClientError ? "" : error.message) : "";
  return { code, text: detail ? `${text} (${detail})` : text };
}
