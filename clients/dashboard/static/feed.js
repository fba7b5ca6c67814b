// The websocket of scores: reads history and news, and connects again by itself.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;
const SILENCE_MS = 6000; // the server speaks once a second

export class Feed {
  /** `on` has history(header, columns), news(message) and link(state, detail). */
  constructor(on) {
    this.on = on;
    this.wait = FIRST_WAIT_MS;
    this.heard = 0;
    this.timer = null;
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => !document.hidden && this.retry());
    setInterval(() => this.check(), 1000);
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/scores`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heard = performance.now();
      this.wait = FIRST_WAIT_MS;
      if (typeof event.data === "string") this.on.news(JSON.parse(event.data));
      else this.on.history(...readHistory(event.data));
    };
    socket.onopen = () => socket === this.socket && this.on.link("open");
    socket.onclose = () => socket === this.socket && this.again();
  }

  again() {
    if (this.timer !== null) return;
    this.on.link("closed");
    const wait = this.wait * (0.75 + Math.random() / 2);
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
    this.timer = setTimeout(() => this.connect(), wait);
    this.explain();
  }

  retry() {
    if (this.timer !== null) this.connect();
  }

  check() {
    if (this.timer === null && performance.now() - this.heard > SILENCE_MS) {
      const socket = this.socket;
      this.socket = null;
      socket.close();
      this.again();
    }
  }

  /** A websocket does not say why it was refused; a plain request does. */
  async explain() {
    try {
      const answer = await fetch("/options");
      if (answer.status === 401 || answer.status === 403) this.on.link("refused", await answer.text());
    } catch {
      // The dashboard itself is away; `link("closed")` has said so.
    }
  }
}

/** Read a history frame; its layout is in history.py. */
export function readHistory(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const n = header.count;
  let at = 4 + length;
  const column = (Kind) => {
    const values = new Kind(buffer, at, n);
    at += values.byteLength;
    return values;
  };
  const columns = {
    t: column(Float64Array),
    v: column(Float32Array),
    low: column(Float32Array),
    high: column(Float32Array),
    audio: column(Float32Array),
    text: column(Float32Array),
    video: column(Float32Array),
    flags: column(Uint8Array),
  };
  return [header, columns];
}
