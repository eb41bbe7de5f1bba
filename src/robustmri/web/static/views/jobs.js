// Jobs: what runs, what waits, what ended; and what can be started.

import { ask, send } from "../api.js";
import { h, put, say, when } from "../dom.js";
import { starter } from "../form.js";
import { listen } from "../live.js";
import { trail } from "../parts.js";

const CHIPS = { waiting: "warn", running: "run", done: "pass", failed: "fail", cancelled: "warn", stopped: "warn" };

export async function show(view) {
  const [{ forms, things }, first] = await Promise.all([ask("/api/forms"), ask("/api/jobs")]);
  view.title = "Jobs";
  const list = h("ul", { class: "jobs" });
  const lines = new Map();
  let open = view.query.get("job");
  let latest = first;
  const log = h("pre", { class: "log", tabindex: 0, role: "log", "aria-label": "Log" });

  const lost = h("p", { class: "caution", role: "status", hidden: true }, "The server does not answer. Jobs go on; this page looks for it.");

  async function refresh(all = latest) {
    latest = all;
    const order = all.jobs.map((job) => {
      const text = JSON.stringify([job, open === job.id, all.made[job.id]]);
      if (lines.get(job.id)?.text !== text) lines.set(job.id, { text, line: entry(job, all) });
      return lines.get(job.id).line;
    });
    // Only what changed: whoever reads or has the focus there is not disturbed.
    if (!list.children.length || (order.length && order.length !== list.children.length) || order.some((line, place) => list.children[place] !== line)) {
      const [focus, read] = [document.activeElement?.getAttribute("data-key"), log.scrollTop];
      list.replaceChildren(...(order.length ? order : [h("li", { class: "quiet" }, "No job so far.")]));
      if (focus) list.querySelector(`[data-key="${focus}"]`)?.focus();
      log.scrollTop = read; // What is moved is scrolled to its top.
    }
    if (open) await showLog();
  }
  let shownLog = "";
  async function showLog() {
    const said = `${open} ${latest.jobs.find((job) => job.id === open)?.said}`;
    if (said === shownLog) return;
    shownLog = said;
    const one = await ask(`/api/jobs/${open}`).catch((error) => ({ log: error.message }));
    const end = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const text = one.log || "It has said nothing so far.";
    if (log.textContent !== text) log.textContent = text;
    if (end) log.scrollTop = log.scrollHeight;
  }
  function entry(job, all) {
    const act = (what, words) => h("button", { type: "button", class: "button", "data-key": `${job.id}-${what}`, onclick: async () => { await send(`/api/jobs/${job.id}/${what}`).catch((error) => say(error.message)); await refresh(await ask("/api/jobs")); } }, words);
    const buttons = all.read_only ? [] : [["waiting", "running"].includes(job.state) ? act("cancel", "Cancel") : null, ["cancelled", "stopped"].includes(job.state) ? act("again", "Go on") : null, job.state === "failed" ? act("again", "Try again") : null];
    const share = job.state === "done" ? 1 : job.total ? job.done / job.total : 0;
    const shown = open === job.id;
    return h("li", { class: `job ${job.state}` },
      h("div", { class: "job-head" }, h("span", { class: `chip ${CHIPS[job.state]}` }, all.states[job.state].split(";")[0]), h("h2", { class: "job-title" }, all.made[job.id] ? h("a", { href: all.made[job.id], target: all.made[job.id].startsWith("/reports") ? "_blank" : null }, job.title) : job.title), h("span", { class: "quiet" }, job.ended ? `ended ${when(job.ended)}` : job.started ? `since ${when(job.started)}` : `asked ${when(job.asked)}`), h("div", { class: "buttons" }, buttons, h("button", { type: "button", class: "button", "data-key": `${job.id}-log`, "aria-expanded": String(shown), onclick: () => { open = shown ? null : job.id; refresh(); } }, shown ? "Hide log" : "Log"))),
      job.total || job.state === "done" ? h("div", { class: "progress", role: "progressbar", "aria-label": job.title, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * share) }, h("i", { style: { width: `${100 * share}%` } })) : null,
      job.why ? h("p", { class: "refused" }, job.why) : null,
      job.task && job.state !== "done" ? h("p", { class: "quiet" }, far(job)) : null,
      shown ? log : null);
  }
  /** How far it is; what was left is of use while it runs. */
  function far(job) {
    const note = job.note && job.state === "running" ? `, ${job.note}` : "";
    return `${job.task[0].toUpperCase()}${job.task.slice(1)}: ${job.done} of ${job.total}${note}`;
  }
  const form = first.read_only ? h("p", { class: "caution" }, "Read only: nothing can be started here.") : starter(forms, things, async (job) => { open = null; say(`${job.title} is in the queue`); await refresh(await ask("/api/jobs")); }, view.query.get("start") || "");
  put(view.root, trail(["Overview", "/"], ["Jobs"]), h("div", { class: "head slim" }, h("p", { class: "kicker" }, "Jobs"), h("h1", {}, first.read_only ? "What runs, and what ended" : "Start what is next, and watch it"), h("p", { class: "below" }, "One runs at a time. It goes on when this page, or the server, is closed; what was stopped goes on where it was.")),
    h("div", { class: "jobs-grid" }, h("section", { class: "starter", "aria-label": "Start" }, form), h("section", { "aria-label": "Jobs" }, lost, list)));
  await refresh(first);
  view.leave = listen((all) => refresh(all).catch((error) => say(error.message)), (broken) => { lost.hidden = !broken; });
}
