// One case under an attack: its confidence in the true class against eps.

import { s } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [300, 200, 36, 290, 28, 154];

/**
 * @param {{name: string, points: {eps: number, value: number, right: boolean, words: string}[]}[]} lines
 * @param {{perPixel: boolean, classes: number}} options
 */
export function draw(lines, { perPixel, classes }) {
  const largest = Math.max(...lines.flatMap((line) => line.points.map((point) => point.eps)), 1e-9);
  const x = (eps) => LEFT + ((RIGHT - LEFT) * eps) / largest;
  const y = (value) => BOTTOM - (BOTTOM - TOP) * value;
  const cursor = s("line", { class: "cursor", y1: TOP - 6, y2: BOTTOM });
  const drawing = s("svg", { class: "figure case-curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": describe(lines) },
    s("text", { x: 4, y: 14, class: "small" }, "Confidence in the true class, %"),
    [0, 0.5, 1].map((value) => [s("line", { class: value ? "grid" : "axis", x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }), s("text", { class: "small", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(100 * value))]),
    s("line", { class: "chance", x1: LEFT, x2: RIGHT, y1: y(1 / classes), y2: y(1 / classes) }),
    ticks(largest, perPixel).map((tick) => s("text", { class: "small", x: x(tick), y: BOTTOM + 18, "text-anchor": "middle" }, perPixel ? levels(tick) : String(Number(tick.toPrecision(3))))),
    s("text", { class: "small", x: (LEFT + RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, perPixel ? "eps, in grey levels of 255" : "eps"),
    cursor, lines.map((line, place) => path(line, place, x, y)));
  return { drawing, moveTo(eps) { cursor.setAttribute("x1", x(eps)); cursor.setAttribute("x2", x(eps)); } };
}

function path(line, place, x, y) {
  const points = line.points.filter((point) => point.value !== null);
  return s("g", { class: `s${line.place ?? place}` },
    s("polyline", { class: "line", points: points.map((point) => `${x(point.eps)},${y(point.value)}`).join(" ") }),
    points.map((point) => s("g", { class: "mark-point", transform: `translate(${x(point.eps)} ${y(point.value)})` },
      s("title", {}, `${line.name}: ${point.words}`),
      point.right ? s("circle", { class: "dot", r: 5 }) : s("path", { class: "cross", d: "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5" }))));
}

function ticks(largest, perPixel) {
  const raw = largest / 4;
  const decade = 10 ** Math.floor(Math.log10(raw));
  const unit = perPixel && largest > 0.004 ? 1 / 255 : decade;
  const step = Math.max(1, Math.round(raw / unit)) * unit;
  return Array.from({ length: Math.floor(largest / step + 1e-6) + 1 }, (_, place) => place * step);
}

function levels(eps) {
  return String(Math.round(eps * 2550) / 10);
}

function describe(lines) {
  return lines.map((line) => `${line.name}: ${line.points.map((point) => point.words).join("; ")}`).join(". ");
}
