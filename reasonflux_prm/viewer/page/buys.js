// The report of what N buys: figure, legend, tables, and what is amiss.

const signed = (x) => (x === null ? "–" : (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3));
const plain = (x) => (x === null ? "–" : x.toFixed(3));

/** A number and its interval. */
function interval(own, write = plain) {
  if (!own || own.value === null) return "";
  const ends = own.low === null ? null : h("span", { class: "of" }, `${write(own.low)} to ${write(own.high)}`);
  return h("span", {}, write(own.value), ends);
}

function table(head, rows) {
  return h(
    "div",
    { class: "table-wrap", tabindex: 0, role: "region", "aria-label": head[0] },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(({ strong, cells }) => h("tr", { class: strong && "strong" }, cells.map((one) => h("td", {}, one))))),
    ),
  );
}

const section = (title, ...content) => h("section", { class: "section" }, h("h2", {}, title), ...content);
const list = (lines) => h("ul", { class: "said" }, lines.map((line) => h("li", {}, line)));

function whole(row) {
  const tokens = (x) => (x === null ? "" : Math.round(x).toLocaleString("en"));
  const { fewest, most } = row.candidates_a_problem;
  return section(
    fewest === most ? `Among ${most}` : `Among all ${fewest} to ${most}`,
    table(
      ["choice", "accuracy", "minus pass@1", "minus majority", "policy tokens", "PRM tokens"],
      row.curves.map((own, index) => ({
        strong: row.looks[index].band,
        cells: [
          own.label,
          interval(own.all),
          interval(own.all["minus_pass@1"], signed),
          interval(own.all.minus_majority, signed),
          tokens(own.all.policy_tokens),
          tokens(own.all.prm_tokens),
        ],
      })),
    ),
  );
}

function sizes(row) {
  const ks = marked(row.curves[0].points.map((point) => point.k));
  const at = (own, k) => own.points.find((point) => point.k === k).value;
  return section(
    "By number of candidates",
    table(
      ["choice", ...ks.map(String)],
      row.curves.map((own, index) => ({
        strong: row.looks[index].band,
        cells: [own.label, ...ks.map((k) => plain(at(own, k)))],
      })),
    ),
  );
}

function amiss(row) {
  const troubles = Object.entries(row.troubles).map(
    ([name, own]) =>
      `${name}: ${own.count.toLocaleString("en")} in ${count(own.problems, "problem")} (${own.named.join(", ")}` +
      `${own.problems > own.named.length ? ", …" : ""})`,
  );
  const unscored = Object.entries(row.unscored)
    .filter(([, n]) => n)
    .map(([name, n]) => `${count(n, "candidate")} without a reward of ${name}`);
  const lines = [...row.notes, ...troubles, ...unscored];
  return lines.length ? section("What is left out or amiss", list(lines)) : null;
}

function compared(row) {
  const lines = (row.comparisons ?? []).map(
    (own) =>
      `${own.first} minus ${own.second}: ${signed(own.difference.value)} (${signed(own.difference.low)} to ` +
      `${signed(own.difference.high)})`,
  );
  const said = [...row.findings, ...lines];
  return said.length ? section("In words", list(said)) : null;
}

/** The names below the figure: each is a switch, and shows its number at the size that is looked at. */
function legend(curves, changed) {
  const values = curves.map(() => h("b", {}));
  const items = curves.map((own, index) => {
    const sample = s(
      "svg",
      { class: "buys", viewBox: "0 0 24 8", "aria-hidden": "true" },
      s("path", {
        class: "line",
        d: "M1 4H23",
        "--c": own.colour,
        "stroke-width": own.look.width,
        "stroke-dasharray": own.look.dashes || null,
      }),
    );
    const button = h(
      "button",
      {
        type: "button",
        "aria-pressed": "true",
        click: () => {
          if (curves.filter((one) => !one.hidden).length === 1 && !own.hidden) return; // the last line stays
          own.hidden = !own.hidden;
          button.setAttribute("aria-pressed", String(!own.hidden));
          changed();
        },
      },
      sample,
      h("span", {}, own.look.name),
      values[index],
    );
    return h("li", {}, button);
  });
  const show = (at) =>
    curves.forEach((own, index) => {
      const { value } = own.points[at];
      values[index].textContent = value === null ? "–" : percent(value);
    });
  return { node: h("ul", { class: "keys-of", "aria-label": "Methods" }, items), show };
}

function drawReport(row) {
  const curves = row.curves.map((own, index) => {
    const look = row.looks[index];
    return { points: own.points, look, colour: `light-dark(${look.colour[0]}, ${look.colour[1]})`, hidden: false };
  });
  const last = curves[0].points.length - 1;
  const ks = curves[0].points.map((point) => point.k);
  const host = h("div", { class: "buys", tabindex: 0, role: "group", "aria-label": "Figure; left and right change the number of candidates" });
  const read = h("p", { class: "read", role: "status" });
  let place = null;
  const names = legend(curves, () => {
    drawn.draw(curves.filter((own) => !own.hidden));
    look(place);
  });
  const look = (index) => {
    place = index;
    const at = index ?? last;
    drawn.mark(index);
    names.show(at);
    const best = curves.filter((own) => own.look.band && !own.hidden);
    read.replaceChildren(
      h("b", {}, `${ks[at]} ${ks[at] === 1 ? "candidate" : "candidates"}`),
      ...best.map((own) => {
        const { value, low, high } = own.points[at];
        return value === null ? "" : ` · ${own.look.name} ${percent(value)}${low === null ? "" : ` (${percent(low)} to ${percent(high)})`}`;
      }),
    );
  };
  const drawn = figure(host, look);
  host.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    look(clamp((place ?? last) + by, 0, last));
  });
  const level = Math.round(100 * row.settings.level);
  document.getElementById("main").replaceChildren(
    ...[
      h("h1", {}, row.title),
      h(
        "p",
        { class: "lede" },
        `${count(row.problems, "problem")}, ${count(row.candidates, "candidate")}; every number is the mean over all ` +
          `subsets of a problem’s candidates. Bands and intervals: ${level}% bootstrap by problem.`,
      ),
      h("div", { class: "panel" }, host, names.node, h("div", { class: "small" }, read)),
      compared(row),
      whole(row),
      sizes(row),
      amiss(row),
    ].filter(Boolean),
  );
  drawn.draw(curves);
  look(null);
}

function themeButton() {
  const stored = (theme) => {
    try {
      if (theme) localStorage.setItem("theme", theme);
      return localStorage.getItem("theme");
    } catch {
      return theme; // a page from a disk may have no storage
    }
  };
  const set = (theme) => theme && (document.documentElement.dataset.theme = theme);
  const toggle = () => {
    const own = document.documentElement.dataset.theme;
    const dark = own ? own === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    set(dark ? "light" : "dark");
    stored(dark ? "light" : "dark");
  };
  set(stored(null));
  document.getElementById("theme").addEventListener("click", toggle);
  addEventListener("keydown", (event) => {
    if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) toggle();
  });
}

async function start() {
  themeButton();
  if (!globalThis.DecompressionStream) throw new Error("this browser is too old, it takes one from 2024 or later");
  drawReport(await unpack(document.querySelector('script[data-kind="report"]')));
  document.documentElement.dataset.ready = "/";
}

start().catch((error) => {
  const text = `The report could not be opened: ${error.message}. The file may be cut short; write it again.`;
  document.getElementById("main").replaceChildren(h("p", { class: "nothing" }, text));
  throw error;
});
