// Band-limited resampling by a rational factor: a polyphase windowed-sinc filter, fed block by block.

const ZERO_CROSSINGS = 16;
const ROLL_OFF = 0.92; // of the narrower side's Nyquist frequency
const KAISER_BETA = 8;

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

/**
 * The modified Bessel function of order 0, which Kaiser's window is made of.
 *
 * @param {number} x
 */
function bessel0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

export class Resampler {
  /**
   * @param {number} from samples a second, a whole number
   * @param {number} to samples a second, a whole number
   */
  constructor(from, to) {
    const common = gcd(from, to);
    this.up = to / common;
    this.down = from / common;
    const cutoff = ROLL_OFF * Math.min(1, to / from);
    this.half = Math.ceil(ZERO_CROSSINGS / Math.min(1, to / from));
    this.taps = 2 * this.half;
    this.bank = this.design(cutoff);
    this.history = new Float32Array(this.taps); // starts in silence
    this.phase = 0; // of the next output, in steps of 1 / up input samples
  }

  /**
   * One kernel for each phase.
   *
   * @param {number} cutoff share of the input's Nyquist frequency
   */
  design(cutoff) {
    const bank = [];
    for (let phase = 0; phase < this.up; phase += 1) {
      const kernel = new Float32Array(this.taps);
      let sum = 0;
      for (let tap = 0; tap < this.taps; tap += 1) {
        const x = tap - this.half + 1 - phase / this.up;
        const edge = x / this.half;
        const window = Math.abs(edge) < 1 ? bessel0(KAISER_BETA * Math.sqrt(1 - edge * edge)) : 0;
        const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
        kernel[tap] = window * sinc;
        sum += kernel[tap];
      }
      bank.push(kernel.map((value) => value / sum));
    }
    return bank;
  }

  /**
   * The output that `input` completes. It is `half` input samples late.
   *
   * @param {Float32Array} input
   * @returns {number[]}
   */
  process(input) {
    const data = new Float32Array(this.history.length + input.length);
    data.set(this.history);
    data.set(input, this.history.length);
    const output = [];
    let start = 0; // of the window of the next output
    let phase = this.phase;
    while (start + this.taps <= data.length - 1) {
      const kernel = this.bank[phase];
      let sum = 0;
      for (let tap = 0; tap < this.taps; tap += 1) sum += kernel[tap] * data[start + tap];
      output.push(sum);
      phase += this.down;
      start += Math.floor(phase / this.up);
      phase %= this.up;
    }
    this.phase = phase;
    this.history = data.slice(start);
    return output;
  }
}
