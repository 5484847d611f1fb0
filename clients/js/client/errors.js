// Errors with a code, and what a client does about each.

export class ClientError extends Error {
  /**
   * @param {string} code of the server, or of the program that uses this client
   * @param {string} detail a sentence about it, which may be empty
   * @param {{code?: string, values?: Record<string, string>}} phrase the code of the server's sentence, for other
   *   languages
   */
  constructor(code, detail = "", phrase = {}) {
    super(detail ? `${code}: ${detail}` : code);
    this.name = "ClientError";
    this.code = code;
    this.detail = detail;
    this.phrase = phrase;
  }
}

/**
 * Whether a client should connect again by itself after an error with this code.
 *
 * @param {string} code
 */
export function isPassing(code) {
  return ["lost", "busy", "not_ready", "shutdown", "throttled", "token_file"].includes(code);
}

/**
 * Whether another token would help.
 *
 * @param {string} code
 */
export function needsToken(code) {
  return ["token_missing", "token_wrong", "token_expired", "token_revoked", "token_scope"].includes(code);
}
