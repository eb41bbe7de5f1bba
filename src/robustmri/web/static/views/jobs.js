// Jobs: what runs, what waits, what ended; and what can be started.

import { ask, send } from "../api.js";
import { h, put, say, when } from "../dom.js";
import { trail } from "../parts.js";

const CHIPS = { waiting: "warn", running: "run", done: "pass", failed: "fail", cancelled: "warn", stopped: "warn" };

export async function show(view) {
  const [{ forms, things }, first] = await Promise.all([ask("/api/forms"), ask("/api/jobs")]);
  view.title = "Jobs";
  const list = h("ul", { class: "jobs" });
  const lines = new Map();
  let open = view.query.get("job");
  let timer = 0;
  const log = h("pre", { class: "log", tabindex: 0, "aria-label": "Log" });

  async function refresh(all) {
    all = all || (await ask("/api/jobs"));
    const order = all.jobs.map((job) => {
      const text = JSON.stringify([job, open === job.id, all.made[job.id]]);
      if (lines.get(job.id)?.text !== text) lines.set(job.id, { text, line: entry(job, all) });
      return lines.get(job.id).line;
    });
    // Only what changed: whoever reads or has the focus there is not disturbed.
    if (!list.children.length || (order.length && order.length !== list.children.length) || order.some((line, place) => list.children[place] !== line)) {
      const focus = document.activeElement?.getAttribute("data-key");
      list.replaceChildren(...(order.length ? order : [h("li", { class: "quiet" }, "No job so far.")]));
      if (focus) list.querySelector(`[data-key="${focus}"]`)?.focus();
    }
    if (open) await showLog();
  }
  async function showLog() {
    const one = await ask(`/api/jobs/${open}`).catch((error) => ({ log: error.message }));
    const end = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (log.textContent !== one.log) log.textContent = one.log || "It has said nothing so far.";
    if (end) log.scrollTop = log.scrollHeight;
  }
  function entry(job, all) {
    const act = (what, words) => h("button", { type: "button", class: "button", "data-key": `${job.id}-${what}`, onclick: async () => { await send(`/api/jobs/${job.id}/${what}`).catch((error) => say(error.message)); await refresh(); } }, words);
    const buttons = all.read_only ? [] : [["waiting", "running"].includes(job.state) ? act("cancel", "Cancel") : null, ["cancelled", "stopped"].includes(job.state) ? act("again", "Go on") : null, job.state === "failed" ? act("again", "Try again") : null];
    const share = job.state === "done" ? 1 : job.total ? job.done / job.total : 0;
    const shown = open === job.id;
    return h("li", { class: `job ${job.state}` },
      h("div", { class: "job-head" }, h("span", { class: `chip ${CHIPS[job.state]}` }, all.states[job.state].split(";")[0]), h("h3", {}, all.made[job.id] ? h("a", { href: all.made[job.id], target: all.made[job.id].startsWith("/reports") ? "_blank" : null }, job.title) : job.title), h("span", { class: "quiet" }, job.ended ? `ended ${when(job.ended)}` : job.started ? `since ${when(job.started)}` : `asked ${when(job.asked)}`), h("div", { class: "buttons" }, buttons, h("button", { type: "button", class: "button", "data-key": `${job.id}-log`, "aria-expanded": String(shown), onclick: () => { open = shown ? null : job.id; refresh(); } }, shown ? "Hide log" : "Log"))),
      job.total || job.state === "done" ? h("div", { class: "progress", role: "progressbar", "aria-label": job.title, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * share) }, h("i", { style: { width: `${100 * share}%` } })) : null,
      job.task && job.state !== "done" ? h("p", { class: "quiet" }, `${job.task}: ${job.done} of ${job.total}${job.note ? `, ${job.note}` : ""}`) : null,
      shown ? log : null);
  }
  const form = first.read_only ? h("p", { class: "caution" }, "Read only: nothing can be started here.") : starter(forms, things, async (job) => { open = null; say(`${job.title} is in the queue`); await refresh(); });
  put(view.root, trail(["Overview", "/"], ["Jobs"]), h("div", { class: "head slim" }, h("p", { class: "kicker" }, "Jobs"), h("h1", {}, "Start what is next, and watch it"), h("p", { class: "below" }, "One runs at a time. It goes on when this page, or the server, is closed; what was stopped goes on where it was.")),
    h("div", { class: "jobs-grid" }, h("section", { class: "starter", "aria-label": "Start" }, form), h("section", { "aria-label": "Jobs" }, list)));
  await refresh(first);
  const beat = async () => {
    if (!document.hidden) await refresh().catch((error) => say(error.message));
    timer = setTimeout(beat, 1000);
  };
  timer = setTimeout(beat, 1000);
  view.leave = () => clearTimeout(timer);
}

function starter(forms, things, started) {
  const body = h("div", {});
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "What to start" }, forms.map((form) => h("button", { type: "button", class: "tab", onclick: () => choose(form) }, form.title)));
  function choose(form) {
    [...tabs.children].forEach((tab, place) => tab.setAttribute("aria-pressed", String(forms[place] === form)));
    body.replaceChildren(draw(form, things, started));
  }
  const next = things.cohort.length ? (things.run.length ? "evaluate" : "train") : "prepare";
  choose(forms.find((form) => form.verb === next));
  return h("div", {}, tabs, body);
}

function draw(form, things, started) {
  const error = h("p", { class: "refused", role: "alert" });
  const needed = form.fields.filter((field) => ["thing", "things", "out"].includes(field.what) || field.name === "recipe");
  const rest = form.fields.filter((field) => !needed.includes(field));
  const send_ = async (event) => {
    event.preventDefault();
    error.textContent = "";
    const data = new FormData(event.target);
    const answers = {};
    for (const field of form.fields) answers[field.name] = field.what === "things" ? data.getAll(field.name) : field.what === "switch" ? data.has(field.name) : data.get(field.name) || "";
    try {
      await started(await send("/api/jobs", { verb: form.verb, answers }));
    } catch (problem) {
      error.textContent = problem.message;
    }
  };
  return h("form", { class: "job-form", onsubmit: send_, autocomplete: "off" }, h("p", { class: "quiet" }, form.about), needed.map((field) => control(field, things)),
    rest.length ? h("details", { open: rest.length < 3 }, h("summary", {}, "Settings"), h("div", { class: "settings" }, rest.map((field) => control(field, things)))) : null,
    error, h("p", {}, h("button", { class: "button strong" }, form.title)));
}

function control(field, things) {
  const id = `field-${field.name}`;
  const about = field.help ? h("small", { id: `${id}-about` }, field.help) : null;
  const common = { id, name: field.name, "aria-describedby": about ? `${id}-about` : null };
  const options = (list) => list.map((one) => h("option", { value: one.id }, one.name));
  if (field.what === "switch") return h("label", { class: "switch" }, h("input", { ...common, type: "checkbox" }), field.label, about);
  if (field.what === "things") {
    const list = things[field.kind];
    return h("fieldset", {}, h("legend", {}, field.label), list.length ? list.map((one) => h("label", { class: "switch" }, h("input", { type: "checkbox", name: field.name, value: one.id }), one.name)) : h("p", { class: "quiet" }, "None in this folder so far."));
  }
  const input = field.what === "thing" ? h("select", common, things[field.kind].length ? options(things[field.kind]) : h("option", { value: "" }, "none in this folder so far"))
    : field.what === "choice" ? h("select", common, Object.entries(field.choices).map(([value, words]) => h("option", { value, selected: value === field.default }, words)))
    : h("input", { ...common, type: field.what === "number" ? "number" : "text", step: "any", min: 0, value: field.default, spellcheck: "false" });
  return h("div", { class: "field" }, h("label", { for: id }, field.label), input, about);
}
