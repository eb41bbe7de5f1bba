// A form for each verb: what it needs, what may be given to it, how long it would take.

import { give, send } from "./api.js";
import { h, say } from "./dom.js";

const LONGEST = 60; // Letters of an option.

/**
 * Tabs of forms.
 * @param {any[]} forms
 * @param {Record<string, {id: string, name: string}[]>} things what can be chosen, by kind
 * @param {(job: any) => Promise<void>} started
 * @param {string} [first] verb that is shown at first
 */
export function starter(forms, things, started, first = "") {
  const body = h("div", {});
  const choose = (form) => {
    [...tabs.children].forEach((tab, place) => tab.setAttribute("aria-pressed", String(forms[place] === form)));
    body.replaceChildren(draw(form, things, started));
  };
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "What to start" }, forms.map((form) => h("button", { type: "button", class: "tab", onclick: () => choose(form) }, form.title)));
  const next = things.cohort.length ? (things.run.length ? "evaluate" : "train") : "prepare";
  choose(forms.find((form) => form.verb === (first || next)) ?? forms[0]);
  return h("div", {}, tabs, body);
}

function draw(form, things, started) {
  const error = h("p", { class: "refused", role: "alert" });
  const needed = form.fields.filter((field) => !field.setting);
  const rest = form.fields.filter((field) => field.setting);
  const told = h("p", { class: "quiet", role: "status" });
  const answers = () => {
    const data = new FormData(root);
    const read = (field) => (field.what === "things" ? ticked(root, field.name) : field.what === "switch" ? data.has(field.name) : data.get(field.name) || "");
    return Object.fromEntries(form.fields.map((field) => [field.name, read(field)]));
  };
  const asking = async (path, said, done) => {
    error.textContent = "";
    told.textContent = said;
    try {
      await done(await send(path, { verb: form.verb, answers: answers() }));
    } catch (problem) {
      told.textContent = "";
      error.textContent = problem.message;
    }
  };
  const start = (event) => {
    event.preventDefault();
    return asking("/api/jobs", "", started);
  };
  const estimate = async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    await asking("/api/estimates", "Measuring a few batches \u2026", (answer) => { told.textContent = sentence(answer.words); });
    button.disabled = false;
  };
  const root = h("form", { class: "job-form", onsubmit: start, autocomplete: "off" }, h("p", { class: "quiet" }, form.about), h("div", { class: "settings needed" }, needed.map((field) => control(field, things, error))),
    rest.length ? h("details", { open: rest.length < 3 }, h("summary", {}, "Settings"), h("div", { class: "settings" }, rest.map((field) => control(field, things, error)))) : null,
    error, told, h("p", { class: "buttons" }, h("button", { class: "button strong" }, form.title), form.estimates ? h("button", { type: "button", class: "button", onclick: estimate }, "How long will it take?") : null));
  return root;
}

function sentence(words) {
  return `${words[0].toUpperCase()}${words.slice(1)}.`;
}

/** A field's question and the place for its answer. */
export function control(field, things, error) {
  const id = `field-${field.name}`;
  const about = field.help ? h("small", { id: `${id}-about` }, field.help) : null;
  const common = { id, name: field.name, "aria-describedby": about ? `${id}-about` : null };
  if (field.what === "switch") return h("label", { class: "switch" }, h("input", { ...common, type: "checkbox" }), field.label, about);
  if (field.what === "things") return several(field, things[field.kind]);
  const input = field.what === "thing" ? h("select", common, options(field, things))
    : field.what === "choice" ? choice(field, common, about)
    : h("input", { ...common, type: field.what === "number" ? "number" : "text", step: "any", min: 0, value: field.default, placeholder: field.empty || null, spellcheck: "false" });
  return h("div", { class: "field" }, h("label", { for: id }, field.label), input, field.upload ? uploading(field, input, things, error) : null, about);
}

/** Things in the order in which they were ticked, which stands beside them. */
function several(field, list) {
  const chosen = [];
  const tick = (event) => {
    const box = event.target;
    box.checked ? chosen.push(box) : chosen.splice(chosen.indexOf(box), 1);
    boxes.forEach((one) => { one.place.textContent = one.box.checked && chosen.length > 1 ? `${chosen.indexOf(one.box) + 1}.` : ""; });
    chosen.forEach((one, place) => { one.dataset.place = String(place); });
  };
  const boxes = list.map((one) => ({ one, place: h("b", {}), box: h("input", { type: "checkbox", name: field.name, value: one.id, onchange: tick }) }));
  return h("fieldset", {}, h("legend", {}, field.label), boxes.length ? boxes.map(({ one, place, box }) => h("label", { class: "switch" }, box, place, " ", one.name)) : h("p", { class: "quiet" }, "None in this folder so far."));
}

function ticked(root, name) {
  const boxes = [...root.querySelectorAll(`input[name="${name}"]:checked`)];
  return boxes.sort((one, other) => one.dataset.place - other.dataset.place).map((box) => box.value);
}

/** A choice; of words that are too long for a line, the name stands in it and the rest below. */
function choice(field, common, about) {
  const long = about && Object.values(field.choices).some((words) => words.length > LONGEST);
  const list = Object.entries(field.choices).map(([value, words]) => h("option", { value, selected: value === field.default }, long ? words.split(": ")[0] : words));
  const select = h("select", common, list);
  const tell = () => { about.textContent = `${field.choices[select.value].split(": ").slice(1).join(": ")} ${field.help}`; };
  if (long) {
    select.addEventListener("change", tell);
    tell();
  }
  return select;
}

function options(field, things, chosen = "") {
  const list = things[field.kind];
  const none = field.optional ? "none" : list.length ? "" : "none in this folder so far";
  return [none ? h("option", { value: "" }, none) : null, ...list.map((one) => h("option", { value: one.id, selected: one.id === chosen, "data-uploaded": one.uploaded || null }, one.name))].filter(Boolean);
}

/** A place to drop a file on, or to choose one by, and a way to take it back. */
function uploading(field, select, things, error) {
  const take = async (file) => {
    if (!file) return;
    error.textContent = "";
    place.classList.add("busy");
    try {
      const made = await give(field.kind, file);
      Object.assign(things, made.things);
      select.replaceChildren(...options(field, things, made.id));
      say(`${select.selectedOptions[0].textContent} was received`);
    } catch (problem) {
      error.textContent = problem.message;
    }
    place.classList.remove("busy");
    input.value = "";
    mark();
  };
  const forget = async () => {
    try {
      Object.assign(things, await send("/api/uploads/remove", { kind: field.kind, id: select.value }));
      select.replaceChildren(...options(field, things));
    } catch (problem) {
      error.textContent = problem.message;
    }
    mark();
  };
  const remove = h("button", { type: "button", class: "plain", onclick: forget }, "Remove");
  /** Only what was uploaded can be taken back. */
  const mark = () => { remove.hidden = !select.selectedOptions[0]?.dataset.uploaded; };
  select.addEventListener("change", mark);
  const input = h("input", { type: "file", class: "unseen", id: `field-${field.name}-file`, onchange: (event) => take(event.target.files[0]) });
  const over = (on) => (event) => {
    event.preventDefault();
    place.classList.toggle("over", on);
  };
  const place = h("div", { class: "drop", ondragover: over(true), ondragleave: over(false), ondrop: (event) => { over(false)(event); take(event.dataTransfer.files[0]); } },
    input, h("label", { for: input.id, class: "button" }, "Upload a file"), h("span", { class: "quiet" }, "or drop it here"),
    remove);
  mark();
  return place;
}
