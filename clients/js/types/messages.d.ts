/**
 * @typedef {{epoch: number, seq: number, pts: number}} Place
 * @typedef {Place & {
 *   kind: "frame", index: number, count: number, codec: string, key: boolean, idle: boolean,
 *   data: Uint8Array<ArrayBuffer>,
 * }} FrameMessage `key`: whether it can be decoded without the frames before it. `idle`:
 *   nobody speaks, so it is shown when it comes, after those before it
 * @typedef {Place & {
 *   kind: "audio", position: number, pictures: boolean, samples: Float32Array<ArrayBuffer>, own: number,
 * }} AudioMessage `own` counts the client's samples in it: none where the server made the sound of a text
 * @typedef {{
 *   session: string, epoch: number, width: number, height: number, notice: string, notice_phrase?: object, resume: string, resumed: boolean,
 *   position: number,
 *   voice_engine?: string, saying?: string[],
 * }} ReadyFields the used ones of `ready`
 * @typedef {{
 *   notice: string, notice_phrase?: object, clips_waiting: number, seconds_waiting: number, frames_dropped: number, frames_lost: number,
 *   latency_ms?: {p50?: number, p95?: number}, stages_ms?: Record<string, number>,
 * }} StatusFields the used ones of `status`. `notice_phrase` is the notice as code and values, for other languages
 * @typedef {{epoch: number, pts: number | null, position: number}} Interrupted the answer to `interrupt`
 * @typedef {{avatar?: string, pose?: string, fps?: number, video?: string[], idle?: "life" | "still"}} Options `video` are
 *   the codecs of pictures that the client decodes besides JPEG, the best one first. `idle` is what the face does while
 *   nothing is sent
 */
/**
 * A binary message; null for a kind that this page does not know.
 *
 * @param {ArrayBuffer} buffer
 * @returns {FrameMessage | AudioMessage | null}
 */
export function decode(buffer: ArrayBuffer): FrameMessage | AudioMessage | null;
export const SUBPROTOCOL: "echomimic-live.v2";
export type Place = {
    epoch: number;
    seq: number;
    pts: number;
};
/**
 * `key`: whether it can be decoded without the frames before it. `idle`:
 *  nobody speaks, so it is shown when it comes, after those before it
 */
export type FrameMessage = Place & {
    kind: "frame";
    index: number;
    count: number;
    codec: string;
    key: boolean;
    idle: boolean;
    data: Uint8Array<ArrayBuffer>;
};
/**
 * `own` counts the client's samples in it: none where the server made the sound of a text
 */
export type AudioMessage = Place & {
    kind: "audio";
    position: number;
    pictures: boolean;
    samples: Float32Array<ArrayBuffer>;
    own: number;
};
/**
 * the used ones of `ready`
 */
export type ReadyFields = {
    session: string;
    epoch: number;
    width: number;
    height: number;
    notice: string;
    notice_phrase?: object;
    resume: string;
    resumed: boolean;
    position: number;
    voice_engine?: string;
    saying?: string[];
};
/**
 * the used ones of `status`. `notice_phrase` is the notice as code and values, for other languages
 */
export type StatusFields = {
    notice: string;
    notice_phrase?: object;
    clips_waiting: number;
    seconds_waiting: number;
    frames_dropped: number;
    frames_lost: number;
    latency_ms?: {
        p50?: number;
        p95?: number;
    };
    stages_ms?: Record<string, number>;
};
/**
 * the answer to `interrupt`
 */
export type Interrupted = {
    epoch: number;
    pts: number | null;
    position: number;
};
/**
 * `video` are
 *  the codecs of pictures that the client decodes besides JPEG, the best one first. `idle` is what the face does while
 *  nothing is sent
 */
export type Options = {
    avatar?: string;
    pose?: string;
    fps?: number;
    video?: string[];
    idle?: "life" | "still";
};
