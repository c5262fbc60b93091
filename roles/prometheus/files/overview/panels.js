// Panels of Grafana's dashboards, by their kind: each is asked for, and becomes elements of the page.
import { heatMap, latest, lines, make, paint, spark } from "./charts.js";
import { withUnit } from "./units.js";

const MOST_LINES = 8; // more than that nobody tells apart

export const order = new Intl.Collator("en", { numeric: true }).compare; // release 9 comes before release 10
export const filled = (pattern, labels) => pattern.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? "");

// How the values of one name are shown: as the panel says, and as it says of that name.
function fieldOf(panel, name) {
  const { defaults, overrides } = panel.fieldConfig;
  const fits = ({ id, options }) => (id === "byRegexp" ? new RegExp(`^(?:${options})$`).test(name) : options === name);
  const rules = overrides.filter(({ matcher }) => fits(matcher)).flatMap(({ properties }) => properties);
  return { ...defaults, ...Object.fromEntries(rules.map(({ id, value }) => [id, value])) };
}

// A value as text, and the name of its colour.
function shown({ mappings, thresholds, unit, decimals }, value) {
  const mapped = mappings?.[0].options[value];
  const step = thresholds?.steps.findLast((each) => each.value === null || value >= each.value);
  return { text: mapped?.text ?? withUnit(value, unit, decimals), colour: value === null ? "" : (mapped?.color ?? step?.color ?? "") };
}

const nothing = () => [make("p", { className: "none" }, "no data")];

export async function stat(view, panel, section) {
  const [target] = panel.targets;
  const [found] = target.instant ? await view.instant(target) : await view.over(target);
  const value = found?.values ? latest(found.values) : (found?.value ?? null);
  const { text, colour } = shown(fieldOf(panel, ""), value);
  section.dataset.colour = colour;
  const told = found && panel.options.textMode === "name" ? filled(target.legendFormat, found.labels) : text;
  return [make("p", { title: told }, told), ...(found?.values ? [spark(view, found.values)] : [])];
}

export async function timeseries(view, panel) {
  const all = [];
  for (const target of panel.targets) {
    for (const { labels, values } of await view.over(target)) {
      const known = values.filter((value) => value !== null);
      if (known.length) all.push({ name: filled(target.legendFormat, labels), values, highest: Math.max(...known) });
    }
  }
  const series = all.toSorted((one, other) => other.highest - one.highest).slice(0, MOST_LINES);
  if (!series.length) return nothing();
  const several = panel.targets.length > 1;
  series.sort((one, other) => (several ? all.indexOf(one) - all.indexOf(other) : order(one.name, other.name)));
  let taken = 0;
  for (const each of series) each.colour = paint(`line-${fieldOf(panel, each.name).color.fixedColor ?? taken++}`);
  return lines(view, { title: panel.title, field: fieldOf(panel, ""), series, leftOut: all.length - series.length });
}

export async function heatmap(view, panel) {
  const found = await view.over(panel.targets[0]);
  const buckets = found.map(({ labels, values }) => ({ edge: labels.le === "+Inf" ? Infinity : Number(labels.le), values }));
  buckets.sort((one, other) => one.edge - other.edge);
  const { title, options } = panel;
  return heatMap(view, { title, unit: fieldOf(panel, "").unit, unitOfEdges: options.yAxis.unit, buckets }) ?? nothing();
}

// Two rows are of one thing where all labels that both have are the same, and they have some.
function agree(row, labels) {
  const both = Object.keys(labels).filter((name) => name in row);
  return both.length > 0 && both.every((name) => row[name] === labels[name]);
}

function cell(view, field, name, value) {
  const link = field.links?.[0].url.replace("${__value.text}", encodeURIComponent(value));
  if (link) return make("td", {}, make("a", { href: `#${link}&from=${view.from}&to=${view.to}` }, value));
  if (!name.startsWith("Value")) return make("td", {}, value ?? "");
  const { text, colour } = shown(field, value ?? null);
  const made = make("td", {}, text);
  if (field["custom.cellOptions"]) made.dataset.colour = colour;
  return made;
}

export async function table(view, panel) {
  const rows = [];
  for (const target of panel.targets) {
    const column = panel.targets.length > 1 ? `Value #${target.refId}` : "Value";
    for (const { labels, value } of await view.instant(target)) {
      const same = rows.filter((row) => !(column in row) && agree(row, labels));
      for (const row of same) Object.assign(row, labels, { [column]: value });
      if (!same.length) rows.push({ ...labels, [column]: value });
    }
  }
  if (!rows.length) return nothing();
  const { indexByName, renameByName } = panel.transformations.find(({ id }) => id === "organize").options;
  const columns = Object.keys(indexByName).sort((one, other) => indexByName[one] - indexByName[other]);
  const fields = columns.map((name) => fieldOf(panel, renameByName[name]));
  rows.sort((one, other) => columns.map((name) => order(one[name] ?? "", other[name] ?? "")).find(Boolean) ?? 0);
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, renameByName[name])));
  const body = rows.map((row) => make("tr", {}, ...columns.map((name, index) => cell(view, fields[index], name, row[name]))));
  return [make("table", {}, head, ...body)];
}
