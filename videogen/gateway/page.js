// The live page: a list of runs, or with ?run=ID one run as it happens. What a job says is set as text, never as HTML.
"use strict";

const REFRESH_MS = 3000;
const RETRY_MS = 2000;
const QUIET_S = 60;
const REDRAW_MS = 50;

// -- small things ------------------------------------------------------------------------------------------------------

const page = document.getElementById("page");
const copyOf = (id) => document.getElementById(id).content.cloneNode(true);

function show(parent, selector, text) {
  const element = parent.querySelector(selector);
  if (element.textContent !== text) element.textContent = text;
  return element;
}

function chip(parent, status, text = status) {
  show(parent, ".chip", text).dataset.status = status;
}

const usd = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 3 });
const money = (text) => usd.format(Number(text));

function time(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  const announcer = document.getElementById("announcer");
  announcer.append(line);
  while (announcer.children.length > 5) announcer.firstChild.remove();
}

function connection(text) {
  const line = document.getElementById("connection");
  line.textContent = text;
  line.hidden = !text;
}

function clipsDone(run) {
  const failed = run.failed ? `, ${run.failed} failed` : "";
  return `${run.completed} of ${run.total} clip${run.total === 1 ? "" : "s"}${failed}`;
}

// -- runs --------------------------------------------------------------------------------------------------------------

function runList() {
  document.title = "Runs · videogen";
  page.append(copyOf("runs"));
  const older = page.querySelector(".older");
  let next;

  async function load(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    return answer.json();
  }

  async function refresh() {
    try {
      const found = await load("runs");
      found.runs.toReversed().forEach((run) => runRow(run, "prepend"));
      if (next === undefined) setNext(found.next);
      page.querySelector(".none").hidden = found.runs.length > 0;
      connection("");
    } catch {
      connection("Connection lost, retrying …");
    }
    setTimeout(refresh, REFRESH_MS);
  }

  function setNext(before) {
    next = before;
    older.hidden = !before;
  }

  older.addEventListener("click", async () => {
    const found = await load(`runs?before=${encodeURIComponent(next)}`);
    found.runs.forEach((run) => runRow(run, "append"));
    setNext(found.next);
  });
  refresh();
}

function runRow(run, add) {
  const list = page.querySelector(".runs");
  let row = list.querySelector(`[data-run="${CSS.escape(run.run_id)}"]`);
  if (!row) {
    list[add](copyOf("row"));
    row = add === "append" ? list.lastElementChild : list.firstElementChild;
    row.dataset.run = run.run_id;
    row.querySelector("a").href = `?run=${encodeURIComponent(run.run_id)}`;
  }
  show(row, ".job", run.job_id);
  showStatus(row, run, run.quiet);
  const elapsed_s = isQuiet(run, run.quiet) ? run.elapsed - run.quiet : run.elapsed;
  const began = new Date(run.started_at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  show(row, ".about", [clipsDone(run), run.model, began, time(elapsed_s)].filter(Boolean).join(" · "));
  const bar = row.querySelector("progress");
  bar.hidden = run.status !== "running";
  bar.value = run.total ? run.completed / run.total : 0;
  bar.setAttribute("aria-label", `${run.job_id}: clips that are done`);
}

// A run that is killed says nothing more.
function isQuiet(run, quiet_s) {
  return run.status === "running" && quiet_s > QUIET_S;
}

function showStatus(parent, run, quiet_s) {
  const quiet = isQuiet(run, quiet_s);
  const paused = run.paused && run.status === "running";
  const news = paused ? "paused" : run.status;
  chip(parent, quiet || paused ? "waiting" : run.status, quiet && !paused ? `no news for ${time(quiet_s)}` : news);
}

// -- one run -----------------------------------------------------------------------------------------------------------

// What a run's events add up to: the same rules as in runs.py.
const STATES = {
  "clip.started": "running",
  "clip.progress": "running",
  "clip.retrying": "retrying",
  "clip.completed": "delivered",
  "clip.failed": "failed",
};
const AT_THE_START = { elapsed: 0, remaining: null, fraction: 0 };

class LiveRun {
  constructor(id) {
    this.id = id;
    this.run = { status: "running", completed: 0, failed: 0, total: 0 };
    this.clips = new Map();
    this.cards = new Map();
    this.changed = new Set(); // ids of scenes, in the order of what happened last
    this.lastEvent = null;
    page.append(copyOf("run"));
    this.listen();
    setInterval(() => this.showClock(), 1000);
  }

  listen() {
    const after = this.lastEvent === null ? "" : `?after=${this.lastEvent}`;
    const source = new EventSource(`runs/${encodeURIComponent(this.id)}/events${after}`);
    const on = (type, act) =>
      source.addEventListener(type, (event) => {
        if (event.lastEventId) this.lastEvent = event.lastEventId;
        act(JSON.parse(event.data));
        if (this.isOver) source.close();
      });
    on("snapshot", (snapshot) => this.begin(snapshot));
    on("spending", (spending) => {
      Object.assign(this.run, spending);
      this.redraw();
    });
    on("run.started", (run) => this.addRun(run));
    for (const type of ["run.paused", "run.resumed", "run.cap_changed"]) on(type, (run) => this.addRun(run));
    on("run.completed", (run) => this.addRun(run));
    for (const type in STATES) on(type, (clip) => this.addClip(type, clip));
    source.addEventListener("open", () => connection(""));
    source.addEventListener("error", () => this.reconnect(source));
  }

  async reconnect(source) {
    if (this.isOver) return;
    connection("Connection lost, retrying …");
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    const answer = await fetch(`runs/${encodeURIComponent(this.id)}`).catch(() => null);
    if (answer?.status === 404) connection(`There is no run ${this.id}.`);
    else setTimeout(() => this.listen(), RETRY_MS);
  }

  get isOver() {
    return Boolean(this.run.verdict);
  }

  begin({ clips, ...run }) {
    this.startedAt = performance.now() - run.elapsed * 1000;
    this.toldAt = performance.now() - run.quiet * 1000;
    this.run = run;
    this.addScenes(clips);
    const review = page.querySelector(".to-review");
    review.href = `review?run=${encodeURIComponent(this.id)}`;
    review.hidden = !run.has_review;
    page.setAttribute("aria-busy", "false");
  }

  addRun({ scenes = [], ...run }) {
    this.heard(run);
    this.addScenes(scenes.map((scene) => ({ ...scene, state: "waiting" })));
    if (run.verdict) this.end(run);
  }

  // Clips in scene order. Thousands of cards come into the page at once.
  addScenes(clips) {
    const added = new DocumentFragment();
    for (const clip of clips) {
      this.clips.set(clip.scene_id, clip);
      if (!this.cards.has(clip.scene_id)) {
        this.cards.set(clip.scene_id, newCard(clip));
        added.append(this.cards.get(clip.scene_id));
      }
      this.changed.add(clip.scene_id);
    }
    this.drawNow();
    page.querySelector(".clips").append(added);
  }

  end({ verdict, total_cost, total_generation_time }) {
    Object.assign(this.run, { status: verdict.status, spent: total_cost, reserved: 0, elapsed: total_generation_time });
    announce(`The run is over: ${verdict.status}, ${verdict.reason}`);
  }

  addClip(type, { run_id, completed, failed = 0, total, ...told }) {
    this.heard({ completed, failed, total });
    const clip = this.clips.get(told.scene_id);
    if (type !== "clip.progress") for (const name in AT_THE_START) delete clip[name];
    Object.assign(clip, type === "clip.started" ? AT_THE_START : {}, told, { state: STATES[type] });
    this.changed.delete(clip.scene_id);
    this.changed.add(clip.scene_id);
    this.redraw();
    if (clip.state === "delivered" || clip.state === "failed") {
      announce(`${clip.scene_id} ${statusOf(clip)}, ${clipsDone(this.run)} done`);
    }
  }

  heard(told) {
    this.toldAt = performance.now();
    Object.assign(this.run, told);
  }

  // Events come by the hundred after a reconnect: they are drawn together.
  redraw() {
    this.drawing ??= setTimeout(() => this.drawNow(), REDRAW_MS);
  }

  drawNow() {
    clearTimeout(this.drawing);
    this.drawing = undefined;
    this.changed.forEach((sceneId) => this.showClip(this.clips.get(sceneId)));
    this.changed.clear();
    this.tell();
  }

  // What stands above the clips.
  tell() {
    const run = this.run;
    document.title = `${run.completed}/${run.total} ${run.job_id} · videogen`;
    show(page, "h1", run.job_id ?? "");
    const seconds = [...this.clips.values()].reduce((sum, clip) => sum + (clip.target_duration ?? 0), 0);
    const length = seconds ? `${Number(seconds.toFixed(1))} s of film` : "";
    show(page, ".top > .about", [run.model, run.aspect_ratio, run.provider, length].filter(Boolean).join(" · "));
    show(page, ".reason", [run.verdict?.reason ?? "", ...(run.verdict?.warnings ?? [])].join("; "));
    show(page, ".count", `${run.completed} of ${run.total}${run.failed ? `, ${run.failed} failed` : ""}`);
    page.querySelector(".whole").value = run.total ? this.done() / run.total : 0;
    this.tellMoney();
    this.showClock();
  }

  tellMoney() {
    const { reserved, max_cost, planned_cost } = this.run;
    // A budget holds for the job over all its runs.
    const spent = max_cost == null ? this.run.spent : Number(this.run.spent ?? 0) + Number(this.run.spent_before ?? 0);
    const budget = max_cost ?? planned_cost;
    const kind = max_cost == null ? "planned" : "budget";
    show(page, ".spent-of", Number(reserved) ? `spent, ${money(reserved)} reserved` : "spent");
    show(page, ".spent", money(spent ?? 0) + (budget == null ? "" : ` of ${money(budget)} ${kind}`));
  }

  // The share of clips that are done; a clip in progress counts by its own share.
  done() {
    let done = 0;
    for (const { state, fraction = 0 } of this.clips.values()) {
      done += state === "delivered" || state === "failed" ? 1 : state === "running" ? fraction : 0;
    }
    return done;
  }

  showClock() {
    if (this.startedAt === undefined) return;
    const quiet_s = (performance.now() - this.toldAt) / 1000;
    const quiet = isQuiet(this.run, quiet_s);
    const elapsed_s = this.isOver ? this.run.elapsed : (performance.now() - this.startedAt) / 1000;
    const [done, total] = [this.done(), this.run.total];
    showStatus(page.querySelector(".verdict"), this.run, quiet_s);
    show(page, ".elapsed", time(quiet ? elapsed_s - quiet_s : elapsed_s));
    page.querySelector(".eta").hidden = this.isOver || quiet;
    show(page, ".left", done > 0.5 ? time(Math.max(1, (elapsed_s * (total - done)) / done)) : "…");
  }

  showClip(clip) {
    const address = `runs/${encodeURIComponent(this.id)}/clips/${encodeURIComponent(clip.scene_id)}`;
    fill(this.cards.get(clip.scene_id), clip, address, this.run);
  }
}

// -- one clip ----------------------------------------------------------------------------------------------------------

function statusOf(clip) {
  return clip.state === "delivered" && clip.reused ? "reused" : clip.state;
}

function newCard(clip) {
  const card = copyOf("card").firstElementChild;
  const heading = show(card, "h2", clip.scene_id);
  heading.id = `scene-${clip.scene_id}`;
  card.setAttribute("aria-labelledby", heading.id);
  card.dataset.index = clip.clip_index;
  card.querySelector("progress").setAttribute("aria-label", `${clip.scene_id}: how far its clip is`);
  return card;
}

function fill(card, clip, address, run) {
  const status = statusOf(clip);
  card.dataset.state = clip.state;
  chip(card, status === "retrying" ? "running" : status, status);
  show(card, ".prompt", clip.prompt ?? "");
  fillFrame(card.querySelector(".frame"), clip, address, run);
  const note = show(card, ".note", noteOf(clip));
  note.hidden = !note.textContent;
  note.className = `note ${clip.state === "failed" ? "error" : "warnings"}`;
  fact(card, ".target", `${clip.target_duration} s`);
  fact(card, ".actual", clip.actual_duration == null ? "" : `${clip.actual_duration.toFixed(2)} s`);
  fact(card, ".cost", clip.cost === undefined ? "" : money(clip.cost));
  fact(card, ".size", clip.width ? `${clip.width}×${clip.height}` : "");
  fact(card, ".attempts", clip.attempts || clip.attempt || "");
  fact(card, ".time", clip.generation_time ? time(clip.generation_time) : "");
  fact(card, ".model", clip.model && clip.model !== run.model ? clip.model : "");
}

function fact(card, selector, text) {
  show(card, selector, String(text)).parentElement.hidden = text === "";
}

function fillFrame(frame, clip, address, run) {
  if (run.aspect_ratio) frame.style.aspectRatio = run.aspect_ratio.replace(":", " / ");
  const bar = frame.querySelector("progress");
  if (!bar) return; // the clip is there already
  if (clip.state === "delivered") {
    frame.classList.remove("missing");
    frame.replaceChildren(playButton(clip, address, run));
    return;
  }
  show(frame, ".wait", waitOf(clip));
  bar.hidden = clip.state !== "running";
  bar.value = clip.fraction ?? 0;
}

function playButton(clip, address, run) {
  const button = copyOf("play").firstElementChild;
  const poster = button.firstElementChild;
  button.setAttribute("aria-label", `Play ${clip.scene_id}`);
  poster.addEventListener("error", () => posterMissing(button, clip, run));
  poster.src = `${address}.jpg`;
  button.addEventListener("click", () => {
    const video = player(clip, address);
    button.replaceWith(video);
    video.focus();
  });
  return button;
}

// Either the gateway is away for a moment, or the clip is not where it serves files from.
async function posterMissing(button, clip, run) {
  const poster = button.firstElementChild;
  const answer = await fetch(poster.src, { method: "HEAD" }).catch(() => null);
  if (answer?.status !== 404) return setTimeout(() => (poster.src = poster.src), RETRY_MS); // loads it again
  const frame = button.parentElement;
  frame.classList.add("missing");
  frame.textContent = run.folder ? `delivered to ${run.folder}/${clip.video_path}` : "its file is gone";
}

function player(clip, address) {
  const video = document.createElement("video");
  Object.assign(video, { controls: true, autoplay: true, playsInline: true, src: `${address}.mp4` });
  video.poster = `${address}.jpg`;
  video.setAttribute("aria-label", `Clip ${clip.scene_id}`);
  return video;
}

function waitOf(clip) {
  if (clip.state === "failed") return "no clip";
  if (clip.state === "retrying") return "trying again";
  if (clip.state === "waiting") return "waits for its turn";
  if (clip.status === "searching" && !clip.prediction_id) return "its create was not answered: searching the account";
  if (clip.remaining == null) return "in progress";
  return `${time(clip.elapsed)}, ${clip.remaining > 0 ? `about ${time(clip.remaining)} left` : "any moment now"}`;
}

function noteOf(clip) {
  if (clip.state === "failed") return `${clip.error.code}: ${clip.error.message}`;
  if (clip.state === "delivered") return (clip.warnings ?? []).join(" ");
  return clip.error ? `An attempt failed: ${clip.error.message}` : "";
}

// -- begin -------------------------------------------------------------------------------------------------------------

const asked = new URLSearchParams(location.search);
if (asked.has("token")) {
  asked.delete("token"); // it is in a cookie now, and should not be in the history
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
}
if (asked.has("run")) new LiveRun(asked.get("run"));
else runList();
