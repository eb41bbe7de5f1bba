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
 * Values through a window, as a radiologist sets it; the three channels of a colour through the same.
 * @param {ArrayLike<number>} values 0 to `white`; of colours red, green and blue of each pixel
 * @param {Uint8ClampedArray} out four bytes a pixel
 * @param {1|3} channels
 */
export function paintSlice(values, white, level, width, out, channels) {
  const scale = 255 / Math.max(width, 1e-4);
  const low = level - width / 2;
  for (let place = 0, at = 0; place < values.length; place += channels, at += 4) {
    for (let k = 0; k < 3; k += 1) out[at + k] = (values[place + (channels === 3 ? k : 0)] / white - low) * scale;
    out[at + 3] = 255;
  }
}

/** A change; `largest` has the full colour. Of colours each channel around grey. */
export function paintChange(values, largest, out, channels) {
  if (channels === 3) {
    for (let place = 0, at = 0; place < values.length; place += 3, at += 4) {
      for (let k = 0; k < 3; k += 1) out[at + k] = 127.5 * (1 + values[place + k] / largest);
      out[at + 3] = 255;
    }
    return;
  }
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
