/**
 * Call it from a click: browsers let sound out only then.
 *
 * @param {HTMLCanvasElement | null} canvas null for a page that takes the face's `stream` alone, with its sound
 * @param {string | URL} address of the server's page
 * @param {ShowOptions} options
 * @returns {Promise<ShownFace>}
 */
export function show(canvas: HTMLCanvasElement | null, address: string | URL, options?: ShowOptions): Promise<ShownFace>;
/**
 * @import { Options } from "./messages.js"
 * @import { SayEnd } from "./says.js"
 * @import { StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, muted?: boolean, onState?: (name: WireState, details: StateDetails) => void,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} ShowOptions
 */
export class ShownFace {
    /**
     * @param {HTMLCanvasElement | null} canvas
     * @param {string | URL} address
     * @param {ShowOptions} options
     */
    constructor(canvas: HTMLCanvasElement | null, address: string | URL, { token, avatar, pose, fps, video, onState, onText }: ShowOptions);
    speech: PacedSpeech;
    says: Says;
    engine: string;
    session: Session;
    /**
     * What is shown and heard, for the `srcObject` of a video element, a call or a recorder. A hidden page paints nothing,
     * so the pictures stand still there.
     *
     * @returns {MediaStream}
     */
    get stream(): MediaStream;
    /**
     * Speaks: the samples follow what was pushed before.
     *
     * @param {Float32Array} samples mono, from -1 to 1
     * @param {number} rate samples a second
     */
    push(samples: Float32Array, rate?: number): void;
    /** The sentence is complete: its end need not wait for more. */
    flush(): void;
    /**
     * Speaks a text by the server's engine.
     *
     * @param {string} text plain, of at most 2000 characters
     * @param {string} voice the engine's name of one; empty for the usual one
     * @returns {Promise<SayEnd>} how it ended
     */
    say(text: string, voice?: string): Promise<SayEnd>;
    /** Falls silent at once, and forgets what was still to be said. */
    interrupt(): void;
    /** Live figures: frame rate, latency, offset of sound and picture, buffer. */
    get stats(): import("./stats.js").Stats;
    /** @param {Options} options the face goes on with these */
    change(options: Options): void;
    /** @param {boolean} muted */
    mute(muted: boolean): void;
    close(): void;
}
export type ShowOptions = Options & {
    token?: string;
    muted?: boolean;
    onState?: (name: WireState, details: StateDetails) => void;
    onText?: (fields: Record<string, unknown> & {
        type: string;
    }) => void;
};
import { PacedSpeech } from "./paced-speech.js";
import { Says } from "./says.js";
import { Session } from "./session.js";
import type { SayEnd } from "./says.js";
import type { Options } from "./messages.js";
import type { WireState } from "./wire.js";
import type { StateDetails } from "./wire.js";
