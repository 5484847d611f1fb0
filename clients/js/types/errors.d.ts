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
     */
    constructor(code: string, detail?: string);
    code: string;
    detail: string;
}
