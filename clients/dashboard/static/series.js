// One stream's points in typed arrays: the last hour, oldest first.

export const SPEAKING = 1;
export const FACE = 2;
export const MIXED = 8;
export const MODALITIES = ["audio", "text", "video"];
const COLUMNS = ["t", "v", "low", "high", ...MODALITIES, "flags"];
const REASON_SHIFT = 4;
export const REASONS = ["no_voice_and_no_face", "warming_up"];
const CAPACITY = 16384;
const SPAN_MS = 3600000;

export class Series {
  constructor() {
    this.t = new Float64Array(CAPACITY);
    this.v = new Float32Array(CAPACITY);
    this.low = new Float32Array(CAPACITY);
    this.high = new Float32Array(CAPACITY);
    for (const name of MODALITIES) this[name] = new Float32Array(CAPACITY); // what each says by itself
    this.flags = new Uint8Array(CAPACITY);
    this.count = 0;
    this.marks = [];
  }

  /** Replace everything by a history frame's columns. */
  fill(columns, marks) {
    this.count = Math.min(columns.t.length, CAPACITY);
    for (const name of COLUMNS) this[name].set(columns[name].subarray(0, this.count));
    this.marks = marks.map(([t, label]) => ({ t, label }));
  }

  /** Append a live score; one that is known already is left out. */
  add(score) {
    if (this.count && score.t_ms <= this.t[this.count - 1] + 0.05) return false;
    if (this.count === CAPACITY) this.halve();
    const i = this.count++;
    this.t[i] = score.t_ms;
    this.v[i] = score.valence ?? NaN;
    this.low[i] = score.low ?? NaN;
    this.high[i] = score.high ?? NaN;
    for (const name of MODALITIES) this[name][i] = score[`${name}_valence`] ?? NaN;
    let flags = (score.mixed ? MIXED : 0) | (score.speaking ? SPEAKING : 0) | (score.faces > 0 ? FACE : 0);
    if (score.valence === null) flags |= (Math.max(0, REASONS.indexOf(score.reason)) + 1) << REASON_SHIFT;
    this.flags[i] = flags;
    if (score.mark !== null) this.marks.push({ t: score.t_ms, label: score.mark });
    while (this.marks.length && this.marks[0].t < score.t_ms - SPAN_MS) this.marks.shift();
    return true;
  }

  /** Index of the first point at or after a time. */
  at(t) {
    let from = 0;
    let to = this.count;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.t[middle] < t) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  reason(i) {
    const place = this.flags[i] >> REASON_SHIFT;
    return place ? REASONS[place - 1] : null;
  }

  /** Usual time between two points, ms: the median of the last ones. */
  spacing() {
    const from = Math.max(1, this.count - 16);
    const gaps = [];
    for (let i = from; i < this.count; i++) gaps.push(this.t[i] - this.t[i - 1]);
    gaps.sort((a, b) => a - b);
    return gaps.length ? gaps[gaps.length >> 1] : 500;
  }

  halve() {
    const keep = CAPACITY >> 1;
    for (const name of COLUMNS) this[name].copyWithin(0, this.count - keep, this.count);
    this.count = keep;
  }
}
