/** @typedef {{seq: number, seconds: number}} Early of a clip: how long before its turn it came */
export class PlayBuffer {
    /** @type {Early[]} */
    early: Early[];
    added: number;
    fades: number;
    remembered: number;
    begun: number;
    forget(): void;
    get judges(): boolean;
    get least(): number;
    get latest(): number;
    get distance(): number;
    get reserve(): number;
    get excess(): number;
    get start(): number;
    /**
     * A clip came in time.
     *
     * @param {number} seq
     * @param {number} seconds before its turn
     * @param {number} lasts seconds of the clip
     */
    inTime(seq: number, seconds: number, lasts: number): void;
    /**
     * A clip came after its turn.
     *
     * @param {number} seq
     * @param {number} seconds after it
     * @param {boolean} gives whether the next clips can have more in hand than it
     * @returns {number} seconds that it is to have in hand
     */
    late(seq: number, seconds: number, gives: boolean): number;
    /**
     * A picture is ready. A clip is as late as the last of its sound and its pictures.
     *
     * @param {number} seq of its clip
     * @param {number} seconds before its turn
     */
    picture(seq: number, seconds: number): void;
    /** @param {number} seconds by which all turns are later from now on; negative if they are earlier */
    move(seconds: number): void;
    /**
     * @param {number} seq
     * @param {number} seconds
     */
    note(seq: number, seconds: number): void;
    /** @param {number} seconds by which a clip was late */
    add(seconds: number): void;
}
/**
 * of a clip: how long before its turn it came
 */
export type Early = {
    seq: number;
    seconds: number;
};
