// The review room: the takes of each scene side by side. What a job or a person says is set as text, never as HTML.
"use strict";

const REFRESH_MS = 5000;
const STARTING_MS = 1000;
const RELOAD_MS = 150;
const DRIFT_S = 0.12;
const IN_PROGRESS = ["waiting", "running", "retrying"];

// -- small things ------------------------------------------------------------------------------------------------------

const runId = new URLSearchParams(location.search).get("run") ?? "";
const byId = (id) => document.getElementById(id);
const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);
const ofRun = (id, path) => `runs/${encodeURIComponent(id)}/${path}`;
const usd = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 3 });
const money = (text) => usd.format(Number(text));

function show(parent, selector, text) {
  const element = parent.querySelector(selector);
  if (element.textContent !== text) element.textContent = text;
  return element;
}

function showOrHide(parent, selector, text) {
  show(parent, selector, text).hidden = !text;
}

// A text that is too long for its place scrolls, by keyboard, too.
function letScroll(element) {
  const isLong = element.scrollHeight > element.clientHeight + 1;
  element.classList.toggle("scrolls", isLong);
  if (isLong) element.tabIndex = 0;
  else element.removeAttribute("tabindex");
}

function fact(card, selector, text) {
  show(card, selector, text).parentElement.hidden = !text;
}

function chip(parent, status, text = status) {
  show(parent, ".chip", text).dataset.status = status;
}

function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  byId("announcer").append(line);
  while (byId("announcer").children.length > 5) byId("announcer").firstChild.remove();
}

function connection(text) {
  byId("connection").textContent = text;
  byId("connection").hidden = !text;
}

function notice(text) {
  show(byId("notice"), "p", text);
  byId("notice").hidden = !text;
}

async function read(address, options) {
  const answer = await fetch(address, options);
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(body.detail ?? `the gateway answered ${answer.status}`);
  return body;
}

class Refusal extends Error {}

// Everything that changes something: each time with a token that the gateway takes once.
async function act(path, body, id = runId) {
  const { token } = await read("review/token");
  const headers = { "Content-Type": "application/json", "X-Action-Token": token };
  return read(ofRun(id, path), { method: "POST", headers, body: JSON.stringify(body) });
}

// Runs something that a person asked for, and says it if it fails.
async function attempt(work) {
  try {
    notice("");
    return await work();
  } catch (error) {
    notice(error instanceof Refusal ? error.message : "The gateway cannot be reached. Nothing is known to have changed.");
    return undefined;
  }
}

// -- the room ----------------------------------------------------------------------------------------------------------

class Room {
  constructor() {
    this.scenes = new Map();
    this.view = null;
    this.starting = ""; // what is said while a run begins
    this.current = null; // the card that the keys are about
    byId("to-run").href = `./?run=${encodeURIComponent(runId)}`;
    byId("notice").querySelector("button").addEventListener("click", () => notice(""));
    byId("controls").addEventListener("click", (event) => this.control(event.target.dataset.action));
    document.addEventListener("keydown", (event) => this.press(event));
    this.refresh();
  }

  async refresh() {
    clearTimeout(this.refreshing);
    try {
      this.render(await read(ofRun(runId, "takes")));
      connection(this.starting);
    } catch (error) {
      connection(error instanceof Refusal ? error.message : "Connection lost, retrying …");
    }
    clearTimeout(this.refreshing);
    this.refreshing = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  refreshSoon() {
    clearTimeout(this.refreshing);
    this.refreshing = setTimeout(() => this.refresh(), RELOAD_MS);
  }

  render(view) {
    this.view = view;
    document.title = `Review of ${view.job_id} · videogen`;
    show(document, "h1", view.job_id);
    chip(document.querySelector(".verdict"), view.status);
    show(document, ".reason", view.retake_problem ? `No retakes: ${view.retake_problem}` : "");
    const takes = view.scenes.reduce((sum, scene) => sum + scene.takes.length, 0);
    const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
    show(document, ".top .about", `${counted(view.scenes.length, "scene")}, ${counted(takes, "take")}`);
    byId("controls").hidden = !view.actions.length;
    for (const button of byId("controls").querySelectorAll("button")) {
      button.hidden = !view.actions.includes(button.dataset.action);
    }
    byId("none").hidden = takes > 0;
    byId("keys").hidden = takes === 0;
    if (!view.is_reviewer) byId("keys").querySelector(".act")?.remove();
    for (const scene of view.scenes) this.sceneOf(scene.scene_id).render(scene, view);
    const known = new Set(view.scenes.map((scene) => scene.scene_id));
    for (const [id, scene] of this.scenes) if (!known.has(id)) this.drop(id, scene);
    this.moveTo(this.current ?? document.querySelector(".take"), { focus: false });
    byId("scenes").setAttribute("aria-busy", "false");
    this.follow(view);
  }

  sceneOf(id) {
    if (!this.scenes.has(id)) {
      const scene = new Scene(id, this);
      this.scenes.set(id, scene);
      byId("scenes").append(scene.element);
    }
    return this.scenes.get(id);
  }

  drop(id, scene) {
    scene.element.remove();
    this.scenes.delete(id);
  }

  // Hears of the run in progress as it happens. The stream of a run that is over ends by itself.
  follow({ run_id, status }) {
    if (status !== "running" || this.followed === run_id) return;
    this.source?.close();
    this.followed = run_id;
    this.source = new EventSource(ofRun(run_id, "events"));
    const ofClips = ["clip.started", "clip.retrying", "clip.completed", "clip.failed"];
    for (const type of [...ofClips, "run.paused", "run.resumed"]) {
      this.source.addEventListener(type, () => this.refreshSoon());
    }
    this.source.addEventListener("snapshot", (event) => {
      JSON.parse(event.data).clips.forEach((clip) => this.hear(clip));
      this.refreshSoon(); // for what has happened before the stream began
    });
    this.source.addEventListener("clip.progress", (event) => this.hear(JSON.parse(event.data)));
    this.source.addEventListener("run.completed", (event) => {
      this.source.close();
      announce(`The run is over: ${JSON.parse(event.data).verdict?.status ?? ""}`);
      this.refreshSoon();
    });
    this.source.addEventListener("error", () => {
      if (this.source.readyState === EventSource.CLOSED) this.followed = null; // the next refresh opens it again
    });
  }

  hear(clip) {
    for (const scene of this.scenes.values()) scene.cards.get(clip.scene_id)?.showProgress(clip);
  }

  async control(action, sceneId) {
    if (!action) return;
    if (action === "cap") return askForCap(this);
    await this.command({ action, ...(sceneId && { scene_id: sceneId }) });
  }

  async command(body) {
    const what = `${body.action}${body.scene_id ? ` ${body.scene_id}` : ""}`;
    await attempt(async () => {
      const { outcome } = await act("commands", body, this.view.run_id);
      if (outcome === "accepted") announce(`${what}: accepted`);
      else notice(outcome ? `${what}: ${outcome}` : `${what}: the run has not answered yet`);
      this.refreshSoon();
    });
  }

  async say(card, opinion, told) {
    if (!this.view.is_reviewer || card.take.label === null) return false;
    const view = await attempt(() => act("choices", { take_id: card.take.take_id, ...opinion }));
    if (!view) return false;
    this.render(view);
    announce(`${card.name}: ${told}`);
    return true;
  }

  // -- keys ------------------------------------------------------------------------------------------------------------

  // One card of each scene takes part in the order of the Tab key.
  moveTo(card, { focus = true } = {}) {
    if (!card?.isConnected) card = document.querySelector(".take");
    if (!card) return;
    this.current = card;
    cardOf(card).scene.setTabStop(card);
    if (!focus) return;
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  press(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || target.closest("textarea, input, dialog")) return;
    if (target.matches(".scrolls") && key.startsWith("Arrow")) return;
    const isControl = Boolean(target.closest("button, a"));
    const card = target.closest(".take") ?? this.current;
    if (!card) return;
    if (key.startsWith("Arrow")) this.moveTo(this.neighbourOf(card, key));
    else if (/^[0-5]$/.test(key)) cardOf(card).rate(Number(key));
    else if (key === " " && !isControl) cardOf(card).scene.toggle();
    else if (key === "Enter" && !isControl) cardOf(card).choose();
    else return;
    event.preventDefault();
  }

  neighbourOf(card, key) {
    const takes = [...card.parentElement.children];
    const at = takes.indexOf(card);
    if (key === "ArrowLeft") return takes[at - 1] ?? card;
    if (key === "ArrowRight") return takes[at + 1] ?? card;
    const scene = card.closest(".scene");
    const next = key === "ArrowUp" ? scene.previousElementSibling : scene.nextElementSibling;
    const others = next ? [...next.querySelectorAll(".take")] : [];
    return others[Math.min(at, others.length - 1)] ?? card;
  }
}

// -- one scene ---------------------------------------------------------------------------------------------------------

const cards = new WeakMap();
const cardOf = (element) => cards.get(element);

class Scene {
  constructor(id, room) {
    this.id = id;
    this.room = room;
    this.cards = new Map();
    this.isPlaying = false;
    this.element = copyOf("scene");
    const heading = show(this.element, "h2", id);
    heading.id = `scene-${id}`;
    this.element.setAttribute("aria-labelledby", heading.id);
    this.element.querySelector(".takes").setAttribute("aria-label", `Takes of ${id}`);
    this.button = this.element.querySelector(".play-all");
    this.seek = this.element.querySelector(".seek");
    this.seek.setAttribute("aria-label", `Time in the takes of ${id}`);
    this.button.addEventListener("click", () => this.toggle());
    this.seek.addEventListener("input", () => this.jump(Number(this.seek.value)));
  }

  get videos() {
    return [...this.element.querySelectorAll("video")].filter((video) => !video.error);
  }

  render(scene, view) {
    const list = this.element.querySelector(".takes");
    const known = new Set(scene.takes.map((take) => take.take_id));
    for (const [id, card] of this.cards) {
      if (known.has(id)) continue;
      card.element.remove();
      this.cards.delete(id);
    }
    scene.takes.forEach((take, index) => {
      if (!this.cards.has(take.take_id)) this.cards.set(take.take_id, new Card(this, view));
      const card = this.cards.get(take.take_id);
      if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null);
      card.render(take, view);
    });
    this.setTabStop(list.querySelector('.take[tabindex="0"]') ?? list.querySelector(".take"));
    this.showClock();
  }

  setTabStop(card) {
    for (const { element } of this.cards.values()) element.tabIndex = element === card ? 0 : -1;
  }

  // -- play in sync ----------------------------------------------------------------------------------------------------

  // The longest take leads, and the others keep its time.
  get leader() {
    return this.videos.reduce((most, video) => (lengthOf(video) > lengthOf(most) ? video : most), this.videos[0]);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  async play() {
    for (const other of this.room.scenes.values()) if (other !== this) other.pause();
    this.isPlaying = true;
    this.showClock();
    await Promise.all(this.videos.map(waitUntilReady));
    if (!this.isPlaying || !this.leader) return this.pause();
    const isOver = this.leader.currentTime >= lengthOf(this.leader) - 0.05;
    const start_s = isOver ? 0 : this.leader.currentTime;
    for (const video of this.videos) {
      video.currentTime = Math.min(start_s, lengthOf(video));
      video.muted = video.closest(".take") !== this.room.current; // the sound of one
      if (start_s < lengthOf(video)) video.play().catch(() => this.pause());
    }
  }

  pause() {
    this.isPlaying = false;
    this.videos.forEach((video) => video.pause());
    this.showClock();
  }

  jump(seconds) {
    this.pause();
    for (const video of this.videos) {
      waitUntilReady(video).then(() => (video.currentTime = Math.min(seconds, lengthOf(video))));
    }
    this.showClock(seconds);
  }

  hear(video) {
    if (video !== this.leader) return;
    if (video.ended) this.isPlaying = false;
    for (const other of this.isPlaying ? this.videos : []) {
      const should_s = Math.min(video.currentTime, lengthOf(other));
      if (!other.ended && Math.abs(other.currentTime - should_s) > DRIFT_S) other.currentTime = should_s;
    }
    this.showClock(video.currentTime);
  }

  showClock(seconds = this.leader?.currentTime ?? 0) {
    const count = this.videos.length;
    const length = this.leader ? lengthOf(this.leader) : 0;
    for (const element of [this.button, this.seek, this.element.querySelector(".clock")]) element.hidden = !count;
    const what = count === 1 ? "the take" : `all ${count} takes`;
    const text = this.isPlaying ? "Pause" : `Play ${what}`;
    if (this.button.textContent !== text) this.button.textContent = text;
    this.button.setAttribute("aria-label", `${text} of ${this.id}`);
    this.seek.max = String(length || 1);
    this.seek.value = String(seconds);
    this.seek.setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${length.toFixed(1)} seconds`);
    show(this.element, ".clock", `${seconds.toFixed(1)} / ${length.toFixed(1)} s`);
  }
}

function lengthOf(video) {
  return Number.isFinite(video.duration) ? video.duration : Number(video.dataset.length);
}

function waitUntilReady(video) {
  if (video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA || video.error) return Promise.resolve();
  if (video.preload === "none") {
    video.preload = "auto";
    video.load();
  }
  return new Promise((resolve) => {
    for (const type of ["canplay", "error"]) video.addEventListener(type, resolve, { once: true });
  });
}

// -- one take ----------------------------------------------------------------------------------------------------------

class Card {
  constructor(scene, view) {
    this.scene = scene;
    this.element = copyOf("take");
    cards.set(this.element, this);
    const unneeded = view.is_reviewer ? ".watch" : ".act";
    this.element.querySelectorAll(unneeded).forEach((element) => element.remove());
    this.element.addEventListener("focus", () => this.scene.room.moveTo(this.element, { focus: false }));
    this.canAct = view.is_reviewer;
    if (this.canAct) this.listen();
  }

  listen() {
    const on = (selector, type, work) => this.element.querySelector(selector).addEventListener(type, work);
    on(".choose", "click", () => this.choose());
    on(".stars", "click", (event) => {
      const stars = Number(event.target.dataset.stars);
      if (stars) this.rate(stars === this.take.rating ? 0 : stars);
    });
    on("textarea", "input", () => this.showNote());
    on(".save", "click", () => this.saveNote());
    on(".retake", "click", () => askForRetake(this));
    on(".cancel", "click", () => this.scene.room.control("cancel", this.take.take_id));
    on(".retry", "click", () => this.scene.room.control("retry", this.take.take_id));
  }

  get name() {
    return `${this.scene.id}, take ${typeof this.take.label === "string" ? this.take.label : this.take.take}`;
  }

  choose() {
    if (this.take.video && !this.take.chosen) this.scene.room.say(this, { chosen: true }, "chosen");
  }

  rate(rating) {
    this.scene.room.say(this, { rating }, rating ? `rated ${rating} of 5` : "not rated any more");
  }

  async saveNote() {
    const note = this.element.querySelector("textarea").value;
    if (await this.scene.room.say(this, { note }, "note saved")) this.element.focus();
  }

  render(take, view) {
    const before = this.take;
    this.take = take;
    const { element } = this;
    element.dataset.chosen = String(take.chosen);
    element.dataset.take = take.take_id;
    element.setAttribute("aria-label", this.describe());
    show(element, "h3", typeof take.label === "string" ? take.label : `Take ${take.take}`);
    this.showChip();
    this.showFrame(before, view);
    show(element, ".prompt", take.prompt);
    showOrHide(element, ".problem.error", take.error ?? "");
    showOrHide(element, ".problem.warnings", take.warnings.join(" "));
    element.querySelectorAll(".prompt, .problem").forEach(letScroll);
    fact(element, ".length", take.actual_duration === null ? "" : `${take.actual_duration.toFixed(2)} s`);
    fact(element, ".cost", take.cost === null ? "" : money(take.cost));
    fact(element, ".seed", take.seed === null ? "" : String(take.seed));
    fact(element, ".model", take.model ?? "");
    if (this.canAct) this.showControls(before, view);
    else this.showOpinion();
  }

  describe() {
    const { take } = this;
    const rating = take.rating ? `rated ${take.rating} of 5` : "";
    return [this.name, take.chosen ? "chosen" : "", take.chosen ? "" : take.state, rating].filter(Boolean).join(", ");
  }

  showChip() {
    const { state, chosen } = this.take;
    if (chosen && !this.take.is_in_progress) chip(this.element, "chosen");
    else chip(this.element, { retrying: "running", blocked: "failed" }[state] ?? state, state);
  }

  showOpinion() {
    const { rating, note } = this.take;
    const stars = rating ? `${"★".repeat(rating)}${"☆".repeat(5 - rating)}` : "";
    const line = show(this.element, ".rating", stars);
    line.setAttribute("role", "img");
    line.setAttribute("aria-label", rating ? `rated ${rating} of 5` : "not rated");
    line.parentElement.hidden = !rating;
    showOrHide(this.element, ".note", note ?? "");
  }

  showControls(before, view) {
    const { take, element } = this;
    const isRun = view.actions.length > 0;
    const choose = element.querySelector(".choose");
    choose.disabled = take.label === null || !take.video;
    choose.setAttribute("aria-pressed", String(take.chosen));
    choose.setAttribute("aria-label", `Choose ${this.name}`);
    show(element, ".choose", take.chosen ? "In the film" : "Choose");
    element.querySelector(".stars").setAttribute("aria-label", `Rating of ${this.name}`);
    for (const button of element.querySelectorAll(".stars button")) {
      const stars = Number(button.dataset.stars);
      button.dataset.on = String(stars <= (take.rating ?? 0));
      button.textContent = stars <= (take.rating ?? 0) ? "★" : "☆";
      button.setAttribute("aria-pressed", String(stars === take.rating));
      button.setAttribute("aria-label", `${stars} of 5`);
      button.disabled = take.label === null;
    }
    const text = element.querySelector("textarea");
    text.disabled = take.label === null;
    if (!before || text.value === (before.note ?? "")) text.value = take.note ?? "";
    text.setAttribute("aria-label", `Note on ${this.name}`);
    this.showNote();
    element.querySelector(".retake").hidden = take.own_prompt === null || view.status === "running";
    element.querySelector(".cancel").hidden = !isRun || !take.is_in_progress;
    element.querySelector(".retry").hidden = !isRun || take.state !== "failed";
  }

  showNote() {
    const isChanged = this.element.querySelector("textarea").value !== (this.take.note ?? "");
    this.element.querySelector(".save").hidden = !isChanged;
  }

  showFrame(before, view) {
    const frame = this.element.querySelector(".frame");
    if (view.aspect_ratio) frame.style.aspectRatio = view.aspect_ratio.replace(":", " / ");
    if (this.take.video) {
      if (!before?.video || before.sha256 !== this.take.sha256) this.showVideo(frame);
      return;
    }
    if (before?.video) {
      frame.classList.add("missing");
      frame.replaceChildren(...copyOf("take").querySelector(".frame").children);
    }
    this.showProgress(this.take);
  }

  showVideo(frame) {
    const { take } = this;
    const video = document.createElement("video");
    Object.assign(video, { playsInline: true, muted: true, preload: "none", src: take.video, poster: take.poster });
    video.dataset.length = String(take.actual_duration ?? take.target_duration);
    video.setAttribute("aria-label", `Clip of ${this.name}`);
    video.addEventListener("click", () => this.scene.toggle());
    for (const type of ["timeupdate", "ended"]) video.addEventListener(type, () => this.scene.hear(video));
    video.addEventListener("error", () => {
      frame.classList.add("missing");
      frame.textContent = "its file cannot be played: it may be gone";
      this.scene.showClock();
    });
    frame.classList.remove("missing");
    frame.replaceChildren(video);
  }

  showProgress({ remaining, fraction }) {
    const frame = this.element.querySelector(".frame");
    const bar = frame.querySelector("progress");
    if (!bar) return; // the clip is there
    const isRunning = this.take.state === "running";
    const left = remaining > 0 ? `about ${Math.ceil(remaining)} s left` : "any moment now";
    const words = { waiting: "waits for its turn", retrying: "trying again", failed: "no clip", blocked: "not tried" };
    show(frame, ".wait", words[this.take.state] ?? (remaining == null ? "in progress" : left));
    bar.hidden = !isRunning;
    bar.value = fraction ?? 0;
    bar.setAttribute("aria-label", `${this.name}: how far it is`);
  }
}

// -- questions ---------------------------------------------------------------------------------------------------------

// Opens a dialog, and calls `submit` with its form each time that is sent.
function ask(id, submit) {
  const dialog = byId(id);
  const form = dialog.querySelector("form");
  form.onsubmit = (event) => {
    event.preventDefault();
    submit(form, dialog);
  };
  dialog.querySelector(".close").onclick = () => dialog.close();
  dialog.showModal();
  return { dialog, form };
}

function askForRetake(card) {
  const { take, scene } = card;
  const { dialog, form } = ask("retake", () => showPrice());
  const [question, accept, price] = [".ask", ".accept", ".price"].map((selector) => dialog.querySelector(selector));
  let offer = null;

  show(dialog, "h2", `Retake of ${scene.id}`);
  form.elements.prompt.value = take.own_prompt;
  form.elements.seed.value = "";
  form.oninput = forget;
  forget();

  // A price holds for what it was asked for.
  function forget() {
    offer = null;
    price.replaceChildren();
    question.hidden = false;
    accept.hidden = true;
    accept.onclick = null;
  }

  function say(...lines) {
    price.replaceChildren(...lines.filter(Boolean).map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  }

  async function showPrice() {
    const { prompt, seed } = form.elements;
    const body = { take_id: take.take_id, prompt: prompt.value, ...(seed.value && { seed: Number(seed.value) }) };
    question.disabled = true;
    say("Asking for the price …");
    try {
      offer = await act("retakes/price", body);
      const about = offer.cost_is_exact ? "" : "about ";
      const what = offer.clips === 1 ? "One clip" : `${offer.clips} clips, with those that it continues,`;
      const budget = offer.max_cost === null ? "" : ` The budget of the job is ${money(offer.max_cost)}.`;
      say(
        `${what} for ${about}${money(offer.cost)}`,
        `${money(offer.worst_case_cost)} if every attempt is needed. Account: ${offer.provider}.`,
        `Spent on this job so far: ${money(offer.spent_before)}.${budget}`,
        ...offer.warnings,
      );
      show(dialog, ".accept", `Make ${offer.take_id} for ${about}${money(offer.cost)}`);
      question.hidden = true;
      accept.hidden = false;
      accept.disabled = false;
      accept.onclick = make;
      accept.focus();
    } catch (error) {
      say(error instanceof Refusal ? error.message : "The gateway cannot be reached.");
    }
    question.disabled = false;
  }

  async function make() {
    if (!offer) return;
    const accepted = offer.offer;
    offer = null; // a second click has nothing to accept
    accept.disabled = true;
    try {
      const { take_id } = await act("retakes", { offer: accepted });
      dialog.close();
      announce(`${take_id} is being made`);
      waitForRun(scene.room, take_id);
    } catch (error) {
      forget();
      say(error instanceof Refusal ? error.message : "The gateway cannot be reached. Look whether the take is being made.");
    }
  }
}

// A run needs some seconds until it is in the journal.
async function waitForRun(room, takeId) {
  room.starting = `The run that makes ${takeId} is starting …`;
  connection(room.starting);
  const found = await read(ofRun(runId, `retakes/${encodeURIComponent(takeId)}`)).catch(() => ({ state: "starting" }));
  if (found.state === "starting") return setTimeout(() => waitForRun(room, takeId), STARTING_MS);
  room.starting = "";
  connection("");
  if (found.state === "failed") notice(`The run that makes ${takeId} could not begin:\n${found.said}`);
  room.refresh();
}

function askForCap(room) {
  const { form } = ask("cap", (sent, dialog) => {
    dialog.close();
    room.command({ action: "cap", value: sent.elements.value.value });
  });
  form.elements.value.value = "";
}

// -- begin -------------------------------------------------------------------------------------------------------------

new Room();
