// The rewards of one trace, step by step, as a curve that answers to the pointer.

/**
 * Draw the curve of a row into `host` and keep it at the host's width.
 * `picked(i)` is called for the step that was clicked, `hovered(i or null)` for the one under the pointer.
 * Returns `mark(i)`, which shows where the reader is.
 */
function curve(host, row, { height = 150, picked = null, hovered = null, labels = true }) {
  let current = null;
  let place = null;
  const known = present(row.steps);
  if (!known.length) {
    host.replaceChildren(h("p", { class: "soft small" }, `This trace has no ${words().steps}.`));
    return { mark: () => {} };
  }
  const [low, high] = domain(known);
  const draw = () => {
    const width = host.clientWidth;
    if (!width) return;
    const box = { left: labels ? 38 : 4, right: 6, top: labels ? 16 : 4, bottom: labels ? 18 : 4, width, height };
    const n = row.steps.length;
    const x = (i) => box.left + ((i + 0.5) / n) * (width - box.left - box.right);
    const y = (v) => box.top + (1 - (v - low) / (high - low)) * (height - box.top - box.bottom);
    place = { x, y };
    const drawing = curveDrawing(row, box, { x, y, low, high, labels });
    const here = s("g", { class: "marker" });
    drawing.append(here);
    host.replaceChildren(drawing);
    const at = (event) =>
      clamp(
        Math.floor(
          ((event.clientX - drawing.getBoundingClientRect().left - box.left) / (width - box.left - box.right)) * n,
        ),
        0,
        n - 1,
      );
    if (hovered) {
      drawing.addEventListener("pointermove", (event) => hovered(at(event)));
      drawing.addEventListener("pointerleave", () => hovered(null));
    }
    if (picked) drawing.addEventListener("click", (event) => picked(at(event)));
    mark(current);
  };
  const mark = (i) => {
    current = i;
    const here = host.querySelector(".marker");
    if (!here || !place) return;
    here.replaceChildren();
    if (i === null) return;
    here.append(s("line", { class: "here", x1: place.x(i), x2: place.x(i), y1: place.y(high), y2: place.y(low) }));
    if (row.steps[i] !== null)
      here.append(s("circle", { class: "there", cx: place.x(i), cy: place.y(row.steps[i]), r: 5 }));
  };
  const watcher = new ResizeObserver(draw);
  watcher.observe(host);
  leave(() => watcher.disconnect());
  draw();
  return { mark };
}

/** What the vertical axis spans: the scale of the colours, widened to what this trace has. */
function domain(values) {
  const [low, high] = report.scale.full;
  const wide = report.scale.unit ? [low, high] : [Math.min(ends()[0], ...values), Math.max(ends()[1], ...values)];
  return wide[1] > wide[0] ? wide : [wide[0] - 0.5, wide[1] + 0.5];
}

function curveDrawing(row, box, { x, y, low, high, labels }) {
  const { width, height, left, right, top, bottom } = box;
  const n = row.steps.length;
  const known = present(row.steps);
  const drawing = s("svg", {
    viewBox: `0 0 ${width} ${height}`,
    height,
    role: "img",
    "aria-label": `The ${words().step} of each of ${n} steps: from ${fmt(Math.min(...known))} to ${fmt(Math.max(...known))}, mean ${fmt(mean(known))}`,
  });
  if (row.thinking < n && row.thinking > 0) {
    const edge = x(row.thinking - 0.5);
    drawing.append(
      s("rect", { class: "answer", x: edge, y: top, width: width - right - edge, height: height - top - bottom }),
    );
    if (labels) {
      drawing.append(s("text", { x: left, y: 10 }, "thinking"));
      const tight = width - right - edge < 50;
      drawing.append(
        s("text", { x: tight ? width - right : edge + 2, y: 10, "text-anchor": tight ? "end" : "start" }, "response"),
      );
    }
  }
  for (const v of [low, (low + high) / 2, high]) {
    drawing.append(s("line", { class: "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
    if (labels) drawing.append(s("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, fmt(v, 2)));
  }
  if (labels) {
    drawing.append(s("text", { x: left, y: height - 3 }, "step 1"));
    if (n > 1) drawing.append(s("text", { x: width - right, y: height - 3, "text-anchor": "end" }, n));
  }
  let path = "";
  row.steps.forEach((v, i) => {
    if (v !== null) path += `${i && row.steps[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
  });
  drawing.append(s("path", { class: "thread", d: path }));
  const r = clamp((width - left) / n / 3, 1.6, labels ? 4 : 2.6);
  row.steps.forEach((v, i) =>
    drawing.append(
      v === null
        ? s("line", { class: "missing", x1: x(i), x2: x(i), y1: y(low) - 6, y2: y(low) })
        : s("circle", { cx: x(i).toFixed(1), cy: y(v).toFixed(1), r, fill: colour(v) }),
    ),
  );
  return drawing;
}
