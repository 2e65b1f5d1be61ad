// The list of traces: filter, search, sort; only the rows in sight exist.

const COLUMNS = [
  { key: "id", label: "Trace", css: "name" },
  { key: "source", label: "Source", css: "wide" },
  { key: "policy", label: "Policy", css: "policy" },
  { key: "correct", label: "Verdict", css: "correct" },
  { key: "reward", label: () => words().overall, css: "num", down: true },
  { key: "trajectory", label: () => words().column, css: "num", down: true },
  { key: "steps", label: "Steps", css: "", down: true },
  { key: "tokens", label: "Tokens", css: "num wide", down: true, kind: "scored" },
  { key: "targets", label: "Targets", css: "num wide", down: true, kind: "labels" },
];
const columns = () => COLUMNS.filter(({ kind }) => !kind || kind === report.summary.kind);
const labelOf = ({ label }) => (typeof label === "function" ? label() : label);
const VALUE = {
  steps: (row) => row.steps.length,
  targets: (row) => present(row.steps).length,
  correct: (row) => (row.correct === null ? null : Number(row.correct)),
};
const FILTERS = {
  correct: {
    label: "Any verdict",
    of: (row) => (row.correct === null ? "unknown" : row.correct ? "right" : "wrong"),
  },
  source: { label: "Any source", of: (row) => row.source ?? "(none)" },
  policy: { label: "Any policy", of: (row) => row.policy ?? "(none)" },
  status: { label: "Any status", of: (row) => row.status },
  outcome: { label: "Kept and dropped", of: (row) => row.outcome ?? "(none)" },
};

const list = { q: "", correct: "", source: "", policy: "", status: "", outcome: "", sort: "", order: [], cursor: 0, hash: "#/" };

function haystack(row) {
  row.hay ??= [row.id, row.problem, row.source, row.policy, row.group].filter(Boolean).join("\n").toLowerCase();
  return row.hay;
}

/** Rows that pass the search and the filters, in the order that was asked for. */
function arrange() {
  const words = list.q.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(FILTERS).filter(([key]) => list[key]);
  const found = report.rows.filter(
    (row) =>
      chosen.every(([key, filter]) => filter.of(row) === list[key]) &&
      words.every((word) => haystack(row).includes(word)),
  );
  const down = list.sort.startsWith("-");
  const key = down ? list.sort.slice(1) : list.sort;
  if (key) {
    const value = VALUE[key] ?? ((row) => row[key]);
    const order = new Intl.Collator("en", { numeric: true }).compare;
    const sign = down ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? order(a, b) : a - b) * sign;
    const keyed = found.map((row) => [value(row), row]);
    // What has no value goes last, whichever way the list runs.
    keyed.sort(
      ([a, x], [b, y]) => (a === null) - (b === null) || (a === null ? 0 : compare(a, b)) || x.index - y.index,
    );
    list.order = keyed.map(([, row]) => row);
  } else list.order = found;
}

function readListHash(params) {
  for (const key of ["q", "sort", ...Object.keys(FILTERS)]) list[key] = params.get(key) ?? "";
  // Another list than the one that was left: the place in it means nothing any more.
  if (list.hash !== (location.hash || "#/")) list.cursor = 0;
  list.hash = location.hash || "#/";
  arrange();
}

function writeListHash() {
  const params = new URLSearchParams();
  for (const key of ["q", "sort", ...Object.keys(FILTERS)]) if (list[key]) params.set(key, list[key]);
  list.hash = "#/" + (params.size ? "?" + params : "");
  history.replaceState(null, "", list.hash);
}

/** A list of any length of which only what is in sight is drawn. */
function virtualList(grid, body, items, draw) {
  let from = -1;
  let to = -1;
  const height = () => parseFloat(getComputedStyle(grid).getPropertyValue("--row"));
  const paint = (force) => {
    const row = height();
    const all = items();
    body.style.height = `${all.length * row}px`;
    const top = -body.getBoundingClientRect().top;
    const first = clamp(Math.floor(top / row) - 6, 0, all.length);
    const last = clamp(Math.ceil((top + innerHeight) / row) + 6, 0, all.length);
    if (!force && first === from && last === to) return;
    [from, to] = [first, last];
    body.replaceChildren(
      ...all.slice(first, last).map((item, k) => {
        const node = draw(item, first + k);
        node.style.transform = `translateY(${(first + k) * row}px)`;
        return node;
      }),
    );
  };
  const reveal = (index) => {
    const row = height();
    const top = body.getBoundingClientRect().top + index * row;
    if (top < 150) scrollBy({ top: top - 150 });
    else if (top + row > innerHeight - 20) scrollBy({ top: top + row - innerHeight + 20 });
    paint(true);
  };
  const scrolled = () => paint(false);
  const resized = () => paint(true);
  addEventListener("scroll", scrolled, { passive: true });
  addEventListener("resize", resized);
  leave(() => {
    removeEventListener("scroll", scrolled);
    removeEventListener("resize", resized);
  });
  return { paint: () => paint(true), reveal };
}

function listRow(row, position) {
  const reward =
    row.good
      ? h("span", { class: "reward" }, fmt(row.reward))
      : h("span", { class: "why" }, statusText(row));
  const under = [row.id, row.source, row.policy].filter(Boolean).join(" · ");
  return h(
    "div",
    {
      class: "row",
      role: "row",
      "aria-rowindex": position + 2,
      "aria-selected": String(position === list.cursor),
      click: (event) => {
        list.cursor = position;
        if (!event.target.closest("a")) go(`#/trace/${row.index}`);
      },
    },
    h(
      "span",
      { class: "c-name", role: "gridcell" },
      h(
        "a",
        { class: "name", href: `#/trace/${row.index}`, tabindex: position === list.cursor ? 0 : -1 },
        row.problem || row.id,
      ),
      h(
        "span",
        { class: "id", title: under },
        row.pick && h("span", { class: "badge pick" }, "pick"),
        row.pick && " ",
        row.outcome === "kept" && [h("span", { class: "badge pick" }, "kept"), " "],
        matchMedia("(max-width: 720px)").matches ? under : row.id,
      ),
    ),
    h("span", { class: "wide", role: "gridcell" }, h("span", { class: "ell", title: row.source }, row.source ?? "–")),
    h("span", { role: "gridcell" }, h("span", { class: "ell", title: row.policy }, row.policy ?? "–")),
    h("span", { class: "c-correct small", role: "gridcell" }, verdict(row.correct)),
    h("span", { class: "c-reward num", role: "gridcell" }, reward),
    h("span", { class: "num", role: "gridcell" }, fmt(row.trajectory)),
    h(
      "span",
      { class: "c-steps steps", role: "gridcell" },
      strip(row),
      h("span", { class: "count" }, row.steps.length),
    ),
    h(
      "span",
      { class: "num wide soft", role: "gridcell" },
      (report.summary.kind === "labels" ? VALUE.targets(row) : row.tokens).toLocaleString("en"),
    ),
  );
}

function filterSelect(key, filter, changed) {
  const counts = new Map();
  for (const row of report.rows) counts.set(filter.of(row), (counts.get(filter.of(row)) ?? 0) + 1);
  if (counts.size < 2) return null;
  const names = [...counts].sort((a, b) => b[1] - a[1]);
  return h(
    "select",
    {
      "aria-label": filter.label,
      "data-filter": key,
      change: (event) => {
        list[key] = event.target.value;
        changed();
      },
    },
    h("option", { value: "" }, filter.label),
    names.map(([name, n]) =>
      h("option", { value: name, selected: list[key] === name }, `${name} (${n.toLocaleString("en")})`),
    ),
  );
}

function setSort(key, down, changed) {
  const [up, dn] = [key, "-" + key];
  const cycle = down ? [dn, up, ""] : [up, dn, ""];
  list.sort = cycle[(cycle.indexOf(list.sort) + 1) % 3];
  changed();
}

function headCell(column, changed) {
  const direction = { [column.key]: "ascending", ["-" + column.key]: "descending" }[list.sort];
  return h(
    "span",
    { role: "columnheader", class: column.css, "aria-sort": direction },
    h(
      "button",
      { type: "button", "data-sort": column.key, click: () => setSort(column.key, column.down, changed) },
      labelOf(column),
    ),
  );
}

function sorter(changed) {
  const option = (value, text) => h("option", { value, selected: list.sort === value }, text);
  return h(
    "label",
    { class: "sorter" },
    "Sort by",
    h(
      "select",
      {
        change: (event) => {
          list.sort = event.target.value;
          changed();
        },
      },
      option("", "order of the file"),
      columns().flatMap((column) => [
        option("-" + column.key, `${labelOf(column)}, high to low`),
        option(column.key, `${labelOf(column)}, low to high`),
      ]),
    ),
  );
}

function lead() {
  const good = report.rows.filter((row) => row.good).length;
  const others = report.rows.length - good;
  const about = report.summary.prms
    .map(
      (prm) =>
        `${prm.name} · ${prm.layout.replace("_", " ")} · ${prm.aggregation}, α ${prm.alpha} · revision ${prm.revision}`,
    )
    .concat(report.summary.formulas);
  return h(
    "div",
    { class: "lead" },
    h(
      "div",
      {},
      h("h1", {}, report.summary.title),
      h(
        "p",
        {},
        `${count(report.rows.length, "trace")}, ${count(good, words().done, words().done)}` +
          (others ? `, ${count(others, words().without, words().without)}` : ""),
      ),
      about.map((line) => h("p", { class: "small" }, line)),
    ),
  );
}

function listView(main, params) {
  readListHash(params);
  if (!report.rows.length) {
    main.replaceChildren(
      lead(),
      h("p", { class: "nothing" }, "This report is empty: it was written from no traces."),
    );
    return {};
  }
  const body = h("div", { class: "body", role: "rowgroup" });
  const head = h("div", { class: "head", role: "row", "aria-rowindex": 1 });
  const grid = h("div", { class: "grid", role: "grid", "aria-label": "Traces" }, head, body);
  const found = h("span", { class: "soft small", role: "status" });
  const legendAt = h("div", {});
  const rows = virtualList(grid, body, () => list.order, listRow);
  const draw = () => {
    head.replaceChildren(...columns().map((column) => headCell(column, changed)));
    grid.setAttribute("aria-rowcount", list.order.length + 1);
    found.textContent =
      list.order.length === report.rows.length
        ? ""
        : `${list.order.length.toLocaleString("en")} of ${count(report.rows.length, "trace")}`;
    legendAt.replaceChildren(legend(draw));
    nothing.hidden = list.order.length > 0;
    rows.paint();
  };
  const changed = () => {
    const focused = document.activeElement?.dataset?.sort;
    list.cursor = 0;
    arrange();
    writeListHash();
    draw();
    if (focused) head.querySelector(`[data-sort="${focused}"]`)?.focus();
  };
  const search = h("input", {
    type: "search",
    placeholder: "Search problems, ids, sources",
    "aria-label": "Search traces",
    value: list.q,
    autocomplete: "off",
    input: (event) => {
      list.q = event.target.value;
      changed();
    },
  });
  const nothing = h("p", { class: "nothing", hidden: true }, "No trace fits. Esc clears the search.");
  main.replaceChildren(
    lead(),
    h(
      "div",
      { class: "filters", role: "search" },
      h("div", { class: "search" }, search, h("kbd", { "aria-hidden": "true" }, "/")),
      Object.entries(FILTERS).map(([key, filter]) => filterSelect(key, filter, changed)),
      sorter(changed),
    ),
    h("div", { class: "bar" }, found, legendAt),
    grid,
    nothing,
  );
  draw();
  if (list.cursor) rows.reveal(list.cursor);
  const move = (by) => {
    list.cursor = clamp(list.cursor + by, 0, list.order.length - 1);
    rows.reveal(list.cursor);
  };
  return {
    next: () => move(1),
    previous: () => move(-1),
    search: () => search.focus(),
    open: () => list.order[list.cursor] && go(`#/trace/${list.order[list.cursor].index}`),
    escape: () => {
      if (list.q) {
        list.q = search.value = "";
        changed();
      }
    },
  };
}
