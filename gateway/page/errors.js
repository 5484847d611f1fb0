// Errors in words for the person in front of the page.

import { ClientError } from "./client/errors.js";
import { keyOf, t } from "./text.js";

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
  const key = keyOf(`error.${code}`);
  const text = key ? t(key) : own || t("error.unknown");
  const detail = code === "failed" || code === "unknown" ? own || error.message : "";
  return { code, text: detail ? `${text} (${detail})` : text };
}
