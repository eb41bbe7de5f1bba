// Pieces that several views are made of.

import { h, s } from "./dom.js";

/** An answer of the classifier, right or wrong. */
export function answer(label, right, words, note = "") {
  return h("p", { class: `answer ${right ? "right" : "wrong"}` },
    h("span", { class: "mark", "aria-hidden": "true" }, right ? "\u2713" : "\u2715"), " ", h("b", {}, label), " ", h("span", { class: "nowrap" }, words),
    right ? null : h("span", { class: "nowrap" }, " (wrong)"), note ? h("small", {}, note) : null);
}

/** Points with whiskers, 0 at 8 and 100 % at 232 of 240, as in the report. */
export function intervals(numbers, colours = [0, 1]) {
  const rows = numbers.map((number, place) => number && s("g", { class: `s${colours[place]}` },
    s("line", { class: "whisker", x1: 8 + 224 * number.low, x2: 8 + 224 * number.high, y1: 12 + 15 * place, y2: 12 + 15 * place }),
    s("circle", { class: "dot", cx: 8 + 224 * number.value, cy: 12 + 15 * place, r: 5.5 })));
  const said = numbers.filter(Boolean).map((number) => `${number.words}, 95 % interval ${number.interval}`).join("; ");
  return s("svg", { class: "figure forest", viewBox: `0 0 240 ${15 * numbers.length + 9}`, role: "img", "aria-label": said },
    [8, 64, 120, 176, 232].map((x) => s("line", { class: "grid", x1: x, x2: x, y1: 0, y2: 15 * numbers.length + 9 })), rows);
}

/** A difference with its whisker: minus 100 points at 8, 0 at 120 and plus 100 at 232 of 240, as in the report. */
export function difference([low, at, high], said) {
  const x = (share) => 120 + 112 * share;
  const turn = low > 0 ? "s1" : high < 0 ? "s0" : "same";
  return s("svg", { class: "figure forest", viewBox: "0 0 240 24", role: "img", "aria-label": said },
    [8, 64, 120, 176, 232].map((place) => s("line", { class: place === 120 ? "axis" : "grid", x1: place, x2: place, y1: 0, y2: 24 })),
    s("g", { class: turn }, s("line", { class: "whisker", x1: x(low), x2: x(high), y1: 12, y2: 12 }), s("circle", { class: "dot", cx: x(at), cy: 12, r: 5.5 })));
}

export function number(said, kind = "") {
  if (!said) return h("td", { class: "number quiet" }, "\u2013");
  return h("td", { class: `number ${kind}` }, h("b", {}, said.words), h("small", {}, said.interval));
}

/** The report's cards: a headline number each. */
export function cards(list) {
  return h("div", { class: "cards", style: { "--cards": list.length } }, list.map((card) => h("div", { class: "card" },
    h("h2", {}, card.label),
    h("div", { class: "figures" }, card.figures.map((figure) => h("div", { class: figure.stage === null ? "plain" : `s${figure.stage % 4}` },
      h("span", { class: "value" }, figure.value), h("span", { class: "note" }, figure.note)))))));
}

/** A mark, and behind it what it stands for. */
export function told(kind, words, lines) {
  return h("details", { class: "self-check" }, h("summary", {}, h("span", { class: `chip ${kind}` }, words)), h("ul", { class: "sentences quiet" }, lines.map((line) => h("li", {}, line))));
}

export function checks(row) {
  if (row.failed.length) return told("fail", `${row.failed.length} failed`, row.failed);
  if (row.warned.length) return told("warn", `${row.warned.length} to note`, row.warned);
  return h("span", { class: "chip pass" }, `all ${row.checks}`);
}

export const FATES = { holds: ["right", "Holds"], falls: ["wrong", "Falls"], wrong: ["amiss", "Wrong untouched"] };

/** Pictures of cases, to go through with the arrow keys. */
export function gallery(cases, result, link) {
  // Where most have no picture, its empty place would be all that one sees.
  const bare = cases.filter((one) => one.image).length < cases.length / 2;
  const list = h("ul", { class: `gallery${bare ? " bare" : ""}`, onkeydown: move }, cases.map((one) => h("li", {}, h("a", { href: link(one), class: `case-card ${one.fate}` },
    one.image ? h("img", { src: `/api/results/${result}/cases/${one.id}/thumbnail.png`, alt: "", width: 128, height: 128, loading: "lazy", decoding: "async" }) : h("span", { class: "no-picture", "aria-hidden": "true" }, "no picture"),
    h("span", { class: "case-name" }, one.name),
    h("span", { class: "case-label" }, one.label),
    h("span", { class: `fate ${(FATES[one.fate] || FATES.holds)[0]}` }, fate(one))))));
  return list;
}

function fate(one) {
  if (one.fate === "wrong") return `called ${one.prediction}`;
  if (one.fate === "holds") return one.smallest ? `holds; falls at ${one.smallest}` : "holds";
  return one.smallest ? `falls at ${one.smallest}` : "falls";
}

function move(event) {
  const links = [...event.currentTarget.querySelectorAll("a")];
  const here = links.indexOf(event.target.closest("a"));
  const across = links.findIndex((link) => link.offsetTop > links[0].offsetTop);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across > 0 ? across : links.length, ArrowUp: -(across > 0 ? across : links.length) }[event.key];
  if (here < 0 || !step || !links[here + step]) return;
  event.preventDefault();
  links[here + step].focus();
}

const MOST = 60; // Lines of a list that are drawn at once.

/** A list and its latest lines; the earlier ones come when they are asked for. */
export function latest(list, rows, line) {
  const first = Math.max(rows.length - MOST, 0);
  list.append(...rows.slice(first).map(line));
  const rest = h("button", { type: "button", class: "button more", onclick: () => { list.prepend(...rows.slice(0, first).map(line)); rest.remove(); } }, `Show ${first} earlier ones`);
  return first ? rest : null;
}

/** Where one is. */
export function trail(...steps) {
  return h("nav", { class: "trail", "aria-label": "Where you are" }, h("ol", {}, steps.map(([name, href]) => h("li", {}, href ? h("a", { href }, name) : h("span", { "aria-current": "page" }, name)))));
}

/** In place of a headline: the checks that failed. */
export function withheld(reasons) {
  return h("div", { class: "withheld", role: "alert" }, h("p", { class: "verdict" }, `No headline: ${reasons.length === 1 ? "a check" : `${reasons.length} checks`} failed.`), h("ul", {}, reasons.map((reason) => h("li", {}, reason))));
}
