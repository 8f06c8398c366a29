// Where the starts of one run ended: a map of two unknowns, and bars of minima.

import { COLOURS, element, shown, svg } from "./dom.js";

const SIZE = 380;
const EDGE = { left: 52, right: 10, top: 10, bottom: 30 };
const NONE = "var(--faint)";

export function basins(data) {
  const rows = data.minima.map((one, index) => ({ label: shown(one.loss), starts: one.starts, colour: colour(index), x: one.x }));
  if (data.others) rows.push({ label: "higher minima", starts: data.others, colour: NONE, x: [] });
  if (data.none) rows.push({ label: "at no minimum", starts: data.none, colour: "transparent", x: [] });
  const most = Math.max(1, ...rows.map((row) => row.starts));
  const body = rows.map((row) => bar(row, data.number, most));
  const head = ["minimum: loss", "", "share of starts", "at"].map((title) => element("th", {}, title));
  const table = element("table", { class: "bars" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  return element("div", { class: "charts" }, data.map ? map(data) : null, table);
}

function colour(index) {
  return index < COLOURS.length - 1 ? COLOURS[index] : COLOURS.at(-1);
}

function bar(row, number, most) {
  const share = `${shown((100 * row.starts) / Math.max(1, number), 3)} %`;
  const length = svg("rect", { height: 12, y: 1, width: (150 * row.starts) / most, fill: row.colour, stroke: "var(--faint)" });
  const point = row.x.length ? `(${row.x.map((x) => shown(x, 4)).join(", ")}${row.x.length === 10 ? ", …" : ""})` : "";
  return element("tr", {}, element("td", { class: "number" }, row.label), element("td", {}, svg("svg", { width: 152, height: 14 }, length)),
    element("td", { class: "number" }, `${share} (${row.starts})`), element("td", { class: "path" }, point));
}

function map(data) {
  const groups = Object.entries(data.map).map(([index, flat]) => [Number(index), pairs(flat)]);
  const points = groups.flatMap(([, list]) => list);
  const minima = data.minima.map((one) => one.x).filter((x) => x.length === 2);
  const [across, left, right] = scale([...points, ...minima].map((point) => point[0]), EDGE.left, SIZE - EDGE.right);
  const [up, low, high] = scale([...points, ...minima].map((point) => point[1]), SIZE - EDGE.bottom, EDGE.top);
  const width = points.length > 2000 ? 3 : 6;
  // One path a basin: a stroke of no length with round ends is a dot, and ten thousand of them stay quick.
  const dots = groups.map(([index, list]) => svg("path", {
    class: "basin", "data-basin": index, fill: "none", "stroke-linecap": "round", "stroke-width": index < 0 ? width / 2 : width,
    stroke: index < 0 ? NONE : colour(index), d: list.map(([x, y]) => `M${across(x).toFixed(1)} ${up(y).toFixed(1)}h0`).join(""),
  }));
  const stars = minima.map(([x, y], index) => svg("circle", {
    class: "minimum", cx: across(x), cy: up(y), r: 5.5, fill: colour(index), stroke: "var(--text)", "stroke-width": 1.6,
  }));
  const frame = svg("path", { class: "grid", fill: "none", d: `M${EDGE.left} ${EDGE.top}V${SIZE - EDGE.bottom}H${SIZE - EDGE.right}` });
  const texts = [
    svg("text", { x: EDGE.left, y: SIZE - 8 }, shown(left, 3)), svg("text", { x: SIZE - EDGE.right, y: SIZE - 8, "text-anchor": "end" }, shown(right, 3)),
    svg("text", { x: EDGE.left - 5, y: SIZE - EDGE.bottom, "text-anchor": "end" }, shown(low, 3)), svg("text", { x: EDGE.left - 5, y: EDGE.top + 8, "text-anchor": "end" }, shown(high, 3)),
  ];
  return element("figure", {}, element("figcaption", {}, `Where ${points.length} of ${data.number} starts began; rings: minima`),
    svg("svg", { class: "map", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": "Basins of the starts" }, frame, ...texts, ...dots, ...stars));
}

function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index], flat[2 * index + 1]]);
}

function scale(values, from, to) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) [least, most] = [Math.min(least, value), Math.max(most, value)];
  if (!(least < most)) [least, most] = Number.isFinite(least) ? [least - 1, least + 1] : [0, 1];
  return [(value) => from + ((value - least) / (most - least)) * (to - from), least, most];
}
