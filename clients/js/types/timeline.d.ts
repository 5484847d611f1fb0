export class Timeline {
    /** @type {AudioContext | null} */
    context: AudioContext | null;
    /** @type {GainNode | null} */
    gain: GainNode | null;
    audible: boolean;
    muted: boolean;
    /** @type {MediaStream | null} */
    stream: MediaStream | null;
    heardHere: boolean;
    wasAudible: boolean;
    stuck: boolean;
    seenTime: number;
    movedAt: number;
    lookedAt: number;
    triedAt: number;
    shift: number;
    base: number;
    /**
     * Asks the browser for sound. Some give it only within a click, a tap or a key press.
     *
     * @param {boolean} muted
     * @returns {Promise<boolean>} whether sound runs
     */
    open(muted: boolean): Promise<boolean>;
    /** @param {boolean} muted */
    newContext(muted: boolean): AudioContext;
    /** @param {MediaStream} stream gets the sound as a track, which is another one when the sound device was lost */
    shareWith(stream: MediaStream): void;
    fillStream(): void;
    followState(): void;
    get lost(): boolean;
    look(): void;
    replace(): void;
    get now(): number;
    /**
     * This clock's time of the sample that is heard at `when`.
     *
     * @param {number} when on the clock of performance.now()
     */
    heard(when: number): number;
    /**
     * Plays samples at a time of this clock.
     *
     * @param {Float32Array<ArrayBuffer>} samples
     * @param {number} start
     * @returns {AudioBufferSourceNode | null} null while there is no sound
     */
    play(samples: Float32Array<ArrayBuffer>, start: number): AudioBufferSourceNode | null;
    /** @param {boolean} muted */
    mute(muted: boolean): void;
    close(): void;
}
