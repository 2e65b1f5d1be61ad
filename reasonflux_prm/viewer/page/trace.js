// One trace: its problem, every step in its colour, thinking and response apart, and the curve beside them.

/** Terms by name, each with its raw value, or the reason why it has none; of one that has, what there is to say. */
const termTable = (terms) =>
  h(
    "table",
    { class: "term-table" },
    h(
      "tbody",
      {},
      terms.map(([name, value, reason]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          h("td", { class: "num" }, fmt(value)),
          h("td", { class: "reason" }, reason),
        ),
      ),
    ),
  );

/** The terms of a step; drawn when they are first opened, because a trace may have thousands of steps. */
function termDetails(terms) {
  if (!terms?.length) return null;
  const known = terms.filter(([, value]) => value !== null).length;
  return h(
    "details",
    {
      class: "terms",
      toggle: (event) => {
        if (event.target.open && !event.target.querySelector("table")) event.target.append(termTable(terms));
      },
    },
    h("summary", {}, `${known} of ${count(terms.length, "term")}`),
  );
}

/** A step of the text; `index` -1 is text that belongs to no step. */
function stepBlock(row, text, index, texts, focus) {
  const shown = text.replace(/^\s*\n|\s+$/g, "");
  const body = h("div", { class: "words" }, shown || h("span", { class: "space" }, "white space only"));
  if (index < 0) {
    return text.trim()
      ? h("div", { class: "step blank loose" }, h("div", { class: "value" }, "–", h("small", {}, "no step")), body)
      : null;
  }
  const label = texts.labels[index];
  const reward = row.steps[index];
  const truth =
    label === null || label === undefined
      ? null
      : h(
          "small",
          { class: "mark " + (label >= 0.5 ? "right" : "wrong") },
          label === 1 ? "✓ label" : label === 0 ? "✗ label" : `label ${fmt(label, 2)}`,
        );
  return h(
    "div",
    {
      class: reward === null ? "step blank" : "step",
      "--c": reward === null ? null : colour(reward),
      "data-step": index,
      role: "listitem",
      "aria-label": `Step ${index + 1}, ${reward === null ? `no ${words().step}` : `${words().step} ${fmt(reward)}`}`,
      click: (event) => {
        if (!String(getSelection()) && !event.target.closest("details")) focus(index);
      },
    },
    h("div", { class: "value" }, fmt(reward), h("small", {}, index + 1), truth),
    body,
    termDetails(texts.terms[index]),
  );
}

function partSection(name, row, pieces, texts, focus) {
  const indices = pieces.map(([, index]) => index).filter((index) => index >= 0);
  const rewards = present(indices.map((index) => row.steps[index]));
  const cut = name === "Thinking" && !texts.closed ? ", cut off before its end" : "";
  const blocks = pieces.map(([text, index]) => stepBlock(row, text, index, texts, focus));
  return h(
    "section",
    { class: "part", "aria-label": name },
    h(
      "header",
      {},
      h("h2", {}, name),
      h(
        "span",
        {},
        pieces.length
          ? `${count(indices.length, "step")}${rewards.length ? `, mean ${fmt(mean(rewards))}` : ""}${cut}`
          : "",
      ),
    ),
    pieces.length
      ? h("div", { role: "list" }, blocks)
      : h("p", { class: "soft" }, name === "Thinking" ? "The policy did not think." : "There is no response."),
  );
}

function traceFacts(row, texts) {
  const known = present(row.steps);
  return h(
    "dl",
    { class: "facts" },
    report.summary.kind === "scored" && fact("Reward", fmt(row.reward)),
    fact(words().trajectory, fmt(row.trajectory)),
    fact(words().mean, fmt(mean(known))),
    fact("Lowest step", known.length ? fmt(Math.min(...known)) : "–"),
    fact("Steps", row.steps.length.toLocaleString("en")),
    report.summary.kind === "scored"
      ? fact("Tokens read", row.tokens.toLocaleString("en"))
      : fact("With a target", known.length.toLocaleString("en")),
    texts.answer !== null && fact("Reference answer", texts.answer, true),
  );
}

function traceBadges(row, texts) {
  const group = report.groups[row.groupIndex];
  const rank = group ? group.ranked.indexOf(row) + 1 : 0;
  return h(
    "div",
    { class: "badges" },
    row.correct !== null && h("span", { class: "badge" }, verdict(row.correct)),
    row.pick && h("span", { class: "badge pick" }, "pick"),
    row.outcome && h("span", { class: "badge" + (row.outcome === "kept" ? " pick" : "") }, row.outcome),
    group &&
      group.ranked.length > 1 &&
      h("a", { class: "badge", href: `#/problem/${group.index}` }, `rank ${rank} of ${group.ranked.length}`),
    [row.source, row.policy].filter(Boolean).map((text) => h("span", { class: "badge", title: text }, text)),
    texts.overflow &&
      h(
        "span",
        { class: "badge", title: "What was done because the trace is longer than the PRM's context" },
        `overflow: ${texts.overflow}`,
      ),
  );
}

function tracePath(row) {
  const at = list.order.indexOf(row);
  const turn = (to, text) => to && h("a", { href: `#/trace/${to.index}` }, text);
  return h(
    "div",
    { class: "path" },
    h("a", { href: list.hash }, "← All traces"),
    h(
      "span",
      { class: "turns" },
      at >= 0 && h("span", {}, `${(at + 1).toLocaleString("en")} of ${list.order.length.toLocaleString("en")}`),
      turn(list.order[at - 1], "Previous"),
      at >= 0 && turn(list.order[at + 1], "Next"),
    ),
  );
}

function columnsOf(row, texts) {
  const prm = report.summary.prms[row.prm];
  const maker = prm
    ? [
        ["PRM", `${prm.name}, ${prm.family}, ${prm.layout}, revision ${prm.revision}`],
        ["aggregate", `${prm.aggregation}, α ${prm.alpha}`],
      ]
    : [["formula", report.summary.formulas[row.formula]]];
  const pairs = [["id", row.id], ["group", row.group], ...maker, ...Object.entries(texts.meta)];
  return h(
    "details",
    { class: "more" },
    h("summary", {}, "About this record"),
    h(
      "dl",
      { class: "columns" },
      pairs.filter(([, value]) => value !== null).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
    ),
    texts.hidden > 0 && h("p", { class: "soft small" }, `${count(texts.hidden, "long column")} not shown.`),
  );
}

async function traceView(main, params, number) {
  const row = report.rows[number];
  if (!row) return missing(main, "There is no such trace in this report.");
  const texts = await textsOf(row);
  const at = list.order.indexOf(row);
  if (at >= 0) list.cursor = at;
  let current = null;
  let line = null;
  const plot = h("div", { class: "curve" });
  const read = h("p", { class: "read", "aria-live": "polite" });
  const legendAt = h("div", {});
  const scored = present(row.steps).length > 0;
  const statement = h(
    "section",
    { class: "statement", "aria-label": "Problem" },
    h("p", { class: "problem" }, texts.problem || "(no problem text)"),
  );
  const article = h("article", {});
  const block = (i) => article.querySelector(`[data-step="${i}"]`);
  const tell = (i) => {
    if (!scored) return read.replaceChildren();
    if (i === null)
      return read.replaceChildren(
        matchMedia("(hover: none)").matches
          ? "Tap the curve to go to a step."
          : "Point at the curve, or press j and k.",
      );
    return read.replaceChildren(
      h("b", {}, `Step ${i + 1}`),
      ` · ${i < row.thinking ? "thinking" : "response"} · `,
      h("b", {}, row.steps[i] === null ? `no ${words().step}` : fmt(row.steps[i])),
    );
  };
  const hover = (i) => {
    article.querySelector(".step.hover")?.classList.remove("hover");
    if (i !== null) block(i)?.classList.add("hover");
    tell(i ?? current);
    line.mark(i ?? current);
  };
  const focus = (i, jump = null) => {
    block(current)?.removeAttribute("aria-current");
    const opened = block(current)?.querySelector("details.terms");
    if (opened && current !== i) opened.open = false;
    current = i;
    block(i)?.setAttribute("aria-current", "true");
    const terms = block(i)?.querySelector("details.terms");
    if (terms) terms.open = true;
    const long = block(i)?.offsetHeight > innerHeight / 2;
    if (jump) block(i)?.scrollIntoView({ block: long ? "start" : "center", behavior: jump });
    hover(null);
    history.replaceState(null, "", `#/trace/${row.index}?step=${i + 1}`);
  };
  const draw = () => {
    article.replaceChildren(
      partSection("Thinking", row, texts.thinking, texts, focus),
      partSection("Response", row, texts.response, texts, focus),
      columnsOf(row, texts),
    );
    legendAt.replaceChildren(scored ? legend(draw) : "");
    line = curve(plot, row, {
      height: innerWidth > 1100 ? 210 : 104,
      hovered: hover,
      picked: (i) => focus(i, motion()),
    });
    if (current !== null) block(current)?.setAttribute("aria-current", "true");
    tell(current);
    line.mark(current);
  };
  main.replaceChildren(
    tracePath(row),
    h("h1", {}, row.id),
    traceBadges(row, texts),
    !row.good &&
      h(
        "div",
        { class: "note bad", role: "note" },
        h("b", {}, `Not ${words().done}: ${statusText(row)}.`),
        texts.note && ` ${texts.note}`,
      ),
    row.good && row.outcome && texts.note && h("p", { class: "note" }, h("b", {}, `${row.outcome}: `), texts.note),
    traceFacts(row, texts),
    texts.trajectory.length > 0 &&
      h("section", { class: "of-trajectory", "aria-label": "Trajectory terms" }, termTable(texts.trajectory)),
    h(
      "div",
      { class: "reading" },
      statement,
      row.steps.length > 0 && h("aside", { "aria-label": "Reward curve" }, plot, read, legendAt),
      article,
    ),
  );
  draw();
  const asked = Number(params.get("step"));
  if (asked >= 1 && asked <= row.steps.length) focus(asked - 1, "instant");
  const move = (by) =>
    row.steps.length &&
    focus(
      current === null ? (by > 0 ? 0 : row.steps.length - 1) : clamp(current + by, 0, row.steps.length - 1),
      motion(),
    );
  const turn = (by) => at >= 0 && list.order[at + by] && go(`#/trace/${list.order[at + by].index}`);
  return {
    next: () => move(1),
    previous: () => move(-1),
    right: () => turn(1),
    left: () => turn(-1),
    escape: () => go(list.hash),
  };
}
