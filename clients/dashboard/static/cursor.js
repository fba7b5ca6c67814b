// Reading single scores off a chart: by pointer, or by keyboard.

import { clock, reasonText, signed } from "./format.js";

export class Cursor {
  /** `box` is where the number is shown; it is an <output>, which screen readers follow. */
  constructor(chart, canvas, box) {
    this.chart = chart;
    this.box = box;
    this.time = null; // that is read; null for none
    const at = (event) => chart.time(event.offsetX);
    canvas.addEventListener("pointermove", (event) => this.read(at(event)));
    canvas.addEventListener("pointerleave", () => this.read(null));
    canvas.addEventListener("blur", () => this.read(null));
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  read(time) {
    this.time = time;
    this.chart.draw();
  }

  press(event) {
    const { series, now, span } = this.chart;
    if (event.key === "Escape") this.read(null);
    if (!series.count) return;
    const here = this.time === null ? series.count : this.nearest(this.time);
    const jump = event.shiftKey ? 10 : 1;
    const goal = {
      ArrowLeft: here - jump,
      ArrowRight: here + jump,
      Home: series.at(now - span),
      End: series.count - 1,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.read(series.t[Math.max(0, Math.min(series.count - 1, goal))]);
  }

  /** Index of the point that is nearest to a time; -1 without points. */
  nearest(time) {
    const { series } = this.chart;
    if (!series.count) return -1;
    const i = Math.min(series.count - 1, series.at(time));
    return i > 0 && time - series.t[i - 1] < series.t[i] - time ? i - 1 : i;
  }

  draw(g) {
    const { chart } = this;
    const { series } = chart;
    const i = this.time === null ? -1 : this.nearest(this.time);
    const x = i < 0 ? -Infinity : chart.x(series.t[i]);
    this.box.hidden = x < chart.x(chart.now - chart.span) - 1;
    if (this.box.hidden) return;
    g.strokeStyle = chart.ink("muted");
    g.lineWidth = 1;
    g.beginPath();
    g.moveTo(Math.round(x) + 0.5, chart.y(3));
    g.lineTo(Math.round(x) + 0.5, chart.y(-3));
    g.stroke();
    const v = series.v[i];
    if (!Number.isNaN(v)) {
      g.fillStyle = chart.ink("band");
      g.beginPath();
      g.arc(x, chart.y(v), 4, 0, 7);
      g.fill();
    }
    const value = Number.isNaN(v)
      ? reasonText(series.reason(i))
      : `${signed(v)} (${signed(series.low[i], 1)} to ${signed(series.high[i], 1)})`;
    const text = `${clock(series.t[i])}  ${value}`;
    if (this.box.textContent !== text) this.box.textContent = text;
    const width = this.box.offsetWidth;
    this.box.style.left = `${Math.max(0, Math.min(chart.size[0] - width, x - width / 2))}px`;
  }
}
