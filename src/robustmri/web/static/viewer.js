// Pictures side by side that share window, zoom and place.

import { h } from "./dom.js";
import { add, paintChange, paintSlice, PRESETS } from "./pixels.js";

const WHITE = 65535;
const FIRST = { level: 0.5, width: 1, zoom: 1, x: 0, y: 0 };
let held = { ...FIRST };

/**
 * A slice, and the change and the attacked slice where there are.
 * @param {{width: number, height: number, channels: 1|3, outline: string, onstate?: () => void}} options
 */
export class Viewer {
  constructor({ width, height, channels, outline, onstate = () => {} }) {
    this.width = width;
    this.height = height;
    this.channels = channels;
    this.size = Math.max(width, height);
    this.outline = outline ? new Path2D(outline) : null;
    this.outlined = true;
    this.attackedFirst = false;
    this.amplify = 1;
    this.onstate = onstate;
    this.state = held;
    this.panels = new Map();
    this.pending = 0;
    this.watch = new ResizeObserver(() => this.draw());
  }

  /** A canvas that shows `kind`: slice, change or attacked. */
  panel(kind, label) {
    const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": label, class: "picture" });
    const small = new OffscreenCanvas(this.width, this.height);
    this.panels.set(kind, { canvas, small, data: new ImageData(this.width, this.height), values: null, white: WHITE });
    this.listen(canvas);
    this.watch.observe(canvas);
    return canvas;
  }

  setSlice(values, change) {
    this.show("slice", values, WHITE);
    if (!change) return;
    this.largest = change.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1 / 255);
    this.show("change", change, 1);
    this.show("attacked", add(values, WHITE, change), 1);
  }

  show(kind, values, white) {
    const panel = this.panels.get(kind);
    if (!panel) return;
    Object.assign(panel, { values, white });
    this.draw();
  }

  /** Draw with the next frame, however often it is asked for. */
  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => this.panels.forEach((panel, kind) => this.paint(kind, panel)));
  }

  paint(kind, panel) {
    const from = kind === "slice" && this.attackedFirst && this.panels.get("attacked")?.values ? this.panels.get("attacked") : panel;
    const { canvas, small, data } = panel;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!from.values || !side) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    if (kind === "change") paintChange(from.values, this.largest / this.amplify, data.data, this.channels);
    else paintSlice(from.values, from.white, this.state.level, this.state.width, data.data, this.channels);
    small.getContext("2d").putImageData(data, 0, 0);
    const context = canvas.getContext("2d");
    const scale = (side / this.size) * this.state.zoom;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    context.setTransform(scale, 0, 0, scale, this.state.x * side, this.state.y * side);
    // An oblong picture lies in the middle of its square.
    context.translate((this.size - this.width) / 2, (this.size - this.height) / 2);
    context.imageSmoothingEnabled = scale < 12 * devicePixelRatio;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0);
    if (this.outline && this.outlined) {
      context.lineWidth = (1.7 * devicePixelRatio) / scale;
      context.strokeStyle = "#ff453a";
      context.lineJoin = "round";
      context.stroke(this.outline);
    }
  }

  set(changes) {
    Object.assign(this.state, changes);
    const { zoom } = this.state;
    for (const axis of ["x", "y"]) this.state[axis] = Math.min(0, Math.max(1 - zoom, this.state[axis]));
    this.draw();
    this.onstate();
  }

  reset() {
    this.set(FIRST);
  }

  preset(place) {
    if (PRESETS[place]) this.set({ level: PRESETS[place][1], width: PRESETS[place][2] });
  }

  /** Zoom by a factor around a point, in parts of the picture. */
  zoom(factor, x = 0.5, y = 0.5) {
    const zoom = Math.min(16, Math.max(1, this.state.zoom * factor));
    const grow = zoom / this.state.zoom;
    this.set({ zoom, x: x - (x - this.state.x) * grow, y: y - (y - this.state.y) * grow });
  }

  listen(canvas) {
    const touches = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      touches.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = touches.get(event.pointerId);
      if (!before) return;
      const side = canvas.clientWidth;
      const [dx, dy] = [(event.clientX - before.clientX) / side, (event.clientY - before.clientY) / side];
      if (touches.size === 2) this.pinch(touches, event, canvas);
      else if (event.shiftKey || event.buttons !== 1) this.set({ x: this.state.x + dx, y: this.state.y + dy });
      else this.set({ width: clamp(this.state.width + dx, 0.01, 2), level: clamp(this.state.level + dy, 0, 1) });
      touches.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => touches.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoom(2 ** (-event.deltaY / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  pinch(touches, event, canvas) {
    const other = [...touches.values()].find((one) => one.pointerId !== event.pointerId);
    const before = touches.get(event.pointerId);
    const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const box = canvas.getBoundingClientRect();
    const side = 2 * box.width;
    this.set({ x: this.state.x + (event.clientX - before.clientX) / side, y: this.state.y + (event.clientY - before.clientY) / side });
    this.zoom(far(event) / Math.max(far(before), 1), ((event.clientX + other.clientX) / 2 - box.left) / box.width, ((event.clientY + other.clientY) / 2 - box.top) / box.height);
  }

  key(event) {
    const { state } = this;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrows && event.shiftKey) this.set({ x: state.x - 0.1 * arrows[0], y: state.y - 0.1 * arrows[1] });
    else if (arrows) this.set({ width: clamp(state.width + 0.04 * arrows[0], 0.01, 2), level: clamp(state.level + 0.02 * arrows[1], 0, 1) });
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  close() {
    this.watch.disconnect();
    cancelAnimationFrame(this.pending);
  }
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
