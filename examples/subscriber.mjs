// A subscriber in JavaScript, written from docs/protocol.md alone.
// Usage: npm install && node subscriber.mjs [ENDPOINT [COUNT]]
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const [endpoint = "tcp://127.0.0.1:5571", count = "Infinity"] = process.argv.slice(2);
const socket = new Subscriber({ linger: 0 });
socket.connect(endpoint);
socket.subscribe("score/");

const last = new Map(); // seq of each stream
let shown = 0;
for await (const [, header] of socket) {
  const score = decode(header);
  if (score.schema !== 1) throw new Error(`schema: expected 1, got ${score.schema}`);
  const before = last.get(score.stream);
  if (before === score.seq) continue; // a repetition: somebody else subscribed
  if (score.seq > before + 1) console.error(`${score.stream}: ${score.seq - before - 1} lost`);
  last.set(score.stream, score.seq);
  const { stream, seq, valence, interval, reason, modalities, model } = score;
  const weights = ["audio", "text", "video"].map((name) => modalities[name].weight);
  console.log(JSON.stringify({ stream, seq, valence, interval, reason, weights }));
  if (!model.trained && shown === 0) console.error("UNTRAINED: these numbers mean nothing");
  if (++shown >= Number(count)) break;
}
socket.close();
