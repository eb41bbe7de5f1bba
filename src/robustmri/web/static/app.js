// Which view an address shows, and moving between them.

import { h, say } from "./dom.js";
import { help } from "./keys.js";

/** @type {[RegExp, string][]} */
const VIEWS = [
  [/^\/$/, "./views/overview.js"],
  [/^\/jobs$/, "./views/jobs.js"],
  [/^\/results\/([0-9a-f]+)$/, "./views/result.js"],
  [/^\/results\/([0-9a-f]+)\/([0-9a-f]+)$/, "./views/case.js"],
  [/^\/answers\/([0-9a-f]+)$/, "./views/answer.js"],
  [/^\/compare\/([0-9a-f]+)\/([0-9a-f]+)$/, "./views/compare.js"],
];
const main = /** @type {HTMLElement} */ (document.getElementById("main"));
let leave = () => {};
let turn = 0;

/** Show another address; `replace` keeps the history as it is. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  return show();
}

async function show() {
  const here = ++turn;
  const [pattern, file] = VIEWS.find(([one]) => one.test(location.pathname)) || [/()/, ""];
  document.querySelectorAll(".bar nav a").forEach((/** @type {any} */ link) => {
    const current = new URL(link.href).pathname === location.pathname;
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  });
  leave();
  leave = () => {};
  const view = { root: h("div", { class: "view" }), query: new URLSearchParams(location.search), title: "Workbench", leave() {}, synthetic: null };
  main.setAttribute("aria-busy", "true");
  try {
    if (!file) throw new Error("There is nothing at this address.");
    const module = await import(file);
    await module.show(view, ...(pattern.exec(location.pathname) ?? []).slice(1));
  } catch (error) {
    view.root.replaceChildren(h("div", { class: "withheld", role: "alert" }, h("h1", {}, "This cannot be shown"), h("p", { class: "below" }, error.message), h("p", {}, h("a", { href: "/" }, "To the overview"))));
  }
  if (here !== turn) return view.leave();
  leave = () => view.leave();
  mark(view.synthetic);
  main.replaceChildren(view.root);
  main.removeAttribute("aria-busy");
  document.title = `${view.title} \u00b7 workbench`;
  say(view.title);
  main.focus({ preventScroll: true });
  if (!view.keepsPlace) scrollTo({ top: 0, behavior: "instant" });
}

function mark(synthetic) {
  const place = /** @type {HTMLElement} */ (document.getElementById("banner"));
  const said = h("p", {}, h("strong", {}, "Synthetic phantom."), " Every image here was computed; none shows a person. The numbers say nothing about patients.");
  place.className = synthetic ? "banner synthetic" : "";
  place.replaceChildren(...(synthetic ? [said] : []));
}

document.addEventListener("click", (event) => {
  const link = /** @type {HTMLAnchorElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("a[href]"));
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.target || link.origin !== location.origin || link.hash || link.pathname.startsWith("/reports/")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener("popstate", show);
// What is folded is of no use on paper.
addEventListener("beforeprint", () => main.querySelectorAll("details").forEach((one) => { one.open = true; }));
document.getElementById("keys")?.addEventListener("click", help);
document.addEventListener("keydown", (event) => {
  const field = /** @type {HTMLElement} */ (event.target);
  if (event.key === "?" && !field.closest("input, textarea, select")) help();
});
show();
