// The page: what the feed tells goes to the cards, the tables and the ear.

import { Card } from "./card.js";
import { setUpCapture } from "./capture.js";
import { Commands } from "./commands.js";
import { Feed } from "./feed.js";
import { clock, duration } from "./format.js";
import { showNumbers, showWorkers } from "./table.js";
import { setUpTheme } from "./theme.js";

const SUMMARY_MS = 30000;
const SLOWEST_MS = 500;
const FASTEST_MS = 66;
const SPOKEN_STREAMS = 3;

const page = (id) => document.getElementById(id);
const cards = new Map();
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let state = null;
let link = "closed";
let skew = 0; // this computer's clock minus the dashboard's
let span = 60000;
let lost = 0;
let dirty = true;

const now = () => Date.now() - skew;
const say = (text) => (page("spoken").textContent = text);
const commands = new Commands(page, say);

function cardOf(name) {
  let card = cards.get(name);
  if (card) return card;
  card = new Card(name, page("card"));
  cards.set(name, card);
  const after = [...cards.keys()].sort().find((other) => other > name);
  page("streams").insertBefore(card.root, after ? cards.get(after).root : null);
  arrange();
  return card;
}

function arrange() {
  page("empty").hidden = cards.size > 0;
  page("streams").classList.toggle("one", cards.size === 1);
  page("streams").classList.toggle("many", cards.size > 2);
}

function takeNews(news) {
  for (const score of news.scores) {
    const card = cardOf(score.stream);
    card.series.add(score);
    card.show(score);
  }
  lost = news.lost;
  if (news.state) takeState(news.state);
  dirty = true;
}

function takeState(next) {
  const before = state;
  state = next;
  skew = Date.now() - next.now_ms;
  for (const view of next.streams) cardOf(view.name).showState(view, next.now_ms);
  const known = new Set(next.streams.map((view) => view.name));
  for (const [name, card] of cards) {
    if (known.has(name)) continue;
    card.root.remove();
    cards.delete(name);
    arrange();
  }
  if (before && before.engine !== next.engine) {
    if (next.engine === "gone") say("The engine is gone.");
    if (next.engine === "live") say("The engine is there.");
  }
  page("endpoint").textContent = `scores from ${next.endpoint}`;
  commands.take(next);
  if (page("workers").closest("details").open) showWorkers(page("workers"), next.workers);
  showLink();
}

function showLink(detail = "") {
  let shown = "waiting";
  let text = "Connecting";
  if (link === "refused") [shown, text] = ["gone", "Refused"];
  else if (link === "closed" && state) [shown, text] = ["gone", "Dashboard gone, trying again"];
  else if (link === "closed") text = "Trying to connect";
  else if (state?.engine === "live") {
    const workers = state.workers.filter((entry) => entry.worker === "inference" && entry.silent_since_ms === null);
    // Of a cluster's workers some may have nothing to do: one that runs speaks for all.
    const worker = workers.find((entry) => entry.state === "running") ?? workers[0];
    [shown, text] = ["live", worker && worker.state !== "running" ? `Engine ${worker.state}` : "Live"];
  } else if (state?.engine === "gone") [shown, text] = ["gone", "Engine gone"];
  else if (state) text = "Waiting for the engine";
  page("link").dataset.state = shown;
  page("link-text").textContent = text;
  if (state?.engine === "live") {
    page("empty-title").textContent = "The engine is there, no stream yet";
    page("empty-text").textContent = "Its first score appears here by itself.";
  }
  showAlerts(detail);
}

/** Warnings that stay for as long as their reason does. */
function showAlerts(detail) {
  const wanted = [];
  if (link === "refused") wanted.push(["refused", "bad", detail || page("alert-refused")?.textContent || "Refused."]);
  if (link === "closed" && state) {
    wanted.push(["link", "bad", "The dashboard does not answer. This page tries again by itself; what it shows is old."]);
  } else if (state?.engine === "gone") {
    const ago = duration(now() - state.engine_since_ms);
    wanted.push(["engine", "bad", `Engine gone since ${clock(state.engine_since_ms)} (${ago}). What is shown is old; it continues by itself when the engine is back.`]);
  }
  if ([...cards.values()].some((card) => card.score && !card.score.trained)) {
    wanted.push(["untrained", "", "UNTRAINED model: random weights. These numbers mean nothing about anyone."]);
  }
  if (lost) wanted.push(["slow", "", `This browser was too slow for ${lost} points; they are missing in its charts.`]);
  if (state?.streams_refused) wanted.push(["streams", "", "There are more streams than this dashboard shows."]);
  for (const old of page("alerts").querySelectorAll("[data-alert]")) {
    if (!wanted.some(([key]) => key === old.dataset.alert)) old.remove();
  }
  for (const [key, kind, text] of wanted) {
    let note = page(`alert-${key}`);
    if (!note) {
      note = document.createElement("p");
      note.id = `alert-${key}`;
      note.dataset.alert = key;
      if (kind) page("alerts").prepend(note);
      else page("alerts").append(note);
    }
    note.className = `alert ${kind}`;
    if (note.textContent !== text) note.textContent = text;
  }
}

function showTable() {
  if (page("table-details").open) showNumbers(page("table"), [...cards.values()]);
}

/** Draw as often as the picture moves by half a pixel, within reason, and when there is news. */
let drawn = 0;
function frame(time) {
  requestAnimationFrame(frame);
  const some = cards.values().next().value;
  if (!some || document.hidden) return;
  const step = calm.matches ? SLOWEST_MS : Math.max(FASTEST_MS * Math.max(1, cards.size / 4), Math.min(SLOWEST_MS, 0.5 / some.chart.scale));
  if (time - drawn < (dirty ? FASTEST_MS : step)) return;
  drawn = time;
  dirty = false;
  for (const card of cards.values()) {
    card.chart.now = now();
    card.chart.span = span;
    card.chart.draw();
  }
}

new Feed({
  history: (header, columns) => {
    cardOf(header.stream).series.fill(columns, header.marks);
    dirty = true;
  },
  news: takeNews,
  link: (next, detail) => {
    if (next === "open" && link !== "open" && state) say("The dashboard is there again.");
    if (next !== "open" && link === "open") say("The dashboard does not answer.");
    if (next !== "closed" || link !== "refused") link = next;
    showLink(detail);
  },
});

document.querySelector(".span").addEventListener("change", (event) => {
  span = Number(event.target.value);
  dirty = true;
});
setUpTheme(page("theme"), () => (dirty = true));
setUpCapture(page, say);
setInterval(showTable, 1000);
setInterval(() => link === "closed" && showLink(), 1000);
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    showTable();
    if (state) showWorkers(page("workers"), state.workers);
  });
}
setInterval(() => {
  for (const card of cards.values()) card.describe();
  if (document.hidden || !cards.size) return;
  const spoken = [...cards.values()].slice(0, SPOKEN_STREAMS).map((card) => card.sentence());
  if (cards.size > SPOKEN_STREAMS) spoken.push(`${cards.size - SPOKEN_STREAMS} more streams in the table.`);
  say(spoken.join(" "));
}, SUMMARY_MS);
fetch("/options")
  .then((answer) => answer.json())
  .then((options) => {
    page("capture-open").hidden = !options.capture;
    commands.show(options.commands);
  })
  .catch(() => (page("capture-open").hidden = true));
requestAnimationFrame(frame);
