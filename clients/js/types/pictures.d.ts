/**
 * The name of a codec as WebCodecs takes it.
 *
 * @param {string} codec
 * @param {Uint8Array} keyFrame which says profile and level
 */
export function codecName(codec: string, keyFrame: Uint8Array): string;
/**
 * The codecs to ask a server for, the best one first. On the same machine there are none: the network costs nothing
 * there, and JPEG costs less time.
 *
 * @param {string} host of the server
 * @returns {Promise<string[]>}
 */
export function wantedCodecs(host: string): Promise<string[]>;
/** The codecs that this browser decodes. @returns {Promise<string[]>} */
export function knownCodecs(): Promise<string[]>;
export class Pictures {
    /** @param {(error: unknown) => void} onFailure told once, when coded frames cannot be decoded */
    constructor(onFailure?: (error: unknown) => void);
    onFailure: (error: unknown) => void;
    failed: boolean;
    /** @type {VideoDecoder | null} */
    decoder: VideoDecoder | null;
    configured: string;
    last: string;
    count: number;
    /** @type {Map<number, Waiting>} */
    waiting: Map<number, Waiting>;
    /**
     * A picture to draw, which the caller closes. Null for one that cannot be decoded: the one before it stays.
     *
     * @param {Coded} picture
     * @returns {Promise<ImageBitmap | null>}
     */
    decode({ codec, key, epoch, seq, index, count, data }: Coded): Promise<ImageBitmap | null>;
    /**
     * @param {string} codec
     * @param {boolean} key
     * @param {Uint8Array<ArrayBuffer>} data
     * @param {boolean} last whether it is the last one of its clip
     * @returns {Promise<VideoFrame | null>}
     */
    decodeFrame(codec: string, key: boolean, data: Uint8Array<ArrayBuffer>, last: boolean): Promise<VideoFrame | null>;
    open(): VideoDecoder;
    /** @param {unknown} error */
    fail(error: unknown): void;
    close(): void;
}
/**
 * a picture of a `Face` or of the wire
 */
export type Coded = {
    codec: string;
    key: boolean;
    epoch: number;
    seq: number;
    index: number;
    count: number;
    data: Uint8Array<ArrayBuffer>;
};
export type Waiting = (picture: VideoFrame | null) => void;
