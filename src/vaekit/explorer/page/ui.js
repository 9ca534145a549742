// Elements from a few words. Text is always text: nothing that comes from data is read as HTML.

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

/** A row of buttons of which one is pressed; `choose(value)` is told. Returns the element, with `.set(value)`. */
export function choices(label, options, value, choose) {
  const buttons = options.map(([v, text]) =>
    h("button", { type: "button", role: "radio", "aria-checked": String(v === value), "data-value": v, onclick: () => (element.set(v), choose(v)) }, text));
  const element = h("div", { class: "choices", role: "radiogroup", "aria-label": label }, buttons);
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

export const said = (value, digits = 2) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−");

/** Calls f once things have been quiet for `ms`. */
export function settled(f, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...given), ms);
  };
}

let announcer = null;
/** Words for screen readers, and for a moment at the foot of the page. */
export function tell(words) {
  announcer ??= document.getElementById("told");
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
  tell("Copied.");
}
