// What the keyboard does.

import { h } from "./dom.js";

/** @type {[string, [string, string][]][]} */
const KEYS = [
  ["Everywhere", [["Tab", "next control"], ["?", "these keys"], ["Esc", "close it"]]],
  ["Lists of cases", [["\u2190 \u2191 \u2192 \u2193", "from case to case"], ["Enter", "open it"], ["/", "to the filters"]]],
  ["A case", [["N P", "next and previous case of the list"], ["[ ]", "eps down and up"], ["F", "flicker between slice and attacked slice"], ["C", "cine through the patient's slices"], [", .", "one slice back and on"], ["O", "outline of the lesion"], ["U", "up to the list"]]],
  ["A picture", [["1 to 5", "window presets"], ["\u2190 \u2192", "narrower and wider window"], ["\u2191 \u2193", "level"], ["+ \u2212", "zoom"], ["Shift + arrows", "pan"], ["0", "as at first"]]],
];

export function help() {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("help"));
  const groups = KEYS.map(([title, keys]) => h("div", {}, h("h3", {}, title), h("dl", { class: "keys" }, keys.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)]))));
  dialog.replaceChildren(
    h("h2", { id: "help-title" }, "Keys"),
    h("div", { class: "key-groups" }, groups),
    h("p", { class: "quiet" }, "With the mouse: drag a picture sideways for the width of the window and up or down for its level, turn the wheel to zoom, drag with Shift or the right button to pan. With fingers: one drags the window, two zoom and pan; twice on a picture: as at first."),
    h("form", { method: "dialog" }, h("button", { class: "button" }, "Close")),
  );
  if (!dialog.open) dialog.showModal();
}

/** Whether a key is typed into a field that wants it. */
export function typing(event) {
  const field = event.target.closest("input, textarea, select");
  const moved = field && field.type === "range" && !event.key.startsWith("Arrow");
  return event.ctrlKey || event.metaKey || event.altKey || (field !== null && !moved);
}
