// One slice that was asked about: how little it takes to change the answer, and to what.

import { ask } from "../api.js";
import { h, put, when } from "../dom.js";
import { trail } from "../parts.js";

export async function show(view, id) {
  const one = await ask(`/api/answers/${id}`);
  view.title = one.name;
  const verdict = one.eps ? ["A change of at most ", h("b", {}, one.eps), ` turns \u201c${one.answer}\u201d into \u201c${one.nearest}\u201d.`] : [`No change was found that alters the answer \u201c${one.answer}\u201d.`];
  put(view.root,
    trail(["Overview", "/"], [one.name]),
    h("div", { class: "head" }, h("p", { class: "kicker" }, `One slice, ${when(one.when)}`), h("h1", {}, one.name), h("p", { class: "verdict", title: one.measured ? `Its size: ${one.measured}` : null }, verdict), h("p", { class: "below" }, about(one))),
    h("section", { class: "part wide", "aria-label": "Picture" }, h("img", { class: "answer-picture", src: `/api/answers/${id}/picture.png`, alt: `The slice (${one.answer}), the change, and the changed slice (${one.nearest || one.answer})` })),
    h("section", { class: "part" }, h("div", { class: "aside" }, h("h2", {}, "Answers"), h("p", { class: "quiet" }, "How sure the classifier is of each class, before and after.")), h("div", { class: "inner" }, table(one))),
    one.notes.length ? h("section", { class: "part" }, h("div", { class: "aside" }, h("h2", {}, "The file"), h("p", { class: "quiet" }, "What was done to read it.")), h("ul", { class: "sentences" }, one.notes.map((note) => h("li", {}, note)))) : null);
}

function about(one) {
  const said = [`${one.source}, ${one.pixels} pixels, asked of ${one.backbone}; tried by ${one.attacks.join(", ")}.`];
  if (one.more_fragile) said.push(`${one.more_fragile} of ${one.compared_with} slices take a smaller change.`);
  if (one.in_lesion) said.push(`${one.in_lesion} of the change's energy lies in the lesion, which has ${one.lesion} of the pixels.`);
  return said.join(" ");
}

function table(one) {
  const bar = (share, place) => h("span", { class: `rail s${place}`, "aria-hidden": "true" }, h("i", { style: { width: `${100 * (share ?? 0)}%` } }));
  const line = (row) => h("tr", {}, h("th", { scope: "row" }, row.name), h("td", { class: "number s1" }, h("b", {}, row.before_words)), h("td", { class: "rails" }, bar(row.before, 1), one.eps ? bar(row.after, 0) : null), one.eps ? h("td", { class: "number s0" }, h("b", {}, row.after_words)) : null);
  return h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Class"), h("th", { scope: "col", class: "s1" }, "Untouched"), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Shares")), one.eps ? h("th", { scope: "col", class: "s0" }, "Changed") : null)), h("tbody", {}, one.classes.map(line))));
}
