// Accuracy against the number of candidates: one line a method, its interval as a band, as figure 5 of the paper has it.

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
const STEPS = [0.02, 0.05, 0.1, 0.2];
const NARROW = 620;
const GAP = 17;

/** Where values are on the page: the same rules as `evaluation.figure`, at the width of the screen. */
function frame(curves, width) {
  const narrow = width < NARROW;
  const height = narrow ? Math.round(clamp(width * 0.85, 260, 360)) : Math.round(clamp(width * 0.46, 340, 480));
  const values = curves.flatMap((own) =>
    own.points.flatMap((point) => present([point.value, ...(own.look.band ? [point.low, point.high] : [])])),
  );
  const middle = (Math.min(...values) + Math.max(...values)) / 2;
  // A tenth at least: small differences between near equals are not to look large.
  const spread = Math.max(Math.max(...values) - Math.min(...values), 0.1);
  const step = STEPS.find((one) => one >= spread / 8);
  const low = Math.max(0, Math.floor((middle - spread * 0.53) / step) * step);
  const high = Math.min(1, Math.ceil((middle + spread * 0.53) / step) * step);
  const ks = curves[0].points.map((point) => point.k);
  const [first, last] = [ks[0], ks[ks.length - 1]];
  const room = narrow ? 12 : 30 + 7.2 * Math.max(...curves.map((own) => own.look.name.length)) + 44;
  const box = { left: 44, right: width - Math.min(room, width * 0.36), top: 10, bottom: height - 44 };
  const share = (k) => (last > first ? Math.log2(k / first) / Math.log2(last / first) : 1);
  return {
    ...box,
    narrow,
    width,
    height,
    ks,
    low,
    high,
    step,
    x: (k) => box.left + (box.right - box.left) * share(k),
    y: (value) => box.bottom - ((box.bottom - box.top) * (value - low)) / (high - low),
  };
}

/** Sizes with a mark on the axis: powers of two, and the last unless it is close to one. */
function marked(ks) {
  const powers = ks.filter((k) => (k & (k - 1)) === 0);
  const last = ks[ks.length - 1];
  if (!powers.includes(last) && (!powers.length || last / powers[powers.length - 1] > 1.3)) powers.push(last);
  return powers;
}

function axes(at) {
  const marks = [];
  for (let number = 0; number <= Math.round((at.high - at.low) / at.step); number++) {
    const value = at.low + number * at.step;
    marks.push(
      s("line", { class: "axis", x1: at.left, x2: at.right, y1: at.y(value), y2: at.y(value) }),
      s("text", { x: at.left - 8, y: at.y(value) + 4, "text-anchor": "end" }, percent(value, 0)),
    );
  }
  marks.push(s("line", { class: "base", x1: at.left, x2: at.right, y1: at.bottom, y2: at.bottom }));
  for (const k of marked(at.ks))
    marks.push(
      s("line", { class: "base", x1: at.x(k), x2: at.x(k), y1: at.bottom, y2: at.bottom + 5 }),
      s("text", { x: at.x(k), y: at.bottom + 19, "text-anchor": "middle" }, k),
    );
  const middle = (at.left + at.right) / 2;
  marks.push(s("text", { x: middle, y: at.bottom + 38, "text-anchor": "middle" }, "candidates a problem"));
  return marks;
}

const path = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");

function band(own, at) {
  const ends = own.points.filter((point) => point.low !== null && point.high !== null);
  if (!own.look.band || ends.length < 2) return null;
  const above = ends.map((point) => [at.x(point.k), at.y(point.high)]);
  const below = ends.map((point) => [at.x(point.k), at.y(point.low)]).reverse();
  return s("path", { class: "area", d: path([...above, ...below]) + "Z", "--c": own.colour });
}

function line(own, at) {
  const points = own.points.filter((point) => point.value !== null);
  const parts = [];
  if (points.length > 1)
    parts.push(
      s("path", {
        class: "line",
        d: path(points.map((point) => [at.x(point.k), at.y(point.value)])),
        "--c": own.colour,
        "stroke-width": own.look.width,
        "stroke-dasharray": own.look.dashes || null,
      }),
    );
  const shown = own.look.band || points.length === 1 ? marked(points.map((point) => point.k)) : [];
  for (const point of points.filter((one) => shown.includes(one.k)))
    parts.push(s("circle", { class: "dot", cx: at.x(point.k), cy: at.y(point.value), r: 4, "--c": own.colour }));
  return parts;
}

/** Move places apart until labels there do not overlap, as little as it takes. */
function spread(places, low, high) {
  const runs = [];
  const order = places.map((_, index) => index).sort((a, b) => places[a] - places[b]);
  for (const index of order) {
    let run = { members: [index], at: clamp(places[index], low, high) };
    while (runs.length) {
      const before = runs[runs.length - 1];
      if (before.at + before.members.length * GAP <= run.at) break;
      runs.pop();
      const members = [...before.members, ...run.members];
      const middle = mean(members.map((member, number) => places[member] - number * GAP));
      run = { members, at: Math.max(Math.min(middle, high - (members.length - 1) * GAP), low) };
    }
    runs.push(run);
  }
  const found = places.slice();
  for (const { members, at } of runs) members.forEach((index, number) => (found[index] = at + number * GAP));
  return found;
}

/** The names at the lines' ends; on a phone the legend below the figure has them. */
function labels(curves, at) {
  if (at.narrow) return [];
  const ends = curves.map((own) => at.y(own.points[own.points.length - 1].value ?? at.low));
  const places = spread(ends, at.top + 4, at.bottom);
  return curves.flatMap((own, index) => {
    const x = at.right + 8;
    const value = own.points[own.points.length - 1].value;
    return [
      s("line", { class: "leader", x1: x, x2: x + 10, y1: ends[index], y2: places[index], "--c": own.colour }),
      s(
        "text",
        { class: own.look.band ? "end strong" : "end", x: x + 15, y: places[index] + 4, "--c": own.colour },
        own.look.name + " ",
        s("tspan", {}, value === null ? "" : percent(value)),
      ),
    ];
  });
}

/**
 * Draw the figure into `host` and keep it at the host's width. `hovered(index or null)` is called for the size under
 * the pointer. Returns `draw(curves)` and `mark(index)`.
 */
function figure(host, hovered) {
  let curves = [];
  let at = null;
  const draw = (shown = curves) => {
    curves = shown;
    host.replaceChildren();
    if (!host.clientWidth || !curves.length) return;
    at = frame(curves, host.clientWidth);
    const thin = curves.slice().sort((a, b) => a.look.width - b.look.width);
    const drawing = s(
      "svg",
      { viewBox: `0 0 ${at.width} ${at.height}`, height: at.height, role: "img", "aria-label": spoken(curves) },
      ...axes(at),
      ...thin.map((own) => band(own, at)),
      s("g", { class: "marker" }),
      ...thin.flatMap((own) => line(own, at)),
      ...labels(curves, at),
    );
    const nearest = (event) => {
      const x = event.clientX - drawing.getBoundingClientRect().left;
      const distances = at.ks.map((k) => Math.abs(at.x(k) - x));
      return distances.indexOf(Math.min(...distances));
    };
    drawing.addEventListener("pointermove", (event) => hovered(nearest(event)));
    drawing.addEventListener("pointerdown", (event) => hovered(nearest(event)));
    drawing.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hovered(null));
    host.append(drawing);
  };
  const mark = (index) => {
    const marker = host.querySelector(".marker");
    if (!marker) return;
    const x = index === null ? null : at.x(at.ks[index]);
    marker.replaceChildren(...(x === null ? [] : [s("line", { class: "at", x1: x, x2: x, y1: at.top, y2: at.bottom })]));
  };
  new ResizeObserver(() => draw()).observe(host);
  return { draw, mark };
}

const spoken = (curves) =>
  `Accuracy by number of candidates; among ${curves[0].points[curves[0].points.length - 1].k}: ` +
  curves.map((own) => `${own.look.name} ${percent(own.points[own.points.length - 1].value ?? 0)}`).join("; ");
