// Marks of points that are told apart without colours, as parts of an SVG path.

export const MARKS = ["disc", "square", "up", "diamond", "down", "plus", "pentagon"];

// The mark with its middle at x, y, within about `r` of it.
export function mark(name, x, y, r) {
  if (name === "disc") return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
  if (name === "cross") return `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
  const [first, ...rest] = CORNERS[name].map(([a, b]) => `${tenths(x + a * r)} ${tenths(y + b * r)}`);
  return `M${first}L${rest.join("L")}z`;
}

const CORNERS = {
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  up: [[0, -1.2], [1.1, 0.9], [-1.1, 0.9]],
  down: [[0, 1.2], [1.1, -0.9], [-1.1, -0.9]],
  diamond: [[0, -1.3], [1, 0], [0, 1.3], [-1, 0]],
  plus: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
  pentagon: [0, 1, 2, 3, 4].map((corner) => [1.2 * Math.sin((2 * Math.PI * corner) / 5), -1.2 * Math.cos((2 * Math.PI * corner) / 5)]),
};

function tenths(value) {
  return Math.round(10 * value) / 10;
}
