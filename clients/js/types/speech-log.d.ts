export class SpeechLog {
    live: boolean;
    sent: number;
    leftOut: number;
    /** @type {Piece[]} */
    unheard: Piece[];
    /** @type {Piece[]} */
    pending: Piece[];
    /** @type {number[]} */
    ends: number[];
    /** @type {number[]} */
    told: number[];
    get start(): number;
    get end(): number;
    /**
     * @param {Samples} samples
     * @param {number} at
     */
    add(samples: Samples, at: number): void;
    endHere(): void;
    /** Whether an end is to be told now. It counts as told. */
    takeEnd(): boolean;
    drop(): void;
    leaveOutOldest(): void;
    /** The next samples to send, which count as sent now. Null when none wait. @returns {Samples | null} */
    next(): Samples | null;
    /**
     * The sound up to here came back and need not be kept.
     *
     * @param {number} position
     * @returns {number | null} when its last sample was spoken; null if that is not known
     */
    heard(position: number): number | null;
    /**
     * A server has had the samples up to here. It did not get those that were sent after them.
     *
     * @param {number} position
     */
    goOnFrom(position: number): void;
    startAnew(): void;
}
export type Samples = Float32Array<ArrayBuffer>;
/**
 * `at` is when it was spoken, on the clock of performance.now()
 */
export type Piece = {
    samples: Samples;
    at: number;
};
