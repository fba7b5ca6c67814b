// Marks, pause and going on: what this page may ask of the engine.

const QUIET_MS = 4000;

/** Post a command; resolves to what the engine answered, or throws its reason. */
async function post(command, more = {}) {
  const answer = await fetch("/command", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ command, ...more }),
  });
  const said = await answer.json().catch(() => ({ error: `the dashboard answered ${answer.status}` }));
  if (!answer.ok) throw new Error(said.error);
  return said;
}

export class Commands {
  /** `page` finds elements by id, `say` speaks to the ear. */
  constructor(page, say) {
    this.page = page;
    this.say = say;
    this.paused = false;
    this.timer = null;
    page("mark-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.mark();
    });
    page("pause").addEventListener("click", () => this.toggle());
  }

  show(allowed) {
    this.page("commands").hidden = !allowed;
  }

  /** What the dashboard says of streams and workers. */
  take(state) {
    const worker = state.workers.find((entry) => entry.worker === "inference" && entry.silent_since_ms === null);
    this.paused = worker?.state === "paused";
    const button = this.page("pause");
    button.textContent = this.paused ? "Resume" : "Pause";
    button.setAttribute("aria-pressed", String(this.paused));
    button.disabled = !worker || state.engine !== "live";
    const names = state.streams.map((stream) => stream.name);
    const select = this.page("mark-stream");
    select.hidden = names.length < 2;
    const shown = [...select.options].slice(1).map((option) => option.value);
    if (shown.join("/") === names.join("/")) return;
    const chosen = select.value;
    select.replaceChildren(new Option("all streams", ""), ...names.map((name) => new Option(name, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }

  async mark() {
    const field = this.page("mark-label");
    const label = field.value.trim();
    if (!label) return field.focus();
    const stream = this.page("mark-stream").value || null;
    try {
      const { streams } = await post("mark", { label, stream });
      if (!streams) throw new Error("nothing is captured yet");
      field.value = "";
      this.tell(`Marked: ${label}`);
    } catch (error) {
      this.tell(`Not marked: ${error.message}`, true);
    }
  }

  async toggle() {
    const command = this.paused ? "resume" : "pause";
    try {
      await post(command);
      this.tell(command === "pause" ? "Paused: nothing is scored." : "Going on.");
    } catch (error) {
      this.tell(`Not done: ${error.message}`, true);
    }
  }

  tell(text, bad = false) {
    const note = this.page("command-said");
    note.textContent = text;
    note.classList.toggle("bad", bad);
    this.say(text);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (note.textContent = ""), QUIET_MS);
  }
}
