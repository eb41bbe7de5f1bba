// Everything in the folder at a glance.

import { go } from "../app.js";
import { ask } from "../api.js";
import { count, h, put, when } from "../dom.js";
import { checks, intervals, latest, number, told } from "../parts.js";

export async function show(view) {
  const all = await ask("/api/overview");
  view.title = all.folder;
  const every = [...all.results, ...all.cohorts];
  view.synthetic = every.length > 0 && every.every((one) => one.synthetic);
  put(view.root,
    h("div", { class: "head" }, h("p", { class: "kicker" }, "Folder"), h("h1", {}, all.folder),
      h("p", { class: "below" }, counted(all), all.read_only ? " Read only." : null),
      every.length ? null : h("p", { class: "caution" }, "Nothing to see so far. ", h("a", { href: "/jobs" }, "Prepare a cohort"), ", or open a folder that ", h("code", {}, "robustmri demo"), " made.")),
    results(all.results.filter((one) => !one.chosen)), searches(all.results.filter((one) => one.chosen)), runs(all.runs),
    h("div", { class: "parts" }, answers(all.answers), cohorts(all.cohorts), reports(all.reports)), leftOut(all.left_out));
}

function counted(all) {
  const kinds = [["result", all.results], ["run", all.runs], ["cohort", all.cohorts], ["report", all.reports]];
  const said = kinds.filter(([, rows]) => rows.length).map(([kind, rows]) => count(rows.length, kind));
  return said.length ? `${said.join(", ")}.` : "Empty so far.";
}

function part(title, said, ...content) {
  return h("section", { class: "part" }, h("div", { class: "aside" }, h("h2", {}, title), h("p", { class: "quiet" }, said)), h("div", { class: "inner" }, ...content));
}

function results(rows) {
  if (!rows.length) return null;
  const chosen = new Set();
  const button = h("button", { type: "button", class: "button", disabled: true, onclick: () => go(`/compare/${[...chosen].join("/")}`) }, "Compare two");
  const tick = (id) => (event) => {
    event.target.checked ? chosen.add(id) : chosen.delete(id);
    button.disabled = chosen.size !== 2;
    button.textContent = chosen.size === 2 ? "Compare these two" : "Compare two";
  };
  const line = (row) => h("tr", {},
    rows.length > 1 ? h("td", { class: "tick" }, h("input", { type: "checkbox", "aria-label": `Choose ${row.name} to compare`, onchange: tick(row.id) })) : null,
    h("th", { scope: "row" }, h("a", { href: `/results/${row.id}` }, row.name), h("small", {}, `${row.model}, ${row.backbone}`), h("small", { class: "nowrap" }, when(row.when))),
    h("td", {}, h("span", {}, row.test), h("small", {}, row.cohort)),
    number(row.clean, "s1"), h("td", { class: "forest-cell" }, intervals([row.clean, row.worst], [1, 0])), number(row.worst, "s0"),
    h("td", {}, h("span", {}, row.radius || "\u2013"), row.worst_of ? h("small", {}, row.worst_of) : null),
    h("td", {}, checks(row)));
  const head = h("tr", {}, rows.length > 1 ? h("th", { scope: "col" }, h("span", { class: "unseen" }, "Choose")) : null,
    ["Result", "Measured on"].map((name) => h("th", { scope: "col" }, name)),
    h("th", { scope: "col", class: "s1", title: "Share of slices that are named rightly when nobody attacks" }, "Untouched"),
    h("th", { scope: "col", class: "axis" }, h("span", { class: "unseen" }, "Intervals"), h("span", { class: "scale", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, "50"), h("span", {}, "100 %"))),
    h("th", { scope: "col", class: "s0", title: "Share of slices that no attack of this radius fooled" }, "Worst case"),
    h("th", { scope: "col" }, "Change allowed"), h("th", { scope: "col" }, "Checks"));
  const body = h("tbody");
  const earlier = latest(body, rows, line);
  return part("Results", "What was measured on classifiers. Small figures and whiskers: 95 % intervals, by patient.",
    h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, head), body)), earlier,
    rows.length > 1 ? h("p", { class: "actions" }, button) : null);
}

function tiles(rows, line) {
  const list = h("ul", { class: "tiles" });
  const earlier = latest(list, rows, line);
  return [list, earlier];
}

function searches(rows) {
  if (!rows.length) return null;
  return part("Searches", "Attacks on slices that were named. What they found is also shown with each case.", tiles(rows, (row) => h("li", { class: "tile" },
    h("h3", {}, h("a", { href: `/results/${row.id}` }, row.name)), h("p", {}, row.test), h("p", { class: "quiet" }, [row.worst_of, row.radius].filter(Boolean).join(", ")), h("p", { class: "quiet" }, when(row.when)))));
}

function runs(rows) {
  if (!rows.length) return null;
  const line = (row) => h("tr", {}, h("th", { scope: "row" }, row.name, h("small", {}, when(row.when))), row.finished
    ? [h("td", {}, row.objective || (row.imported ? "imported" : "given"), h("small", {}, `${row.backbone}, ${row.size} px`)), h("td", { class: "number" }, row.clean || "\u2013"), h("td", { class: "number" }, row.robust || "\u2013"), h("td", { class: "number" }, row.epoch ?? "\u2013"),
       h("td", {}, row.alarms.length ? told("warn", count(row.alarms.length, "alarm"), row.alarms) : row.checks.length ? selfCheck(row) : h("span", { class: "chip pass" }, "finished"))]
    : [h("td", { colspan: 4, class: "quiet" }, "no checkpoint so far: the same command goes on where it was"), h("td", {}, h("span", { class: "chip warn" }, "not finished"))]);
  const body = h("tbody");
  const earlier = latest(body, rows, line);
  return part("Runs", "Trained classifiers. Accuracies are those on the validation patients that chose the epoch.",
    h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["Run", "Objective", "Untouched", "Under attack", "Epoch kept", "State"].map((name, place) => h("th", { scope: "col", class: place > 1 && place < 5 ? "number" : "" }, name)))), body)), earlier);
}

/** What an imported classifier was found to be. */
function selfCheck(row) {
  const marks = ["fail", "warn"].map((status) => row.checks.filter((check) => check.status === status).length);
  const [kind, words] = marks[0] ? ["fail", `${marks[0]} failed`] : marks[1] ? ["warn", `${marks[1]} to note`] : ["pass", `all ${row.checks.length}`];
  return h("details", { class: "self-check" }, h("summary", {}, h("span", { class: `chip ${kind}` }, words)),
    h("p", { class: "quiet" }, [row.imported, ...row.guessed.map((one) => `Guessed: ${one}`)].join(" ")),
    h("ul", { class: "checks" }, row.checks.map((check) => h("li", {}, h("span", { class: `chip ${check.status}` }, check.status), h("div", {}, h("h3", {}, check.name), h("p", {}, check.detail))))));
}

function answers(rows) {
  if (!rows.length) return null;
  return part("Single slices", "How little it takes to change the answer about one.", tiles(rows, (row) => h("li", { class: "tile" },
    h("h3", {}, h("a", { href: `/answers/${row.id}` }, row.name)), h("p", {}, row.eps ? `${row.answer}, and ${row.nearest} after a change` : `${row.answer}; nothing changed it`),
    h("p", { class: "quiet" }, [row.eps, row.backbone].filter(Boolean).join(", ")), h("p", { class: "quiet" }, when(row.when)))));
}

function cohorts(rows) {
  if (!rows.length) return null;
  return part("Cohorts", "Who was scanned.", tiles(rows, (row) => h("li", { class: "tile" },
    h("h3", {}, row.name), h("p", {}, `${count(row.slices, "slice")} of ${row.patients} ${row.people}`), h("p", { class: "quiet" }, row.classes.join(", ")),
    h("p", { class: "quiet" }, `${row.size} px, ${row.title}${row.left_out ? `, ${row.left_out} left out` : ""}`))));
}

function reports(rows) {
  if (!rows.length) return null;
  return part("Reports", "Pages that need nothing but themselves: to print or to send.", tiles(rows, (row) => h("li", { class: "tile" },
    h("h3", {}, h("a", { href: `/reports/${row.id}`, target: "_blank", rel: "noopener" }, row.name)), h("p", { class: "quiet" }, when(row.when)))));
}

function leftOut(rows) {
  if (!rows.length) return null;
  return part("Left out", "What is here and cannot be shown.", h("ul", { class: "checks" }, rows.map((row) => h("li", {}, h("span", { class: "chip warn" }, "note"), h("div", {}, h("h3", { class: "as-is" }, row.name), h("p", {}, row.why))))));
}
