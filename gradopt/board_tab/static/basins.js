// Where the starts of one run ended: a map of two unknowns, and bars of minima.

import { COLOURS, counted, element, shown, svg } from "./dom.js";
import { MARKS, mark } from "./marks.js";

const SIZE = 400;
const EDGE = { left: 62, right: 12, top: 10, bottom: 46 };
const TICKS = 5;

export function basins(data) {
  const rows = data.minima.map((one, index) => ({ ...look(index), label: shown(one.loss), starts: one.starts, x: one.x }));
  if (data.others) rows.push({ ...look("others"), label: "higher minima", starts: data.others, x: [] });
  if (data.none) rows.push({ ...look("none"), label: "at no minimum", starts: data.none, x: [] });
  const most = Math.max(1, ...rows.map((row) => row.starts));
  const body = rows.map((row) => bar(row, data.number, most));
  const at = data.names.length && data.names.length <= 4 ? `at (${data.names.join(", ")})` : "at";
  const head = ["", "minimum: loss", "", "share of starts", at].map((title) => element("th", {}, title));
  const table = element("table", { class: "bars" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  const torn = data.torn && data.names.length === 2 ? element("p", { class: "note" }, "No map: starts.npz cannot be read.") : null;
  return element("div", { class: "charts" }, data.map ? map(data) : torn, table);
}

// Each of the lowest minima has a mark and a colour of its own, higher ones share a hollow one, and no minimum is a cross.
function look(index) {
  if (index === "none") return { mark: "cross", colour: "var(--text)", isHollow: true };
  const place = Number(index);
  if (place < MARKS.length) return { mark: MARKS[place], colour: COLOURS[place], isHollow: false };
  return { mark: "disc", colour: "var(--text)", isHollow: true };
}

function drawn({ mark: name, colour, isHollow }, points, radius) {
  return { d: points.map(([x, y]) => mark(name, x, y, radius)).join(""), fill: isHollow ? "none" : colour, stroke: isHollow ? colour : "none" };
}

function bar(row, number, most) {
  const share = `${shown((100 * row.starts) / Math.max(1, number), 3)} %`;
  const sign = svg("svg", { width: 14, height: 14 }, svg("path", drawn(row, [[7, 7]], 5)));
  const length = svg("rect", { height: 12, y: 1, width: (150 * row.starts) / most, fill: row.isHollow ? "none" : row.colour, stroke: "var(--faint)" });
  const point = row.x.length ? `(${row.x.map((x) => shown(x, 4)).join(", ")}${row.x.length === 10 ? ", …" : ""})` : "";
  return element("tr", {}, element("td", {}, sign), element("td", { class: "number" }, row.label),
    element("td", {}, svg("svg", { width: 152, height: 14 }, length)),
    element("td", { class: "number" }, `${share} (${row.starts})`), element("td", { class: "path" }, point));
}

function map(data) {
  const groups = Object.entries(data.map).map(([index, flat]) => [index, pairs(flat)]);
  const points = groups.flatMap(([, list]) => list);
  const minima = data.minima.map((one) => one.x).filter((x) => x.length === 2);
  const across = axis([...points, ...minima].map((point) => point[0]), EDGE.left, SIZE - EDGE.right);
  const up = axis([...points, ...minima].map((point) => point[1]), SIZE - EDGE.bottom, EDGE.top);
  const radius = points.length > 2000 ? 1.8 : 3;
  // One path a basin, so that ten thousand marks stay quick.
  const dots = groups.map(([index, list]) => svg("path", {
    class: "basin", "data-basin": index, ...drawn(look(index), list.map(([x, y]) => [across.place(x), up.place(y)]), radius),
  }));
  const ends = minima.map(([x, y], index) => svg("path", {
    class: "minimum", ...drawn(look(index), [[across.place(x), up.place(y)]], 7), stroke: "var(--text)", "stroke-width": 1.6,
  })).reverse(); // the lowest on top
  return element("figure", {}, element("figcaption", {}, `Where ${points.length} of ${counted(data.number, "start")} began, by the minimum they ended at; large: the minima`),
    svg("svg", { class: "map", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": "Basins of the starts" },
      ...frame(across, up, data.names), ...dots, ...ends));
}

function frame(across, up, names) {
  const [bottom, middle] = [SIZE - EDGE.bottom, (SIZE - EDGE.bottom + EDGE.top) / 2];
  return [
    svg("path", { class: "grid", fill: "none", d: `M${EDGE.left} ${EDGE.top}V${bottom}H${SIZE - EDGE.right}` }),
    ...across.ticks.map((x) => svg("g", {}, svg("path", { class: "grid", d: `M${across.place(x)} ${bottom}v5` }),
      svg("text", { x: across.place(x), y: bottom + 17, "text-anchor": "middle" }, shown(x)))),
    ...up.ticks.map((y) => svg("g", {}, svg("path", { class: "grid", d: `M${EDGE.left} ${up.place(y)}h-5` }),
      svg("text", { x: EDGE.left - 8, y: up.place(y) + 4, "text-anchor": "end" }, shown(y)))),
    svg("text", { class: "axis", x: (EDGE.left + SIZE - EDGE.right) / 2, y: SIZE - 10, "text-anchor": "middle" }, names[0] ?? ""),
    svg("text", { class: "axis", x: 0, y: 0, transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, names[1] ?? ""),
  ];
}

function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index], flat[2 * index + 1]]);
}

// From values to places between `from` and `to`, with a little room, and ticks at round values.
function axis(values, from, to) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) [least, most] = [Math.min(least, value), Math.max(most, value)];
  if (!(least < most)) [least, most] = Number.isFinite(least) ? [least - 1, least + 1] : [0, 1];
  const room = 0.03 * (most - least);
  [least, most] = [least - room, most + room];
  return { place: (value) => Math.round(10 * (from + ((value - least) / (most - least)) * (to - from))) / 10, ticks: round(least, most) };
}

function round(least, most) {
  const rough = (most - least) / TICKS;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = decade * [1, 2, 5, 10].find((factor) => factor * decade >= rough);
  const first = Math.ceil(least / step);
  return Array.from({ length: Math.floor(most / step) - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}
