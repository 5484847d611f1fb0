// How much the play-out keeps in hand: little where clips keep their time, more where they do not.
//
// A clip comes some seconds before its turn. The last of the latest clips in time has the fewest, and they are what
// could be won. A reserve stays of them. It is a part of the distance between that clip and the usual one, because
// the next clip may be later still. Clips of silence come far earlier than speech, so the earliest ones say nothing.
//
// Clips that are late add to the reserve, and what they added fades: in half a minute after the first one, and in
// minutes where they come again and again.

const FIRST = 0.03; // seconds in hand of the first clip
const LEAST = 0.01; // and of the last one of the latest clips
const SHARE = 0.5; // of the distance between the last and the usual one that is kept besides
const UNSURE = 8; // so many clips have to be known for the share not to be above 1.5: fewer clips say less
const BEGINNING = 4; // clips that say nothing: the stages load what they need
const ENOUGH = 16; // clips by which it is judged, at least
const SPAN = 8; // seconds of clips that are remembered
const FAREST = 0.08; // seconds of distance that count at most
const AFTER_LATE = 0.4; // of the reserve that a late clip has in hand
const LEAST_AFTER_LATE = 0.02; // and seconds that it has at least
const PER_LATE = 0.03; // seconds that each late clip adds, and half of those by which it was late
const FAREST_LATE = 0.2; // seconds late that count at most
const MOST_ADDED = 0.3;
const FADES = 0.995; // what is left of the added after each clip in time
const STEADIER = 5; // so many times more slowly does it fade after each late clip
const FORGIVES = 0.999; // how that ends

/** @typedef {{seq: number, seconds: number}} Early of a clip: how long before its turn it came */

export class PlayBuffer {
  constructor() {
    /** @type {Early[]} */
    this.early = []; // of the latest clips; negative where one was late
    this.added = 0; // seconds by late clips
    this.fades = FADES;
    this.remembered = ENOUGH;
    this.begun = 0; // clips since the beginning
  }

  // What came before says nothing about what comes now.
  forget() {
    this.early = [];
    this.begun = 0;
  }

  // Whether enough clips are known.
  get judges() {
    return this.early.length >= ENOUGH;
  }

  // Seconds in hand of the last one of the latest clips.
  get least() {
    return Math.min(...this.early.map(({ seconds }) => seconds));
  }

  // Seconds in hand of the later one of the last two clips.
  get latest() {
    const two = this.early.slice(-2).map(({ seconds }) => seconds);
    return two.length ? Math.min(...two) : 0;
  }

  // Seconds between the last one of the latest clips and the usual one.
  get distance() {
    if (!this.early.length) return 0;
    const sorted = this.early.map(({ seconds }) => seconds).sort((a, b) => a - b);
    return Math.min(FAREST, sorted[sorted.length >> 1] - sorted[0]);
  }

  // Seconds that the last one of the latest clips is to have in hand.
  get reserve() {
    const share = SHARE + UNSURE / Math.max(UNSURE, this.early.length);
    return Math.max(LEAST, this.added, share * this.distance);
  }

  // Seconds in hand that are not needed; negative where there are too few.
  get excess() {
    return this.least - this.reserve;
  }

  // Seconds in hand of a clip that follows none.
  get start() {
    return Math.max(FIRST, this.reserve + this.distance);
  }

  /**
   * A clip came in time.
   *
   * @param {number} seq
   * @param {number} seconds before its turn
   * @param {number} lasts seconds of the clip
   */
  inTime(seq, seconds, lasts) {
    this.remembered = Math.max(ENOUGH, Math.round(SPAN / lasts));
    this.note(seq, seconds);
    this.added *= this.fades;
    this.fades = FADES + (this.fades - FADES) * FORGIVES;
  }

  /**
   * A clip came after its turn.
   *
   * @param {number} seq
   * @param {number} seconds after it
   * @param {boolean} gives whether the next clips can have more in hand than it
   * @returns {number} seconds that it is to have in hand
   */
  late(seq, seconds, gives) {
    this.note(seq, -seconds);
    if (this.begun > BEGINNING) this.add(seconds);
    const inHand = Math.max(LEAST_AFTER_LATE, gives ? 0 : this.added, AFTER_LATE * this.reserve);
    this.move(seconds + inHand);
    return inHand;
  }

  /**
   * A picture is ready. A clip is as late as the last of its sound and its pictures.
   *
   * @param {number} seq of its clip
   * @param {number} seconds before its turn
   */
  picture(seq, seconds) {
    const clip = this.early.at(-1);
    if (clip?.seq === seq) clip.seconds = Math.min(clip.seconds, seconds);
  }

  /** @param {number} seconds by which all turns are later from now on; negative if they are earlier */
  move(seconds) {
    for (const clip of this.early) clip.seconds += seconds;
  }

  /**
   * @param {number} seq
   * @param {number} seconds
   */
  note(seq, seconds) {
    this.begun += 1;
    if (this.begun > BEGINNING) this.early.push({ seq, seconds });
    if (this.early.length > this.remembered) this.early.shift();
  }

  /** @param {number} seconds by which a clip was late */
  add(seconds) {
    this.added = Math.min(MOST_ADDED, this.added + PER_LATE + Math.min(FAREST_LATE, seconds) / 2);
    this.fades = 1 - (1 - this.fades) / STEADIER;
  }
}
