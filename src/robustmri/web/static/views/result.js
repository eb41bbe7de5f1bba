// One result: its verdict, and its cases to browse.

import { go } from "../app.js";
import { address, ask } from "../api.js";
import { h, put, say, when } from "../dom.js";
import { typing } from "../keys.js";
import { searching } from "../search.js";
import { cards, gallery, intervals, number, trail, withheld } from "../parts.js";

const NAMES = ["class", "patient", "fate", "sort"];

export async function show(view, id) {
  const result = await ask(address(`/api/results/${id}`, { patient: view.query.get("patient") }));
  view.title = result.name;
  view.synthetic = result.synthetic;
  const search = searching({
    fields: result.search, result: id,
    // Where there are many, a search of one begins at a case.
    scopes: [["the whole test set", {}], ...(result.patients_found > result.patients.length ? [] : result.patients).map((one) => [`${result.people === "patients" ? "patient" : "group"} ${one.name}`, { patient: one.id }])],
    found: () => go("/"),
  });
  put(view.root, trail(["Overview", "/"], [result.name]), masthead(result), details(result, search.root));
  const list = h("div", { class: "found", "aria-live": "polite" });
  const query = Object.fromEntries(NAMES.map((name) => [name, view.query.get(name) || ""]));
  const form = filters(result, query, () => load(0));
  put(view.root, h("section", { class: "part wide", "aria-label": "Cases" }, h("div", { class: "cases-head" }, h("h2", {}, "Cases"), form), list));

  async function load(from) {
    if (!from) history.replaceState(null, "", address(`/results/${id}`, query));
    const page = await ask(address(`/api/results/${id}/cases`, { ...query, from }));
    const link = (one) => address(`/results/${id}/${one.id}`, query);
    const cases = gallery(page.cases, id, link);
    if (!from) list.replaceChildren(summary(page, result), cases);
    else list.querySelector(".gallery").append(...cases.children);
    list.querySelector(".more")?.remove();
    const shown = from + page.cases.length;
    if (shown < page.total) list.append(h("button", { type: "button", class: "button more", onclick: () => load(shown) }, `Show more (${page.total - shown} left)`));
    if (!from) say(`${page.total} cases`);
  }
  await load(0);

  const keys = (event) => {
    if (typing(event) || event.key !== "/") return;
    event.preventDefault();
    form.querySelector("select").focus();
  };
  document.addEventListener("keydown", keys);
  view.leave = () => { document.removeEventListener("keydown", keys); search.close(); };
}

function masthead(result) {
  return h("div", { class: "head" },
    h("p", { class: "kicker" }, `Result, ${when(result.when)}`), h("h1", {}, result.title),
    result.reasons.length
      ? withheld(result.reasons)
      : [h("p", { class: "verdict" }, result.verdict), h("p", { class: "below" }, result.below), result.caution ? h("p", { class: "caution" }, h("strong", {}, "Split by slice. "), result.caution) : null, cards(result.cards)],
    result.beside.length ? h("p", { class: "actions" }, "Compare with ", result.beside.map((other, place) => [place ? ", " : "", h("a", { href: `/compare/${id2(result.id, other)}` }, other.name)])) : null);
}

function id2(id, other) {
  return `${id}/${other.id}`;
}

function details(result, search) {
  const row = (one) => h("tr", { class: one.worst ? "worst" : "" }, h("th", { scope: "row", title: one.about || null }, one.attack, h("small", {}, one.radius)), h("td", { class: "forest-cell" }, one.slices ? intervals([one.slices]) : ""), number(one.slices), number(one.patients));
  const marks = { fail: 0, warn: 0, pass: 0 };
  result.check_rows.forEach((check) => { marks[check.status] += 1; });
  const said = [marks.fail ? `${marks.fail} failed` : "", marks.warn ? `${marks.warn} to note` : "", `${marks.pass} passed`].filter(Boolean).join(", ");
  return h("div", { class: "fold" },
    h("details", {}, h("summary", {}, "Accuracy under each attack"), h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Attack"), h("th", { scope: "col", class: "axis" }, h("span", { class: "unseen" }, "Intervals"), h("span", { class: "scale", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, "50"), h("span", {}, "100 %"))), h("th", { scope: "col" }, "Slices right"), h("th", { scope: "col" }, `${result.people[0].toUpperCase()}${result.people.slice(1)} right`))), h("tbody", {}, result.numbers.map(row))))),
    h("details", {}, h("summary", {}, `Checks: ${said}`), h("ul", { class: "checks" }, result.check_rows.map((check) => h("li", {}, h("span", { class: `chip ${check.status}` }, check.status), h("div", {}, h("h3", {}, check.name), h("p", {}, check.detail)))))),
    certificate(result.certificate),
    h("details", {}, h("summary", {}, "What the attacker may do"), h("ul", { class: "sentences" }, result.threat.map((line) => h("li", {}, line)))),
    search);
}

/** Up to which size no change at all alters the answers, where `certify` was asked. */
function certificate(found) {
  if (!found) return null;
  const about = h("summary", { title: "Up to which size no change at all alters the answers" }, "What holds for certain");
  if (found.why) return h("details", {}, about, h("p", { class: "caution" }, found.why));
  const row = ([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((one) => h("td", { class: "number" }, one)));
  return h("details", {}, about,
    h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, found.headers.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, found.rows.map(row)))),
    h("ul", { class: "sentences" }, found.notes.map((note) => h("li", {}, note))));
}

function filters(result, query, changed) {
  const choose = (name, label, options, title) => {
    const field = h("select", { name, title, onchange: (event) => { query[name] = event.target.value; changed(); } }, options.map(([value, text]) => h("option", { value, selected: String(query[name]) === String(value) }, text)));
    return h("label", {}, h("span", {}, label), field);
  };
  return h("form", { class: "filters", role: "search", "aria-label": "Filter the cases", onsubmit: (event) => event.preventDefault() },
    choose("class", "Class", [["", "All classes"], ...result.classes.map((name, place) => [place, name])]),
    result.patients_found > result.patients.length ? findPatient(result, query, changed)
      : choose("patient", "Patient", [["", `All ${result.people}`], ...result.patients.map((one) => [one.id, `${one.name} (${one.slices})`])]),
    choose("fate", "Outcome", [["", "All outcomes"], ...Object.entries(result.fates)], `Untouched, and under ${result.worst_of || "attack"} ${result.radius}`),
    choose("sort", "Order", Object.entries(result.sorts), "Fragile: fooled by a small change"));
}

/** Where a list of all would be too long: a part of the name is typed. */
function findPatient(result, query, changed) {
  let known = result.patients;
  const list = h("datalist", { id: "patients" });
  const fill = () => list.replaceChildren(...known.map((one) => h("option", { value: one.name }, `${one.slices} slices`)));
  const look = async (event) => {
    known = (await ask(address(`/api/results/${result.id}/patients`, { like: event.target.value }))).patients;
    fill();
  };
  const take = async (event) => {
    await look(event);
    const found = known.find((one) => one.name === event.target.value);
    if (event.target.value && !found) return;
    query.patient = found ? found.id : "";
    changed();
  };
  fill();
  return h("label", {}, h("span", {}, "Patient"), h("input", { type: "text", name: "patient", list: "patients", placeholder: `All ${result.patients_found} ${result.people}`, value: result.patient?.name ?? "", oninput: look, onchange: take, autocomplete: "off", spellcheck: "false" }), list);
}

function summary(page, result) {
  const total = Math.max(page.total, 1);
  const parts = Object.entries(result.fates).map(([fate, words]) => [fate, words, page.fates[fate]]);
  return h("div", { class: "tally" },
    h("div", { class: "tally-bar", "aria-hidden": "true" }, parts.map(([fate, , n]) => h("i", { class: fate, style: { width: `${(100 * n) / total}%` } }))),
    h("p", { class: "quiet" }, h("b", {}, `${page.total} ${page.total === 1 ? "case" : "cases"}`), parts.map(([fate, words, n]) => h("span", { class: `tally-word ${fate}` }, `${words}: ${n}`))));
}
