// The page of the tab: asks for the runs, draws them, and asks again for what is new.

import { basins } from "./basins.js";
import { counted, element } from "./dom.js";
import { leaderboard, summary } from "./leaderboard.js";
import { profiles } from "./profiles.js";

const REFRESH_SECONDS = 10;

const view = { filter: "", grouped: false, sort: { name: "", descending: false }, tolerance: null, run: null };
let data = null;
let text = "";
let starts = null; // the answer of /basins, of view.run

export async function render() {
  document.title = "gradopt";
  document.head.append(element("link", { rel: "stylesheet", href: "./style.css" }));
  document.body.append(element("main", {}, element("p", { class: "note" }, "Reading runs…")));
  followTheme();
  await refresh();
  setInterval(() => document.hidden || refresh(), 1000 * REFRESH_SECONDS);
}

async function refresh() {
  try {
    const answer = await fetch("./runs");
    const received = await answer.text();
    if (received === text && answer.ok) return;
    const content = JSON.parse(received);
    if (!answer.ok) throw new Error(content.error ?? `TensorBoard answered ${answer.status}`);
    [text, data] = [received, content];
    await readStarts();
    draw();
  } catch (error) {
    text = "";
    say(`The runs cannot be read: ${error.message}`);
  }
  document.body.dataset.ready = "true";
}

async function readStarts() {
  const many = manyStarts();
  if (!many.some((run) => run.run === view.run)) view.run = many.length ? many[0].run : null;
  starts = null;
  if (view.run === null) return;
  const answer = await fetch(`./basins?run=${encodeURIComponent(view.run)}`);
  if (answer.ok) starts = await answer.json();
}

function manyStarts() {
  return data.runs.filter((run) => run.starts).sort((one, other) => other.starts - one.starts);
}

async function choose(change) {
  Object.assign(view, change);
  if ("run" in change) await readStarts();
  draw();
}

function draw() {
  if (!data.runs.length) {
    say("There are no runs of gradopt in this log directory. Make one: python -m gradopt objective=polynomial");
    return;
  }
  if (!document.getElementById("runs")) lay();
  const scrolled = document.querySelector(".scroll")?.scrollTop ?? 0;
  fill("summary", summary(data.runs));
  fill("runs", leaderboard(data, view, choose));
  document.querySelector(".scroll").scrollTop = scrolled;
  fill("profiles", element("h2", {}, "Profiles"), profiles(data.profiles, view, choose));
  const many = manyStarts();
  const found = starts ? basins(starts) : element("p", { class: "note" }, "They cannot be read.");
  fill("starts", ...(many.length ? [element("h2", {}, "Starts"), pick(many), found] : []));
}

// What stays while its contents change, so that nobody who types loses the place.
function lay() {
  const sections = ["summary", "controls", "runs", "profiles", "starts"].map((id) => element("section", { id }));
  document.querySelector("main").replaceChildren(...sections);
  const filter = element("input", { id: "filter", type: "search", placeholder: "filter: words of run, objective, optimiser, verdict", input: (event) => choose({ filter: event.target.value }) });
  const box = element("input", { id: "grouped", type: "checkbox", change: (event) => choose({ grouped: event.target.checked }) });
  [filter.value, box.checked] = [view.filter, view.grouped];
  fill("controls", filter, element("label", {}, box, " one row for all seeds"));
}

function fill(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

function pick(many) {
  const options = many.map((run) => element("option", { value: run.run, selected: run.run === view.run ? "" : null }, `${run.objective}, ${run.optimiser}, ${counted(run.starts, "start")}: ${run.run}`));
  return element("p", { class: "controls" }, element("select", { id: "run", change: (event) => choose({ run: event.target.value }) }, ...options));
}

function say(sentence) {
  document.querySelector("main").replaceChildren(element("p", { class: "note", id: "message" }, sentence));
}

// TensorBoard marks its own page when it is dark; without it the browser's wish holds.
function followTheme() {
  let page;
  try {
    page = window.parent === window ? null : window.parent.document.body;
  } catch {
    page = null;
  }
  if (!page) return;
  const follow = () => (document.documentElement.style.colorScheme = page.classList.contains("dark-mode") ? "dark" : "light");
  new MutationObserver(follow).observe(page, { attributes: true, attributeFilter: ["class"] });
  follow();
}
