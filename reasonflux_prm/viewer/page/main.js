// Routes, keys, light and dark, and the start.

const ROUTES = [
  [/^\/?$/, listView, "list"],
  [/^\/trace\/(\d+)$/, traceView, "list"],
  [/^\/groups$/, groupsView, "groups"],
  [/^\/problem\/(\d+)$/, groupView, "groups"],
  [/^\/distributions$/, distributionsView, "distributions"],
];
const main = document.getElementById("main");
const help = document.getElementById("help");
const places = new Map();
let view = {};
let here = "";
let left = [];
let visit = 0;

/** Run `undo` when the view is left. */
function leave(undo) {
  left.push(undo);
}

function go(hash) {
  location.hash = hash;
}

function missing(node, text) {
  node.replaceChildren(
    h("p", { class: "nothing" }, text),
    h("p", { class: "nothing" }, h("a", { href: "#/" }, "All traces")),
  );
  return {};
}

async function route() {
  const ticket = ++visit;
  const [path, query = ""] = location.hash.slice(1).split("?");
  places.set(here, scrollY);
  for (const undo of left) undo();
  left = [];
  const found = ROUTES.map(([pattern, draw, tab]) => ({ match: path.match(pattern), draw, tab })).find(
    ({ match }) => match,
  );
  for (const tab of document.querySelectorAll("[data-tab]")) {
    if (tab.dataset.tab === found?.tab) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    if (tab.dataset.tab === "list") tab.href = list.hash;
  }
  // A view that waits for its block must not draw over one that was opened meanwhile.
  const stage = {
    replaceChildren: (...children) => {
      if (ticket === visit) main.replaceChildren(...children.filter(Boolean));
    },
  };
  const next = found
    ? await found.draw(stage, new URLSearchParams(query), Number(found.match[1]))
    : missing(stage, "There is no such page in this report.");
  if (ticket !== visit) return;
  view = next;
  here = path;
  document.documentElement.dataset.ready = path || "/";
  const again = path === "/" || path === "" || path === "/groups";
  if (!query.startsWith("step=")) scrollTo({ top: again ? (places.get(path) ?? 0) : 0, behavior: "instant" });
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  try {
    if (theme) localStorage.setItem("theme", theme);
  } catch {
    /* a page from a disk may have no storage */
  }
}

function toggleTheme() {
  const dark =
    getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(dark ? "light" : "dark");
}

const KEYS = {
  j: () => view.next,
  k: () => view.previous,
  // In a text the arrows scroll, as everywhere.
  ArrowDown: () => !here.startsWith("/trace") && view.next,
  ArrowUp: () => !here.startsWith("/trace") && view.previous,
  ArrowRight: () => view.right ?? (here.startsWith("/problem") ? view.next : null),
  ArrowLeft: () => view.left,
  Escape: () => view.escape,
  "/": () => view.search ?? (() => go(list.hash)),
  t: () => toggleTheme,
  "?": () => () => help.showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const field = event.target.closest("input, select, textarea");
  if (
    field &&
    !(
      event.key === "Escape" ||
      (event.key === "Enter" && field.type === "search") ||
      (event.key === "ArrowDown" && field.type === "search")
    )
  )
    return;
  if (event.key === "Enter") {
    if (!event.target.closest("a, button, summary, select") && view.open) {
      event.preventDefault();
      view.open();
    }
    return;
  }
  const act = KEYS[event.key]?.();
  if (!act) return;
  event.preventDefault();
  if (field) field.blur();
  act();
}

async function start() {
  try {
    setTheme(localStorage.getItem("theme"));
  } catch {
    /* as above */
  }
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.getElementById("help-close").addEventListener("click", () => help.close());
  addEventListener("keydown", pressed);
  addEventListener("hashchange", route);
  history.scrollRestoration = "manual";
  if (!globalThis.DecompressionStream) {
    missing(main, "This browser is too old for the report: it needs one from 2024 or later.");
    return;
  }
  await readRows();
  report.scale = measureScale(report.rows);
  document.querySelector('[data-tab="groups"]').hidden = !report.groups.length;
  arrange();
  await route();
}

start().catch((error) => {
  main.replaceChildren(
    h(
      "p",
      { class: "nothing" },
      `The report could not be opened: ${error.message}. The file may be cut short; write it again.`,
    ),
  );
  throw error;
});
