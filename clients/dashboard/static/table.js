// The numbers as tables: for screen readers, for copying, and for looking closely.

import { clock, signed } from "./format.js";

/** One row of plain text cells per entry, built again each time; the first cell heads its row. */
function fill(body, rows) {
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        if (text.length > 30) cell.className = "long";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }),
  );
}

const share = (score, key) => (score[`${key}_present`] ? score[`${key}_weight`].toFixed(3) : "absent");

/** Show the newest score of every stream. */
export function showNumbers(body, cards) {
  const scores = cards.filter((card) => card.score !== null).map((card) => card.score);
  fill(
    body,
    scores.map((score) => [
      score.stream,
      clock(score.t_ms),
      score.valence === null ? (score.reason ?? "none") : signed(score.valence, 3),
      signed(score.low, 3),
      signed(score.high, 3),
      signed(score.trend, 3),
      share(score, "audio"),
      share(score, "text"),
      share(score, "video"),
      score.speaking ? "yes" : "no",
      String(score.faces),
      score.latency_total_ms.toFixed(1),
      String(score.dropped),
      String(score.seq),
    ]),
  );
}

/** Show what the workers said last. */
export function showWorkers(body, workers) {
  fill(
    body,
    workers.map((worker) => {
      const gauges = Object.entries(worker.gauges).map(([name, value]) => `${name} ${value.toFixed(1)}`);
      const counters = Object.entries(worker.counters).map(([name, value]) => `${name} ${value}`);
      const silent = worker.silent_since_ms;
      const state = silent === null ? worker.state : `silent since ${clock(silent)}`;
      return [worker.name, state, worker.detail, [...gauges, ...counters].join(", ")];
    }),
  );
}
