// The page about spending: a plot by day and model, and a table of sums. All texts are set as text, never as HTML.
"use strict";

const MOST_DAYS = 62; // more of them are drawn as months
const MOST_MODELS = 6; // the others are drawn as one
const OTHERS = "other models";
const PLOT = { wide_px: 1000, narrow_px: 360, height_px: 240, left_px: 58, bottom_px: 22, top_px: 8 };
const HEADINGS = {
  day: "day", job_id: "job", model: "model", scene_id: "scene", run_id: "run", outcome: "outcome", origin: "account",
};
const OUTCOMES = {
  delivered: "delivered",
  undelivered: "paid for but not delivered",
  running: "running",
  failed: "failed",
  failed_billed: "failed but billed",
  canceled: "canceled",
  undeterminable: "of unknown cost",
  unrecorded: "from a lost journal",
};

const find = (selector) => document.querySelector(selector);
const usd = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 4 });
const money = (text) => usd.format(Number(text));
const form = find(".choices");
const narrow = matchMedia("(max-width: 40rem)");
let shown; // the last answer
let asked = 0;

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// -- what is shown -----------------------------------------------------------------------------------------------------

// The choices as an address has them, without those that are left out.
function query(...leftOut) {
  const chosen = new URLSearchParams(location.search);
  for (const [name, value] of new FormData(form)) chosen.set(name, value);
  for (const name of leftOut) chosen.delete(name);
  return `?${chosen}`;
}

// The same for the gateway, for which all time is no choice.
function apiQuery(...leftOut) {
  return query(...leftOut, ...(form.elements.since.value === "all" ? ["since"] : []));
}

async function load() {
  const mine = ++asked;
  find("main").setAttribute("aria-busy", "true");
  const answer = await fetch(`api/spend${apiQuery()}`).catch(() => null);
  if (mine !== asked) return; // another choice was made meanwhile
  const problem = answer?.ok ? "" : answer?.status === 422 ? (await answer.json()).detail : "The gateway does not answer.";
  const line = find("#connection");
  line.textContent = problem;
  line.hidden = !problem;
  if (!problem) show(await answer.json());
}

function show(spending) {
  shown = spending;
  const { total, groups } = spending;
  const period = spending.since ? `since ${spending.since}` : "of all time";
  const until = spending.until ? ` until ${spending.until}` : "";
  find(".top .about").textContent = [spending.origins.join(", "), `${period}${until}`, `days in ${spending.time_zone}`]
    .filter(Boolean)
    .join(" · ");
  for (const name of ["billed", "planned", "reserved"]) find(`.totals .${name}`).textContent = money(total[name]);
  find(".totals .predictions").textContent = total.predictions;
  find(".none").hidden = groups.length > 0;
  find(".sums").hidden = groups.length === 0;
  showPlot();
  showTable(spending);
  find(".table-csv").href = `api/spend.csv${apiQuery()}`;
  find(".all-csv").href = `api/spend.csv${apiQuery("by")}`;
  find("main").setAttribute("aria-busy", "false");
}

function showTable({ columns, groups, total, by }) {
  const names = columns.map((name) => HEADINGS[name]);
  find("#sums-caption").textContent = `Predictions by ${names.join(" and ")}; money in USD`;
  const head = [
    ...names.map((name) => make("th", name, { scope: "col", class: "text" })),
    ...["billed", "planned", "may be billed, too", "predictions"].map((name) => make("th", name, { scope: "col" })),
    make("th", "outcomes", { scope: "col", class: "text outcomes" }),
  ];
  find("thead tr").replaceChildren(...head);
  find("tbody").replaceChildren(...groups.map((group) => row(group, columns)));
  const all = row({ ...total, key: ["total", ...columns.slice(1).map(() => "")] }, columns);
  find("tfoot").replaceChildren(...(groups.length ? [all] : []));
}

function row(group, columns) {
  const cells = group.key.map((value, index) => {
    const cell = make(index ? "td" : "th", undefined, index ? { class: "text" } : { scope: "row", class: "text" });
    const text = columns[index] === "outcome" ? (OUTCOMES[value] ?? value) : value;
    const isRun = columns[index] === "run_id" && value && !value.includes(" ");
    cell.append(isRun ? make("a", text, { href: `./?run=${encodeURIComponent(value)}` }) : text);
    return cell;
  });
  const sums = [money(group.billed), money(group.planned), money(group.reserved), group.predictions];
  const outcomes = Object.entries(group.outcomes).map(([name, count]) => `${count} ${OUTCOMES[name] ?? name}`);
  const line = make("tr");
  line.append(...cells, ...sums.map((text) => make("td", text)), make("td", outcomes.join(", "), { class: "text" }));
  return line;
}

// -- the plot ----------------------------------------------------------------------------------------------------------

// Bars from the first day to the last one, each with the sums of its models, the most expensive model below.
function collectBars(days) {
  const sums = new Map();
  for (const { by_model } of days)
    for (const [model, billed] of Object.entries(by_model)) sums.set(model, (sums.get(model) ?? 0) + Number(billed));
  const ranked = [...sums.keys()].sort((one, other) => sums.get(other) - sums.get(one));
  const models = ranked.length > MOST_MODELS ? [...ranked.slice(0, MOST_MODELS), OTHERS] : ranked;
  const [first, last] = [Date.parse(days[0].day), Date.parse(days.at(-1).day)];
  const isMonths = (last - first) / 86_400_000 >= MOST_DAYS;
  const bars = new Map();
  for (let at = first; at <= last; at += 86_400_000)
    bars.set(new Date(at).toISOString().slice(0, isMonths ? 7 : 10), new Array(models.length).fill(0));
  for (const { day, by_model } of days)
    for (const [model, billed] of Object.entries(by_model)) {
      const place = models.includes(model) ? models.indexOf(model) : models.length - 1;
      bars.get(day.slice(0, isMonths ? 7 : 10))[place] += Number(billed);
    }
  return { models, bars: [...bars], isMonths };
}

// The lowest of 1, 2, 2.5 and 5 times a power of ten of which four at most reach the highest bar.
function chooseStep(highest) {
  const power = 10 ** Math.floor(Math.log10(highest / 4));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step * 4 >= highest * 0.999);
}

function showPlot() {
  const { days, total } = shown;
  find(".plot").hidden = days.length === 0;
  if (!days.length) return;
  const { models, bars, isMonths } = collectBars(days);
  const unit = isMonths ? "month" : "day";
  find("figcaption").textContent = `Billed by ${unit} and model, in USD`;
  const width = narrow.matches ? PLOT.narrow_px : PLOT.wide_px;
  const label = `Billed by ${unit} and model: ${money(total.billed)} from ${bars[0][0]} to ${bars.at(-1)[0]}`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${PLOT.height_px}`, role: "img", "aria-label": label });
  const highest = Math.max(...bars.map(([, parts]) => parts.reduce((sum, part) => sum + part, 0)));
  const step = chooseStep(highest);
  const most = step * Math.ceil(highest / step - 0.001);
  const base = PLOT.height_px - PLOT.bottom_px;
  const heightOf = (amount) => (amount / most) * (base - PLOT.top_px);
  for (let amount = 0; amount <= most * 1.001; amount += step) {
    const y = base - heightOf(amount);
    svg.append(draw("line", { x1: PLOT.left_px, x2: width, y1: y, y2: y }));
    svg.append(draw("text", { x: PLOT.left_px - 8, y: y + 4, "text-anchor": "end" }, money(amount)));
  }
  const each = (width - PLOT.left_px) / bars.length;
  const thick = Math.min(64, each * 0.8);
  const labelled = Math.ceil((bars.length * (isMonths ? 60 : 78)) / (width - PLOT.left_px));
  bars.forEach(([name, parts], index) => {
    const middle = PLOT.left_px + each * (index + 0.5);
    let y = base;
    parts.forEach((part, place) => {
      if (!part) return;
      y -= heightOf(part);
      const title = draw("title", {}, `${name}, ${models[place]}: ${money(part)}`);
      const box = { x: middle - thick / 2, y, width: thick, height: heightOf(part), class: `hue-${hueOf(models, place)}` };
      svg.append(draw("rect", box, title));
    });
    if (index % labelled === 0 && middle + 36 < width + each / 2)
      svg.append(draw("text", { x: middle, y: PLOT.height_px - 6, "text-anchor": "middle" }, name));
  });
  find(".bars").replaceChildren(svg);
  find(".legend").replaceChildren(...models.map((name, place) => make("li", name, { class: `hue-${hueOf(models, place)}` })));
}

function hueOf(models, place) {
  return models[place] === OTHERS ? MOST_MODELS + 1 : place + 1;
}

// -- begin -------------------------------------------------------------------------------------------------------------

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = form.elements[name];
  if (field && [...field.options].some((option) => option.value === value)) field.value = value;
}
form.addEventListener("change", () => {
  history.replaceState(null, "", query());
  load();
});
form.addEventListener("submit", (event) => event.preventDefault());
narrow.addEventListener("change", () => shown && showPlot());
load();
