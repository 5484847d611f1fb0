/**
 * @import { AudioMessage, FrameMessage, ReadyFields } from "./messages.js"
 * @typedef {{time: number, position: number, epoch: number, seq: number, pts: number}} Moment `time` is its place in
 *   the session's play-out in seconds, over all epochs; `position` counts all samples that were pushed, at 16 kHz
 * @typedef {Moment & {jpeg: Uint8Array<ArrayBuffer>, index: number, count: number}} Frame a picture
 * @typedef {Moment & {samples: Float32Array<ArrayBuffer>, rate: number, hasFrames: boolean}} Sound of one clip
 */
export class Arrivals {
    /**
     * @param {boolean} keepFrames
     * @param {boolean} keepSounds
     */
    constructor(keepFrames: boolean, keepSounds: boolean);
    keepFrames: boolean;
    keepSounds: boolean;
    /** @type {Frame[]} */
    frames: Frame[];
    /** @type {Sound[]} */
    sounds: Sound[];
    epoch: number;
    offset: number;
    clipSeconds: number;
    base: number;
    end: number;
    heard: number;
    seen: number[];
    seenCount: number;
    awaits: boolean;
    /** @type {Map<number, {position: number, length: number, pts: number}>} */
    clips: Map<number, {
        position: number;
        length: number;
        pts: number;
    }>;
    /** @param {ReadyFields & {clip_frames?: number, fps?: number}} ready */
    begin({ epoch, clip_frames: frames, fps }: ReadyFields & {
        clip_frames?: number;
        fps?: number;
    }): void;
    /** @param {number} epoch */
    beginEpoch(epoch: number): void;
    /** @param {AudioMessage} message */
    addSound({ epoch, seq, pts, position, samples, own, pictures }: AudioMessage): void;
    /**
     * @param {FrameMessage} message
     * @returns {boolean} false for one that is here already, or of an epoch before
     */
    addFrame({ epoch, seq, pts, index, count, data }: FrameMessage): boolean;
    get lastClipWhole(): boolean;
    clear(): void;
}
/**
 * `time` is its place in
 *   the session's play-out in seconds, over all epochs; `position` counts all samples that were pushed, at 16 kHz
 */
export type Moment = {
    time: number;
    position: number;
    epoch: number;
    seq: number;
    pts: number;
};
/**
 * a picture
 */
export type Frame = Moment & {
    jpeg: Uint8Array<ArrayBuffer>;
    index: number;
    count: number;
};
/**
 * of one clip
 */
export type Sound = Moment & {
    samples: Float32Array<ArrayBuffer>;
    rate: number;
    hasFrames: boolean;
};
import type { ReadyFields } from "./messages.js";
import type { AudioMessage } from "./messages.js";
import type { FrameMessage } from "./messages.js";
