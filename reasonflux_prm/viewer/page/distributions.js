// How rewards are spread: one histogram a category, laid over each other, and the numbers behind them.

const HUES = [
  ["#1f6f9f", "#6db3dc"],
  ["#b5382a", "#ec8a6c"],
  ["#8a6d00", "#dcb84a"],
  ["#5b4b9a", "#a99be6"],
  ["#2f7d5b", "#6cc3a0"],
  ["#9c4f7c", "#e29cc6"],
];
const MEASURES = {
  reward: { label: () => words().overall, of: (row) => (row.reward === null ? [] : [row.reward]), unit: "trace" },
  trajectory: {
    label: () => words().trajectory,
    of: (row) => (row.trajectory === null ? [] : [row.trajectory]),
    unit: "trace",
  },
  steps: { label: () => words().steps[0].toUpperCase() + words().steps.slice(1), of: (row) => present(row.steps), unit: "step" },
  thinking: { label: "Thinking steps", of: (row) => present(row.steps.slice(0, row.thinking)), unit: "step" },
  response: { label: "Response steps", of: (row) => present(row.steps.slice(row.thinking)), unit: "step" },
};
const SPLITS = {
  correct: { label: "Verdict", of: FILTERS.correct.of },
  source: { label: "Source", of: FILTERS.source.of },
  policy: { label: "Policy", of: FILTERS.policy.of },
  outcome: { label: "Kept or dropped", of: (row) => (row.outcome === "kept" ? "kept" : "dropped"), of_chosen: true },
  none: { label: "Nothing", of: () => "all" },
};
const BINS = 40;
/** A category with fewer values is left to the table: its few bars would tower over the others. */
const FEW = 20;
const spread = { measure: "reward", by: "" };

const hue = (name, k) => {
  if (name === "right") return "var(--right)";
  if (name === "wrong") return "var(--wrong)";
  if (name === "unknown" || k >= HUES.length) return "var(--faint)";
  return `light-dark(${HUES[k][0]}, ${HUES[k][1]})`;
};

/** Categories with their sorted values, the largest first; right before wrong. */
function categories() {
  const found = new Map();
  for (const row of list.order) {
    const name = SPLITS[spread.by].of(row);
    if (!found.has(name)) found.set(name, []);
    const values = found.get(name);
    for (const value of MEASURES[spread.measure].of(row)) values.push(value);
  }
  const fixed = ["right", "wrong", "unknown"];
  const order = ([a, x], [b, y]) =>
    spread.by === "correct" ? fixed.indexOf(a) - fixed.indexOf(b) : y.length - x.length;
  return [...found]
    .filter(([, values]) => values.length)
    .sort(order)
    .map(([name, values], k) => ({ name, colour: hue(name, k), values: Float64Array.from(values).sort() }));
}

function binned(values, low, high) {
  const bins = new Array(BINS).fill(0);
  for (const value of values)
    bins[clamp(Math.floor(((value - low) / (high - low)) * BINS), 0, BINS - 1)] += 1 / values.length;
  return bins;
}

/** The chance that a right one has the higher value; a tie counts a half. Both arrays are sorted. */
function auc(right, wrong) {
  let below = 0;
  let tied = 0;
  let sum = 0;
  for (const value of right) {
    while (below < wrong.length && wrong[below] < value) below++;
    tied = Math.max(tied, below);
    while (tied < wrong.length && wrong[tied] === value) tied++;
    sum += below + (tied - below) / 2;
  }
  return sum / (right.length * wrong.length);
}

/** The two categories that an AUC compares: right and wrong, kept and dropped, or the only two there are. */
function rivals(sets) {
  for (const names of [["right", "wrong"], ["kept", "dropped"]]) {
    const found = names.map((name) => sets.find((set) => set.name === name));
    if (found.every(Boolean)) return found;
  }
  return sets.length === 2 && spread.by !== "correct" ? sets : [];
}

function outline(bins, x, y) {
  let path = `M${x(0)} ${y(0)}`;
  bins.forEach((share, i) => {
    path += `L${x(i).toFixed(1)} ${y(share).toFixed(1)}L${x(i + 1).toFixed(1)} ${y(share).toFixed(1)}`;
  });
  return path + `L${x(BINS)} ${y(0)}`;
}

function histogram(host, read, sets, [low, high]) {
  const draw = () => {
    const width = host.clientWidth;
    if (!width) return;
    const height = clamp(width * 0.42, 200, 360);
    const box = { left: 40, right: 8, top: 10, bottom: 26 };
    const top = Math.max(...sets.flatMap((set) => set.bins));
    const x = (i) => box.left + (i / BINS) * (width - box.left - box.right);
    const y = (share) => height - box.bottom - (share / top) * (height - box.top - box.bottom);
    const drawing = s("svg", {
      viewBox: `0 0 ${width} ${height}`,
      height,
      role: "img",
      "aria-label": `Histogram of ${labelOf(MEASURES[spread.measure]).toLowerCase()}; the table below has the numbers`,
    });
    for (const share of [0, top / 2, top]) {
      drawing.append(
        s("line", {
          class: share ? "axis" : "base",
          x1: box.left,
          x2: width - box.right,
          y1: y(share),
          y2: y(share),
        }),
        s("text", { x: box.left - 6, y: y(share) + 4, "text-anchor": "end" }, `${+(share * 100).toFixed(1)}%`),
      );
    }
    for (let tick = 0; tick <= 4; tick++) {
      const anchor = tick === 0 ? "start" : tick === 4 ? "end" : "middle";
      drawing.append(
        s(
          "text",
          { x: x((tick / 4) * BINS), y: height - 7, "text-anchor": anchor },
          fmt(low + ((high - low) * tick) / 4, 2),
        ),
      );
    }
    for (const set of sets) {
      const shape = s("path", { class: "series", d: outline(set.bins, x, y) });
      shape.style.fill = shape.style.stroke = set.colour;
      const middle = x(((quantile(set.values, 0.5) - low) / (high - low)) * BINS);
      const median = s("line", { class: "median", x1: middle, x2: middle, y1: box.top, y2: y(0) });
      median.style.stroke = set.colour;
      drawing.append(shape, median);
    }
    drawing.addEventListener("pointermove", (event) => {
      const at = (event.clientX - drawing.getBoundingClientRect().left - box.left) / (width - box.left - box.right);
      const bin = clamp(Math.floor(at * BINS), 0, BINS - 1);
      const edge = (k) => fmt(low + ((high - low) * k) / BINS, 2);
      read.replaceChildren(
        h("b", {}, `${edge(bin)} to ${edge(bin + 1)}`),
        ...sets.map((set) => ` · ${set.name} ${(set.bins[bin] * 100).toFixed(1)}%`),
      );
    });
    host.replaceChildren(drawing);
  };
  const watcher = new ResizeObserver(draw);
  watcher.observe(host);
  leave(() => watcher.disconnect());
}

function miniature(set) {
  const top = Math.max(...set.bins);
  const x = (i) => (i / BINS) * 170;
  const y = (share) => 29 - (share / top) * 27;
  const shape = s("path", { class: "series", d: outline(set.bins, x, y) });
  shape.style.fill = shape.style.stroke = set.colour;
  return s("svg", { width: 170, height: 30, "aria-hidden": "true" }, shape);
}

function numbersTable(sets) {
  const cells = (set) => [
    set.values.length.toLocaleString("en"),
    ...[mean(set.values), quantile(set.values, 0.5), quantile(set.values, 0.05), quantile(set.values, 0.95)].map(
      (v) => fmt(v),
    ),
  ];
  return h(
    "div",
    { class: "table-wrap", tabindex: 0, role: "region", "aria-label": "Numbers of each category" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          [labelOf(SPLITS[spread.by]), MEASURES[spread.measure].unit + "s", "mean", "median", "5%", "95%", ""].map(
            (text) => h("th", { scope: "col" }, text),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        sets.map((set) =>
          h(
            "tr",
            {},
            h("td", { title: set.name }, h("span", { class: "swatch", "--c": set.colour }), set.name),
            cells(set).map((text) => h("td", {}, text)),
            h("td", { class: "hist" }, miniature(set)),
          ),
        ),
      ),
    ),
  );
}

function distributionsView(main) {
  spread.by ||= report.rows.some((row) => row.correct !== null)
    ? "correct"
    : report.rows.some((row) => row.source)
      ? "source"
      : "policy";
  const body = h("div", {});
  const pick = (key, options, label) =>
    h(
      "label",
      {},
      label,
      h(
        "select",
        {
          "data-choose": key,
          change: (event) => {
            spread[key] = event.target.value;
            draw();
          },
        },
        Object.entries(options)
          .filter(([, option]) => !option.of_chosen || report.rows.some((row) => row.outcome))
          .map(([name, option]) =>
          h("option", { value: name, selected: spread[key] === name }, labelOf(option)),
        ),
      ),
    );
  const draw = () => {
    const sets = categories();
    if (!sets.length) return body.replaceChildren(h("p", { class: "nothing" }, `No trace here has such a ${words().step}.`));
    let low = Math.min(...sets.map((set) => set.values[0]));
    let high = Math.max(...sets.map((set) => set.values.at(-1)));
    if (low >= 0 && high <= 1) [low, high] = [0, 1];
    if (high <= low) [low, high] = [low - 0.5, high + 0.5];
    for (const set of sets) set.bins = binned(set.values, low, high);
    const enough = sets.filter((set) => set.values.length >= FEW);
    const shown = (enough.length ? enough : sets).slice(0, 4);
    const host = h("div", { class: "plot" });
    const read = h(
      "p",
      { class: "read" },
      `Share of each category's ${MEASURES[spread.measure].unit}s; dashed: median.` +
        (shown.length < sets.length ? ` The table has all; drawn are the largest, of at least ${FEW}.` : ""),
    );
    const [right, wrong] = rivals(sets);
    body.replaceChildren(h("div", { class: "panel" }, host, read), numbersTable(sets));
    if (right && wrong) {
      body.append(
        h(
          "p",
          { class: "note" },
          h("b", {}, `AUC ${fmt(auc(right.values, wrong.values))}`),
          ` – the chance that a ${MEASURES[spread.measure].unit} of ${right.name} is above one of ${wrong.name} (${right.values.length.toLocaleString("en")} against ${wrong.values.length.toLocaleString("en")}). 0.5 is no better than chance.`,
        ),
      );
    }
    return histogram(host, read, shown, [low, high]);
  };
  const part = list.order.length !== report.rows.length;
  main.replaceChildren(
    h("h1", {}, "Distributions"),
    h(
      "p",
      { class: "soft" },
      part
        ? `Of the ${count(list.order.length, "trace")} that the list shows. `
        : `Of all ${count(report.rows.length, "trace")}. `,
      h("a", { href: list.hash }, part ? "Change the filters" : "Filter in the list"),
    ),
    h("div", { class: "controls" }, pick("measure", MEASURES, "Show"), pick("by", SPLITS, "by")),
    body,
  );
  draw();
  return { escape: () => go(list.hash) };
}
