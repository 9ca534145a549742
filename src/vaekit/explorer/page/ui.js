// Helpers that make elements. Text stays text: nothing that comes from data is parsed as HTML.

/** h("button", {class: "x", onclick: f, "aria-label": ".."}, "text", child, ...) */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, text);

/** A row of buttons of which one is chosen; calls `choose(value)` on a click. Returns the element, with `.set(value)`. */
export function choices(label, options, value, choose) {
  const buttons = options.map(([v, text]) =>
    h("button", { type: "button", role: "radio", "aria-checked": String(v === value), "data-value": v, onclick: () => pick(v) }, text));
  const element = h("div", { class: "choices", role: "radiogroup", "aria-label": label }, buttons);
  const pick = (v) => {
    element.set(v);
    choose(v);
  };
  element.set = (v) => buttons.forEach((b) => {
    b.setAttribute("aria-checked", String(b.dataset.value === String(v)));
    b.tabIndex = b.dataset.value === String(v) ? 0 : -1;
  });
  element.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], at = buttons.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  element.set(value);
  return element;
}

/** A number with this many digits after the point; a dash if it is unknown. */
export const fixed = (value, digits = 2) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−");

/** A function that calls f after `ms` without another call. */
export function debounced(f, ms) {
  let timer = 0;
  return (...parameters) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...parameters), ms);
  };
}

/** A function that calls f at once, but at most once per `ms`; after calls in between, f is called once more. */
export function paced(f, ms) {
  let timer = 0, again = false;
  const run = () => {
    again = false;
    f();
    timer = setTimeout(() => {
      timer = 0;
      if (again) run();
    }, ms);
  };
  return () => {
    again = true;
    if (!timer) run();
  };
}

/** A function that calls f at the next frame of the screen, once for all calls before it. */
export function framed(f) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      f();
    });
  };
}

/** Milliseconds between two updates of texts and sliders while the code is dragged; the picture follows at every frame. */
export const CALM = 100;

let announcer = null;
/** Show a message at the foot of the page for a moment, and give it to screen readers. */
export function announce(words) {
  announcer ??= document.getElementById("message");
  announcer.textContent = words;
  announcer.classList.add("shown");
  clearTimeout(announcer.timer);
  announcer.timer = setTimeout(() => announcer.classList.remove("shown"), 2600);
}

export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    const area = h("textarea", { class: "off-screen" }, words);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce("Copied.");
}
