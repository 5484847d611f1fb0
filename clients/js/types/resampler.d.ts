export class Resampler {
    /**
     * @param {number} from samples a second, a whole number
     * @param {number} to samples a second, a whole number
     */
    constructor(from: number, to: number);
    up: number;
    down: number;
    half: number;
    taps: number;
    bank: Float32Array<ArrayBuffer>[];
    history: Float32Array<ArrayBuffer>;
    phase: number;
    /**
     * One kernel for each phase.
     *
     * @param {number} cutoff share of the input's Nyquist frequency
     */
    design(cutoff: number): Float32Array<ArrayBuffer>[];
    /**
     * The output that `input` completes. It is `half` input samples late.
     *
     * @param {Float32Array} input
     * @returns {number[]}
     */
    process(input: Float32Array): number[];
}
