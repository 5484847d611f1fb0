export class Wire {
    /**
     * @param {Server} server
     * @param {Options} options
     * @param {WireHandlers} on
     * @param {Whereabouts} whereabouts where the client was, if it comes back
     */
    constructor(server: Server, options: Options, on: WireHandlers, whereabouts?: Whereabouts);
    server: Server;
    options: Options;
    on: WireHandlers;
    whereabouts: Whereabouts;
    speech: SpeechLog;
    ahead: number;
    /** @type {Map<string, {fields: Record<string, unknown>, begun: boolean}>} */
    says: Map<string, {
        fields: Record<string, unknown>;
        begun: boolean;
    }>;
    interrupting: boolean;
    /** @type {WebSocket | null} */
    socket: WebSocket | null;
    live: boolean;
    attempt: number;
    takenIn: boolean;
    readyAt: number;
    resumed: number;
    taken: number;
    /** @type {ClientError | null} */
    error: ClientError | null;
    timer: number;
    closed: boolean;
    heardAt: number;
    lookedAt: number;
    looking: number;
    hurry: () => true | void;
    open(): void;
    connect(): void;
    get comingBack(): {
        resume?: import("./whereabouts.js").Resume | undefined;
        live: boolean;
    };
    /** @param {string | ArrayBuffer} data */
    takeMessage(data: string | ArrayBuffer): void;
    /** @param {ArrayBuffer} data */
    takeBinary(data: ArrayBuffer): void;
    /** @param {ReadyFields} fields */
    serverReady(fields: ReadyFields): void;
    /**
     * Texts that another connection's server does not know. One that had begun is not said twice.
     *
     * @param {string[]} known ids of those that go on there
     */
    sayAgain(known: string[]): void;
    look(): void;
    abandon(): void;
    /**
     * @param {string} reason of the close
     * @param {boolean} opened whether the server had let the client in
     */
    connectionLost(reason: string, opened: boolean): Promise<void>;
    /** @param {ClientError} error after which the client connects again in a moment */
    wait(error: ClientError): void;
    retry(): void;
    /** @param {Record<string, unknown>} fields of a JSON text */
    send(fields: Record<string, unknown>): void;
    /** @param {Float32Array<ArrayBuffer>} samples */
    sendAudio(samples: Float32Array<ArrayBuffer>): void;
    pump(): void;
    /**
     * The server makes speech of a text, and the face speaks it.
     *
     * @param {string} text
     * @param {string} voice the engine's name of one; empty for the usual one
     * @param {string} id by which the server tells of it
     */
    say(text: string, voice: string, id: string): void;
    flush(): void;
    interrupt(): void;
    /** @param {Interrupted} fields */
    interruptionAnswered(fields: Interrupted): void;
    /** @param {Options} options */
    change(options: Options): void;
    close(): void;
}
/**
 * what a `ready` begins: a session, nothing (the connection alone is new), or
 *   an epoch
 */
export type Coming = "new" | "same" | "next";
export type WireState = "connecting" | "live" | "waiting" | "ended";
/**
 * `again` with connecting, `notice` with live, `seconds` and `error` with waiting, `error` with ended
 */
export type StateDetails = {
    again?: boolean;
    notice?: string;
    notice_phrase?: object;
    seconds?: number;
    error?: unknown;
};
/**
 * `text` is told of every text of the server, after the others
 */
export type WireHandlers = {
    ready: (fields: ReadyFields, coming: Coming) => void;
    status: (fields: StatusFields) => void;
    frame: (message: FrameMessage) => void;
    audio: (message: AudioMessage, spokenAt: number | null) => void;
    state: (name: WireState, details: StateDetails) => void;
    interrupted?: (fields: Interrupted) => void;
    text?: (fields: Record<string, unknown> & {
        type: string;
    }) => void;
};
import type { Server } from "./server.js";
import type { Options } from "./messages.js";
import { Whereabouts } from "./whereabouts.js";
import { SpeechLog } from "./speech-log.js";
import { ClientError } from "./errors.js";
import type { ReadyFields } from "./messages.js";
import type { Interrupted } from "./messages.js";
import type { StatusFields } from "./messages.js";
import type { FrameMessage } from "./messages.js";
import type { AudioMessage } from "./messages.js";
