export class Session {
    /**
     * @param {HTMLCanvasElement} canvas
     * @param {Source} source of the speech
     * @param {Server} server
     * @param {Options} options
     * @param {Resume | null} place of a client before this one, whose session this one takes over
     * @param {SessionHandlers} on
     */
    constructor(canvas: HTMLCanvasElement, source: Source, server: Server, options: Options, place: Resume | null, on: SessionHandlers);
    on: SessionHandlers;
    stats: Stats;
    over: boolean;
    held: boolean;
    /** @type {WakeLockSentinel | null | undefined} */
    lock: WakeLockSentinel | null | undefined;
    playout: Playout;
    source: Source;
    wire: Wire;
    get place(): Resume | null;
    /**
     * Rejects with a ClientError, or with an error of the browser.
     *
     * @param {boolean} muted
     * @returns {Promise<boolean>} whether sound is as wanted: without, the pictures come alone
     */
    start(muted: boolean): Promise<boolean>;
    stayAwake(): Promise<void>;
    /**
     * @param {ReadyFields} fields
     * @param {Coming} coming
     */
    serverReady(fields: ReadyFields, coming: Coming): Promise<void>;
    /**
     * @param {WireState} name
     * @param {StateDetails} details
     */
    wireChanged(name: WireState, details: StateDetails): void;
    /** @param {Float32Array<ArrayBuffer>} samples */
    sendChunk(samples: Float32Array<ArrayBuffer>): void;
    /**
     * @param {AudioMessage} message
     * @param {number | null} spokenAt
     */
    soundCame(message: AudioMessage, spokenAt: number | null): void;
    /** @param {EndReason} why */
    sourceEnded(why: EndReason): void;
    flush(): void;
    /**
     * The face speaks a text.
     *
     * @param {string} text
     * @param {string} id by which the server's texts tell of it
     * @param {string} voice the engine's name of one; empty for the usual one
     */
    say(text: string, id: string, voice?: string): void;
    interrupt(): void;
    /**
     * Whether all speech has been shown and heard.
     *
     * @param {number} passed milliseconds since its end was sent
     */
    drained(passed: number): boolean;
    /**
     * What keeps speech from coming or sound from being heard just now.
     *
     * @returns {Trouble | "sound_stopped" | "sound_withheld"}
     */
    get trouble(): Trouble | "sound_stopped" | "sound_withheld";
    /** @param {Options} options other ones for the running session */
    change(options: Options): void;
    retry(): void;
    /** @param {boolean} muted */
    mute(muted: boolean): void;
    /** @param {unknown} error null at the end of a file */
    end(error: unknown): void;
    stop(): void;
}
/**
 * `picture` is called for every frame; `level` is the voice's, from 0 to 1; `text` is told of every
 *   text of the server
 */
export type SessionHandlers = {
    state: (name: WireState, details: StateDetails) => void;
    ready: (fields: ReadyFields) => void;
    picture: (place: FramePlace) => void;
    level: (level: number) => void;
    text?: (fields: Record<string, unknown> & {
        type: string;
    }) => void;
};
import { Stats } from "./stats.js";
import { Playout } from "./playout.js";
import type { Source } from "./source.js";
import { Wire } from "./wire.js";
import type { Resume } from "./whereabouts.js";
import type { ReadyFields } from "./messages.js";
import type { Coming } from "./wire.js";
import type { WireState } from "./wire.js";
import type { StateDetails } from "./wire.js";
import type { AudioMessage } from "./messages.js";
import type { EndReason } from "./source.js";
import type { Trouble } from "./source.js";
import type { Options } from "./messages.js";
import type { Server } from "./server.js";
import type { FramePlace } from "./whereabouts.js";
