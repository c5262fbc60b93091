#!/usr/bin/python3
"""Make static pages of Grafana's dashboards: the same queries, titles, units and colours, for a browser and nothing else."""

from __future__ import annotations

import argparse
import base64
import calendar
import dataclasses
import json
import math
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Labels = dict[str, str]

TIMEOUT_SECONDS = 10.0
# Lines of one plot. More than that nobody tells apart, and pages of large fleets would grow with them.
MOST_LINES = 8
MOST_MARKS = 40
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 180, 38, 6, 24, 20


# Asking Prometheus


class NoAnswerError(Exception):
    """Prometheus answers that it cannot tell, or does not answer."""


class SilenceError(NoAnswerError):
    """Prometheus does not answer at all."""


@dataclasses.dataclass(frozen=True)
class Period:
    """What a plot shows.

    Args:
        name: what the page calls it, and its class there.
        seconds: its length.
        step: seconds between two points.
        cell: seconds that a cell of a heat map is wide.
        tick: seconds between two labels of the time axis.
    """

    name: str
    seconds: int
    step: int
    cell: int
    tick: int


HOUR = Period("hour", 3600, 30, 60, 900)
DAY = Period("day", 86400, 600, 1800, 14400)


class Prometheus:
    """Prometheus, asked about one moment.

    Args:
        url: where its API is, less the /api/v1.
        now: the moment, in seconds since the epoch.
        interval: seconds between two of its measurements.
        password: the password of the user monitor; empty where it asks for none.
    """

    def __init__(self, url: str, now: float, interval: int, password: str = "") -> None:
        self.url = url.rstrip("/")
        self.now = now
        self.interval = interval
        login = base64.b64encode(f"monitor:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {login}"} if password else {}

    def _ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer.

        Raises:
            NoAnswerError: where there is none, with the reason; SilenceError where nobody answers.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=self.headers), timeout=TIMEOUT_SECONDS) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise NoAnswerError(f"{error.code} {error.reason}{reason(error.read())}") from error
        except (OSError, ValueError) as error:
            raise SilenceError(str(getattr(error, "reason", error)) or type(error).__name__) from error
        try:
            return document["data"]
        except (TypeError, KeyError) as error:
            raise NoAnswerError("its answer is not that of Prometheus") from error

    def _prepare(self, query: str, step: int) -> str:
        """Replace the one variable of Grafana's that depends on the plot, as Grafana does."""
        return query.replace("$__rate_interval", f"{max(step + self.interval, 4 * self.interval)}s")

    def instant(self, query: str) -> list[tuple[Labels, float | None]]:
        """Return labels and values of a query now."""
        data = self._ask("query", query=self._prepare(query, HOUR.step), time=f"{self.now:.3f}")
        return [(dict(each["metric"]), number(each["value"][1])) for each in data["result"]]

    def over(self, query: str, period: Period, step: int) -> tuple[float, list[tuple[Labels, list[float | None]]]]:
        """Return when a period starts, in seconds since the epoch, and the labels and values of a query, one for each step."""
        end = self.now // step * step
        start = end - period.seconds
        data = self._ask("query_range", query=self._prepare(query, step), start=f"{start:.0f}", end=f"{end:.0f}", step=step)
        found = []
        for each in data["result"]:
            values: list[float | None] = [None] * (period.seconds // step + 1)
            for moment, value in each["values"]:
                values[round((float(moment) - start) / step)] = number(value)
            found.append((dict(each["metric"]), values))
        return start, found

    def hosts(self) -> list[str]:
        """Return the hosts that were measured at any time in the last day."""
        span = {"start": f"{self.now - DAY.seconds:.0f}", "end": f"{self.now:.0f}", "match[]": "slipway_up"}
        return sorted(str(each) for each in self._ask("label/instance/values", **span) if each)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that fire or are about to, the firing ones first."""
        found = [each for each in self._ask("alerts")["alerts"] if each.get("state") in ("firing", "pending")]
        return sorted(found, key=lambda each: (each["state"] != "firing", each.get("activeAt", ""), str(each.get("labels"))))


def reason(body: bytes) -> str:
    """Return what Prometheus says in an answer that is an error, after a colon; nothing where it says nothing."""
    try:
        return f": {json.loads(body)['error']}"
    except (ValueError, LookupError, TypeError):
        return ""


def number(text: str) -> float | None:
    """Return a value as Prometheus writes it; None for what cannot be drawn."""
    value = float(text)
    return value if math.isfinite(value) else None


# Numbers and their units

# By Grafana's name of a unit: what its numbers are divided by, and called then, from the smallest on.
SCALES: dict[str, list[tuple[float, str]]] = {
    "none": [(1, "")],
    "reqps": [(1, "req/s"), (1e3, "k req/s"), (1e6, "M req/s")],
    "percentunit": [(0.01, "%")],
    "s": [(1e-3, "ms"), (1, "s"), (60, "min"), (3600, "h"), (86400, "d")],
    "bytes": [(1, "B"), (2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB"), (2**40, "TiB")],
    "Bps": [(1, "B/s"), (1e3, "kB/s"), (1e6, "MB/s"), (1e9, "GB/s")],
}
# Below this an axis looks as empty as its data is.
SMALLEST_TOP = {"percentunit": 0.01, "s": 0.01, "bytes": 1024.0, "Bps": 1000.0, "reqps": 0.1}


def scale(value: float, unit: str) -> tuple[float, str]:
    """Return what numbers as large as `value` are divided by, and the unit they have then."""
    scales = SCALES.get(unit, [(1, unit)])
    fitting = [each for each in scales if each[0] <= abs(value) * 1.0000001]
    return fitting[-1] if fitting else scales[0]


def digits(value: float, places: int) -> str:
    """Return a number with at most so many places after the point, and none that says nothing."""
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def with_unit(value: float | None, unit: str) -> str:
    """Return a value as a person reads it: three digits and a unit, longer times in two parts."""
    if value is None:
        return "-"
    if unit == "s" and abs(value) >= 120:
        sign, rest = "-" if value < 0 else "", abs(value)
        larger, size, smaller, part = next(
            each for each in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)) if rest >= each[1]
        )
        whole, left = divmod(int(rest), size)
        second = f" {left // part} {smaller}" if left // part and whole < 10 else ""
        return f"{sign}{whole} {larger}{second}"
    divisor, name = scale(min(abs(value), 1) if unit == "s" else value, unit)
    scaled = value / divisor
    places = 0 if scaled == 0 else max(0, 2 - math.floor(math.log10(abs(scaled))))
    return f"{digits(scaled, min(places, 3))} {name}".strip()


def ticks(top: float, unit: str, whole: bool = False) -> tuple[list[float], list[str], str]:
    """Return where an axis from 0 to at least `top` has its lines, what stands there, and in which unit.

    Args:
        top: the largest value.
        unit: Grafana's name of the unit.
        whole: whether all values are whole numbers.
    """
    top = max(top, SMALLEST_TOP.get(unit, 1.0))
    divisor, name = scale(top, unit)
    rough = top / divisor / 4
    power = float(10 ** math.floor(math.log10(rough)))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999999)
    if whole and unit == "none":
        step = float(max(1, math.ceil(step)))
    count = math.ceil(top / divisor / step - 1e-6)
    places = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if f"{step:e}".startswith("2.5") else 0))
    marks = [index * step for index in range(count + 1)]
    return [each * divisor for each in marks], [digits(each, places) for each in marks], name


def clock(moment: float) -> str:
    """Return the time of day, in UTC."""
    return time.strftime("%H:%M", time.gmtime(moment))


# The dashboards


@dataclasses.dataclass
class Line:
    """One line of a plot, with the name of its colour."""

    name: str
    values: list[float | None]
    colour: str


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment that all plots mark, such as a release: seconds since the epoch, a short text, and a longer one."""

    moment: float
    short: str
    text: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel of a dashboard, as its JSON has it."""

    document: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Return what it is: stat, timeseries, heatmap, table or row."""
        return str(self.document["type"])

    @property
    def title(self) -> str:
        """Return its title."""
        return str(self.document.get("title", ""))

    @property
    def description(self) -> str:
        """Return a sentence that says what it shows."""
        return str(self.document.get("description", ""))

    @property
    def targets(self) -> Sequence[Mapping[str, Any]]:
        """Return its queries."""
        return list(self.document.get("targets", []))

    @property
    def lists_alerts(self) -> bool:
        """Say whether it is a list of alerts."""
        return self.kind == "table" and all("ALERTS{" in target["expr"] for target in self.targets)

    @property
    def options(self) -> Mapping[str, Any]:
        """Return the options of its kind."""
        return dict(self.document.get("options", {}))

    def field(self, name: str) -> dict[str, Any]:
        """Return how values are shown, with what is said of those of one name."""
        config = self.document.get("fieldConfig", {})
        found = dict(config.get("defaults", {}))
        for rule in config.get("overrides", []):
            matcher = rule["matcher"]
            pattern = matcher["options"] if matcher["id"] == "byRegexp" else re.escape(matcher["options"])
            if re.fullmatch(pattern, name):
                found.update({each["id"]: each["value"] for each in rule["properties"]})
        return found


def legend(target: Mapping[str, Any], labels: Labels, otherwise: str) -> str:
    """Return what a series is called: the target's pattern with the series' labels, or else these, or else `otherwise`."""
    pattern = str(target.get("legendFormat", ""))
    if pattern:
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), pattern)
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != "__name__") or otherwise


def colour(field: Mapping[str, Any], value: float | None) -> str:
    """Return the name of the colour of a value: its mapping's, or else its threshold's."""
    if value is None:
        return ""
    _, mapped = mapping(field, value)
    if mapped:
        return mapped
    found = ""
    for step in field.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            found = str(step["color"])
    return found


def mapping(field: Mapping[str, Any], value: float | None) -> tuple[str, str]:
    """Return the word that stands for a value, and its colour; empty ones where none does."""
    for each in field.get("mappings", []):
        found = each["options"].get(digits(value, 6)) if value is not None and each["type"] == "value" else None
        if found:
            return str(found.get("text", "")), str(found.get("color", ""))
    return "", ""


def shown(field: Mapping[str, Any], value: float | None) -> str:
    """Return a value as it is shown."""
    return mapping(field, value)[0] or with_unit(value, str(field.get("unit", "none")))


# Plots


def place(value: float) -> str:
    """Return a coordinate, as short as it can be."""
    return digits(value, 1)


def path(points: Sequence[tuple[float, float]], steps: bool = False) -> str:
    """Return a path through points, each told from the one before it; those within a level stretch are left out."""
    rounded = [(round(x, 1), round(y, 1)) for x, y in points]
    kept = [
        point
        for i, point in enumerate(rounded)
        if i in (0, len(rounded) - 1) or not rounded[i - 1][1] == point[1] == rounded[i + 1][1]
    ]
    text = f"M{place(kept[0][0])} {place(kept[0][1])}"
    text += "" if steps else "l"
    for i in range(1, len(kept)):
        x, y = place(kept[i][0] - kept[i - 1][0]), place(kept[i][1] - kept[i - 1][1])
        text += f"h{x}v{y}" if steps else f"{x} {y} "
    return text.rstrip(" l").replace(" -", "-")


def stretches(values: list[float | None]) -> list[list[tuple[int, float]]]:
    """Return the parts of a line that have no gap, as indices and values."""
    found: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((index, value))
    return [each for each in found if each]


class Frame:
    """The axes of a plot, and what stands on them.

    Args:
        start: when it starts, in seconds since the epoch.
        period: what it shows.
        top: the value at its upper edge.
    """

    def __init__(self, start: float, period: Period, top: float) -> None:
        self.start = start
        self.period = period
        self.top = top

    def x(self, seconds: float) -> float:
        """Return where something that many seconds after the start stands."""
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.period.seconds

    def y(self, value: float) -> float:
        """Return where a value stands."""
        inside = min(max(value / self.top, 0), 1)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * inside

    def axes(self, heights: Sequence[float], labels: Sequence[str], unit: str) -> str:
        """Return both axes."""
        text = f'<text class="e" x="{LEFT - 5}" y="{TOP - 14}">{escape(unit)}</text>'
        lines = "".join(f"M{LEFT} {place(each)}H{WIDTH - RIGHT}" for each in heights)
        text += f'<path class="grid" d="{lines}"/>' if lines else ""
        for index, label in enumerate(labels):
            text += f'<text class="e" x="{LEFT - 5}" y="{place(heights[index] + 3)}">{escape(label)}</text>' if label else ""
        moment = math.ceil(self.start / self.period.tick) * self.period.tick
        while moment <= self.start + self.period.seconds:
            x = self.x(moment - self.start)
            place_of_text = min(max(x, LEFT + 8), WIDTH - RIGHT - 12)
            text += f'<text class="m" x="{place(place_of_text)}" y="{HEIGHT - 5}">{clock(moment)}</text>'
            text += f'<path class="grid" d="M{place(x)} {HEIGHT - BOTTOM}v3"/>'
            moment += self.period.tick
        return text

    def marks(self, marks: Sequence[Mark]) -> str:
        """Return the lines of what happened. Where they are few, each has its short text."""
        inside = [mark for mark in marks if 0 <= mark.moment - self.start <= self.period.seconds]
        text, last = "", -math.inf
        for mark in inside[-MOST_MARKS:]:
            x = self.x(mark.moment - self.start)
            text += f'<path class="mark" d="M{place(x)} {TOP - 5}V{HEIGHT - BOTTOM}"><title>{escape(mark.text)}</title></path>'
            if x - last > 8 + 6 * len(mark.short):
                middle = place(min(x, WIDTH - 3 * len(mark.short)))
                text += f'<text class="m mark" x="{middle}" y="{TOP - 8}">{escape(mark.short)}</text>'
                last = x
        return text


def svg(title: str, kind: str, content: str) -> str:
    """Return a plot as an image with a name."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="{kind}" role="img" aria-label="{escape(title)}">{content}</svg>'


def latest(values: Sequence[float | None]) -> float | None:
    """Return what a series is now; None where it ended. A measurement or two may be missing."""
    return next((value for value in reversed(values[-3:]) if value is not None), None)


def keys(lines: Sequence[Line], field: Mapping[str, Any], left_out: int) -> str:
    """Return the legend of a plot, with the last value of each line."""
    text = ""
    for line in lines:
        last = latest(line.values)
        text += f'<li><i class="{line.colour}"></i>{escape(line.name)} <b>{escape(shown(field, last))}</b></li>'
    if left_out:
        text += f"<li>the {len(lines)} highest of {len(lines) + left_out}</li>"
    return f"<ul>{text}</ul>"


def plot(panel: Panel, start: float, period: Period, lines: Sequence[Line], marks: Sequence[Mark], left_out: int = 0) -> str:
    """Return lines, or areas that stand on each other, with axes and a legend."""
    field = panel.field("")
    custom, unit = field.get("custom", {}), str(field.get("unit", "none"))
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    steps = custom.get("lineInterpolation") == "stepAfter"
    heights = stack([line.values for line in lines]) if stacked else [line.values for line in lines]
    all_values = [value for values in heights for value in values if value is not None]
    if not all_values:
        return '<p class="none">no data</p>'
    top = float(field["max"]) if "max" in field else max(0.0, *all_values)
    at, labels, name = ticks(top, unit, all(value == int(value) for value in all_values))
    frame = Frame(start, period, at[-1])
    content = frame.axes([frame.y(each) for each in at], labels, name)
    for step in field.get("thresholds", {}).get("steps", []) if "thresholdsStyle" in custom else []:
        if step["value"] is not None and step["value"] < at[-1]:
            y = place(frame.y(step["value"]))
            content += f'<path class="limit {escape(step["color"])}" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
    gap = period.seconds / (len(lines[0].values) - 1)
    numbered = list(enumerate(lines))
    # Areas reach down to the axis, each drawn over the higher one before: half as long as areas with a lower edge of their own.
    for number_of_line, line in reversed(numbered) if stacked else numbered:
        upper = area = ""
        for part in stretches(heights[number_of_line]):
            points = [(frame.x(index * gap), frame.y(value)) for index, value in part]
            if len(points) == 1:  # a lone value would be a line without length
                points.append((points[0][0] + 1, points[0][1]))
            upper += path(points, steps)
            area += f"{path(points, steps)}V{HEIGHT - BOTTOM}H{place(points[0][0])}z"
        last = latest(line.values)
        told = f"<title>{escape(f'{line.name}: {shown(field, last)}')}</title>"
        if stacked:
            content += f'<path class="area {line.colour}" d="{area}">{told}</path>'
        else:
            content += f'<path class="tint {line.colour}" d="{area}"/>' if custom.get("fillOpacity") else ""
            content += f'<path class="line {line.colour}" d="{upper}">{told}</path>'
    return svg(panel.title, "plot", content + frame.marks(marks)) + keys(lines, field, left_out)


def stack(all_values: Sequence[list[float | None]]) -> list[list[float | None]]:
    """Return the values of lines that stand on each other. One that has none is flat there; a gap is where none has any."""
    length = len(all_values[0] if all_values else [])
    empty = [all(values[index] is None for values in all_values) for index in range(length)]
    sums = [0.0] * length
    found: list[list[float | None]] = []
    for values in all_values:
        sums = [before + (values[index] or 0.0) for index, before in enumerate(sums)]
        found.append([None if empty[index] else value for index, value in enumerate(sums)])
    return found


def heat_map(
    panel: Panel, start: float, period: Period, buckets: Sequence[tuple[float, list[float | None]]], marks: Sequence[Mark]
) -> str:
    """Return a heat map of a histogram.

    Args:
        panel: whose it is.
        start: when it starts, in seconds since the epoch.
        period: what it shows.
        buckets: upper edges, and the counts of all that is below, from the lowest edge on.
        marks: what happened.
    """
    counts: list[list[float]] = []
    lower: list[float | None] = []
    for _, values in buckets:
        counts.append([max(0.0, (value or 0.0) - (lower[i] or 0.0 if lower else 0.0)) for i, value in enumerate(values)])
        lower = values
    most = max((count for row in counts for count in row), default=0.0)
    if most <= 1e-9:
        return '<p class="none">no data</p>'
    used = [index for index, row in enumerate(counts) if max(row) > 1e-9]
    first, last = max(0, min(used) - 1), min(len(counts) - 1, max(used) + 1)
    rows = last - first + 1
    height = (HEIGHT - TOP - BOTTOM) / rows
    frame = Frame(start, period, rows)
    columns = len(counts[0])
    width = (WIDTH - LEFT - RIGHT) / columns
    edges = [buckets[index][0] for index in range(first, last + 1)]
    unit = str(panel.options.get("yAxis", {}).get("unit", "s"))
    every = 1 if rows <= 9 else 2
    labels = ["" if math.isinf(edge) or i % every else with_unit(edge, unit).replace(" ", "") for i, edge in enumerate(edges)]
    content = frame.axes([HEIGHT - BOTTOM - height * (i + 1) for i in range(rows)], labels, "")
    levels: dict[int, str] = {}
    for i in range(rows):
        for j, count in enumerate(counts[first + i]):
            if count > 1e-9:
                level = min(5, 1 + int(5 * math.sqrt(count / most)))
                x, y = place(LEFT + width * j), place(HEIGHT - BOTTOM - height * (i + 1) + 0.5)
                levels[level] = (
                    levels.get(level, "") + f"M{x} {y}h{place(width - 0.4)}v{place(height - 1)}h-{place(width - 0.4)}z"
                )
    content += "".join(f'<path class="heat{level}" d="{drawn}"/>' for level, drawn in sorted(levels.items()))
    of = with_unit(most, str(panel.field("").get("unit", "none")))
    squares = "".join(f'<i class="heat{level}"></i>' for level in range(1, 6))
    return svg(panel.title, "plot", content + frame.marks(marks)) + f"<ul><li>few {squares} up to <b>{escape(of)}</b></li></ul>"


def spark(values: list[float | None]) -> str:
    """Return a small line without axes."""
    present = [value for value in values if value is not None]
    if len(present) < 2:
        return ""
    top = max(*present, 1e-12)
    drawn = "".join(
        path([(100 * index / (len(values) - 1), 22 - 20 * max(value, 0) / top) for index, value in part])
        for part in stretches(values)
    )
    return f'<svg viewBox="0 0 100 24" class="spark" preserveAspectRatio="none" aria-hidden="true"><path d="{drawn}"/></svg>'


# A page and its parts


class Page:
    """One dashboard, filled in.

    Args:
        prometheus: who knows.
        dashboard: the dashboard's JSON.
        variables: values of the dashboard's variables.
        links: pages of hosts.
    """

    def __init__(
        self, prometheus: Prometheus, dashboard: Mapping[str, Any], variables: Mapping[str, str], links: Mapping[str, str]
    ) -> None:
        self.prometheus = prometheus
        self.dashboard = dashboard
        self.variables = variables
        self.links = links

    def query(self, target: Mapping[str, Any]) -> str:
        """Return a target's query with the dashboard's variables filled in."""
        text = str(target["expr"])
        for name, value in self.variables.items():
            quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            text = text.replace(f"${name}", quoted)
        return text

    def content(self) -> str:
        """Return all panels but lists of alerts, with which the page starts, in the order in which Grafana shows them."""
        marks = {period.name: self.marks(period) for period in (HOUR, DAY)}
        text, group = "", ""
        groups = {"stat": "tiles", "timeseries": "plots", "heatmap": "plots", "table": "tables"}
        panels = [panel for panel in map(Panel, self.dashboard["panels"]) if not panel.lists_alerts]
        panels.sort(key=lambda panel: (panel.document["gridPos"]["y"], panel.document["gridPos"]["x"]))
        after = [panel.kind for panel in panels[1:]] + ["row"]
        panels = [panel for index, panel in enumerate(panels) if not panel.kind == after[index] == "row"]
        for panel in panels:
            wanted = groups.get(panel.kind, "")
            if group and wanted != group:
                text += "</div>"
            if wanted and wanted != group:
                count = 0
                for other in panels[panels.index(panel) :]:
                    if groups.get(other.kind, "") != wanted:
                        break
                    count += 1
                text += f'<div class="{wanted} n{min(count, 6)}">'
            group = wanted
            if panel.kind == "row":
                text += f"<h2>{escape(panel.title)}</h2>"
            elif wanted:
                text += self.panel(panel, marks)
        return text + ("</div>" if group else "")

    def panel(self, panel: Panel, marks: Mapping[str, Sequence[Mark]]) -> str:
        """Return one panel; where Prometheus has no answer to it, that stands there."""
        head = f'<h3 title="{escape(panel.description)}">{escape(panel.title)}</h3>'
        try:
            if panel.kind == "stat":
                return self.tile(panel, head)
            if panel.kind == "table":
                return f'<section class="table">{head}{self.table(panel)}</section>'
            draw = self.heat_map if panel.kind == "heatmap" else self.plot
            parts = "".join(f'<div class="{each.name}">{draw(panel, each, marks[each.name])}</div>' for each in (HOUR, DAY))
            return f"<section>{head}{parts}</section>"
        except SilenceError:
            raise
        except NoAnswerError as error:
            return f'<section>{head}<p class="red">Prometheus does not answer this: {escape(str(error))}</p></section>'

    def marks(self, period: Period) -> list[Mark]:
        """Return what the dashboard's annotations say of a period."""
        found: dict[tuple[float, str], Mark] = {}
        for annotation in self.dashboard.get("annotations", {}).get("list", []):
            try:
                _, series = self.prometheus.over(self.query(annotation["target"]), period, period.step)
            except SilenceError:
                raise
            except NoAnswerError:
                continue  # the plots are good without them
            for labels, values in series:
                text = legend({"legendFormat": annotation.get("textFormat", "")}, labels, "")
                short = labels.get(str(annotation.get("tagKeys", "")), "")
                for value in {value for value in values if value is not None}:
                    moment = value / 1000  # Grafana wants milliseconds
                    where = labels.get("app", labels.get("instance", "")) + " " if not self.variables else ""
                    mark = Mark(moment, where + short, f"{where}{text}, {clock(moment)} UTC")
                    found[moment, mark.text] = mark
        return [found[key] for key in sorted(found)]

    def plot(self, panel: Panel, period: Period, marks: Sequence[Mark]) -> str:
        """Return a panel of lines."""
        lines, start = [], 0.0
        for target in panel.targets:
            start, series = self.prometheus.over(self.query(target), period, period.step)
            lines += [Line(legend(target, labels, panel.title), values, "") for labels, values in series]
        lines = [line for line in lines if any(value is not None for value in line.values)]
        lines.sort(key=lambda line: -max(value for value in line.values if value is not None))
        kept = lines[:MOST_LINES]
        if len(panel.targets) == 1:
            kept.sort(key=lambda line: natural(line.name))
        else:
            order = [str(target.get("legendFormat", "")) for target in panel.targets]
            kept.sort(key=lambda line: order.index(line.name) if line.name in order else len(order))
        taken = 0
        for line in kept:
            fixed = panel.field(line.name).get("color", {}).get("fixedColor", "")
            line.colour = str(fixed) if fixed else f"c{taken}"
            taken += not fixed
        return plot(panel, start, period, kept, marks, len(lines) - len(kept))

    def heat_map(self, panel: Panel, period: Period, marks: Sequence[Mark]) -> str:
        """Return a panel of a histogram."""
        start, series = self.prometheus.over(self.query(panel.targets[0]), period, period.cell)
        buckets = sorted(((float(labels["le"]), values) for labels, values in series if "le" in labels), key=lambda each: each[0])
        return heat_map(panel, start, period, buckets, marks)

    def tile(self, panel: Panel, head: str) -> str:
        """Return a panel of one value."""
        target, field = panel.targets[0], panel.field("")
        small, name = "", ""
        value: float | None = None
        if target.get("instant"):
            found = self.prometheus.instant(self.query(target))
            if found:
                name, value = legend(target, found[0][0], panel.title), found[0][1]
        else:
            _, series = self.prometheus.over(self.query(target), HOUR, HOUR.step)
            for labels, values in series[:1]:
                value = latest(values)
                name, small = legend(target, labels, panel.title), spark(values)
        text = name if panel.options.get("textMode") == "name" and name else shown(field, value)
        kind = f"tile {escape(colour(field, value))}"
        words = [escape(word) for word in text.split(" ")]
        units = [word if not i or word.isdecimal() else f"<small>{word}</small>" for i, word in enumerate(words)]
        inner = " ".join(units if words[0][:1].isdecimal() else words)
        return f'<section class="{kind}">{head}<p title="{escape(text)}">{inner}</p>{small}</section>'

    def table(self, panel: Panel) -> str:
        """Return a panel of a table: the rows of its queries put together by the labels that they share."""
        rows: list[dict[str, Any]] = []
        for target in panel.targets:
            value_name = f"Value #{target['refId']}" if len(panel.targets) > 1 else "Value"
            for labels, value in self.prometheus.instant(self.query(target)):
                shared = [row for row in rows if value_name not in row and agrees(row, labels)]
                for row in shared:
                    row.update({**labels, value_name: value})
                if not shared:
                    rows.append({**labels, value_name: value})
        if not rows:
            return '<p class="none">no data</p>'
        (organize,) = [each["options"] for each in panel.document["transformations"] if each["id"] == "organize"]
        columns = sorted(organize["indexByName"], key=lambda name: organize["indexByName"][name])
        titles = {name: str(organize["renameByName"].get(name, name)) for name in columns}
        rows.sort(key=lambda row: [natural(str(row.get(name, ""))) for name in columns[:2]])
        text = "".join(f"<th>{escape(titles[name])}</th>" for name in columns)
        lines = ["".join(self.cell(panel.field(titles[name]), name, row.get(name)) for name in columns) for row in rows]
        return f"<table><tr>{text}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def cell(self, field: Mapping[str, Any], name: str, value: Any) -> str:
        """Return a cell of a table."""
        if isinstance(value, str):
            text = escape(value)
            return (
                f'<td><a href="{escape(self.links[value])}">{text}</a></td>'
                if name == "instance" and value in self.links
                else f"<td>{text}</td>"
            )
        if value is None and not name.startswith("Value"):
            return "<td></td>"
        coloured = colour(field, value) if "custom.cellOptions" in field else ""
        return f'<td class="n {escape(coloured)}">{escape(shown(field, value))}</td>'


def agrees(row: Mapping[str, Any], labels: Labels) -> bool:
    """Say whether a row has the same labels as another, as far as both have them, and at least one."""
    both = row.keys() & labels.keys()
    return bool(both) and all(row[name] == labels[name] for name in both)


def natural(text: str) -> list[Any]:
    """Return a key by which release 9 comes before release 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --text: #1c2430; --soft: #5b6675; --rule: #e3e7ec;
  --green: #00795a; --orange: #a86400; --red: #c0340a; --blue: #0072b2; --purple: #7a4fa3;
  --c0: #0072b2; --c1: #e08e00; --c2: #009e73; --c3: #cc6a9f; --c4: #56b4e9; --c5: #d55e00; --c6: #7a4fa3; --c7: #7d7d6b;
  --h1: #d6e8f5; --h2: #9fcbe8; --h3: #5aa5d6; --h4: #1f77b4; --h5: #0b3f6f; font: 15px/1.45 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #10151c; --card: #19212b; --text: #e6eaf0; --soft: #98a4b3; --rule: #2b3542;
  --green: #3ec79b; --orange: #f0ad3c; --red: #ff8a60; --blue: #62b4ee; --purple: #c39be6;
  --c0: #4ba6e3; --c1: #f0ad3c; --c2: #3ec79b; --c3: #e79ac4; --c4: #9bd5f5; --c5: #ff8a60; --c6: #c39be6; --c7: #b3b39c;
  --h1: #16344d; --h2: #1a5482; --h3: #2a7fc0; --h4: #6bb5ea; --h5: #d3ecfc; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); }
#hour, #day { position: fixed; top: 0; }
header, main, footer { max-width: 88rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; padding-top: 1rem; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.6rem 0 .5rem; color: var(--soft); font-weight: 600; }
h3 { font-size: .85rem; margin: 0; font-weight: 600; }
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
.made { color: var(--soft); font-size: .85rem; margin-left: auto; }
.period { display: inline-flex; border: 1px solid var(--rule); border-radius: .5rem; overflow: hidden; font-size: .85rem; }
.period a { padding: .2rem .7rem; color: var(--soft); background: var(--card); }
.period .to-hour, #day:target ~ header .to-day { background: var(--blue); color: var(--card); }
#day:target ~ header .to-hour { background: var(--card); color: var(--soft); }
.day, #day:target ~ main .hour { display: none; }
#day:target ~ main .day { display: block; }
.state { border-radius: .6rem; padding: .7rem 1rem; margin: 1rem 0; background: var(--card);
  border: 1px solid var(--rule); border-left: 5px solid; }
.state strong { font-size: 1.05rem; }
.state.green { border-left-color: var(--green); }
.state.orange { border-left-color: var(--orange);
  }
.state.red { border-left-color: var(--red); }
.state > strong { color: inherit; }
.state.green > strong { color: var(--green); }
.state.orange > strong { color: var(--orange);
  }
.state.red > strong { color: var(--red); }
.tiles, .plots, .tables { display: grid; gap: .8rem; margin-top: .8rem; }
.tiles { grid-template-columns: repeat(2, 1fr); }
@media (min-width: 40rem) { .tiles { grid-template-columns: repeat(3, 1fr); }
  .tiles.n4 { grid-template-columns: repeat(4, 1fr); } }
@media (min-width: 62rem) { .tiles { grid-template-columns: repeat(6, 1fr); } }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); }
.tables { grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: .7rem .8rem; min-width: 0; }
.table { overflow-x: auto; }
.tile { position: relative; overflow: hidden; padding-bottom: 1.7rem; }
.tile small { font-size: .95rem; font-weight: 500; }
.tile h3 { color: var(--soft); font-weight: 500; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tile p { font-size: 1.45rem; font-weight: 600; margin: .1rem 0 0; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.tile.green p, td.green { color: var(--green); } .tile.orange p, td.orange { color: var(--orange); font-weight: 600; }
.tile.red p, td.red, p.red { color: var(--red); font-weight: 600; }
.tile.red { border-color: var(--red); }
.none { color: var(--soft); text-align: center; padding: 2.5rem 0; margin: 0; }
svg { display: block; width: 100%; height: auto; }
.spark { position: absolute; left: 0; right: 0; bottom: 0; height: 1.5rem; opacity: .55; }
.spark path { fill: none; stroke: var(--c0); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
text { fill: var(--soft); font-size: 10px; } .e { text-anchor: end; } .m { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; }
.line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }
.area { stroke: currentColor; stroke-width: .7; fill: color-mix(in srgb, currentColor 55%, var(--card)); }
.tint { stroke: none; fill: currentColor; fill-opacity: .14; }
.limit { stroke: currentColor; stroke-dasharray: 4 3; fill: none; }
path.mark { stroke: var(--purple); stroke-dasharray: 2 2; fill: none; } text.mark { fill: var(--purple); font-size: 9px; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
svg .green, i.green { color: var(--c2); } svg .blue, i.blue { color: var(--c0); }
svg .orange, i.orange { color: var(--c1); } svg .red, i.red { color: var(--c5); }
.heat1 { fill: var(--h1); background: var(--h1); } .heat2 { fill: var(--h2); background: var(--h2); }
.heat3 { fill: var(--h3); background: var(--h3); } .heat4 { fill: var(--h4); background: var(--h4); }
.heat5 { fill: var(--h5); background: var(--h5); }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .3rem 0 0; padding: 0;
  font-size: .8rem; color: var(--soft); }
li { overflow-wrap: anywhere; } li b { color: var(--text); font-weight: 600; white-space: nowrap; }
i { display: inline-block; width: .7rem; height: .7rem; border-radius: .15rem; margin-right: .3rem; background: currentColor; }
i[class^=heat] { margin-right: 0; border-radius: 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; margin-top: .3rem; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
tr:last-child td { border-bottom: 0; }
.alert { display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: .45rem 0 0; align-items: baseline; }
.alert span { flex: 1 1 18rem; } .alert em { font-style: normal; color: var(--soft); font-size: .88rem; }
b.red { color: var(--red); } b.orange { color: var(--orange); }
footer { color: var(--soft); font-size: .85rem; padding-top: 1rem; padding-bottom: 2rem; }
"""


PERIODS = '<nav class="period"><a class="to-hour" href="#hour">Last hour</a><a class="to-day" href="#day">Last day</a></nav>'


def document(title: str, heading: str, body: str, now: float) -> str:
    """Return a whole page, which a browser asks for again each minute."""
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="60">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<span id="hour"></span><span id="day"></span>
<header>{heading}
<span class="made">made {made}</span></header>
<main>
{body}
</main>
<footer>Times are in UTC. Dotted lines mark releases.
A page that was made longer ago than two minutes says nothing of now.</footer>
</html>
"""


def alert_list(alerts: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return alerts as a list, with what each says and since when it does."""
    text = ""
    for alert in alerts:
        labels, notes = alert.get("labels", {}), alert.get("annotations", {})
        says = str(notes.get("summary") or notes.get("description") or notes.get("message") or "")
        told = [str(labels[name]) for name in ("severity", "instance") if labels.get(name)]
        try:
            since = calendar.timegm(time.strptime(str(alert.get("activeAt", ""))[:19], "%Y-%m-%dT%H:%M:%S"))
            told.append(f"for {with_unit(max(0, round(now - since)), 's')}")
        except ValueError:
            pass
        firing = alert["state"] == "firing"
        name, rest = escape(str(labels.get("alertname", ""))), escape(", ".join(told))
        text += f'<div class="alert"><b class="{"red" if firing else "orange"}">{name}</b>'
        text += f"<span>{escape(says)}</span><em>{'' if firing else 'about to fire, '}{rest}</em></div>"
    return text


def verdict(alerts: Sequence[Mapping[str, Any]], hosts: Sequence[str], now: float) -> tuple[str, str]:
    """Return in a few words whether something is wrong, and the same as the first thing of a page."""
    firing = sum(alert["state"] == "firing" for alert in alerts)
    if firing:
        says, kind = f"{firing} alert{'s fire' if firing > 1 else ' fires'}", "red"
    elif not hosts:
        says, kind = "Prometheus has not measured any app in the last day", "orange"
    elif alerts:
        says, kind = "Nothing fires, but something is about to", "orange"
    else:
        says, kind = "Nothing is wrong", "green"
    return says, f'<div class="state {kind}"><strong>{says}</strong>{alert_list(alerts, now)}</div>'


def page_name(host: str) -> str:
    """Return the file of a host's page."""
    return f"app-{re.sub(r'[^A-Za-z0-9._-]', '_', host)}.html"


def write(file: Path, text: str) -> None:
    """Write a file so that no reader sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".overview-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(text)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def make(prometheus: Prometheus, dashboards: Path, output: Path) -> None:
    """Write a page of the fleet, and one of each host; remove those of hosts that are gone.

    Raises:
        NoAnswerError: when Prometheus does not answer at all.
    """
    fleet, app = (json.loads((dashboards / f"{name}.json").read_text(encoding="utf-8")) for name in ("fleet", "app"))
    hosts, alerts = prometheus.hosts(), prometheus.alerts()
    links = {host: urllib.parse.quote(page_name(host)) for host in hosts}
    says, state = verdict(alerts, hosts, prometheus.now)
    page = Page(prometheus, fleet, {}, links)
    write(output / "index.html", document(says, f"<h1>All hosts</h1>{PERIODS}", state + page.content(), prometheus.now))
    for host in hosts:
        own = [alert for alert in alerts if alert.get("labels", {}).get("instance") in (host, None, "")]
        says, state = verdict(own, hosts, prometheus.now)
        heading = f'<h1>{escape(host)}</h1><a href="index.html">all hosts</a>{PERIODS}'
        content = Page(prometheus, app, {"instance": host}, links).content()
        write(output / page_name(host), document(f"{host}: {says}", heading, state + content, prometheus.now))
    for file in set(output.glob("app-*.html")) - {output / page_name(host) for host in hosts}:
        file.unlink()


def confess(error: NoAnswerError, prometheus: Prometheus, output: Path) -> None:
    """Put in the place of each page that Prometheus does not answer, so that none looks as if it told of now."""
    says = "Prometheus does not answer"
    text = (
        f'<div class="state red"><strong>{says}</strong><p>Nothing is known of any app. Asked at {escape(prometheus.url)}: '
        f"{escape(str(error))}</p><p>Look on this host: <code>systemctl status prometheus</code></p></div>"
    )
    for file in {output / "index.html", *output.glob("app-*.html")}:
        heading = "<h1>All hosts</h1>" if file.name == "index.html" else '<a href="index.html">all hosts</a>'
        write(file, document(says, heading, text, prometheus.now))


def main(arguments: Iterable[str] | None = None) -> int:
    """Make the pages. Return 1 where Prometheus does not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus", help="where Prometheus is, such as http://127.0.0.1:9090/.slipway/prometheus")
    parser.add_argument("dashboards", type=Path, help="directory of fleet.json and app.json")
    parser.add_argument("output", type=Path, help="directory of the pages")
    parser.add_argument("--interval", type=int, default=15, help="seconds between two measurements (15)")
    parser.add_argument("--password-file", type=Path, help="file of the password of the user monitor")
    options = parser.parse_args(None if arguments is None else list(arguments))
    password = options.password_file.read_text(encoding="utf-8").strip() if options.password_file else ""
    prometheus = Prometheus(options.prometheus, time.time(), options.interval, password)
    try:
        make(prometheus, options.dashboards, options.output)
    except NoAnswerError as error:
        confess(error, prometheus, options.output)
        print(f"Prometheus does not answer at {prometheus.url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
