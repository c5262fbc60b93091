// Numbers as a person reads them, in the units of Grafana's that the dashboards name.

// What a unit's numbers are divided by, and called then, from the smallest on.
export const SCALES = {
  none: [[1, ""]],
  reqps: [[1, "req/s"], [1e3, "k req/s"], [1e6, "M req/s"]],
  percentunit: [[0.01, "%"]],
  s: [[1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "d"]],
  bytes: [[1, "B"], [2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"], [2 ** 40, "TiB"]],
  Bps: [[1, "B/s"], [1e3, "kB/s"], [1e6, "MB/s"], [1e9, "GB/s"]],
};
// Below this an axis looks as empty as its data is.
const SMALLEST_TOP = { percentunit: 0.01, s: 0.01, bytes: 1024, Bps: 1000, reqps: 0.1 };

function scale(value, unit) {
  const scales = SCALES[unit] ?? [[1, unit]];
  return scales.findLast(([size]) => size <= Math.abs(value) * 1.0000001) ?? scales[0];
}

// At most so many digits after the point, and none that says nothing.
const digits = (value, places) => String(Number(value.toFixed(places)));

// A value with three digits and its unit; longer times in two parts.
export function withUnit(value, unit, decimals) {
  if (value === null || value === undefined) return "-";
  if (unit === "s" && Math.abs(value) >= 120) {
    const rest = Math.floor(Math.abs(value));
    const [larger, size, smaller, part] = [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]].find(
      ([, seconds]) => rest >= seconds,
    );
    const whole = Math.floor(rest / size);
    const left = Math.floor((rest % size) / part);
    return `${value < 0 ? "-" : ""}${whole} ${larger}${left && whole < 10 ? ` ${left} ${smaller}` : ""}`;
  }
  const [divisor, name] = scale(unit === "s" ? Math.min(Math.abs(value), 1) : value, unit);
  const scaled = value / divisor;
  const places = scaled ? Math.min(3, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(scaled))))) : 0;
  return `${digits(scaled, decimals ?? places)} ${name}`.trim();
}

// Where an axis from 0 to at least `top` has its lines, and what stands there. Whole things are counted in whole numbers.
export function ticks(top, unit, whole) {
  const highest = Math.max(top, SMALLEST_TOP[unit] ?? 1);
  const [divisor, name] = scale(highest, unit);
  const rough = highest / divisor / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999999);
  if (whole && unit === "none") step = Math.max(1, Math.ceil(step));
  const count = Math.ceil(highest / divisor / step - 1e-6);
  return Array.from({ length: count + 1 }, (_, index) => ({
    v: index * step * divisor,
    label: index ? `${digits(index * step, 6)} ${name}`.trim() : "0",
  }));
}
