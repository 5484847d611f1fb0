/** Whether nobody speaks in all of it. @param {Float32Array} samples */
export function isPause(samples: Float32Array): boolean;
/**
 * Cuts of sound that nobody hears, spread evenly, so that its pictures move faster.
 *
 * @param {number} length samples
 * @param {number} most samples to cut, a quarter of them at most
 * @returns {Cut[]} in the order of their places
 */
export function evenCuts(length: number, most: number): Cut[];
/**
 * @param {Samples} samples
 * @param {number} most samples to cut
 * @param {boolean} speech whether speech may be cut too, once all pauses are
 * @returns {Cut[]} in the order of their places
 */
export function cutsOf(samples: Samples, most: number, speech: boolean): Cut[];
/**
 * @param {Samples} samples
 * @param {Cut[]} cuts of these samples
 * @returns {Samples} the rest
 */
export function withoutCuts(samples: Samples, cuts: Cut[]): Samples;
/** @param {Cut[]} cuts */
export function total(cuts: Cut[]): number;
/**
 * The place in the rest of a sample of the whole.
 *
 * @param {Cut[]} cuts
 * @param {number} place
 */
export function placeInRest(cuts: Cut[], place: number): number;
export type Samples = Float32Array<ArrayBuffer>;
/**
 * samples left out, and where
 */
export type Cut = {
    at: number;
    length: number;
};
