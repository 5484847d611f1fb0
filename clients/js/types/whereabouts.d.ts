/**
 * @typedef {{epoch: number, seq: number, index: number}} FramePlace
 * @typedef {{token: string, epoch: number, heard: number, seen_seq: number, seen_index: number, position: number}} Resume
 */
export class Whereabouts {
    /** @param {Resume | null} place of the page before a reload */
    constructor(place?: Resume | null);
    place: Resume | null;
    /** @param {{resume?: string, epoch: number}} ready a `ready` of the server */
    begin({ resume, epoch }: {
        resume?: string;
        epoch: number;
    }): void;
    /** @param {{epoch: number, seq: number, position: number, own: number}} sound that came */
    heard({ epoch, seq, position, own }: {
        epoch: number;
        seq: number;
        position: number;
        own: number;
    }): void;
    /** @param {FramePlace} frame that came */
    seen({ epoch, seq, index }: FramePlace): void;
    forget(): void;
}
export type FramePlace = {
    epoch: number;
    seq: number;
    index: number;
};
export type Resume = {
    token: string;
    epoch: number;
    heard: number;
    seen_seq: number;
    seen_index: number;
    position: number;
};
