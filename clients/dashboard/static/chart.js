// A stream's valence over time on a canvas: line, interval band, gaps, marks, speech and face lanes.
//
// No chart library: uPlot 1.6 (51 kB, MIT) would draw axes, line, band and size, some 130 of these
// lines. The hatched gaps with their reasons, the lanes, the marks, the outer band of points that share
// a pixel and the keyboard's cursor would stay, as hooks into it.

import { Cursor } from "./cursor.js";
import { clock, clockShort, duration, reasonText, signed } from "./format.js";
import { FACE, MODALITIES, SPEAKING } from "./series.js";

const LEFT = 40;
const TOP = 18;
const RIGHT = 10;
const LANE = 6;
const LANES = 38; // both lanes with their spaces
const AXIS = 18;
const STEPS_MS = [10000, 15000, 30000, 60000, 120000, 300000, 600000, 900000];

export class Chart {
  constructor(canvas, box, series) {
    this.canvas = canvas;
    this.series = series;
    this.cursor = new Cursor(this, canvas, box);
    this.span = 60000;
    this.now = Date.now();
    this.visible = true;
    this.traces = false; // also what each modality says by itself
    this.meaningless = false; // an untrained model's line is drawn without colour
    this.size = [0, 0];
    new ResizeObserver(() => this.draw()).observe(canvas);
    new IntersectionObserver((seen) => {
      this.visible = seen[seen.length - 1].isIntersecting;
      this.draw();
    }).observe(canvas);
  }

  /** Pixels per ms. */
  get scale() {
    return Math.max(1, this.canvas.clientWidth - LEFT - RIGHT) / this.span;
  }

  x(t) {
    return LEFT + (t - this.now + this.span) * this.scale;
  }

  /** The time at a place, the other way round. */
  time(x) {
    return this.now - this.span + (x - LEFT) / this.scale;
  }

  y(v) {
    return TOP + ((3 - v) / 6) * (this.size[1] - TOP - LANES - AXIS);
  }

  draw() {
    const { canvas } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!this.visible || !width) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    this.size = [width, height];
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    this.ink = (name) => style.getPropertyValue(`--${name}`).trim();
    g.font = `11px ${style.fontFamily}`;
    this.grid(g);
    g.save();
    g.beginPath();
    g.rect(LEFT, 0, width - LEFT - RIGHT + 6, height - AXIS);
    g.clip();
    const from = Math.max(0, this.series.at(this.now - this.span) - 1);
    this.gaps(g, from);
    this.curve(g, from);
    if (this.traces) this.alone(g, from);
    this.lanes(g, from);
    this.marks(g);
    g.restore();
    this.ends(g);
    this.cursor.draw(g);
  }

  grid(g) {
    const [width, height] = this.size;
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    for (const v of [3, 1.5, 0, -1.5, -3]) {
      const y = Math.round(this.y(v)) + 0.5;
      g.strokeStyle = v === 0 ? this.ink("muted") : this.ink("line");
      g.globalAlpha = v === 0 ? 0.55 : 1;
      g.beginPath();
      g.moveTo(LEFT, y);
      g.lineTo(width - RIGHT, y);
      g.stroke();
      g.globalAlpha = 1;
      g.fillStyle = this.ink("muted");
      if (v % 3 === 0) g.fillText(v === 0 ? "0" : signed(v, 0), LEFT - 8, y);
    }
    g.textAlign = "center";
    const step = STEPS_MS.find((ms) => ms * this.scale >= 84) ?? 900000;
    const zone = new Date(this.now).getTimezoneOffset() * 60000;
    const first = Math.ceil((this.now - this.span - zone) / step) * step + zone;
    for (let t = first; t <= this.now; t += step) {
      const x = this.x(t);
      if (x < LEFT + 16 || x > width - RIGHT - 18) continue;
      g.fillText(step < 60000 ? clock(t) : clockShort(t), x, height - AXIS / 2 + 2);
    }
  }

  /** What the ends of the scale mean. */
  ends(g) {
    g.textAlign = "left";
    g.fillStyle = this.ink("muted");
    g.strokeStyle = this.ink("surface");
    g.lineWidth = 3;
    for (const [text, y] of [["positive", this.y(3) + 10], ["negative", this.y(-3) - 9]]) {
      g.strokeText(text, LEFT + 6, y);
      g.fillText(text, LEFT + 6, y);
    }
  }

  /** Where there is no value: hatched, with the reason; where there is no score at all: blank, said. */
  gaps(g, from) {
    const { series } = this;
    const broken = this.broken();
    for (let i = from; i < series.count; ) {
      const reason = series.reason(i);
      let j = i + 1;
      if (reason) {
        while (j < series.count && series.reason(j) === reason && series.t[j] - series.t[j - 1] < broken) j++;
        // A score speaks for the hop before it.
        this.hatch(g, this.x(series.t[i] - series.spacing()), this.x(series.t[j - 1]), reasonText(reason));
      }
      if (i > 0 && series.t[i] - series.t[i - 1] >= broken) {
        this.label(g, this.x(series.t[i - 1]), this.x(series.t[i]), "no scores");
      }
      i = j;
    }
    const end = series.count ? series.t[series.count - 1] : null;
    if (end !== null && this.now - end > Math.max(broken, 3000)) {
      this.label(g, this.x(end), this.x(this.now), `no scores for ${duration(this.now - end)}`);
    }
  }

  hatch(g, x0, x1, text) {
    const top = this.y(3);
    const bottom = this.y(-3);
    x0 = Math.max(x0, LEFT);
    g.save();
    g.beginPath();
    g.rect(x0, top, x1 - x0, bottom - top);
    g.clip();
    g.fillStyle = this.ink("faint");
    g.fillRect(x0, top, x1 - x0, bottom - top);
    g.strokeStyle = this.ink("line");
    g.beginPath();
    const height = bottom - top;
    for (let x = Math.floor((x0 - height) / 8) * 8; x < x1; x += 8) {
      g.moveTo(x, bottom);
      g.lineTo(x + height, top);
    }
    g.stroke();
    g.restore();
    this.label(g, x0, x1, text);
  }

  label(g, x0, x1, text) {
    x0 = Math.max(x0, LEFT);
    const width = g.measureText(text).width + 12;
    if (x1 - x0 < width + 4) return;
    const x = (x0 + x1) / 2;
    const y = this.y(1.5);
    g.fillStyle = this.ink("surface");
    g.beginPath();
    g.roundRect(x - width / 2, y - 10, width, 20, 5);
    g.fill();
    g.fillStyle = this.ink("muted");
    g.textAlign = "center";
    g.fillText(text, x, y + 0.5);
  }

  /** Time between two points from which the line is cut, ms. */
  broken() {
    return Math.max(2.5 * this.series.spacing(), 1200);
  }

  curve(g, from) {
    const runs = this.runs(from);
    const colour = this.ink(this.meaningless ? "muted" : "band");
    g.lineJoin = "round";
    g.lineCap = "round";
    g.fillStyle = colour;
    g.strokeStyle = colour;
    for (const run of runs) {
      g.beginPath();
      run.forEach((p, k) => g[k ? "lineTo" : "moveTo"](p.x, this.y(p.high)));
      for (let k = run.length - 1; k >= 0; k--) g.lineTo(run[k].x, this.y(run[k].low));
      g.closePath();
      g.globalAlpha = 0.16;
      g.fill();
      g.globalAlpha = 0.4;
      g.lineWidth = 1;
      for (const side of ["high", "low"]) {
        g.beginPath();
        run.forEach((p, k) => g[k ? "lineTo" : "moveTo"](p.x, this.y(p[side])));
        g.stroke();
      }
      g.globalAlpha = 1;
      g.lineWidth = 2.25;
      g.beginPath();
      run.forEach((p, k) => g[k ? "lineTo" : "moveTo"](p.x, this.y(p.v)));
      g.stroke();
    }
    const last = runs.at(-1)?.at(-1);
    const { series } = this;
    if (last && !Number.isNaN(series.v[series.count - 1])) {
      g.beginPath();
      g.arc(last.x, this.y(last.v), 4.5, 0, 7);
      g.fill();
      g.lineWidth = 2;
      g.strokeStyle = this.ink("surface");
      g.stroke();
    }
  }

  /** A thin line per modality: solid, dashed and dotted, so that colour is not needed to tell them. */
  alone(g, from) {
    const { series } = this;
    const broken = this.broken();
    const styles = { audio: ["voice", []], text: ["words", [7, 3]], video: ["face", [2, 3]] };
    g.lineWidth = 1.6;
    for (const name of MODALITIES) {
      const [ink, dashes] = styles[name];
      g.strokeStyle = this.ink(ink);
      g.setLineDash(dashes);
      g.beginPath();
      let last = -Infinity;
      for (let i = from; i < series.count; i++) {
        const v = series[name][i];
        if (Number.isNaN(v)) {
          last = -Infinity;
          continue;
        }
        g[series.t[i] - last < broken ? "lineTo" : "moveTo"](this.x(series.t[i]), this.y(v));
        last = series.t[i];
      }
      g.stroke();
    }
    g.setLineDash([]);
  }

  /** Unbroken stretches with a value; points that share a pixel become one: mean, and outer band. */
  runs(from) {
    const { series } = this;
    const broken = this.broken();
    const runs = [];
    let run = null;
    let column = null;
    for (let i = from; i < series.count; i++) {
      const v = series.v[i];
      if (Number.isNaN(v)) {
        run = null;
        continue;
      }
      if (run === null || series.t[i] - series.t[i - 1] >= broken) runs.push((run = []));
      const x = this.x(series.t[i]);
      const place = Math.floor(x);
      const last = run.at(-1);
      if (last && place === column) {
        last.n += 1;
        last.v += (v - last.v) / last.n;
        last.low = Math.min(last.low, series.low[i]);
        last.high = Math.max(last.high, series.high[i]);
      } else {
        run.push({ x, v, low: series.low[i], high: series.high[i], n: 1 });
        column = place;
      }
    }
    return runs;
  }

  lanes(g, from) {
    const { series } = this;
    const broken = this.broken();
    const top = this.y(-3) + 14;
    [["voice", SPEAKING], ["face", FACE]].forEach(([name, bit], row) => {
      const y = top + row * (LANE + 7);
      g.fillStyle = this.ink("faint");
      g.fillRect(LEFT, y, this.size[0] - LEFT - RIGHT, LANE);
      g.fillStyle = this.ink(name);
      for (let i = from; i < series.count; i++) {
        if (!(series.flags[i] & bit)) continue;
        let j = i;
        while (j + 1 < series.count && series.flags[j + 1] & bit && series.t[j + 1] - series.t[j] < broken) j++;
        const start = Math.max(LEFT, this.x(series.t[i] - series.spacing()));
        g.fillRect(start, y, Math.max(1, this.x(series.t[j]) - start), LANE);
        i = j;
      }
    });
    g.restore();
    g.save();
    g.textAlign = "right";
    g.fillStyle = this.ink("muted");
    g.fillText("voice", LEFT - 8, top + LANE / 2 + 0.5);
    g.fillText("face", LEFT - 8, top + LANE + 7 + LANE / 2 + 0.5);
  }

  marks(g) {
    g.textAlign = "left";
    let free = LEFT;
    for (const mark of this.series.marks) {
      const x = this.x(mark.t);
      if (x < LEFT || x > this.size[0] - RIGHT) continue;
      g.strokeStyle = this.ink("ink");
      g.lineWidth = 1;
      g.setLineDash([3, 3]);
      g.beginPath();
      g.moveTo(Math.round(x) + 0.5, TOP - 4);
      g.lineTo(Math.round(x) + 0.5, this.y(-3));
      g.stroke();
      g.setLineDash([]);
      const text = mark.label.length > 24 ? `${mark.label.slice(0, 23)}…` : mark.label;
      const width = g.measureText(text).width;
      const start = Math.min(x - 3, this.size[0] - RIGHT - width);
      if (start < free) continue;
      free = start + width + 8;
      g.fillStyle = this.ink("ink");
      g.fillText(text, start, TOP / 2 - 1);
    }
  }
}
