/**
 * @import { AudioMessage, FrameMessage, ReadyFields } from "./messages.js"
 * @typedef {{time: number, position: number, epoch: number, seq: number, pts: number}} Moment `time` is its place in
 *   the session's play-out in seconds, over all epochs; `position` counts all samples that were pushed, at 16 kHz
 * @typedef {Moment & {samples: Float32Array<ArrayBuffer>, rate: number, hasFrames: boolean}} Sound of one clip
 */
/** A picture. `Pictures.decode` takes it as it is. */
export class Frame {
    /** @param {Moment & FrameMessage} message with its place */
    constructor({ time, position, epoch, seq, pts, index, count, codec, key, idle, data }: Moment & FrameMessage);
    time: number;
    position: number;
    epoch: number;
    seq: number;
    pts: number;
    index: number;
    count: number;
    codec: string;
    key: boolean;
    idle: boolean;
    data: Uint8Array<ArrayBuffer>;
    /** The JPEG. Throws a TypeError where the picture is coded otherwise. */
    get jpeg(): Uint8Array<ArrayBuffer>;
}
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
    addFrame(message: FrameMessage): boolean;
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
 * of one clip
 */
export type Sound = Moment & {
    samples: Float32Array<ArrayBuffer>;
    rate: number;
    hasFrames: boolean;
};
import type { FrameMessage } from "./messages.js";
import type { ReadyFields } from "./messages.js";
import type { AudioMessage } from "./messages.js";
