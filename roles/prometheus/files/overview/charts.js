// Plots, drawn by dygraphs: lines and areas, heat maps, and small lines without axes.
import { ticks, withUnit } from "./units.js";

// Dygraphs' own legend writes styles that the page's Content-Security-Policy forbids; and a finger is to scroll the page.
Dygraph.PLUGINS = Dygraph.PLUGINS.filter((plugin) => plugin !== Dygraph.Plugins.Legend);
const { touchstart, touchmove, touchend, ...MOUSE } = Dygraph.defaultInteractionModel;
const BARE = { drawAxis: false, drawGrid: false };

// Make an element. What is told as text stays text, whatever it looks like.
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The colour of a name in the page's style, which differs by day and night.
export const paint = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// What a series is now; null where it ended. A measurement or two may be missing.
export const latest = (values) => values.slice(-3).findLast((value) => value !== null) ?? null;

const rowsOf = (view, all) => all[0].map((_, at) => [new Date(view.start + at * view.step), ...all.map((values) => values[at])]);

function line(canvas, colour, dashes, [fromX, fromY], [toX, toY]) {
  canvas.strokeStyle = colour;
  canvas.setLineDash(dashes);
  canvas.beginPath();
  canvas.moveTo(fromX, fromY);
  canvas.lineTo(toX, toY);
  canvas.stroke();
}

// Releases. Where they are few, each has its short text.
function drawMarks(view, graph, canvas, { x: left, y: top, w: width, h: height }) {
  let free = -Infinity;
  canvas.fillStyle = paint("purple");
  canvas.font = "10px system-ui, sans-serif";
  for (const { time, short } of view.marks) {
    const x = graph.toDomXCoord(time);
    if (x < left || x > left + width) continue;
    line(canvas, canvas.fillStyle, [2, 3], [x, top], [x, top + height]);
    if (x > free) canvas.fillText(short, x + 3, top + 9);
    free = Math.max(free, x + 8 + canvas.measureText(short).width);
  }
}

// A small line without axes. As all plots it is drawn when it stands on the page, by `draw`, which returns what must be destroyed.
export function spark(view, values) {
  const box = make("div", { className: "spark" });
  box.draw = () =>
    new Dygraph(box, rowsOf(view, [values]), {
      labels: ["time", "value"], colors: [paint("line-0")], strokeWidth: 1.5, highlightCircleSize: 0, interactionModel: {},
      axes: { x: BARE, y: BARE }, valueRange: [0, Math.max(...values, 1e-12) * 1.05],
    });
  return box;
}

// A plot with axes. Where the reader points, `tell` is called with the row, and with null when that is nowhere.
function plot(view, { title, values, yTicks, tell, under, options }) {
  const box = make("div", { className: "plot", tabIndex: 0, role: "group", ariaLabel: `${title}. Arrow keys: values before and after.` });
  const pointer = make("div", { className: "pointer", hidden: true });
  const last = values[0].length - 1;
  let [row, graph] = [null, null];

  box.point = (time) => {
    row = time === null ? null : Math.min(last, Math.max(0, Math.round((time - view.start) / view.step)));
    tell(row);
    pointer.hidden = row === null;
    if (row === null) return graph.clearSelection();
    const moment = view.start + row * view.step;
    const mark = view.marks.findLast((each) => Math.abs(each.time - moment) <= view.step);
    const when = new Date(moment).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
    pointer.textContent = mark ? `${when}, ${mark.text}` : when;
    pointer.style.left = `${graph.toDomXCoord(moment)}px`;
    pointer.classList.toggle("late", row > last / 2);
    graph.setSelection(row);
  };
  box.onkeydown = ({ key }) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (by) view.point(view.start + ((row ?? last) + by) * view.step);
    if (key === "Escape") view.point(null);
  };
  box.onblur = () => view.point(null);

  box.draw = () => {
    graph = new Dygraph(box, rowsOf(view, values), {
      labels: ["time", ...values.map((_, index) => `s${index}`)], // what a host tells is no key of dygraphs'
      strokeWidth: 1.6, fillAlpha: 0.15, dateWindow: [view.start, view.end], valueRange: [0, yTicks.at(-1).v * 1.02],
      axisLabelFontSize: 11, axisLineColor: paint("rule"), gridLineColor: paint("rule"), gridLineWidth: 1,
      axes: { x: { drawGrid: false }, y: { ticker: () => yTicks, axisLabelWidth: 62 } },
      interactionModel: { ...MOUSE, dblclick: () => view.look(2) },
      zoomCallback: (from, to) => view.show({ from, to }),
      highlightCallback: (_, time) => view.point(time),
      unhighlightCallback: () => view.point(null),
      underlayCallback: (canvas, area, made) => {
        canvas.save();
        under?.(canvas, area, made);
        drawMarks(view, made, canvas, area);
        canvas.restore();
      },
      ...options,
    });
    box.append(pointer);
    return graph;
  };
  return box;
}

// Lines, or areas that stand on each other, with a legend. Series are {name, values, colour}.
export function lines(view, { title, field, series, leftOut }) {
  const { custom = {}, unit } = field;
  const values = series.map((each) => each.values);
  const stacked = custom.stacking?.mode === "normal";
  const heights = stacked ? values[0].map((_, at) => values.reduce((sum, each) => sum + (each[at] ?? 0), 0)) : values.flat();
  const yTicks = ticks(field.max ?? Math.max(0, ...heights), unit, heights.every((value) => value === null || Number.isInteger(value)));
  const told = series.map(() => make("b"));
  const tell = (row) =>
    told.forEach((b, index) => (b.textContent = withUnit(row === null ? latest(values[index]) : values[index][row], unit)));
  tell(null);
  const keys = series.map(({ name, colour }, index) => {
    const key = make("i");
    key.style.background = colour;
    return make("li", {}, key, `${name} `, told[index]);
  });
  if (leftOut) keys.push(make("li", {}, `the ${series.length} highest of ${series.length + leftOut}`));
  const limits = custom.thresholdsStyle ? field.thresholds.steps.filter(({ value }) => value !== null) : [];
  const under = (canvas, area, graph) => {
    for (const { value, color } of limits) {
      const y = graph.toDomYCoord(value);
      line(canvas, paint(`line-${color}`), [4, 3], [area.x, y], [area.x + area.w, y]);
    }
  };
  const options = {
    colors: series.map(({ colour }) => colour), stepPlot: custom.lineInterpolation === "stepAfter", fillGraph: custom.fillOpacity > 0,
    ...(stacked && { stackedGraph: true, stackedGraphNaNFill: "none", fillAlpha: 0.55, strokeWidth: 0.8 }),
  };
  return [plot(view, { title, values, yTicks, tell, under, options }), make("ul", { className: "keys" }, ...keys)];
}

// A heat map of a histogram. Buckets are {edge, values}, from the lowest edge on; each counts all that is below its edge.
export function heatMap(view, { title, unit, unitOfEdges, buckets }) {
  const below = (index, at) => buckets[index]?.values[at] ?? 0;
  const counts = buckets.map(({ values }, index) => values.map((_, at) => Math.max(0, below(index, at) - below(index - 1, at))));
  const used = counts.flatMap((row, index) => (Math.max(...row) > 1e-9 ? [index] : []));
  if (!used.length) return null;
  const first = Math.max(0, used[0] - 1);
  const rows = counts.slice(first, used.at(-1) + 2);
  const most = Math.max(...rows.flat());
  const edges = buckets.slice(first).map(({ edge }) => (Number.isFinite(edge) ? withUnit(edge, unitOfEdges) : ""));
  const text = make("li");
  const tell = (at) => {
    const there = rows.flatMap((row, index) => (row[at] > 1e-9 ? [`up to ${edges[index] || "any"}: ${withUnit(row[at], unit)}`] : []));
    text.textContent = at === null ? `the darkest: ${withUnit(most, unit)}` : there.reverse().join(", ") || "none";
  };
  tell(null);
  const plotter = ({ drawingContext: canvas, plotArea, points, setName }) => {
    const row = rows[Number(setName.slice(1))];
    const [width, height] = [plotArea.w / (row.length - 1), plotArea.h / rows.length];
    canvas.fillStyle = paint("heat");
    points.forEach(({ canvasx, canvasy }, at) => {
      canvas.globalAlpha = Math.sqrt(row[at] / most);
      canvas.fillRect(canvasx - width, canvasy - height / 2, Math.max(1, width - 0.5), height - 1);
    });
  };
  const every = Math.ceil(rows.length / 8);
  const yTicks = rows.map((_, index) => ({ v: index + 1, label: index % every ? "" : edges[index] }));
  const options = { plotter, colors: rows.map(() => paint("heat")), highlightCircleSize: 0, valueRange: [0, rows.length] };
  const values = rows.map((row, index) => row.map(() => index + 0.5));
  return [plot(view, { title, values, yTicks, tell, options }), make("ul", { className: "keys" }, text)];
}
