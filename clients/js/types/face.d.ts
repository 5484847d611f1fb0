/**
 * A session with a face.
 *
 * @param {string | URL} address of the server's page
 * @param {ConnectOptions} options
 * @returns {Promise<Face>} rejects with a ClientError: nobody answers (`lost`), the door does not let the client in, or
 *   there is no place (`busy`)
 */
export function connect(address: string | URL, options?: ConnectOptions): Promise<Face>;
/**
 * @import { Frame } from "./arrivals.js"
 * @import { FrameMessage, Interrupted, Options, ReadyFields, StatusFields } from "./messages.js"
 * @import { SayEnd } from "./says.js"
 * @import { Coming, StateDetails, WireState } from "./wire.js"
 * @typedef {Options & {
 *   token?: string, live?: boolean, frames?: boolean, sounds?: boolean, acknowledge?: boolean, retryFor?: number,
 *   onText?: (fields: Record<string, unknown> & {type: string}) => void, WebSocket?: typeof WebSocket,
 * }} ConnectOptions `live`: the speech is a microphone's, and what is old is left out. `frames` and `sounds`: whether
 *   the program takes them (true). `acknowledge`: whether a picture counts as shown when it is handed out (true), else
 *   call shown(). `retryFor`: seconds for which a lost connection is tried again (30). `onText`: is told of every text
 *   of the server. `WebSocket`: the class, where the platform has none of its own.
 */
export class Face {
    /**
     * @param {string | URL} address
     * @param {ConnectOptions} options
     */
    constructor(address: string | URL, options: ConnectOptions);
    /** @type {ReadyFields | null} */
    ready: ReadyFields | null;
    /** @type {StatusFields | null} */
    status: StatusFields | null;
    acknowledge: boolean;
    retryFor: number;
    arrivals: Arrivals;
    pushed: number;
    finished: boolean;
    closed: boolean;
    /** @type {ClientError | null} */
    failure: ClientError | null;
    /** @type {Set<() => void>} */
    waiting: Set<() => void>;
    /** @type {Interrupted | null} */
    interrupted: Interrupted | null;
    says: Says;
    movedAt: number;
    statusAt: number;
    timer: number;
    rate: number;
    /** @type {Resampler | null} */
    resampler: Resampler | null;
    wire: Wire;
    /**
     * Speaks: the samples follow what was pushed before. Any number, at any speed.
     *
     * @param {Float32Array | Int16Array} pcm mono, floats from -1 to 1
     * @param {number} rate samples a second
     */
    push(pcm: Float32Array | Int16Array, rate?: number): void;
    /** @param {Float32Array<ArrayBuffer>} samples at 16 kHz */
    add(samples: Float32Array<ArrayBuffer>): void;
    endResampling(): void;
    /**
     * Speaks a text by the server's engine, in turn with the speech that is pushed.
     *
     * @param {string} text plain, of at most 2000 characters
     * @param {string} voice the engine's name of one; empty for the usual one
     * @returns {Promise<SayEnd>} how it ended
     */
    say(text: string, voice?: string): Promise<SayEnd>;
    /** A pause begins here: the face finishes the begun half second now. */
    flush(): void;
    /** Nothing more will be pushed: the iterators end when everything is back. */
    finish(): void;
    /**
     * Somebody speaks over the face. Drops everything that waits, here and at the server. What is pushed after the call
     * begins a new epoch.
     *
     * @returns {Promise<Interrupted>} the server's answer: `pts` of the last picture that was shown
     */
    interrupt(): Promise<Interrupted>;
    /** @param {Options} options the face goes on with these, in a new epoch */
    change(options: Options): void;
    /** @param {Frame} frame was shown, or passed over: for programs with `acknowledge: false` */
    shown({ epoch, seq, index }: Frame): void;
    /** Leaves. The iterators end. */
    close(): void;
    /** The pictures, in order. Take them as they come: the server sends 1 s of them ahead and drops the oldest. */
    frames(): AsyncGenerator<Frame, void, unknown>;
    /** The sound as it comes back, each clip once. */
    sounds(): AsyncGenerator<import("./arrivals.js").Sound, void, unknown>;
    /**
     * @template {"frames" | "sounds"} Kind
     * @param {Arrivals} arrivals
     * @param {Kind} kind
     * @returns {Promise<Arrivals[Kind][number] | undefined>} undefined when no more comes
     */
    next<Kind extends "frames" | "sounds">(arrivals: Arrivals, kind: Kind): Promise<Arrivals[Kind][number] | undefined>;
    /** Seconds of speech that wait to be sent. */
    get secondsUnsent(): number;
    /** Seconds of speech that are not back. */
    get secondsUnanswered(): number;
    /** How often the session went on at another connection. */
    get reconnects(): number;
    get over(): boolean;
    check(): void;
    opened(): Promise<void>;
    /** @returns {Promise<void>} */
    news(): Promise<void>;
    wake(): void;
    moved(): void;
    /** @param {FrameMessage} message */
    frameCame(message: FrameMessage): void;
    /**
     * @param {ReadyFields} fields
     * @param {Coming} coming
     */
    serverReady(fields: ReadyFields, coming: Coming): void;
    /**
     * @param {WireState} name
     * @param {StateDetails} details
     */
    wireChanged(name: WireState, { error }: StateDetails): void;
    /** @param {ClientError} reason */
    fail(reason: ClientError): void;
}
/**
 * `live`: the speech is a microphone's, and what is old is left out. `frames` and `sounds`: whether
 *   the program takes them (true). `acknowledge`: whether a picture counts as shown when it is handed out (true), else
 *   call shown(). `retryFor`: seconds for which a lost connection is tried again (30). `onText`: is told of every text
 *   of the server. `WebSocket`: the class, where the platform has none of its own.
 */
export type ConnectOptions = Options & {
    token?: string;
    live?: boolean;
    frames?: boolean;
    sounds?: boolean;
    acknowledge?: boolean;
    retryFor?: number;
    onText?: (fields: Record<string, unknown> & {
        type: string;
    }) => void;
    WebSocket?: typeof WebSocket;
};
import type { ReadyFields } from "./messages.js";
import type { StatusFields } from "./messages.js";
import { Arrivals } from "./arrivals.js";
import { ClientError } from "./errors.js";
import type { Interrupted } from "./messages.js";
import { Says } from "./says.js";
import { Resampler } from "./resampler.js";
import { Wire } from "./wire.js";
import type { SayEnd } from "./says.js";
import type { Options } from "./messages.js";
import type { Frame } from "./arrivals.js";
import type { FrameMessage } from "./messages.js";
import type { Coming } from "./wire.js";
import type { WireState } from "./wire.js";
import type { StateDetails } from "./wire.js";
