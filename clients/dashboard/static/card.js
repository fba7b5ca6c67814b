// A stream's card: numbers, states, weights and costs around its chart.

import { Chart } from "./chart.js";
import { clock, duration, facesText, intervalMeaning, percent, reasonText, signed, trendText } from "./format.js";
import { Series } from "./series.js";

const MODALITIES = [["audio", "Voice"], ["text", "Words"], ["video", "Face"]];
const STAGES = ["transport", "wait", "encode", "fuse"];
const SOURCES = { simulated: ["simulated", " from the voice"], given: ["transcript", ""] };

let shown = false;

export class Card {
  constructor(name, template) {
    this.name = name;
    this.series = new Series();
    this.score = null;
    this.view = null;
    this.root = template.content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.find(".name").textContent = name;
    this.root.setAttribute("aria-label", `Stream ${name}`);
    this.root.dataset.stream = name;
    this.chart = new Chart(this.find("canvas"), this.find(".cursor"), this.series);
    this.weights = MODALITIES.map(([key, label]) => this.makeWeight(key, label));
    const traces = this.find(".traces input");
    traces.checked = shown;
    this.chart.traces = shown;
    traces.addEventListener("change", () => {
      shown = traces.checked; // the next card begins as this one was left
      this.chart.traces = traces.checked;
      this.root.classList.toggle("traced", traces.checked);
      this.chart.draw();
    });
    this.root.classList.toggle("traced", shown);
    this.stages = STAGES.map(() => this.find(".stages").appendChild(document.createElement("i")));
  }

  makeWeight(key, label) {
    const root = document.createElement("div");
    root.className = `weight ${key}`;
    root.innerHTML = '<p><span class="label"></span><span class="alone"></span><span class="share"></span></p><div class="track"><div class="fill"></div></div>';
    root.querySelector(".label").textContent = label;
    this.find(".weights").append(root);
    return root;
  }

  /** Show the newest score. */
  show(score) {
    this.score = score;
    const { find } = this;
    const none = score.valence === null;
    find(".value").textContent = none ? "No value" : signed(score.valence);
    find(".value").classList.toggle("none", none);
    find(".why").textContent = none ? reasonText(score.reason) : score.trained ? intervalMeaning(score.low, score.high) : "means nothing";
    find(".interval").textContent = none ? "" : `${percent(score.coverage ?? 0.9)}: ${signed(score.low)} to ${signed(score.high)}`;
    find(".trend").textContent = none ? "" : trendText(score.trend);
    this.root.classList.toggle("meaningless", !score.trained);
    this.chart.meaningless = !score.trained;
    find(".untrained").hidden = score.trained;
    find(".mixed").hidden = !score.mixed;
    chip(find(".speech"), score.speaking, score.speaking ? "speaking" : "silent");
    chip(find(".faces"), score.faces > 0, facesText(score.faces));
    MODALITIES.forEach(([key], i) => this.showWeight(key, this.weights[i]));
    this.showWords();
    find(".total").textContent = `${score.latency_total_ms.toFixed(1)} ms`;
    find(".stage-text").textContent = STAGES.map((stage) => `${stage} ${score[`latency_${stage}_ms`].toFixed(1)}`).join(" · ");
    STAGES.forEach((stage, i) => (this.stages[i].style.flexGrow = Math.max(0.001, score[`latency_${stage}_ms`])));
    this.showDrops();
    if (!find("canvas").hasAttribute("aria-label")) this.describe();
  }

  /** What was understood, where the engine publishes it; what may still change is paler. */
  showWords() {
    const words = JSON.parse(this.score.text_words ?? "[]") ?? [];
    const caption = this.find(".caption");
    caption.hidden = !words.length;
    caption.replaceChildren(...words.map((word) => {
      const span = document.createElement("span");
      span.textContent = `${word.text} `;
      span.classList.toggle("tentative", word.tentative);
      return span;
    }));
  }

  showWeight(key, root) {
    const { score } = this;
    const present = score[`${key}_present`];
    root.classList.toggle("absent", !present);
    const share = root.querySelector(".share");
    share.textContent = present ? percent(score[`${key}_weight`]) : "absent";
    root.querySelector(".fill").style.width = present ? `${100 * score[`${key}_weight`]}%` : "0";
    const alone = score[`${key}_valence`];
    root.querySelector(".alone").textContent = present && alone !== null ? `says ${signed(alone, 1)}` : "";
    const label = root.querySelector(".label");
    if (key === "text") {
      const [source, more] = SOURCES[score.text_source] ?? ["", ""];
      label.innerHTML = 'Words <span class="note"></span><span class="note wide"></span>';
      label.querySelector(".note").textContent = source;
      label.querySelector(".wide").textContent = more;
    }
    const quality = score[`${key}_quality`];
    const parts = [`covers ${percent(score[`${key}_coverage`])} of the window`];
    if (present && alone !== null) parts.unshift(`by itself ${signed(alone)} (${signed(score[`${key}_low`], 1)} to ${signed(score[`${key}_high`], 1)})`);
    if (quality !== null) parts.push(`quality ${percent(quality)}`);
    root.title = parts.join(", ");
  }

  showDrops() {
    const dropped = this.score?.dropped ?? 0;
    const lost = this.view?.lost ?? 0;
    const parts = [`${dropped} dropped`];
    if (lost) parts.push(`${lost} scores lost on the way here`);
    this.find(".drops").textContent = parts.join(" · ");
    this.find(".drops").classList.toggle("some", dropped + lost > 0);
  }

  /** Show what the dashboard knows of the stream beside its scores. */
  showState(view, now) {
    this.view = view;
    const silent = view.silent_since_ms;
    this.find(".silent").hidden = silent === null;
    if (silent !== null) this.find(".silent").textContent = `no scores since ${clock(silent)} (${duration(now - silent)})`;
    this.root.classList.toggle("old", silent !== null);
    for (const name of [".speech", ".faces"]) this.find(name).hidden = silent !== null;
    this.showDrops();
  }

  /** One sentence for the ear. */
  sentence() {
    const { score, name } = this;
    if (score === null) return `${name}: no score yet.`;
    if (this.view?.silent_since_ms) return `${name}: no scores since ${clock(this.view.silent_since_ms)}.`;
    const what =
      score.valence === null
        ? `no value, ${reasonText(score.reason)}`
        : `valence ${signed(score.valence, 1)}, between ${signed(score.low, 1)} and ${signed(score.high, 1)}`;
    const mixed = score.mixed ? " Voice, words and face contradict each other." : "";
    const trained = score.trained ? "" : " The model is untrained, this means nothing.";
    return `${name}: ${what}, ${score.speaking ? "speaking" : "silent"}, ${facesText(score.faces)}.${mixed}${trained}`;
  }

  describe() {
    this.find("canvas").setAttribute("aria-label", `Valence over time. ${this.sentence()} Arrow keys read single scores.`);
  }
}

function chip(root, on, text) {
  root.classList.toggle("on", on);
  root.querySelector(".says").textContent = text;
}
