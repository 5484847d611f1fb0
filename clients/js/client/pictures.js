// Pictures of a session, as something that a canvas can draw: JPEGs, and the coded frames of H.264 and VP8.
//
// Coded frames are decoded by WebCodecs. A clip's first frame is a key frame, so each clip begins anew, and a frame
// whose predecessor was not decoded is passed over. When decoding fails, the owner is told once and asks for JPEG.

/**
 * @typedef {{
 *   codec: string, key: boolean, epoch: number, seq: number, index: number, count: number, data: Uint8Array<ArrayBuffer>,
 * }} Coded a picture of a `Face` or of the wire
 * @typedef {(picture: VideoFrame | null) => void} Waiting
 */

// Of H.264 at the level that 1280 × 720 needs, and of VP8.
const PROBES = { h264: "avc1.64001f", vp8: "vp8" };
const SEQUENCE_PARAMETERS = 7; // type of the unit of H.264 that names profile and level
const LONGEST_WAIT = 3000; // milliseconds for one frame, after which the decoder counts as broken

/**
 * The name of a codec as WebCodecs takes it.
 *
 * @param {string} codec
 * @param {Uint8Array} keyFrame which says profile and level
 */
export function codecName(codec, keyFrame) {
  if (codec !== "h264") return codec;
  for (let at = 0; at + 6 < keyFrame.length; at += 1) {
    const startCode = keyFrame[at] === 0 && keyFrame[at + 1] === 0 && keyFrame[at + 2] === 1;
    if (startCode && (keyFrame[at + 3] & 31) === SEQUENCE_PARAMETERS) {
      const digits = [...keyFrame.subarray(at + 4, at + 7)].map((byte) => byte.toString(16).padStart(2, "0"));
      return `avc1.${digits.join("")}`;
    }
  }
  throw new TypeError("a key frame of H.264 without its parameters");
}

/**
 * The codecs to ask a server for, the best one first. On the same machine there are none: the network costs nothing
 * there, and JPEG costs less time.
 *
 * @param {string} host of the server
 * @returns {Promise<string[]>}
 */
export async function wantedCodecs(host) {
  if (/^(localhost|127\.[\d.]+|\[::1\]|.*\.localhost)$/.test(host)) return [];
  return knownCodecs();
}

/** The codecs that this browser decodes. @returns {Promise<string[]>} */
export async function knownCodecs() {
  if (typeof VideoDecoder === "undefined") return [];
  const known = [];
  for (const [name, codec] of Object.entries(PROBES)) {
    try {
      const { supported } = await VideoDecoder.isConfigSupported({ codec, optimizeForLatency: true });
      if (supported) known.push(name);
    } catch {
      // A browser that does not know the question does not have the codec.
    }
  }
  return known;
}

export class Pictures {
  /** @param {(error: unknown) => void} onFailure told once, when coded frames cannot be decoded */
  constructor(onFailure = () => {}) {
    this.onFailure = onFailure;
    this.failed = false;
    /** @type {VideoDecoder | null} */
    this.decoder = null;
    this.configured = ""; // the codec's name, as the decoder has it
    this.last = ""; // codec and place of the coded frame that the decoder got last
    this.count = 0; // frames that the decoder got: their timestamps
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
  }

  /**
   * A picture to draw, which the caller closes. Null for one that cannot be decoded: the one before it stays.
   *
   * @param {Coded} picture
   * @returns {Promise<ImageBitmap | null>}
   */
  async decode({ codec, key, epoch, seq, index, count, data }) {
    if (codec === "jpeg") {
      this.last = "";
      return createImageBitmap(new Blob([data], { type: "image/jpeg" })).catch(() => null);
    }
    const before = `${codec} ${epoch} ${seq} ${index - 1}`;
    if (this.failed || (!key && this.last !== before)) return null;
    this.last = `${codec} ${epoch} ${seq} ${index}`;
    let frame = null;
    try {
      frame = await this.decodeFrame(codec, key, data, index === count - 1);
      // A decoder has few frames of its own, and a second of them may wait here.
      return frame && (await createImageBitmap(frame));
    } catch (error) {
      this.fail(error);
      return null;
    } finally {
      frame?.close();
    }
  }

  /**
   * @param {string} codec
   * @param {boolean} key
   * @param {Uint8Array<ArrayBuffer>} data
   * @param {boolean} last whether it is the last one of its clip
   * @returns {Promise<VideoFrame | null>}
   */
  decodeFrame(codec, key, data, last) {
    const decoder = this.decoder ?? this.open();
    if (key) {
      const name = codecName(codec, data);
      if (name !== this.configured) {
        decoder.configure({ codec: name, optimizeForLatency: true });
        this.configured = name;
      }
    }
    const timestamp = this.count;
    this.count += 1;
    /** @type {Promise<VideoFrame | null>} */
    const answer = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no picture within ${LONGEST_WAIT} ms`)), LONGEST_WAIT);
      this.waiting.set(timestamp, (picture) => {
        clearTimeout(timer);
        this.waiting.delete(timestamp);
        resolve(picture);
      });
    });
    decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp, data }));
    // Some decoders keep pictures back. The next clip begins with a key frame, as a flush demands.
    if (last) decoder.flush().catch(() => {});
    return answer;
  }

  open() {
    this.decoder = new VideoDecoder({
      output: (picture) => {
        const waiting = this.waiting.get(picture.timestamp);
        if (waiting) waiting(picture);
        else picture.close();
      },
      error: (error) => this.fail(error),
    });
    return this.decoder;
  }

  /** @param {unknown} error */
  fail(error) {
    if (this.failed) return;
    this.failed = true;
    this.close();
    this.onFailure(error);
  }

  close() {
    for (const answer of [...this.waiting.values()]) answer(null);
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
    this.configured = "";
    this.last = "";
  }
}
