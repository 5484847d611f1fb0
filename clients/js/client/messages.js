// The messages of version 2 of the wire that a client reads (protocol/SPEC.md).

export const SUBPROTOCOL = "echomimic-live.v2";

const FRAME = 1;
const AUDIO = 2;
const CODED = 3;
const SAID = 4; // flag of sound: the server made it of a text
const KEY = 1; // flag of a coded frame
const CODECS = ["jpeg", "h264", "vp8"]; // by their numbers
const IDLE = 2;
const FRAME_HEADER = 24;
const AUDIO_HEADER = 32;

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
export function decode(buffer) {
  const view = new DataView(buffer);
  const kind = view.getUint8(0);
  const place = () => ({
    epoch: view.getUint32(8, true),
    seq: view.getUint32(12, true),
    pts: Number(view.getBigUint64(16, true)),
  });
  if ((kind === FRAME || kind === CODED) && buffer.byteLength > FRAME_HEADER) {
    const index = view.getUint16(2, true);
    const count = view.getUint16(4, true);
    const codec = CODECS[view.getUint16(6, true)];
    if (!codec || (codec === "jpeg") !== (kind === FRAME)) return null;
    const key = kind === FRAME || (view.getUint8(1) & KEY) !== 0;
    const idle = (view.getUint8(1) & IDLE) !== 0;
    const data = new Uint8Array(buffer, FRAME_HEADER);
    return { kind: "frame", ...place(), index, count, codec, key, idle, data };
  }
  if (kind === AUDIO && buffer.byteLength >= AUDIO_HEADER) {
    const position = Number(view.getBigUint64(24, true));
    const pictures = (view.getUint8(1) & 1) === 0;
    const samples = new Float32Array(buffer, AUDIO_HEADER);
    const own = (view.getUint8(1) & SAID) === 0 ? samples.length : 0;
    return { kind: "audio", ...place(), position, pictures, samples, own };
  }
  return null;
}
