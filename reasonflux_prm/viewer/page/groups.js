// Problems with several candidates: all of them as dots, and one of them side by side in rank order.

/** Candidates that stand side by side before the reader asks for the rest. */
const LANES = 24;
const problems = { order: "file", cursor: 0, shown: [] };
const ORDERS = {
  file: { label: "Order of the file", key: (group) => group.index },
  spread: { label: "Widest spread of rewards", key: (group) => -spreadOf(group) },
  missed: { label: "Best candidate wrong, a right one exists", key: (group) => (missedRight(group) ? 0 : 1) },
  hard: { label: "Fewest right candidates", key: (group) => (group.known ? group.right / group.known : 2) },
};

const rewardsOf = (group) => present(group.ranked.map((row) => row.reward));
const chosenOf = (group) => group.pick ?? (group.ranked[0].reward === null ? null : group.ranked[0]);
const missedRight = (group) => chosenOf(group)?.correct === false && group.right > 0;

function spreadOf(group) {
  const rewards = rewardsOf(group);
  return rewards.length ? Math.max(...rewards) - Math.min(...rewards) : -1;
}

/** Candidates on one line: full is right, hollow is wrong, the ring is the pick. */
function dots(group, [low, high]) {
  const width = 320;
  const x = (v) => 8 + ((v - low) / (high - low || 1)) * (width - 16);
  const drawing = s(
    "svg",
    {
      class: "dots",
      viewBox: `0 0 ${width} 24`,
      width: "100%",
      height: 24,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `rewards from ${fmt(Math.min(...rewardsOf(group)))} to ${fmt(Math.max(...rewardsOf(group)))}`,
    },
    s("line", { class: "axis", x1: 4, x2: width - 4, y1: 12, y2: 12 }),
  );
  drawing.setAttribute("preserveAspectRatio", "xMidYMid meet");
  for (const row of group.ranked.slice().reverse()) {
    if (row.reward === null) continue;
    const tone = row.correct === null ? "var(--faint)" : row.correct ? "var(--right)" : "var(--wrong)";
    const dot = s("circle", { class: row.correct === false ? "open" : "", cx: x(row.reward), cy: 12, r: 5 });
    dot.style[row.correct === false ? "stroke" : "fill"] = tone;
    drawing.append(dot);
    if (row.pick) drawing.append(s("circle", { class: "chosen", cx: x(row.reward), cy: 12, r: 8.5 }));
  }
  return drawing;
}

function outcome(group) {
  const chosen = chosenOf(group);
  if (!chosen) return h("span", { class: "soft" }, "no reward");
  return h("span", {}, h("span", { class: "soft" }, group.pick ? "pick " : "best "), verdict(chosen.correct));
}

function groupRow(group, position, range) {
  return h(
    "div",
    {
      class: "row",
      role: "row",
      "aria-rowindex": position + 2,
      "aria-selected": String(position === problems.cursor),
      click: (event) => {
        problems.cursor = position;
        if (!event.target.closest("a")) go(`#/problem/${group.index}`);
      },
    },
    h(
      "span",
      { class: "c-name", role: "gridcell" },
      h("a", { class: "name", href: `#/problem/${group.index}` }, group.problem || group.name),
      h("span", { class: "id" }, group.name),
    ),
    h("span", { class: "c-n soft small", role: "gridcell" }, count(group.ranked.length, "candidate")),
    h(
      "span",
      { class: "c-right soft small", role: "gridcell" },
      group.known ? `${group.right} of ${group.known} right` : "–",
    ),
    h("span", { class: "c-pick small", role: "gridcell" }, outcome(group)),
    h(
      "span",
      { class: "c-plot", role: "gridcell" },
      rewardsOf(group).length ? dots(group, range) : h("span", { class: "soft small" }, "no rewards"),
    ),
  );
}

/** In how many problems the pick is right, next to what chance and a perfect choice would give. */
function pickSummary(groups) {
  const judged = groups.filter((group) => group.known === group.ranked.length && chosenOf(group));
  if (!judged.length) return null;
  const share = (x) => `${((100 * x) / judged.length).toFixed(1)}%`;
  const right = judged.filter((group) => chosenOf(group).correct).length;
  const chance = judged.reduce((sum, group) => sum + group.right / group.known, 0);
  const oracle = judged.filter((group) => group.right > 0).length;
  return h(
    "dl",
    { class: "facts" },
    fact(groups.some((group) => group.pick) ? "Pick is right" : "Best reward is right", share(right)),
    fact("One at random", share(chance)),
    fact("Any candidate right", share(oracle)),
    fact("Problems with every verdict known", judged.length.toLocaleString("en")),
  );
}

function groupsView(main) {
  if (!report.groups.length) return missing(main, "No trace in this report belongs to a group.");
  let [low, high] = [Infinity, -Infinity];
  for (const group of report.groups)
    for (const v of rewardsOf(group)) [low, high] = [Math.min(low, v), Math.max(high, v)];
  const body = h("div", { class: "body", role: "rowgroup" });
  const head = h(
    "div",
    { class: "head small soft", role: "row" },
    ["Problem", "Candidates", "Verdicts", "Choice", `Rewards, ${fmt(low, 2)} to ${fmt(high, 2)}`].map((text) =>
      h("span", { role: "columnheader" }, text),
    ),
  );
  const grid = h("div", { class: "grid groups", role: "grid", "aria-label": "Problems" }, head, body);
  const arrangeGroups = () => {
    const { key } = ORDERS[problems.order];
    problems.shown = report.groups.slice().sort((a, b) => key(a) - key(b) || a.index - b.index);
  };
  arrangeGroups();
  const rows = virtualList(
    grid,
    body,
    () => problems.shown,
    (group, position) => groupRow(group, position, [low, high]),
  );
  const select = h(
    "select",
    {
      "aria-label": "Order of the problems",
      change: (event) => {
        problems.order = event.target.value;
        problems.cursor = 0;
        arrangeGroups();
        rows.paint();
      },
    },
    Object.entries(ORDERS).map(([name, order]) =>
      h("option", { value: name, selected: problems.order === name }, order.label),
    ),
  );
  const key = h(
    "span",
    { class: "soft small" },
    "Dots: full is right, hollow is wrong, grey is not known; a ring is the pick.",
  );
  main.replaceChildren(
    h("h1", {}, "Problems"),
    h("p", { class: "soft" }, `${count(report.groups.length, "problem")}, their candidates ranked by reward.`),
    pickSummary(report.groups),
    h("div", { class: "lanes-head" }, key, select),
    grid,
  );
  rows.paint();
  if (problems.cursor) rows.reveal(problems.cursor);
  const move = (by) => {
    problems.cursor = clamp(problems.cursor + by, 0, problems.shown.length - 1);
    rows.reveal(problems.cursor);
  };
  return {
    next: () => move(1),
    previous: () => move(-1),
    open: () => go(`#/problem/${problems.shown[problems.cursor].index}`),
    escape: () => go(list.hash),
  };
}

function lane(row, rank, texts) {
  const chart = h("div", { class: "curve" });
  const blocks = (pieces) =>
    pieces.map(([text, index]) =>
      stepBlock(row, text, index, texts, () => go(`#/trace/${row.index}?step=${index + 1}`)),
    );
  const thinking = h(
    "details",
    {
      toggle: (event) => {
        if (event.target.open && !event.target.querySelector(".step"))
          event.target.append(...blocks(texts.thinking).filter(Boolean));
      },
    },
    h("summary", {}, `Thinking, ${count(row.thinking, "step")}`),
  );
  const node = h(
    "section",
    { class: "lane" + (row.pick ? " picked" : ""), "aria-label": `Rank ${rank}: ${row.id}`, tabindex: -1 },
    h(
      "header",
      {},
      h(
        "div",
        { class: "first" },
        h("span", { class: "rank" }, `Rank ${rank}`),
        row.pick && h("span", { class: "badge pick" }, "pick"),
        h("span", { class: "small" }, verdict(row.correct)),
        h("span", { class: "big" }, row.good ? fmt(row.reward) : "–"),
      ),
      h(
        "div",
        { class: "second" },
        h("a", { href: `#/trace/${row.index}`, title: row.id }, row.id),
        h("span", { class: "ell", title: row.policy }, row.policy ?? ""),
      ),
      row.good
        ? chart
        : h("p", { class: "small mark wrong" }, `Not ${words().done}: ${statusText(row)}. ${texts.note ?? ""}`),
    ),
    h(
      "div",
      { class: "text" },
      texts.thinking.length > 0 && thinking,
      h("h3", {}, texts.response.length ? "Response" : "There is no response."),
      h("div", { role: "list" }, blocks(texts.response)),
    ),
  );
  return { node, chart, row };
}

async function groupView(main, params, number) {
  const group = report.groups[number];
  if (!group) return missing(main, "There is no such problem in this report.");
  const { problem } = await textsOf(group.ranked[0]);
  let cursor = -1;
  let lanes = [];
  let most = LANES;
  const track = h("div", { class: "lanes", tabindex: 0, role: "group", "aria-label": "Candidates, best first" });
  const legendAt = h("div", {});
  const more = h(
    "button",
    {
      type: "button",
      class: "plain",
      click: () => {
        most = Infinity;
        draw();
      },
    },
    "Show all candidates",
  );
  const draw = async () => {
    const shown = group.ranked.filter((row, k) => k < most || row.pick);
    const texts = await Promise.all(shown.map(textsOf));
    lanes = shown.map((row, k) => lane(row, group.ranked.indexOf(row) + 1, texts[k]));
    track.replaceChildren(...lanes.map(({ node }) => node));
    more.hidden = shown.length === group.ranked.length;
    for (const { chart, row } of lanes) if (row.good) curve(chart, row, { height: 54, labels: false });
    legendAt.replaceChildren(legend(draw));
  };
  const chosen = chosenOf(group);
  const says =
    `${count(group.ranked.length, "candidate")}, ${group.known ? `${group.right} of ${group.known} right` : "verdicts not known"}` +
    (group.pick ? `; the pick is rank ${group.ranked.indexOf(chosen) + 1}` : "");
  main.replaceChildren(
    h(
      "div",
      { class: "path" },
      h("a", { href: "#/groups" }, "← All problems"),
      h(
        "span",
        { class: "turns" },
        group.index > 0 && h("a", { href: `#/problem/${group.index - 1}` }, "Previous"),
        group.index + 1 < report.groups.length && h("a", { href: `#/problem/${group.index + 1}` }, "Next"),
      ),
    ),
    h("p", { class: "problem" }, problem),
    h("div", { class: "lanes-head" }, h("p", { class: "soft", role: "status" }, says), legendAt),
    track,
    more,
  );
  await draw();
  const move = (by) => {
    lanes[cursor]?.node.removeAttribute("aria-current");
    cursor = clamp(cursor + by, 0, lanes.length - 1);
    lanes[cursor].node.setAttribute("aria-current", "true");
    lanes[cursor].node.scrollIntoView({ block: "nearest", inline: "nearest", behavior: motion() });
  };
  return {
    next: () => move(1),
    previous: () => move(-1),
    open: () => cursor >= 0 && go(`#/trace/${lanes[cursor].row.index}`),
    escape: () => go("#/groups"),
    right: () => report.groups[number + 1] && go(`#/problem/${number + 1}`),
    left: () => number > 0 && go(`#/problem/${number - 1}`),
  };
}
