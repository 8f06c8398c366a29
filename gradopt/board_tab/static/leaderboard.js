// The table of runs, or of groups of runs that differ in their seeds alone; a click on a heading sorts by it.

import { counted, element, number, shown } from "./dom.js";

const MARKS = { success: "+", exhausted: "-", failure: "x", error: "!", open: "…" };
const MOST_ROWS = 1000;

const TEXT = { text: (row, name) => String(row[name] ?? ""), order: (row, name) => String(row[name] ?? "") };
const COUNT = { text: (row, name) => shown(row[name]), order: (row, name) => number(row[name]), numeric: true };
const COST = { ...COUNT, text: (row, name) => (number(row[name]) === Infinity ? "-" : shown(row[name])) };
const SECONDS = { ...COUNT, text: (row, name) => shown(row[name], 3) };

const RUN_COLUMNS = [
  { name: "status", title: "verdict", text: (row) => row.status, order: (row) => row.status },
  { name: "objective", title: "objective", ...TEXT },
  { name: "optimiser", title: "optimiser", ...TEXT },
  { name: "loss", title: "best loss", ...COUNT },
  { name: "median", title: "median over seeds", ...COUNT },
  { name: "steps", title: "steps", ...COUNT },
  { name: "evaluations", title: "evaluations", ...COUNT },
  { name: "cost", title: "solved after", ...COST },
  { name: "seconds", title: "seconds", ...SECONDS },
  { name: "starts", title: "starts", ...COUNT },
  { name: "seed", title: "seed", ...TEXT },
  { name: "run", title: "run", ...TEXT },
];

const GROUP_COLUMNS = [
  { name: "objective", title: "objective", ...TEXT },
  { name: "optimiser", title: "optimiser", ...TEXT },
  { name: "share", title: "succeeded", text: succeeded, order: (row) => row.succeeded / row.runs, numeric: true },
  { name: "loss", title: "median best loss", ...COUNT },
  { name: "steps", title: "median steps", ...COUNT },
  { name: "evaluations", title: "median evaluations", ...COUNT },
  { name: "cost", title: "median solved after", ...COST },
  { name: "seconds", title: "median seconds", ...SECONDS },
];

// `view` is what the user has chosen: {filter, grouped, sort: {name, descending}}; `choose` is told of changes.
export function leaderboard(data, view, choose) {
  const columns = view.grouped ? GROUP_COLUMNS : RUN_COLUMNS.filter((column) => hasAny(data, column.name));
  const runs = data.runs.filter((run) => matches(run, view.filter));
  const kept = view.grouped ? ofRuns(data.groups, runs) : runs.map((run) => withMedian(run, data.groups));
  const column = columns.find((one) => one.name === view.sort.name);
  kept.sort(column ? by(column, view.sort.descending) : byRank);
  const body = element("tbody", {}, ...kept.slice(0, MOST_ROWS).map((row) => line(row, columns)));
  const head = element("tr", {}, ...columns.map((one) => heading(one, view, choose)));
  const table = element("table", { class: "leaderboard" }, element("thead", {}, head), body);
  const hidden = kept.length - MOST_ROWS;
  const note = hidden > 0 ? element("p", { class: "note" }, `Not shown: ${counted(hidden, "more row")}. Filter them.`) : null;
  return element("div", {}, element("div", { class: "scroll" }, table), note);
}

function succeeded(row) {
  const seeds = row.seeds < row.runs ? ` (${counted(row.seeds, "seed")})` : "";
  return `${row.succeeded} of ${row.runs}${seeds}`;
}

export function summary(runs) {
  const counts = new Map();
  for (const run of runs) counts.set(run.status, [run.kind, (counts.get(run.status)?.[1] ?? 0) + 1]);
  const parts = [...counts].sort((one, other) => other[1][1] - one[1][1]);
  return element("p", { class: "summary" }, `${counted(runs.length, "run")}: `,
    ...parts.map(([status, [kind, count]]) => element("span", { class: `badge ${kind}` }, `${MARKS[kind]} ${count} ${status}`)));
}

function hasAny(data, name) {
  if (name === "median") return data.groups.some((group) => group.runs > 1);
  return name === "loss" || name === "status" || data.runs.some((run) => run[name] !== null);
}

function withMedian(run, groups) {
  const group = groups[run.group];
  return { ...run, median: group.runs > 1 ? group.loss : null };
}

// The groups that some of these runs are in: what is looked for, as a verdict, is said of runs.
function ofRuns(groups, runs) {
  const found = new Set(runs.map((run) => run.group));
  return groups.filter((_, index) => found.has(index));
}

function matches(row, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [row.run, row.objective, row.optimiser, row.status].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function by(column, descending) {
  const sign = descending ? -1 : 1;
  return (one, other) => {
    const [a, b] = [column.order(one, column.name), column.order(other, column.name)];
    const missing = Number(Number.isNaN(a) || a === "") - Number(Number.isNaN(b) || b === "");
    return missing || sign * compare(a, b); // what is missing comes last in either order
  };
}

function byRank(one, other) {
  return compare(one.objective, other.objective) || one.rank - other.rank;
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : Number(a > b);
}

function heading(column, view, choose) {
  const isSorted = view.sort.name === column.name;
  const state = isSorted ? (view.sort.descending ? "descending" : "ascending") : "none";
  const arrow = isSorted ? (view.sort.descending ? " ▼" : " ▲") : "";
  const sort = { name: column.name, descending: isSorted && !view.sort.descending };
  const button = element("button", { type: "button", "data-column": column.name, click: () => choose({ sort }) }, column.title + arrow);
  return element("th", { "aria-sort": state, class: column.numeric ? "number" : null }, button);
}

function line(row, columns) {
  return element("tr", { title: row.message }, ...columns.map((column) => {
    const text = column.text(row, column.name);
    if (column.name === "status") return verdict(row, text);
    return element("td", { class: column.numeric ? "number" : column.name === "run" ? "path" : null }, text);
  }));
}

// What is wrong with a run or its files is said at once, and a verdict's sentence when the pointer rests on the row.
function verdict(row, text) {
  const badge = element("span", { class: `badge ${row.kind}` }, `${MARKS[row.kind]} ${text}`);
  return element("td", {}, badge, row.reason ? element("span", { class: "reason" }, row.reason) : null);
}
