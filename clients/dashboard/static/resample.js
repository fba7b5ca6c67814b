// Sound at any rate to 16 kHz: a windowed-sinc low-pass, sampled at the new instants.

export const RATE_HZ = 16000;
const ZEROS = 16; // of the sinc on each side, at the lower rate
const CUTOFF = 0.92; // of the new Nyquist frequency

/** Takes blocks of Float32 samples, gives Float32 samples at 16 kHz; chunked equals whole. */
export class Resampler {
  constructor(rate) {
    this.ratio = rate / RATE_HZ;
    const bandwidth = CUTOFF * Math.min(1, 1 / this.ratio);
    this.reach = Math.ceil(ZEROS / bandwidth);
    this.bandwidth = bandwidth;
    this.waiting = new Float32Array(this.reach); // silence before the first sample
    this.position = this.reach; // of the next output, in `waiting`
    this.filters = new Map();
  }

  push(block) {
    const input = new Float32Array(this.waiting.length + block.length);
    input.set(this.waiting);
    input.set(block, this.waiting.length);
    const out = [];
    while (Math.floor(this.position) + this.reach < input.length) {
      const whole = Math.floor(this.position);
      const taps = this.filter(this.position - whole);
      const first = whole - this.reach + 1;
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * input[first + k];
      out.push(sum);
      this.position += this.ratio;
    }
    const drop = Math.max(0, Math.floor(this.position) - this.reach);
    this.waiting = input.slice(drop);
    this.position -= drop;
    return Float32Array.from(out);
  }

  /** Filter for an instant between two samples; there are few of them, each is made once. */
  filter(fraction) {
    const key = Math.round(fraction * 65536);
    let taps = this.filters.get(key);
    if (taps) return taps;
    taps = new Float32Array(2 * this.reach);
    let sum = 0;
    for (let k = 0; k < taps.length; k++) {
      const x = k - this.reach + 1 - fraction;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / this.reach);
      const angle = Math.PI * this.bandwidth * x;
      taps[k] = Math.abs(x) > this.reach ? 0 : window * (Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle);
      sum += taps[k];
    }
    for (let k = 0; k < taps.length; k++) taps[k] /= sum;
    if (this.filters.size < 1024) this.filters.set(key, taps);
    return taps;
  }
}
