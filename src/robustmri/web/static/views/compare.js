// Two results case by case: who was saved, who was lost.

import { go } from "../app.js";
import { address, ask, send } from "../api.js";
import { count, h, put } from "../dom.js";
import { cards, difference, gallery, trail, withheld } from "../parts.js";
import { follow } from "../search.js";

export async function show(view, first, second) {
  const chosen = view.query.get("show") || "saved";
  const only = { class: view.query.get("class") || "", patient: view.query.get("patient") || "" };
  const both = await ask(address(`/api/compare/${first}/${second}`, { show: chosen, ...only }));
  Object.assign(view, { title: `${both.first.name} and ${both.second.name}`, synthetic: both.first.synthetic, keepsPlace: view.query.has("show") });
  const here = `/compare/${first}/${second}`;
  /** Where a row leads: its cases alone, or all again. */
  const to = (name) => (row) => ({ href: address(here, { show: chosen, ...only, [name]: only[name] === row.id ? "" : row.id }), current: only[name] === row.id });
  const sure = both.paired ? paired(both) : both.read_only ? null : asking(first, second, view);
  put(view.root,
    trail(["Overview", "/"], [view.title]),
    h("div", { class: "head" }, h("p", { class: "kicker" }, `Compared under attack, ${both.radius}`), h("h1", {}, view.title),
      both.reasons.length ? withheld(both.reasons) : [h("p", { class: "verdict" }, both.verdict), h("p", { class: "below" }, both.below), cards(both.cards)],
      h("p", { class: "key" }, [both.first, both.second].map((one, place) => h("span", { class: `s${place}` }, h("b", {}, h("a", { href: `/results/${one.id}` }, one.name)), " ", h("i", {}, one.model))),
        h("a", { href: `/compare/${second}/${first}`, class: "quiet" }, "the other way round"))),
    sure,
    h("section", { class: "part wide", "aria-label": "Who was saved and who was lost" },
      h("nav", { class: "turns", "aria-label": "Kind of case" }, Object.entries(both.turns).map(([turn, words]) => h("a", { href: address(here, { show: turn, ...only }), class: `turn-tile ${turn}`, "aria-current": turn === chosen ? "true" : null }, h("b", {}, String(both.total[turn])), h("span", {}, words)))),
      h("div", { class: "pair-tables" }, strata("By class", both.classes, both.turns, to("class")), strata(`By ${both.people === "patients" ? "patient" : "group"}, most lost first`, both.patients, both.turns, to("patient"), { most: 12, found: both.patients_found })),
      h("h2", {}, both.turns[chosen]), filter(both, here, chosen),
      both.cases.length ? gallery(both.cases, first, (one) => address(`/results/${first}/${one.id}`, { beside: second })) : h("p", { class: "quiet" }, "No case.")));
}

/** What `compare` found: differences with intervals by patient. */
function paired(both) {
  const found = both.paired;
  const other = found.numbers.filter((row) => !row.main);
  const who = both.people === "patients" ? "Patients" : "Groups";
  const line = (name) => (row) => {
    const said = `${row.points} points, 95 % interval ${row.bounds}`;
    return h("tr", { class: row.worst && !row.label ? "worst" : "" }, h("th", { scope: "row" }, name(row), h("small", {}, row.radius)),
      h("td", { class: "number s0" }, row.first), h("td", { class: "number s1" }, row.second),
      h("td", { class: "forest-cell" }, difference(row.difference, said)), h("td", { class: "number" }, h("b", {}, row.points), h("small", {}, row.bounds)),
      h("td", { class: "number" }, `${row.saved}, ${row.lost}`), h("td", { class: "number" }, `${row.people_saved}, ${row.people_lost}`), h("td", { class: "number" }, row.p));
  };
  const scale = () => h("span", { class: "scale", "aria-hidden": "true" }, h("span", {}, "\u2212100"), h("span", {}, "0"), h("span", {}, "+100"));
  const heads = (first) => h("tr", {}, h("th", { scope: "col" }, first), h("th", { scope: "col", class: "number s0" }, both.first.name), h("th", { scope: "col", class: "number s1" }, both.second.name),
    h("th", { scope: "col", class: "axis" }, h("span", { class: "unseen" }, "Difference"), scale()), h("th", { scope: "col", class: "number", title: "Difference in percentage points, and its 95 % interval" }, "Points"),
    h("th", { scope: "col", class: "number", title: "Slices that only the second, and that only the first, names rightly" }, "Saved, lost"), h("th", { scope: "col", class: "number", title: "Those with more than half of their slices right with the second alone, and with the first alone" }, `${who} saved, lost`),
    h("th", { scope: "col", class: "number", title: "How often chance alone would set two equal classifiers so far apart, corrected for the number of rows" }, "p"));
  const table = (first, rows, name) => h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, heads(first)), h("tbody", {}, rows.map(line(name)))));
  return h("section", { class: "part wide" }, h("h2", {}, `Paired by ${both.people === "patients" ? "patient" : "group"}`),
    h("p", { class: "quiet" }, "The same slices under both; intervals and p by whole patients. ", h("a", { href: `/reports/${found.page}`, target: "_blank", rel: "noopener" }, "As a page to print")),
    table("Attack", found.numbers.filter((row) => row.main), (row) => row.title),
    other.length ? h("details", {}, h("summary", {}, `At other radii: ${count(other.length, "row")}`), table("Attack", other, (row) => row.title)) : null,
    found.classes.length ? h("details", {}, h("summary", {}, "By class"), table("Class", found.classes, (row) => [row.label, h("small", {}, row.title)])) : null,
    h("details", {}, h("summary", {}, "What is compared, and how"), h("ul", { class: "sentences" }, [...found.scope, ...found.methods].map((one) => h("li", {}, one)))));
}

/** Nobody has paired these two so far: a job can. */
function asking(first, second, view) {
  const error = h("p", { class: "refused", role: "alert" });
  const told = h("p", { class: "quiet", role: "status" });
  const start = async (event) => {
    const button = event.currentTarget;
    error.textContent = "";
    button.disabled = true;
    try {
      const job = await send("/api/comparisons", { first, second });
      view.leave = follow(job.id, told, error, () => go(location.pathname + location.search, { replace: true }));
    } catch (problem) {
      error.textContent = problem.message;
      button.disabled = false;
    }
  };
  return h("section", { class: "part wide" }, h("h2", {}, "How sure is that?"), h("p", { class: "quiet" }, "Counts alone do not say whether the difference could be chance. Pairing the two by patient gives each difference its interval, as robustmri compare does; it is a job of a few seconds."),
    h("p", { class: "actions" }, h("button", { type: "button", class: "button", onclick: start }, "Pair them by patient")), error, told);
}

function filter(both, here, chosen) {
  const name = (rows, id) => rows.find((row) => row.id === id)?.name;
  const said = [name(both.classes, both.class), name(both.patients, both.patient)].filter(Boolean);
  const shown = both.cases.length < both.found ? `The ${both.cases.length} most fragile of ${both.found}` : `${both.found}`;
  return h("p", { class: "quiet" }, `${shown} ${both.found === 1 ? "case" : "cases"}`, said.length ? [" of ", h("b", {}, said.join(", ")), ". ", h("a", { href: address(here, { show: chosen }) }, "Show those of all")] : null);
}

function strata(title, rows, turns, to, { most = rows.length, found = rows.length } = {}) {
  const order = ["lost", "neither", "both", "saved"];
  const line = (row) => {
    const total = order.reduce((sum, turn) => sum + row[turn], 0);
    const { href, current } = to(row);
    return h("tr", { class: current ? "worst" : "" }, h("th", { scope: "row" }, h("a", { href, class: "plain-link", "aria-current": current ? "true" : null, title: current ? "Show those of all" : "Show these alone" }, row.name)),
      h("td", { class: "bar-cell" }, h("div", { class: "turn-bar", role: "img", "aria-label": order.map((turn) => `${turn} ${row[turn]}`).join(", ") }, order.map((turn) => h("i", { class: turn, style: { width: `${(100 * row[turn]) / total}%` } })))),
      h("td", { class: "number saved-text" }, row.saved ? `+${row.saved}` : "0"), h("td", { class: "number lost-text" }, row.lost ? `\u2212${row.lost}` : "0"));
  };
  const table = (list) => h("table", { class: "list strata" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, title), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Shares")), h("th", { scope: "col", class: "number", title: turns.saved }, "saved"), h("th", { scope: "col", class: "number", title: turns.lost }, "lost"))), h("tbody", {}, list.map(line)));
  return h("div", {}, table(rows.slice(0, most)), rows.length > most ? h("details", {}, h("summary", {}, `${rows.length - most} more`), table(rows.slice(most))) : null,
    found > rows.length ? h("p", { class: "quiet" }, `The ${rows.length} of ${found} that lost most.`) : null);
}
