// The client's place in its session: all that a server needs to go on where a lost connection ended.

/**
 * @typedef {{epoch: number, seq: number, index: number}} FramePlace
 * @typedef {{token: string, epoch: number, heard: number, seen_seq: number, seen_index: number, position: number}} Resume
 */

export class Whereabouts {
  /** @param {Resume | null} place of the page before a reload */
  constructor(place = null) {
    this.place = place;
  }

  /** @param {{resume?: string, epoch: number}} ready a `ready` of the server */
  begin({ resume, epoch }) {
    if (!resume) return;
    const position = this.place?.position ?? 0;
    const same = this.place?.epoch === epoch;
    const { heard = -1, seen_seq = -1, seen_index = -1 } = (same && this.place) || {};
    this.place = { token: resume, epoch, heard, seen_seq, seen_index, position };
  }

  /** @param {{epoch: number, seq: number, position: number, own: number}} sound that came */
  heard({ epoch, seq, position, own }) {
    if (!this.place || epoch !== this.place.epoch) return;
    this.place.heard = seq;
    this.place.position = position + own;
  }

  /** @param {FramePlace} frame that came */
  seen({ epoch, seq, index }) {
    if (!this.place || epoch !== this.place.epoch) return;
    this.place.seen_seq = seq;
    this.place.seen_index = index;
  }

  // The session is over, or a new one begins.
  forget() {
    this.place = null;
  }
}
