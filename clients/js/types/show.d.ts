/**
 * Call it from a click: browsers let sound out only then.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {string | URL} address of the server's page
 * @param {ShowOptions} options
 * @returns {Promise<ShownFace>}
 */
export function show(canvas: HTMLCanvasElement, address: string | URL, options?: ShowOptions): Promise<ShownFace>;
/**
 * @import { Options } from "./messages.js"
 * @import { StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, muted?: boolean, onState?: (name: WireState, details: StateDetails) => void,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void,
 * }} ShowOptions
 */
export class ShownFace {
    /**
     * @param {HTMLCanvasElement} canvas
     * @param {string | URL} address
     * @param {ShowOptions} options
     */
    constructor(canvas: HTMLCanvasElement, address: string | URL, { token, avatar, pose, fps, onState, onText }: ShowOptions);
    speech: PacedSpeech;
    session: Session;
    /**
     * Speaks: the samples follow what was pushed before.
     *
     * @param {Float32Array} samples mono, from -1 to 1
     * @param {number} rate samples a second
     */
    push(samples: Float32Array, rate?: number): void;
    /** The sentence is complete: its end need not wait for more. */
    flush(): void;
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
import { Session } from "./session.js";
import type { Options } from "./messages.js";
import type { WireState } from "./wire.js";
import type { StateDetails } from "./wire.js";
