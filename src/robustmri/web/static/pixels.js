// From numbers to pixels: window and level, and a signed change in two colours.

export const PRESETS = [
  ["Full range", 0.5, 1],
  ["Soft tissue", 0.35, 0.5],
  ["Narrow", 0.4, 0.25],
  ["Dark parts", 0.15, 0.3],
  ["Bright parts", 0.75, 0.5],
];

// Blue for darker, orange for brighter, black for no change: told apart by every kind of colour vision.
const DARKER = [86, 180, 255];
const BRIGHTER = [255, 164, 56];

/**
 * Grey values through a window, as a radiologist sets it.
 * @param {ArrayLike<number>} values 0 to `white`
 * @param {Uint8ClampedArray} out four bytes a pixel
 */
export function paintGrey(values, white, level, width, out) {
  const scale = 255 / Math.max(width, 1e-4);
  const low = level - width / 2;
  for (let place = 0, at = 0; place < values.length; place += 1, at += 4) {
    const grey = (values[place] / white - low) * scale;
    out[at] = grey;
    out[at + 1] = grey;
    out[at + 2] = grey;
    out[at + 3] = 255;
  }
}

/** A change; `largest` has the full colour. */
export function paintChange(values, largest, out) {
  for (let place = 0, at = 0; place < values.length; place += 1, at += 4) {
    const share = Math.max(-1, Math.min(1, values[place] / largest));
    const colour = share < 0 ? DARKER : BRIGHTER;
    const much = Math.abs(share);
    out[at] = colour[0] * much;
    out[at + 1] = colour[1] * much;
    out[at + 2] = colour[2] * much;
    out[at + 3] = 255;
  }
}

/** Slice and change together, on the slice's scale. */
export function add(values, white, change) {
  const sum = new Float32Array(values.length);
  for (let place = 0; place < sum.length; place += 1) sum[place] = values[place] / white + change[place];
  return sum;
}
