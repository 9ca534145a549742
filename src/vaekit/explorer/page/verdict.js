// The verdict on how typical the current code, or the reader's own example, is of the data.
import { whereabouts } from "./data.js";
import { state } from "./state.js";
import { fixed } from "./ui.js";

/** The verdict on the reader's own example: its code may be typical though the example is unlike the data. */
function onExample({ share, by }, away) {
  if (share === null) {
    return { away, title: "Your example.", start: `Its code is ${away ? "far from" : "among"} the codes of the data: ` };
  }
  if (share < 0.01) {
    const examples = share > 0 ? "99 % of the examples" : "all examples";
    return { away: true, title: "Unlike the data.", start: `Its ${by} is worse than that of ${examples} here. Its code: ` };
  }
  const title = away ? "Far from the data." : "Like the data.";
  return { away, title, start: `${Math.round(100 * share)} % of the examples here have a worse ${by}. Its code: ` };
}

/** {away: whether it is unusual, title, text}. */
export function verdict() {
  const { away, share, density, range } = whereabouts(state.z);
  const judged = state.own ? onExample(state.own, away) : { away, title: away ? "Far from the data." : "Typical code.", start: "" };
  const near = share >= 0.995 ? "farther from the mean code than 99.5 % of the examples" : `${Math.round(100 * share)} % of the examples are closer to the mean code`;
  const usual = density === null ? "" : `; log p(z) = ${fixed(density, 1)} nats (98 % of prior samples: ${range.map((v) => fixed(v, 0)).join(" to ")})`;
  return { away: judged.away, title: judged.title, text: `${judged.start}${near}${usual}.` };
}
