export class PacedSpeech {
    /** @type {(samples: Float32Array<ArrayBuffer>) => void} */
    onChunk: (samples: Float32Array<ArrayBuffer>) => void;
    /** @type {(why: EndReason) => void} */
    onEnd: (why: EndReason) => void;
    onFlush: () => void;
    stale: number;
    live: boolean;
    /** @type {Float32Array<ArrayBuffer>[]} */
    queue: Float32Array<ArrayBuffer>[];
    waiting: number;
    sentAt: number;
    turn: number;
    flushing: boolean;
    paused: boolean;
    timer: number;
    /** @type {Resampler | null} */
    resampler: Resampler | null;
    rate: number;
    get empty(): boolean;
    /**
     * @param {Float32Array} samples mono
     * @param {number} rate samples a second
     * @returns {string} the reason why they were refused; empty when they were taken
     */
    add(samples: Float32Array, rate: number): string;
    /**
     * @param {Float32Array} samples
     * @param {number} rate
     */
    append(samples: Float32Array, rate: number): void;
    flush(): void;
    drop(): void;
    tick(): void;
    /** @param {number} now */
    sendPiece(now: number): void;
    open(): Promise<void>;
    begin(): Promise<void>;
    pause(): void;
    resume(): void;
    close(): void;
}
import type { EndReason } from "./source.js";
import { Resampler } from "./resampler.js";
