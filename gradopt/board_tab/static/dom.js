// Elements made of text: no string of a run is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

// Told apart by the colour-blind (Okabe and Ito); style.css has them for light and dark.
export const COLOURS = [0, 1, 2, 3, 4, 5, 6, 7].map((index) => `var(--series-${index})`);
export const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Numbers come as numbers, as "NaN" or "Infinity", or as null where there is none.
export function number(value) {
  return value === null || value === undefined ? NaN : Number(value);
}

export function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

export function shown(value, digits = 6) {
  if (value === null || value === undefined) return "";
  const x = Number(value);
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  if (Number.isInteger(x) && Math.abs(x) < 1e9) return String(x);
  return String(Number(x.toPrecision(digits)));
}
