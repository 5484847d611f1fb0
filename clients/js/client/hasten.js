// Sound made shorter with its pitch kept: pauses are cut first, then spans of about a pitch period or several.
//
// Each block of 100 ms has at most one cut. The two sides of a cut are faded into each other where they are most
// alike (synchronised overlap-add), and the block's ends stay as they are. gateway/core/hasten.py does the same.

const BLOCK = 1600; // samples
const FADE = 240; // more than a period of a low voice
const SHARE = 0.4; // of a block with speech that may be cut: 1.7 times as fast
const SEARCH = 100; // samples about that share among which the best cut is looked for
const STRIDE = 640; // samples from one even cut to the next: about a picture
const QUIET = 0.006; // root mean square of a pause

/**
 * @typedef {Float32Array<ArrayBuffer>} Samples
 * @typedef {{at: number, length: number}} Cut samples left out, and where
 */

/** @param {Float32Array} samples */
function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}

/**
 * How alike the FADE samples at two places are, from -1 to 1.
 *
 * @param {Samples} samples
 * @param {number} a
 * @param {number} b
 */
function likeness(samples, a, b) {
  let product = 0;
  let energy = 1e-9;
  for (let i = 0; i < FADE; i += 1) {
    product += samples[a + i] * samples[b + i];
    energy += samples[b + i] * samples[b + i];
  }
  return product / Math.sqrt(energy);
}

/** Whether nobody speaks in all of it. @param {Float32Array} samples */
export function isPause(samples) {
  return loudness(samples) < QUIET;
}

/**
 * Cuts of sound that nobody hears, spread evenly, so that its pictures move faster.
 *
 * @param {number} length samples
 * @param {number} most samples to cut, a quarter of them at most
 * @returns {Cut[]} in the order of their places
 */
export function evenCuts(length, most) {
  const count = Math.floor(length / STRIDE);
  const each = Math.floor(most / count);
  if (!count || !each) return [];
  return Array.from({ length: count }, (_, n) => ({ at: n * STRIDE, length: each }));
}

/**
 * @param {Samples} samples
 * @param {number} at
 * @returns {Cut} the best one of a block with speech
 */
function smoothCut(samples, at) {
  let length = 0;
  let best = -Infinity;
  for (let tried = BLOCK * SHARE - SEARCH; tried <= BLOCK * SHARE + SEARCH; tried += 1) {
    const found = likeness(samples, at, at + tried);
    if (found > best) {
      best = found;
      length = tried;
    }
  }
  return { at, length };
}

/**
 * @param {Samples} samples
 * @param {number} most samples to cut
 * @param {boolean} speech whether speech may be cut too, once all pauses are
 * @returns {Cut[]} in the order of their places
 */
export function cutsOf(samples, most, speech) {
  /** @type {Cut[]} */
  const cuts = [];
  let left = most;
  const blocks = Math.floor(samples.length / BLOCK);
  const loud = [];
  for (let block = 0; block < blocks; block += 1) {
    const at = block * BLOCK;
    if (loudness(samples.subarray(at, at + BLOCK)) >= QUIET) {
      loud.push(at);
    } else {
      const length = Math.min(left, BLOCK - FADE);
      if (length >= FADE) cuts.push({ at, length });
      left -= length >= FADE ? length : 0;
    }
  }
  for (const at of speech ? loud : []) {
    if (left < BLOCK * SHARE) break;
    const cut = smoothCut(samples, at);
    cuts.push(cut);
    left -= cut.length;
  }
  return cuts.sort((a, b) => a.at - b.at);
}

/**
 * @param {Samples} samples
 * @param {Cut[]} cuts of these samples
 * @returns {Samples} the rest
 */
export function withoutCuts(samples, cuts) {
  const rest = new Float32Array(samples.length - total(cuts));
  let from = 0;
  let to = 0;
  for (const { at, length } of cuts) {
    rest.set(samples.subarray(from, at), to);
    to += at - from;
    for (let i = 0; i < FADE; i += 1) {
      const share = i / FADE;
      rest[to + i] = (1 - share) * samples[at + i] + share * samples[at + length + i];
    }
    to += FADE;
    from = at + length + FADE;
  }
  rest.set(samples.subarray(from), to);
  return rest;
}

/** @param {Cut[]} cuts */
export function total(cuts) {
  return cuts.reduce((sum, { length }) => sum + length, 0);
}

/**
 * The place in the rest of a sample of the whole.
 *
 * @param {Cut[]} cuts
 * @param {number} place
 */
export function placeInRest(cuts, place) {
  return cuts.reduce((left, { at, length }) => left - Math.min(Math.max(0, place - at), length), place);
}
