// The model, its metrics with their protocols, and the licences of what the page is built on.
import { meta, text } from "./blobs.js";
import { fixed, h } from "./ui.js";

export function build(place) {
  const r = meta.run, n = r.n ?? {};
  const facts = [
    ["Data", `${r.data}: ${["train", "valid", "test"].filter((k) => n[k]).map((k) => `${n[k].toLocaleString("en")} ${k}`).join(", ")}`],
    ["Recipe", `${r.recipe ?? "custom model"}${Object.entries(r.arguments ?? {}).map(([k, v]) => ` --${k.replaceAll("_", "-")} ${v}`).join("")}`],
    ["Trained", `${(r.steps ?? 0).toLocaleString("en")} steps in ${fixed((r.seconds ?? 0) / 60, 1)} minutes, ${r.state}`],
    ["Parameters", (r.parameters ?? 0).toLocaleString("en")],
    ["Observation", r.observation],
    ["In this page", `${meta.limits.points.toLocaleString("en")} examples (${meta.points.test.toLocaleString("en")} of the test set), ${meta.precision} weights`],
    ["Created", `${meta.made} with vaekit ${r.vaekit}`],
  ];
  place.append(h("dl", { class: "facts" }, facts.map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
  if (meta.metrics.length) {
    const rows = meta.metrics.map((m) => h("tr", {}, h("th", { scope: "row" }, m.name), h("td", {}, `${fixed(m.value, Math.abs(m.value) < 10 ? 3 : 2)}${m.se ? ` ± ${fixed(m.se, m.se < 0.1 ? 3 : 2)}` : ""}`), h("td", {}, m.unit ?? ""), h("td", { class: "muted" }, protocol(m.protocol))));
    place.append(h("h3", {}, "Metrics"), h("div", { class: "table-wrap" }, h("table", {}, h("thead", {}, h("tr", {}, ["metric", "value ± standard error", "unit", "protocol"].map((t) => h("th", { scope: "col" }, t)))), h("tbody", {}, rows))));
  } else place.append(h("p", { class: "muted" }, "This run has not been evaluated yet. To see its metrics here, run vaekit evaluate RUN and then vaekit explore RUN."));
  place.append(h("h3", {}, "Graphs in this page"), h("dl", { class: "facts" }, Object.entries(meta.graphs).map(([name, g]) => [h("dt", {}, name), h("dd", {}, g.says ?? `not included: ${g.why}`)])));
  const notices = h("pre", { class: "licence" }, meta.runtime.licence);
  place.append(h("details", { ontoggle: async (e) => {
    if (e.target.open && !notices.dataset.whole) {
      notices.dataset.whole = "1";
      notices.textContent += `\n\n${await text("ThirdPartyNotices.txt")}`;
    }
  } }, h("summary", {}, `${meta.runtime.name} ${meta.runtime.version}: licence and notices`), notices));
}

function protocol(p = {}) {
  const short = (v) => (typeof v === "string" && v.length === 64 ? v.slice(0, 10) : typeof v === "object" ? JSON.stringify(v) : String(v));
  return Object.entries(p).filter(([, v]) => v !== null && v !== undefined).map(([k, v]) => `${k} ${short(v)}`).join(", ");
}
