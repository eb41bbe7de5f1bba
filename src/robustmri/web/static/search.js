// A search that no result has stored, asked for where one looks at a case or at a result.

import { send } from "./api.js";
import { h, say } from "./dom.js";
import { control } from "./form.js";
import { listen } from "./live.js";

/** Say how far a job is, until it ends; `done` is called when it ended well. */
export function follow(id, told, error, done) {
  const end = listen((all) => {
    const job = all.jobs.find((one) => one.id === id);
    if (!job) return;
    const far = job.total ? `: ${job.done} of ${job.total}` : "";
    told.replaceChildren(`${all.states[job.state].split(";")[0]}${far}. `, h("a", { href: `/jobs?job=${id}` }, "Its log"));
    if (["waiting", "running"].includes(job.state)) return;
    end();
    if (job.state !== "done") error.textContent = "It did not end well; its log says why.";
    else done();
  });
  return end;
}

/**
 * @param {{fields: any[], result: string, scopes: [string, Record<string, string>][], found: () => void}} options
 *   `scopes`: how a part of the test set is called, and what names it; `found` is called when a search is done.
 */
export function searching({ fields, result, scopes, found }) {
  if (!fields.length) return { root: null, close() {} }; // Read only.
  let end = () => {};
  const error = h("p", { class: "refused", role: "alert" });
  const told = h("p", { class: "quiet", role: "status" });
  const scope = h("select", { id: "search-scope" }, scopes.map(([words], place) => h("option", { value: place }, words)));
  const start = async (event) => {
    event.preventDefault();
    error.textContent = "";
    const data = new FormData(event.currentTarget);
    const answers = Object.fromEntries(fields.map((field) => [field.name, data.get(field.name) || ""]));
    try {
      const job = await send("/api/searches", { result, ...scopes[scope.value][1], answers });
      say(`${job.title} is in the queue`);
      end();
      end = follow(job.id, told, error, found);
    } catch (problem) {
      error.textContent = problem.message;
    }
  };
  const root = h("details", { class: "searching" }, h("summary", {}, "Search further"),
    h("form", { class: "job-form", onsubmit: start, autocomplete: "off" },
      h("p", { class: "quiet" }, "Attack with other settings, as a job; what it finds is shown here."),
      h("div", { class: "settings" }, h("div", { class: "field" }, h("label", { for: "search-scope" }, "On"), scope), fields.map((field) => control(field, {}, error))),
      error, told, h("p", {}, h("button", { class: "button strong" }, "Search"))));
  return { root, close: () => end() };
}
