// The model, its metrics with their protocols, and the licences of the software in the page.
import { meta, text } from "./blobs.js";
import { fixed, h } from "./ui.js";

const list = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const whole = (n) => (n ?? 0).toLocaleString("en");

function facts() {
  const run = meta.run, splits = ["train", "valid", "test"].filter((name) => run.n?.[name]).map((name) => `${whole(run.n[name])} ${name}`);
  const choices = Object.entries(run.arguments ?? {}).map(([name, value]) => ` --${name.replaceAll("_", "-")} ${value}`);
  return list([
    ["Data", `${run.data}: ${splits.join(", ")}`],
    ["Recipe", `${run.recipe ?? "custom model"}${choices.join("")}`],
    ["Trained", `${whole(run.steps)} steps in ${fixed((run.seconds ?? 0) / 60, 1)} minutes, ${run.state}`],
    ["Parameters", whole(run.parameters)],
    ["Observation", run.observation],
    ["In this page", `${whole(meta.limits.points)} examples (${whole(meta.points.test)} of the test set), ${meta.precision} weights`],
    ["Created", `${meta.made} with vaekit ${run.vaekit}`],
  ]);
}

function protocol(entries = {}) {
  const short = (v) => (typeof v === "string" && v.length === 64 ? v.slice(0, 10) : typeof v === "object" ? JSON.stringify(v) : String(v));
  return Object.entries(entries).filter(([, v]) => v !== null && v !== undefined).map(([name, v]) => `${name} ${short(v)}`).join(", ");
}

function metrics() {
  const value = (m) => fixed(m.value, Math.abs(m.value) < 10 ? 3 : 2) + (m.se ? ` ± ${fixed(m.se, m.se < 0.1 ? 3 : 2)}` : "");
  const head = ["metric", "value ± standard error", "unit", "protocol"].map((name) => h("th", { scope: "col" }, name));
  const rows = meta.metrics.map((m) => h("tr", {}, h("th", { scope: "row" }, m.name), h("td", {}, value(m)), h("td", {}, m.unit ?? ""),
    h("td", { class: "muted" }, protocol(m.protocol))));
  return h("div", { class: "table-wrap" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

const UNMEASURED = "This run has not been evaluated yet. To see its metrics here, run vaekit evaluate RUN and then vaekit explore RUN.";

/** The licence of the runtime; the notices of its parts are unpacked when it is opened. */
function licence() {
  const notices = h("pre", { class: "licence" }, meta.runtime.licence);
  let complete = false;
  const unfold = async (event) => {
    if (!event.target.open || complete) return;
    complete = true;
    notices.textContent += `\n\n${await text("ThirdPartyNotices.txt")}`;
  };
  return h("details", { ontoggle: unfold }, h("summary", {}, `${meta.runtime.name} ${meta.runtime.version}: licence and notices`), notices);
}

export function build(place) {
  place.append(facts());
  if (meta.metrics.length) place.append(h("h3", {}, "Metrics"), metrics());
  else place.append(h("p", { class: "muted" }, UNMEASURED));
  place.append(h("h3", {}, "Graphs in this page"),
    list(Object.entries(meta.graphs).map(([name, graph]) => [name, graph.says ?? `not included: ${graph.why}`])), licence());
}
