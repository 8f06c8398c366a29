// Step curves of performance and data profiles: the share of problems solved, over a logarithmic axis.

import { COLOURS, DASHES, counted, element, number, shown, svg } from "./dom.js";

const WIDTH = 520;
const HEIGHT = 280;
const EDGE = { left: 44, right: 12, top: 10, bottom: 40 };

export function profiles(data, view, choose) {
  if (!data.solvers.length) {
    return element("p", { class: "note" }, "Profiles need two optimisers that have run on the same two objectives, or seeds.");
  }
  const tolerance = view.tolerance ?? data.tolerance;
  const tolerances = data.tolerances.map((one) => element("option", { value: one, selected: one === tolerance ? "" : null }, one));
  const select = element("select", { id: "tolerance", change: (event) => choose({ tolerance: event.target.value }) }, ...tolerances);
  const left = data.not_drawn.length
    ? element("span", { title: data.not_drawn.join("\n") }, ` Not drawn: ${data.not_drawn.length} that share too few cases, or are behind at ${data.tolerance}.`)
    : null;
  return element("div", {},
    element("p", { class: "note" }, `${counted(data.cases, "case")} of ${counted(data.problems, "objective")}; solved: a loss within `,
      element("label", {}, select), " of the way from the start to the lowest.", left),
    legend(data.solvers),
    element("div", { class: "charts" },
      chart("performance", "evaluations / those of the optimiser that needs fewest", data.solvers, tolerance),
      chart("data", "evaluations", data.solvers, tolerance)));
}

function legend(solvers) {
  return element("ul", { class: "legend" }, ...solvers.map((solver, index) => element("li", {},
    svg("svg", { width: 34, height: 10 }, svg("path", { d: "M0 5H34", ...stroke(index) })),
    ` ${solver.solver}`)));
}

function stroke(index) {
  return { fill: "none", "stroke-width": 2.2, stroke: COLOURS[index % COLOURS.length], "stroke-dasharray": DASHES[index % DASHES.length] || null };
}

function chart(kind, label, solvers, tolerance) {
  const curves = solvers.map((solver) => solver.curves[tolerance][kind].map(([x, y]) => [number(x), y]));
  const longest = Math.max(...curves.flat().map(([x]) => x), 1);
  const decades = Math.max(kind === "performance" ? 0.5 : 1, Math.log10(longest) * 1.04);
  const across = (x) => EDGE.left + (Math.log10(Math.max(x, 1)) / decades) * (WIDTH - EDGE.left - EDGE.right);
  const up = (y) => HEIGHT - EDGE.bottom - y * (HEIGHT - EDGE.bottom - EDGE.top);
  const paths = curves.map((corners, index) => svg("path", {
    class: "profile", d: steps(corners, across, up), ...stroke(index), "data-solver": solvers[index].solver,
  }));
  const title = kind === "performance" ? "Performance profile" : "Data profile";
  return element("figure", {}, element("figcaption", {}, title),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, ...axes(decades, across, up, label), ...paths));
}

function steps(corners, across, up) {
  let path = `M${across(1).toFixed(1)} ${up(0).toFixed(1)}`;
  for (const [x, share] of corners) path += `H${across(x).toFixed(1)}V${up(share).toFixed(1)}`;
  return `${path}H${WIDTH - EDGE.right}`;
}

function axes(decades, across, up, label) {
  const lines = [0, 0.25, 0.5, 0.75, 1].map((share) => svg("g", {},
    svg("path", { class: "grid", d: `M${EDGE.left} ${up(share)}H${WIDTH - EDGE.right}` }),
    svg("text", { x: EDGE.left - 6, y: up(share) + 4, "text-anchor": "end" }, `${100 * share} %`)));
  const ticks = ticksTo(10 ** decades).map((x) => svg("g", {},
    svg("path", { class: "grid", d: `M${across(x)} ${up(0)}v5` }),
    svg("text", { x: across(x), y: up(0) + 18, "text-anchor": "middle" }, shown(x))));
  return [...lines, ...ticks, svg("text", { x: (WIDTH + EDGE.left) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, label)];
}

function ticksTo(most) {
  const factors = most < 50 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let decade = 1; decade <= most; decade *= 10) ticks.push(...factors.map((factor) => factor * decade));
  return ticks.filter((x) => x <= most);
}
