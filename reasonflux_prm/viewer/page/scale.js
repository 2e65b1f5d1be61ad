// Reward to colour: brick, orange, gold, teal, blue. The ends differ in more than red against green, so they stay apart
// with any colour blindness.

const ANCHORS = [
  [176, 52, 38],
  [222, 124, 60],
  [224, 188, 78],
  [104, 172, 168],
  [28, 104, 156],
];
const COLOURS = Array.from({ length: 65 }, (_, i) => {
  const at = (i / 64) * (ANCHORS.length - 1);
  const low = Math.min(ANCHORS.length - 2, Math.floor(at));
  return `rgb(${ANCHORS[low].map((c, k) => Math.round(c + (ANCHORS[low + 1][k] - c) * (at - low))).join(" ")})`;
});

function quantile(sorted, q) {
  if (!sorted.length) return null;
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

/** The range of all step rewards in the file, whole and with a twentieth cut at each end. */
function measureScale(rows) {
  let n = 0;
  for (const row of rows) for (const reward of row.steps) if (reward !== null) n++;
  const all = new Float64Array(n);
  n = 0;
  for (const row of rows) for (const reward of row.steps) if (reward !== null) all[n++] = reward;
  all.sort();
  if (!all.length) return null;
  const unit = all[0] >= 0 && all[all.length - 1] <= 1;
  return {
    unit,
    full: unit ? [0, 1] : [all[0], all[all.length - 1]],
    clipped: [quantile(all, 0.05), quantile(all, 0.95)],
    mode: unit ? "full" : "clipped",
  };
}

/** The two rewards that get the ends of the colour scale. */
const ends = () => report.scale[report.scale.mode];

function colour(reward) {
  const [low, high] = ends();
  const at = high > low ? clamp((reward - low) / (high - low), 0, 1) : 0.5;
  return COLOURS[Math.round(at * 64)];
}

/** All steps of a trace as one thin band; the gap is where the response begins. */
function strip(row, bins = 90) {
  const n = row.steps.length;
  if (!n || !present(row.steps).length) {
    return h("span", { class: "strip empty", role: "img", "aria-label": `no ${words().steps}` });
  }
  const cells = Math.min(n, bins);
  const split = row.thinking > 0 && row.thinking < n ? Math.round((row.thinking / n) * cells) : -1;
  const stops = [];
  for (let i = 0; i < cells; i++) {
    const part = present(
      row.steps.slice(Math.floor((i * n) / cells), Math.max(Math.floor(((i + 1) * n) / cells), 1)),
    );
    const paint = part.length ? colour(mean(part)) : "var(--none)";
    const edge = (k) => ((k / cells) * 100).toFixed(2);
    const start =
      i === split ? `transparent calc(${edge(i)}% + 3px), ${paint} calc(${edge(i)}% + 3px)` : `${paint} ${edge(i)}%`;
    if (i === split) stops.push(`transparent ${edge(i)}%`);
    stops.push(start, `${paint} ${edge(i + 1)}%`);
  }
  const band = h("span", {
    class: "strip",
    role: "img",
    "aria-label": `${words().steps}, mean ${fmt(mean(present(row.steps)))}`,
  });
  band.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  return band;
}

/** What the colours mean, with a switch between the whole range and the range of most steps. */
function legend(changed) {
  if (!report.scale) {
    return h(
      "div",
      { class: "legend" },
      h("span", { class: "ends" }, h("span", { class: "gap" }), `no ${words().steps} in this report`),
    );
  }
  const ramp = h("span", { class: "ramp" });
  ramp.style.background = `linear-gradient(90deg, ${[0, 16, 32, 48, 64].map((i) => COLOURS[i]).join(", ")})`;
  const { mode, unit } = report.scale;
  const [low, high] = ends();
  const clipped = mode === "clipped";
  const button = (name, text, title) =>
    h(
      "button",
      {
        type: "button",
        "aria-pressed": String(mode === name),
        title,
        click: () => {
          report.scale.mode = name;
          changed();
        },
      },
      text,
    );
  return h(
    "div",
    { class: "legend", "aria-label": words().scale },
    h("span", { class: "ends" }, clipped ? `≤ ${fmt(low)}` : fmt(low), ramp, clipped ? `≥ ${fmt(high)}` : fmt(high)),
    h("span", { class: "ends" }, h("span", { class: "gap" }), `no ${words().step}`),
    h(
      "span",
      { class: "choice", role: "group", "aria-label": "Range of the colours" },
      button("full", unit ? "0 to 1" : "whole range", `Colours span every ${words().step} that can be or was seen`),
      button(
        "clipped",
        "5–95% of steps",
        `Colours span the middle nine tenths of the ${words().steps} in this report; the rest is clipped`,
      ),
    ),
  );
}
