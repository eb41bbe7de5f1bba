// One case: its picture, and what becomes of the answer as eps grows.

import { go } from "../app.js";
import { address, ask, numbers } from "../api.js";
import { h, put, say } from "../dom.js";
import { typing } from "../keys.js";
import { answer, trail } from "../parts.js";
import { draw } from "../curve.js";
import { PRESETS } from "../pixels.js";
import { searching } from "../search.js";
import { Viewer } from "../viewer.js";

const LIST = ["class", "patient", "fate", "sort"];
const SPEED = 140; // Milliseconds a slice of a cine.

export async function show(view, result, id) {
  const query = Object.fromEntries([...LIST, "beside"].map((name) => [name, view.query.get(name) || ""]));
  const path = `/api/results/${result}/cases/${id}`;
  const one = await ask(address(path, query));
  const listed = Object.fromEntries(LIST.map((name) => [name, query[name]]));
  const other = (to, more = {}) => address(`/results/${result}/${to}`, { ...query, ...more });
  Object.assign(view, { title: one.name, synthetic: one.synthetic });

  const pictures = one.image ? pictured(one, result, other) : null;
  const eps = one.answers.some((row) => row.on_curve && row.eps) ? epsCard(one, view.query, pictures) : null;
  const search = searching({
    fields: one.search, result,
    scopes: [["this slice", { case: id }], ["this patient's slices", { patient: one.patient_id }], ["the whole test set", {}]],
    found: () => go(location.pathname + location.search, { replace: true }),
  });
  put(view.root,
    trail(["Overview", "/"], [one.result_name, address(`/results/${result}`, listed)], [one.name]),
    head(one, other),
    h("div", { class: "case-grid" },
      h("div", { class: "case-pictures" }, pictures ? pictures.root : h("p", { class: "caution" }, "The cohort of this result is not in the folder, and it keeps no picture of this case.")),
      h("div", { class: "case-side" }, eps ? eps.root : null, standing(one), besideChoice(one, other, id))),
    search.root ? h("div", { class: "fold further" }, search.root) : null,
    table(one));
  if (pictures) await pictures.load();
  for (const next of [one.neighbours.after, one.neighbours.before]) if (next && one.cohort_here) numbers(`/api/results/${result}/cases/${next}/slice`, Uint16Array).catch(() => {});

  const does = {
    n: () => one.neighbours.after && go(other(one.neighbours.after)),
    p: () => one.neighbours.before && go(other(one.neighbours.before)),
    u: () => go(address(`/results/${result}`, listed)),
    "[": () => eps?.step(-1),
    "]": () => eps?.step(1),
    f: () => pictures?.flicker(),
    o: () => pictures?.outline(),
    c: () => pictures?.play(),
    ",": () => pictures?.turn(-1),
    ".": () => pictures?.turn(1),
    ...Object.fromEntries(PRESETS.map((_, place) => [String(place + 1), () => pictures?.viewer.preset(place)])),
  };
  const keys = (event) => {
    const act = does[event.key.toLowerCase()];
    if (typing(event) || !act) return;
    event.preventDefault();
    act();
  };
  document.addEventListener("keydown", keys);
  view.leave = () => { document.removeEventListener("keydown", keys); pictures?.close(); search.close(); };
}

function head(one, other) {
  const to = (id, words, key) => (id ? h("a", { class: "button", href: other(id), title: `Key ${key}` }, words) : h("span", { class: "button off", "aria-disabled": "true" }, words));
  const where = one.neighbours;
  return h("div", { class: "case-head" },
    h("div", {}, h("h1", {}, one.name), h("p", { class: "quiet" }, `Patient ${one.patient}${one.plane ? `, ${one.plane}` : ""}. ${one.model}.`)),
    h("p", { class: "truth" }, h("span", { class: "quiet" }, "Truth"), h("b", {}, one.label)),
    h("nav", { class: "turn", "aria-label": "Cases of the list" }, to(where.before, "\u2190 Previous", "P"), h("span", { class: "quiet nowrap" }, where.place ? `${where.place} of ${where.total}` : `not among the ${where.total}`), to(where.after, "Next \u2192", "N")));
}

function pictured(one, result, other) {
  const state = h("span", { class: "quiet reading", "aria-live": "off" });
  const viewer = new Viewer({ width: one.width, height: one.height, channels: one.channels, outline: one.outline, onstate: () => { state.textContent = reading(viewer.state); } });
  const clean = one.answers.find((row) => row.attack === "none");
  const panel = (kind, title, label, below) => h("figure", { class: "panel" }, h("figcaption", { class: "panel-title" }, title), viewer.panel(kind, label), below);
  const first = h("span", {}, "Slice");
  const panels = [panel("slice", first, `Slice with ${one.label}`, clean ? answer(clean.prediction, clean.right, clean.confidence) : null)];
  if (one.change) {
    panels.push(panel("change", "Change, enlarged", `Change by ${one.change.attack}: at most ${one.change.levels} of 255 levels`, changeKey(one, viewer)));
    panels.push(panel("attacked", `Attacked: ${one.change.attack}`, "Attacked slice", [answer(one.change.prediction, one.change.right, one.change.confidence, one.change.radius)]));
  }
  let timer = 0;
  let here = one.slices.findIndex((slice) => slice.id === one.id);
  const name = h("span", { class: "quiet" });
  const open = h("a", { class: "quiet" }, "open this slice");
  const slider = h("input", { type: "range", min: 0, max: one.slices.length - 1, value: here, "aria-label": "Slice of the patient", oninput: (event) => at(Number(event.target.value)) });
  const playing = h("button", { type: "button", class: "button", "aria-pressed": "false", title: "Key C", onclick: () => play() }, "Cine");
  const flickering = one.change ? h("button", { type: "button", class: "button", "aria-pressed": "false", title: "Key F", onclick: () => flicker() }, "Flicker") : null;
  const outlining = one.outline ? h("button", { type: "button", class: "button", "aria-pressed": "true", title: "Key O", onclick: () => outline() }, "Outline") : null;
  let blink = 0;

  const source = (id) => `/api/results/${result}/cases/${id}/slice`;
  async function at(place) {
    here = place;
    slider.value = String(place);
    const slice = one.slices[place];
    const away = elsewhere();
    name.textContent = `${slice.name} (${place + 1} of ${one.slices.length})`;
    slider.setAttribute("aria-valuetext", slice.name);
    open.hidden = !away;
    open.href = other(slice.id);
    first.textContent = away ? "Another slice of the patient" : viewer.attackedFirst ? "Attacked" : "Slice";
    const values = await numbers(source(slice.id), Uint16Array);
    if (here !== place) return;
    if (away) viewer.attackedFirst = false;
    viewer.outlined = !away && (!outlining || outlining.getAttribute("aria-pressed") === "true");
    viewer.show("slice", values, 65535);
  }
  /** Whether another slice of the patient is shown, which this one's outline and attack are not of. */
  function elsewhere() {
    return one.slices.length > 1 && one.slices[here].id !== one.id;
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    playing.setAttribute("aria-pressed", "false");
  }
  function play() {
    if (timer || one.slices.length < 2) return stop();
    playing.setAttribute("aria-pressed", "true");
    timer = setInterval(() => at((here + 1) % one.slices.length), SPEED);
  }
  function flicker() {
    if (!flickering || elsewhere()) return;
    const on = !blink;
    clearInterval(blink);
    blink = on ? setInterval(() => elsewhere() || swap(!viewer.attackedFirst), 350) : 0;
    flickering.setAttribute("aria-pressed", String(on));
    swap(on);
  }
  function swap(attacked) {
    viewer.attackedFirst = attacked;
    first.textContent = attacked ? "Attacked" : "Slice";
    viewer.draw();
  }
  function outline() {
    if (!outlining || elsewhere()) return;
    viewer.outlined = !viewer.outlined;
    outlining.setAttribute("aria-pressed", String(viewer.outlined));
    viewer.draw();
  }
  const presets = h("div", { class: "buttons", role: "group", "aria-label": "Window" }, PRESETS.map(([title], place) => h("button", { type: "button", class: "button", title: `Key ${place + 1}`, onclick: () => viewer.preset(place) }, title)), h("button", { type: "button", class: "button", title: "Key 0", onclick: () => viewer.reset() }, "Reset"));
  state.textContent = reading(viewer.state);
  const root = h("div", {},
    h("div", { class: `panels of-${panels.length}` }, panels),
    h("div", { class: "tools" }, presets, h("div", { class: "buttons" }, flickering, outlining), state),
    one.slices.length > 1 ? h("div", { class: "tools cine" }, playing, slider, name, open) : null);
  return {
    root, viewer, play, flicker, outline,
    turn: (step) => at((here + step + one.slices.length) % one.slices.length),
    async load() {
      const [values, change] = await Promise.all([numbers(source(one.id), Uint16Array), one.change ? numbers(`/api/results/${one.change.result}/cases/${one.id}/change`, Float32Array) : null]);
      viewer.setSlice(values, change);
      if (one.slices.length > 1) at(here);
    },
    close() { stop(); clearInterval(blink); viewer.close(); },
  };
}

function changeKey(one, viewer) {
  const low = h("span", {});
  const high = h("span", {});
  const label = () => {
    const most = Math.round((10 * one.change.levels) / viewer.amplify) / 10;
    low.textContent = `\u2212${most}`;
    high.textContent = `+${most}`;
  };
  label();
  return h("div", { class: "change-key" },
    h("div", { class: one.channels === 3 ? "ramp by-channel" : "ramp" }, low, h("i", { "aria-hidden": "true" }), high, h("span", { class: "quiet" }, one.channels === 3 ? "levels of each channel" : "grey levels")),
    h("label", { class: "quiet" }, "Stronger ", h("input", { type: "range", min: 0, max: 4, step: 0.1, value: 0, "aria-label": "Amplification of the change", oninput: (event) => { viewer.amplify = 2 ** Number(event.target.value); label(); viewer.draw(); } })));
}

function reading(state) {
  return `level ${Math.round(255 * state.level)}, width ${Math.round(255 * state.width)}, zoom ${state.zoom.toFixed(1)}\u00d7`;
}

function lineOf(answers, attack, name, place) {
  const points = answers.filter((row) => row.on_curve && (row.attack === attack || row.attack === "none"))
    .map((row) => ({ eps: row.eps, value: row.label_confidence, right: row.right, answer: row.prediction, confidence: row.confidence, radius: row.radius, perPixel: row.per_pixel, words: `${row.radius || "untouched"}: ${row.prediction} ${row.confidence}` }));
  return { name, place, points };
}

function epsCard(one, query, pictures) {
  const attacks = new Map(one.answers.filter((row) => row.on_curve && row.eps).map((row) => [row.attack, row.title]));
  const radii = (attack) => new Set(one.answers.filter((row) => row.on_curve && row.attack === attack).map((row) => row.eps)).size;
  let attack = attacks.has(query.get("attack")) ? query.get("attack") : [...attacks.keys()].reduce((best, name) => (radii(name) > radii(best) || (radii(name) === radii(best) && name === one.main_attack) ? name : best));
  const root = h("section", { class: "eps-card", "aria-label": "Move eps" });
  let line;
  let beside;
  let curve;
  let here = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let writing;
  const slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "eps", class: "eps-slider", oninput: (event) => move(Number(event.target.value)) });
  const track = h("div", { class: "eps-track" });
  const said = h("div", { class: "eps-said", "aria-live": "polite" });

  function build() {
    line = lineOf(one.answers, attack, one.model, one.beside ? 0 : 1);
    beside = one.beside ? lineOf(one.beside.answers, attack, one.beside.model, 1) : null;
    curve = draw(beside ? [line, beside] : [line], { perPixel: line.points.some((point) => point.perPixel), classes: one.classes });
    slider.max = String(line.points.length - 1);
    const flip = line.points.findIndex((point) => !point.right);
    track.replaceChildren(...line.points.map((point, place) => h("i", { class: `${point.right ? "right" : "wrong"}${place === flip ? " flip" : ""}`, style: { left: `${(100 * place) / Math.max(line.points.length - 1, 1)}%` } })));
    const first = line.points.findIndex((point) => point.eps === one.main_eps);
    const at = query.get("eps") === null ? first : line.points.findIndex((point) => String(point.eps) === query.get("eps"));
    move(at < 0 ? line.points.length - 1 : at);
    root.replaceChildren(
      h("div", { class: "eps-head" }, h("h2", { title: "The most that a pixel, or the whole slice, may change" }, "Move eps"),
        attacks.size > 1 ? h("label", { class: "quiet" }, "under ", h("select", { "aria-label": "Attack", onchange: (event) => { attack = event.target.value; remember("attack", attack); build(); } }, [...attacks].map(([name, title]) => h("option", { value: name, selected: name === attack }, title)))) : null),
      said, h("div", { class: "eps-move" }, track, slider), flipSaid(flip), curve.drawing);
  }
  function flipSaid(flip) {
    if (flip < 0) return h("p", { class: "quiet" }, "The answer holds at every eps that was tried.");
    if (!flip) return h("p", { class: "quiet" }, "Wrong already when nobody attacks.");
    return h("p", { class: "quiet" }, "The answer flips between ", h("b", {}, line.points[flip - 1].radius || "untouched"), " and ", h("b", {}, line.points[flip].radius), ".");
  }
  function move(place) {
    here = Math.max(0, Math.min(line.points.length - 1, place));
    const point = line.points[here];
    slider.value = String(here);
    slider.setAttribute("aria-valuetext", point.words);
    const row = (name, spot) => h("div", { class: "eps-answer" }, beside ? h("span", { class: `key-dot ${name.place ? "s1" : "s0"}` }, name.name) : null, spot ? answer(spot.answer, spot.right, spot.confidence) : h("p", { class: "quiet" }, "not tried"));
    said.replaceChildren(h("p", { class: "eps-value" }, point.radius || "Untouched"), row(line, point), ...(beside ? [row(beside, beside.points.find((spot) => spot.eps === point.eps))] : []));
    curve.moveTo(point.eps);
    remember("eps", String(point.eps));
  }
  function remember(name, value) {
    query.set(name, value);
    clearTimeout(writing);
    writing = setTimeout(() => { if (root.isConnected) history.replaceState(null, "", `${location.pathname}?${query}`); }, 250);
  }
  build();
  return { root, step: (by) => { move(here + by); say(line.points[here].words); } };
}

function standing(one) {
  if (one.of < 2 || !one.clean_right) return null;
  const share = Math.round((100 * one.less_fragile) / (one.of - 1));
  return h("p", { class: "quiet" }, `More fragile than ${share} % of the ${one.of} slices of this result.`, one.smallest ? ` The smallest eps that is known to fool it: ${one.smallest}.` : "");
}

function besideChoice(one, other, id) {
  if (!one.others.length) return null;
  return h("label", { class: "quiet beside" }, "Beside ", h("select", { onchange: (event) => go(other(id, { beside: event.target.value })) }, h("option", { value: "" }, "no other result"), one.others.map((result) => h("option", { value: result.id, selected: one.beside?.result === result.id }, `${result.name} (${result.model})`))));
}

function table(one) {
  const key = (row) => `${row.attack} ${row.radius}`;
  const others = new Map((one.beside?.answers || []).map((row) => [key(row), row]));
  const cell = (row) => (row ? h("td", {}, answer(row.prediction, row.right, row.confidence), row.right ? null : h("small", { class: "quiet" }, `${row.label_words} for ${one.label}`)) : h("td", { class: "quiet" }, "\u2013"));
  let before = "";
  const rows = one.answers.map((row) => {
    const first = row.title !== before;
    before = row.title;
    return h("tr", { class: row.attack === "worst" ? "worst" : "" }, h("th", { scope: "row", title: one.about[row.attack] ?? null }, first ? row.title : h("span", { class: "unseen" }, row.title)), h("td", { class: "nowrap" }, row.radius || "\u2013"), cell(row), one.beside ? cell(others.get(key(row))) : null);
  });
  return h("section", { class: "part wide" }, h("h2", {}, "Under every attack and eps"), h("div", { class: "scroll" }, h("table", { class: "list answers" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Attack"), h("th", { scope: "col" }, "Radius"), h("th", { scope: "col", class: one.beside ? "s0" : "" }, one.beside ? `${one.result_name}: ${one.model}` : "Answer"), one.beside ? h("th", { scope: "col", class: "s1" }, `${one.beside.result_name}: ${one.beside.model}`) : null)),
    h("tbody", {}, rows))));
}
