// Data and the few helpers every view uses. All text reaches the page as text nodes; nothing is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";
const STATUS = {
  scored: "scored",
  labelled: "labelled",
  "no-target": "no target",
  "no-steps": "no steps",
  "too-long": "too long",
  "no-room": "no room",
  "not-finite": "not finite",
  "out-of-memory": "out of memory",
  failed: "failed",
};

/** What the numbers of a report are called: a PRM gives rewards, a label has targets. */
const WORDS = {
  scored: {
    overall: "Reward",
    trajectory: "Trajectory reward",
    column: "Trajectory",
    step: "reward",
    steps: "step rewards",
    mean: "Mean step reward",
    done: "scored",
    without: "without a reward",
    scale: "Colours of the step rewards",
  },
  labels: {
    overall: "Mean target",
    trajectory: "Trajectory target",
    column: "Trajectory",
    step: "target",
    steps: "targets",
    mean: "Mean target",
    done: "labelled",
    without: "without a target",
    scale: "Colours of the targets",
  },
};
const words = () => WORDS[report.summary.kind];

/** All that the views share. A row is one trace without its words; words come in blocks, on demand. */
const report = { rows: [], blocks: [], summary: null, groups: [], scale: null };

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element. Attributes that are functions are listeners, names that start with -- are custom properties. */
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const mean = (values) => (values.length ? values.reduce((sum, x) => sum + x, 0) / values.length : null);
const present = (values) => values.filter((x) => x !== null);

/** A reward as it is printed everywhere: three decimals, a true minus sign, a dash where there is none. */
function fmt(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  const text = size !== 0 && (size >= 10000 || size < 0.0005) ? size.toExponential(1) : size.toFixed(digits);
  return (x < 0 && Number(text) !== 0 ? "−" : "") + text;
}

function verdict(correct) {
  if (correct === true) return h("span", { class: "mark right" }, "✓ right");
  if (correct === false) return h("span", { class: "mark wrong" }, "✗ wrong");
  return h("span", { class: "mark unknown" }, "not known");
}

const statusText = (row) => STATUS[row.status] ?? row.status;

async function unpack(node) {
  const packed = node.textContent;
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(packed);
  else {
    const raw = atob(packed);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

/** Read what lists and charts need of all traces. */
async function readRows() {
  const nodes = (kind) => [...document.querySelectorAll(`script[data-kind="${kind}"]`)];
  const [summary, ...blocks] = await Promise.all([...nodes("summary"), ...nodes("rows")].map(unpack));
  report.summary = summary;
  report.blocks = nodes("texts").map((node) => ({ node, first: 0, texts: null }));
  blocks.forEach((columns, block) => {
    const names = Object.keys(columns);
    report.blocks[block].first = report.rows.length;
    for (let i = 0; i < columns.id.length; i++) {
      const row = { index: report.rows.length, block };
      for (const name of names) row[name] = columns[name][i];
      report.rows.push(row);
    }
  });
  report.groups = groupRows(report.rows);
}

/** Candidates of one problem, best first; a candidate without a reward goes last. */
function groupRows(rows) {
  const byName = new Map();
  for (const row of rows) {
    if (row.group === null) continue;
    if (!byName.has(row.group)) byName.set(row.group, []);
    byName.get(row.group).push(row);
  }
  return [...byName].map(([name, members], index) => {
    const ranked = members
      .slice()
      .sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || a.index - b.index);
    for (const row of members) row.groupIndex = index;
    return {
      index,
      name,
      ranked,
      problem: members[0].problem,
      pick: ranked.find((row) => row.pick) ?? null,
      right: members.filter((row) => row.correct === true).length,
      known: members.filter((row) => row.correct !== null).length,
    };
  });
}

const unpacked = [];

/** The words of one trace. The last few blocks are kept, so stepping through neighbours does not unpack again. */
async function textsOf(row) {
  const block = report.blocks[row.block];
  if (!block.texts) {
    block.texts = unpack(block.node);
    unpacked.push(block);
    if (unpacked.length > 8) unpacked.shift().texts = null;
  }
  return (await block.texts)[row.index - block.first];
}

/** One named number in a row of them. */
const fact = (name, value, lesser = false) =>
  h("div", { class: lesser && "lesser" }, h("dt", {}, name), h("dd", {}, value));

const motion = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");
