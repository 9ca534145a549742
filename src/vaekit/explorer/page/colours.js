// Colours that people with any kind of colour vision can distinguish, on light and dark backgrounds.

// after Okabe and Ito (2008) and Tol's muted set, ordered so that neighbours differ in lightness too
const LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc3311", "#56b4e9", "#aa3377", "#7a5c12", "#4b5560", "#332288", "#a8b400", "#ee88bb", "#117766"];
const DARK = ["#3d9be0", "#f5b83d", "#2fce9f", "#ff7057", "#a5dcff", "#e27ab5", "#b58f45", "#c3ccd4", "#9d8df1", "#dbe36b", "#ffc2dd", "#5fb8a8"];

export const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

export function category(i) {
  const set = dark() ? DARK : LIGHT;
  return rgb(set[i % set.length]);
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

// stops of a sequence that rises evenly in lightness (like viridis, Smith and van der Walt 2015)
const SEQUENCE = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

/** A colour of the sequence, t in [0, 1]. */
export function sequence(t) {
  if (Number.isNaN(t)) return [128, 128, 128];
  const at = Math.min(1, Math.max(0, t)) * (SEQUENCE.length - 1), i = Math.min(SEQUENCE.length - 2, Math.floor(at)), f = at - i;
  return SEQUENCE[i].map((v, k) => Math.round(v + f * (SEQUENCE[i + 1][k] - v)));
}

/** Blue below zero, the background at zero, orange above, t in [-1, 1]. */
export function diverging(t) {
  const to = t < 0 ? [0, 114, 178] : [213, 94, 0], from = dark() ? [27, 32, 38] : [255, 255, 255], s = Math.min(1, Math.abs(t));
  return from.map((v, k) => Math.round(v + s * (to[k] - v)));
}
