/**
 * Whether a client should connect again by itself after an error with this code.
 *
 * @param {string} code
 */
export function isPassing(code: string): boolean;
/**
 * Whether another token would help.
 *
 * @param {string} code
 */
export function needsToken(code: string): boolean;
export class ClientError extends Error {
    /**
     * @param {string} code of the server, or of the program that uses this client
     * @param {string} detail a sentence about it, which may be empty
     * @param {{code?: string, values?: Record<string, string>}} phrase the code of the server's sentence, for other
     *   languages
     */
    constructor(code: string, detail?: string, phrase?: {
        code?: string;
        values?: Record<string, string>;
    });
    code: string;
    detail: string;
    phrase: {
        code?: string;
        values?: Record<string, string>;
    };
}
