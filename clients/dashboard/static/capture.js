// This computer's camera and microphone: asked for, sent, shown, stopped.

const PICTURE_MS = 100;
const MAX_WIDTH = 480; // what the engine's face detector looks at
const JPEG_QUALITY = 0.85;
const SOUND = 1;
const PICTURE = 2;
const MAX_WAITING_BYTES = 512 * 1024;
const HEADER_BYTES = 16;

/** Wire the dialog and the panel up; `say` speaks to screen readers. */
export function setUpCapture(page, say) {
  let session = null;
  const dialog = page("consent");
  const error = page("consent-error");
  page("consent-host").textContent = location.hostname;

  const fail = (text) => {
    error.textContent = text;
    error.hidden = false;
    page("consent-start").disabled = false;
  };
  const ended = (reason) => {
    session = null;
    page("self").hidden = true;
    page("self-view").srcObject = null;
    page("capture-open").disabled = false;
    say(reason);
    if (dialog.open) fail(reason);
    else if (reason !== STOPPED) showEnd(page, reason);
  };

  page("capture-open").addEventListener("click", () => {
    error.hidden = true;
    const possible = isSecureContext && Boolean(navigator.mediaDevices);
    page("consent-insecure").hidden = possible;
    page("consent-start").disabled = !possible;
    page("consent-agree").checked = false;
    dialog.showModal();
  });
  page("consent-cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => session && !session.accepted && session.stop());
  page("consent-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    page("consent-start").disabled = true;
    error.hidden = true;
    const wish = {
      stream: page("consent-name").value.trim(),
      pictures: page("consent-camera").checked,
      sound: page("consent-microphone").checked,
      consent: page("consent-agree").checked,
    };
    if (!wish.pictures && !wish.sound) return fail("Choose the camera, the microphone, or both.");
    try {
      session = await Session.open(wish, page("self-view"), {
        accepted: () => {
          dialog.close();
          page("self").hidden = false;
          page("self-view").hidden = !wish.pictures;
          page("capture-open").disabled = true;
          page("self-state").textContent = `As stream ${wish.stream}`;
          page("capture-stop").focus();
          say("This computer is being captured.");
        },
        report: (report) => showReport(page, wish, report, session),
        ended,
      });
    } catch (problem) {
      fail(explain(problem));
    }
  });
  page("capture-stop").addEventListener("click", () => session?.stop());
}

const STOPPED = "Capture has stopped.";

function showEnd(page, reason) {
  const note = document.createElement("p");
  note.className = "alert";
  note.textContent = `Capture ended: ${reason}`;
  page("alerts").append(note);
  setTimeout(() => note.remove(), 15000);
}

function showReport(page, wish, report, session) {
  const heard = wish.sound ? (report.speaking ? "speaking" : "silent") : "no microphone";
  const seen = wish.pictures ? (report.faces ? `${report.faces} in view` : "no face found") : "no camera";
  page("self-state").textContent = `As stream ${wish.stream}: ${heard}, ${seen}`;
  const counts = [`${report.sent} messages sent`];
  if (report.dropped) counts.push(`${report.dropped} not taken by the engine`);
  if (report.refused) counts.push(`${report.refused} refused`);
  const skipped = report.skipped + (session?.skipped ?? 0);
  if (skipped) counts.push(`${skipped} pictures skipped`);
  page("self-counts").textContent = counts.join(" · ");
}

function explain(problem) {
  if (problem.name === "NotAllowedError") return "The browser was not allowed to use them.";
  if (problem.name === "NotFoundError") return "No such camera or microphone was found.";
  if (problem.name === "NotReadableError") return "Another program holds the camera or microphone.";
  return problem.message || String(problem);
}

/** One running capture. */
class Session {
  static async open(wish, view, on) {
    const media = await navigator.mediaDevices.getUserMedia({
      video: wish.pictures && { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } },
      // The engine was trained on plain sound: no processing that changes the level.
      audio: wish.sound && { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const session = new Session(wish, media, on);
    try {
      await session.start(view);
    } catch (problem) {
      session.release();
      throw problem;
    }
    return session;
  }

  constructor(wish, media, on) {
    this.wish = wish;
    this.media = media;
    this.on = on;
    this.accepted = false;
    this.over = false;
    this.skipped = 0;
    this.number = 0;
    this.offset = Infinity; // performance clock minus audio clock, ms
    this.lastPicture = -Infinity;
    this.encoding = false;
  }

  async start(view) {
    for (const track of this.media.getTracks()) track.addEventListener("ended", () => this.stop("The device has gone."));
    if (this.wish.pictures) {
      this.view = view;
      this.canvas = document.createElement("canvas");
      view.srcObject = this.media;
      await view.play();
    }
    if (this.wish.sound) {
      this.audio = new AudioContext({ latencyHint: "interactive" });
      await this.audio.audioWorklet.addModule("/static/worklet.js");
      const node = new AudioWorkletNode(this.audio, "chunks", { numberOfOutputs: 0 });
      node.port.onmessage = (event) => this.sound(event.data);
      this.audio.createMediaStreamSource(this.media).connect(node);
      await this.audio.resume();
    }
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/capture`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.socket.send(JSON.stringify(this.wish));
    this.socket.onmessage = (event) => this.hear(JSON.parse(event.data));
    this.socket.onclose = () => this.stop("The dashboard is gone.");
    // Timers of a hidden page are slowed down; the microphone's chunks are not, and drive both.
    this.timer = setInterval(() => this.picture(), PICTURE_MS / 2);
  }

  hear(message) {
    if (message.kind === "accepted") {
      this.accepted = true;
      this.on.accepted();
    } else if (message.kind === "report") this.on.report(message);
    else if (message.kind === "refused") this.stop(message.reason);
  }

  sound({ samples, end, lost }) {
    const now = performance.now();
    this.offset = Math.min(this.offset + 0.001, now - end * 1000); // follows clocks that drift
    this.send(SOUND, lost ? 1 : 0, end * 1000 + this.offset, samples.buffer);
    this.picture();
  }

  picture() {
    const now = performance.now();
    if (!this.accepted || !this.wish.pictures || this.encoding || now - this.lastPicture < PICTURE_MS - 5) return;
    const { videoWidth, videoHeight } = this.view;
    if (!videoWidth) return;
    if (this.socket.bufferedAmount > MAX_WAITING_BYTES) {
      this.skipped += 1;
      return;
    }
    this.lastPicture = now;
    const scale = Math.min(1, MAX_WIDTH / Math.max(videoWidth, videoHeight));
    this.canvas.width = Math.round(videoWidth * scale);
    this.canvas.height = Math.round(videoHeight * scale);
    this.canvas.getContext("2d").drawImage(this.view, 0, 0, this.canvas.width, this.canvas.height);
    this.encoding = true;
    this.canvas.toBlob(
      async (blob) => {
        this.encoding = false;
        if (blob) this.send(PICTURE, 0, now, await blob.arrayBuffer());
      },
      "image/jpeg",
      JPEG_QUALITY,
    );
  }

  send(kind, flags, t, content) {
    if (!this.accepted || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > 2 * MAX_WAITING_BYTES) {
      this.skipped += 1;
      return;
    }
    const packet = new Uint8Array(HEADER_BYTES + content.byteLength);
    const header = new DataView(packet.buffer);
    header.setUint8(0, kind);
    header.setUint8(1, flags);
    header.setUint32(4, this.number++ >>> 0, true);
    header.setFloat64(8, t, true);
    packet.set(new Uint8Array(content), HEADER_BYTES);
    this.socket.send(packet);
  }

  stop(reason = STOPPED) {
    if (this.over) return;
    this.release();
    this.on.ended(reason);
  }

  release() {
    this.over = true;
    clearInterval(this.timer);
    for (const track of this.media.getTracks()) track.stop();
    this.audio?.close();
    this.socket?.close();
  }
}
