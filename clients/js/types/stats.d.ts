export class Stats {
    shown: number;
    passedOver: number;
    underruns: number;
    clips: number;
    answered: number;
    resumed: number;
    leftOut: number;
    unheard: number;
    faster: number;
    codec: string;
    pictureBytes: number;
    /** @type {StatusFields | null} */
    server: StatusFields | null;
    buffer: number;
    /** @type {number[]} */
    offsets: number[];
    /** @type {number[]} */
    times: number[];
    /** @type {number[]} */
    latencies: number[];
    /** @type {Map<string, number>} */
    waiting: Map<string, number>;
    /**
     * A clip's sound came. Its latency counts from the moment at which its last sample was spoken.
     *
     * @param {AudioMessage} message
     * @param {number | null} spokenAt that moment, if it is known
     * @param {number} buffer
     */
    clip(message: AudioMessage, spokenAt: number | null, buffer: number): void;
    /** @param {FrameMessage} message a picture came */
    came({ codec, data }: FrameMessage): void;
    /**
     * @param {FramePlace} frame
     * @param {number} time
     * @param {number} offset milliseconds by which the sound is ahead
     */
    painted(frame: FramePlace, time: number, offset: number): void;
    get fps(): number;
    get latencyMs(): number | null;
    get offsetMs(): number | null;
    get worstOffsetMs(): number | null;
    get drops(): number;
    toJSON(): {
        codec: string;
        pictureBytes: number;
        fps: number;
        latencyMs: number | null;
        offsetMs: number | null;
        worstOffsetMs: number | null;
        drops: number;
        shown: number;
        passedOver: number;
        underruns: number;
        clips: number;
        buffer: number;
        server: StatusFields | null;
        resumed: number;
        leftOut: number;
        unheard: number;
        faster: number;
    };
}
import type { StatusFields } from "./messages.js";
import type { AudioMessage } from "./messages.js";
import type { FrameMessage } from "./messages.js";
import type { FramePlace } from "./whereabouts.js";
