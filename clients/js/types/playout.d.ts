export class Playout {
    /**
     * @param {HTMLCanvasElement} canvas
     * @param {Stats} stats
     * @param {{
     *   taken: (place: FramePlace, last: boolean) => void, shown: (place: FramePlace) => void,
     *   undecodable?: (error: unknown) => void,
     * }} on `taken` is told of every picture that is decoded or passed over, and whether it is the last of its clip; `shown` of
     *   every one whose time has come; `undecodable` when coded frames cannot be decoded: ask for JPEG
     */
    constructor(canvas: HTMLCanvasElement, stats: Stats, on: {
        taken: (place: FramePlace, last: boolean) => void;
        shown: (place: FramePlace) => void;
        undecodable?: (error: unknown) => void;
    });
    canvas: HTMLCanvasElement;
    pen: CanvasRenderingContext2D;
    stats: Stats;
    on: {
        taken: (place: FramePlace, last: boolean) => void;
        shown: (place: FramePlace) => void;
        undecodable?: (error: unknown) => void;
    };
    live: boolean;
    behind: boolean;
    text: boolean;
    timeline: Timeline;
    /** @type {MediaStream | null} */
    shared: MediaStream | null;
    pictures: Pictures;
    silenced: number;
    closed: boolean;
    muted: boolean;
    loop: number;
    timer: number;
    /** @type {DecodedFrame[]} */
    frames: DecodedFrame[];
    end: number;
    buffer: PlayBuffer;
    /** @type {ScheduledSound[]} */
    sources: ScheduledSound[];
    epoch: number;
    /** @type {Map<number, {start: number, pts: number, cuts: Cut[]}>} */
    clips: Map<number, {
        start: number;
        pts: number;
        cuts: Cut[];
    }>;
    /** @type {number | null} */
    anchor: number | null;
    position: number;
    next: number;
    idleAt: number;
    idlePts: number;
    speechAt: number;
    /**
     * Begins to paint, and asks for sound unless it is muted. Without sound the pictures go on by themselves.
     *
     * @returns {Promise<boolean>} whether sound is as wanted
     */
    open(): Promise<boolean>;
    get stream(): MediaStream;
    /** @param {boolean} muted */
    mute(muted: boolean): void;
    /**
     * Positions start anew with an epoch. Sound and pictures that have their place already keep it.
     *
     * @param {number} epoch
     */
    reset(epoch: number): void;
    get idle(): boolean;
    /**
     * @param {AudioMessage} message
     * @param {number | null} spokenAt when its last sample was spoken, if that is known
     */
    audio(message: AudioMessage, spokenAt: number | null): void;
    /**
     * A clip came after its turn: keep more in hand from now on.
     *
     * @param {number} seq
     * @param {number} seconds
     * @returns {number} seconds that it is to have in hand
     */
    ranDry(seq: number, seconds: number): number;
    /**
     * Samples to leave out of a clip because the latest clips came earlier than needed.
     *
     * @param {Float32Array<ArrayBuffer>} samples
     */
    shorten(samples: Float32Array<ArrayBuffer>): Cut[];
    /**
     * Seconds by which a clip begins later because the latest clips came too close to their time.
     *
     * @param {Float32Array<ArrayBuffer>} samples
     */
    give(samples: Float32Array<ArrayBuffer>): number;
    /**
     * Drop everything that has not begun to play: much came at once after the server or the network was stuck.
     *
     * @param {number} now
     */
    leaveOut(now: number): void;
    silence(): void;
    /**
     * @param {number} seq
     * @param {Float32Array<ArrayBuffer>} samples
     * @param {number} start
     */
    play(seq: number, samples: Float32Array<ArrayBuffer>, start: number): void;
    /** @param {FrameMessage} message */
    picture(message: FrameMessage): Promise<void>;
    /**
     * Nobody speaks, so there is no sound to follow: the server sends each picture at its time.
     *
     * @param {FrameMessage} message
     */
    idleDue(message: FrameMessage): number;
    /** @param {DecodedFrame} frame */
    add(frame: DecodedFrame): void;
    paint(): void;
    /** @param {DecodedFrame} frame */
    draw(frame: DecodedFrame): void;
    close(): void;
}
/**
 * `due` in time of the timeline
 */
export type DecodedFrame = FramePlace & {
    idle: boolean;
    due: number;
    bitmap: ImageBitmap;
};
export type ScheduledSound = {
    node: AudioBufferSourceNode | null;
    seq: number;
    start: number;
    end: number;
};
import type { Stats } from "./stats.js";
import type { FramePlace } from "./whereabouts.js";
import { Timeline } from "./timeline.js";
import { Pictures } from "./pictures.js";
import { PlayBuffer } from "./buffer.js";
import type { Cut } from "./hasten.js";
import type { AudioMessage } from "./messages.js";
import type { FrameMessage } from "./messages.js";
