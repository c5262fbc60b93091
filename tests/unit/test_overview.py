"""The pages that are made of the dashboards: what Prometheus says is what a reader sees, and silence is not good news."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import overview
import pytest
from overview import DAY, HOUR, Frame, Panel, Prometheus, ticks, with_unit

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "roles/grafana/files/dashboards"
HOST = "shop.example.com"
VOID = {"meta", "br", "link", "img"}

# Labels, and a value or what it is at a moment, in seconds since the epoch; None for none.
Series = tuple[dict[str, str], float | Callable[[float], float | None]]


class Stand(ThreadingHTTPServer):
    """Stands for Prometheus: answers queries by their text, all others with nothing.

    Args:
        answers: series by query.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Sequence[Series]] = {}
        self.otherwise: Sequence[Series] = ()
        self.refused: set[str] = set()
        self.alerts: list[dict[str, Any]] = []
        self.hosts = [HOST]
        self.silent_after = 10**9
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/.slipway/prometheus"

    def answer(self, path: str, parameters: dict[str, str]) -> Any:
        if path == "alerts":
            return {"alerts": self.alerts}
        if path == "label/instance/values":
            return self.hosts
        found = []
        for labels, value in self.answers.get(parameters["query"], self.otherwise):
            at = value if callable(value) else lambda _, value=value: value
            if path == "query":
                moments = [float(parameters["time"])]
            else:
                start, end, step = (float(parameters[name]) for name in ("start", "end", "step"))
                moments = [start + index * step for index in range(int((end - start) / step) + 1)]
            pairs = [[moment, str(at(moment))] for moment in moments if at(moment) is not None]
            found.append({"metric": labels, "value": pairs[0]} if path == "query" else {"metric": labels, "values": pairs})
        return {"resultType": "vector" if path == "query" else "matrix", "result": found}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        stand = self.server
        assert isinstance(stand, Stand)
        url = urllib.parse.urlsplit(self.path)
        parameters = dict(urllib.parse.parse_qsl(url.query))
        path = url.path.partition("/api/v1/")[2]
        stand.asked.append((path, parameters))
        if len(stand.asked) > stand.silent_after:
            self.close_connection = True
            return
        status, body = 200, {"status": "success", "data": stand.answer(path, parameters)}
        if parameters.get("query") in stand.refused:
            status, body = 422, {"status": "error", "errorType": "execution", "error": "found <many> matches"}
        self.send_response(status, "Unprocessable Entity" if status == 422 else "OK")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stand() -> Iterator[Stand]:
    server = Stand()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def prometheus(stand: Stand) -> Prometheus:
    return Prometheus(stand.url, 1_800_000_000.0, 15)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    directory = tmp_path / "overview"
    directory.mkdir()
    return directory


def panel(kind: str, *queries: str, defaults: Any = None, overrides: Any = (), **more: Any) -> dict[str, Any]:
    targets = [{"refId": "ABC"[i], "expr": query, "instant": kind in ("stat", "table")} for i, query in enumerate(queries)]
    config = {"defaults": {"unit": "none", **(defaults or {})}, "overrides": list(overrides)}
    return {"type": kind, "title": "Title", "gridPos": {"x": 0, "y": 0}, "targets": targets, "fieldConfig": config, **more}


def content(prometheus: Prometheus, *panels: dict[str, Any], **variables: str) -> str:
    return overview.Page(prometheus, {"panels": panels}, variables, {HOST: f"app-{HOST}.html"}).content()


def part(text: str, period: overview.Period = HOUR) -> str:
    """Return what a page shows for one period."""
    found = re.search(rf'<div class="{period.name}">(.*?)</div>', text, re.DOTALL)
    assert found is not None
    return found[1]


def drawn(text: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    """Return the points of each stretch of the lines of a plot."""
    found = []
    for data in re.findall(rf'<path class="{kind} \S+" d="([^"]*)"', text):
        for stretch in data.split("M")[1:]:
            stretch = stretch.partition("V")[0]
            x = y = 0.0
            points: list[tuple[float, float]] = []
            for letter, numbers in re.findall(r"([MLlhvz]?)([^MLlhvz]*)", "M" + stretch):
                pairs = [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", numbers)]
                if letter == "h":
                    x += pairs[0]
                elif letter == "v":
                    y += pairs[0]
                    points.append((x, y))
                elif letter:
                    for i in range(0, len(pairs), 2):
                        x, y = (x + pairs[i], y + pairs[i + 1]) if letter == "l" else (pairs[i], pairs[i + 1])
                        points.append((x, y))
            found.append(points)
    return found


def labels(text: str) -> list[str]:
    """Return what stands at the vertical axis, from below."""
    return [each for each in re.findall(r'<text class="e"[^>]*>([^<]*)</text>', text) if each]


def test_a_line_is_where_its_numbers_are(prometheus: Prometheus, stand: Stand) -> None:
    start = prometheus.now - 3600
    stand.answers["x"] = [({"a": "b"}, lambda moment: (moment - start) / 45)]
    shown = part(content(prometheus, panel("timeseries", "x", defaults={"unit": "reqps"})))
    assert labels(shown) == ["req/s", "0", "20", "40", "60", "80"]
    (points,) = drawn(shown)
    frame = Frame(start, HOUR, 80)
    assert len(points) == 121
    for index, (x, y) in enumerate(points):
        assert x == pytest.approx(frame.x(index * 30), abs=0.06)
        assert y == pytest.approx(frame.y(index * 30 / 45), abs=0.06)
    assert "a=b <b>80 req/s</b>" in shown
    assert (frame.y(0), frame.y(80)) == (overview.HEIGHT - overview.BOTTOM, overview.TOP)


def test_the_last_day_is_shown_too(prometheus: Prometheus, stand: Stand) -> None:
    start = prometheus.now - 86400
    stand.answers["x"] = [({}, lambda moment: (moment - start) / 864)]
    (points,) = drawn(part(content(prometheus, panel("timeseries", "x")), DAY))
    assert len(points) == 145
    assert points[72][1] == pytest.approx(Frame(start, DAY, 100).y(50), abs=0.06)
    assert [parameters["step"] for path, parameters in stand.asked if path == "query_range"] == ["30", "600"]


def test_a_gap_is_a_gap(prometheus: Prometheus, stand: Stand) -> None:
    middle = prometheus.now - 1800
    stand.answers["x"] = [({}, lambda moment: None if abs(moment - middle) < 100 else moment % 7)]
    stand.answers["y"] = [({}, lambda moment: float("nan") if abs(moment - middle) < 100 else moment % 7)]
    for query in ("x", "y"):
        first, second = drawn(part(content(prometheus, panel("timeseries", query))))
        assert second[0][0] - first[-1][0] == pytest.approx(Frame(0, HOUR, 1).x(240) - overview.LEFT, abs=0.1)


def test_areas_stand_on_each_other(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["x"] = [({"n": "1"}, 3.0), ({"n": "2"}, lambda moment: 1.0 + moment // 30 % 2)]
    stacked = {"custom": {"stacking": {"mode": "normal"}}}
    lower, upper = drawn(part(content(prometheus, panel("timeseries", "x", defaults=stacked))), "area")[::-1]
    frame = Frame(0, HOUR, 6)
    assert {round(y, 1) for _, y in lower} == {round(frame.y(3), 1)}
    assert {round(y, 1) for _, y in upper} == {round(frame.y(4), 1), round(frame.y(5), 1)}


def test_stacks_have_a_gap_only_where_nothing_is_known() -> None:
    assert overview.stack([[1, None, None], [2, 3, None]]) == [[1, 0, None], [3, 3, None]]


def test_what_is_level_is_told_by_its_ends() -> None:
    assert overview.path([(0, 2), (1, 1), (2, 1), (3, 1), (4, 2)]) == "M0 2l1-1 2 0 1 1"
    assert overview.path([(0, 2), (1, 2), (2, 2)]) == "M0 2l2 0"


def test_steps_are_steps(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["x"] = [({}, lambda moment: 1.0 if moment < prometheus.now - 1800 else 2.0)]
    text = part(content(prometheus, panel("timeseries", "x", defaults={"custom": {"lineInterpolation": "stepAfter"}})))
    (data,) = re.findall(r'class="line \S+" d="([^"]*)"', text)
    assert re.fullmatch(r"M[\d.]+ [\d.]+(h[\d.]+v-?[\d.]+)+", data)
    assert labels(text) == ["0", "1", "2"], "whole things are counted in whole numbers"


def test_a_heat_map_has_the_requests_of_each_bucket(prometheus: Prometheus, stand: Stand) -> None:
    cumulative = {"0.1": 1.0, "0.25": 10.0, "0.5": 10.0, "+Inf": 10.0}
    stand.answers["x"] = [({"le": edge}, count) for edge, count in reversed(cumulative.items())]
    text = part(content(prometheus, panel("heatmap", "x", defaults={"unit": "reqps"}, options={"yAxis": {"unit": "s"}})))
    cells = {level: re.findall(r"M[\d.]+ ([\d.]+)h", data) for level, data in re.findall(r'class="heat(\d)" d="([^"]*)"', text)}
    assert {level: len(heights) for level, heights in cells.items()} == {"2": 61, "5": 61}, "1 and 9, and nothing of 0"
    assert float(cells["5"][0]) < float(cells["2"][0]), "the slower stand above"
    assert "up to <b>9 req/s</b>" in text
    assert labels(text) == ["100ms", "250ms", "500ms"]


def test_without_data_it_says_so(prometheus: Prometheus) -> None:
    text = content(prometheus, panel("timeseries", "x"), panel("heatmap", "x"), panel("stat", "x"))
    assert text.count("no data") == 4
    table = {"transformations": [{"id": "organize", "options": {"indexByName": {}, "renameByName": {}}}]}
    assert "no data" in content(prometheus, panel("table", "x", **table))


def test_what_has_ended_is_not_shown_as_of_now(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["x"] = [({}, lambda moment: 5.0 if moment < prometheus.now - 200 else None)]
    stand.answers["y"] = [({}, lambda moment: 5.0 if moment < prometheus.now - 40 else None)]
    tiles = {"targets": [{"refId": "A", "expr": "x"}]}, {"targets": [{"refId": "A", "expr": "y"}]}
    for ended, query in ((True, "x"), (False, "y")):
        assert ("Title <b>-</b>" in part(content(prometheus, panel("timeseries", query)))) == ended
        assert (">-</p>" in content(prometheus, {**panel("stat"), **tiles[not ended]})) == ended


def test_many_lines_are_left_out_and_that_is_said(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["x"] = [({"n": f"n{number}"}, float(number)) for number in range(12)]
    text = part(content(prometheus, panel("timeseries", "x")))
    assert "the 8 highest of 12" in text
    assert [name in text for name in ("n=n3 ", "n=n4 ", "n=n11 ")] == [False, True, True]
    assert text.index("n=n9 ") < text.index("n=n10 ")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "none", "0"),
        (1234, "none", "1234"),
        (0.2371, "none", "0.237"),
        (0.0213, "percentunit", "2.13 %"),
        (1, "percentunit", "100 %"),
        (0, "percentunit", "0 %"),
        (0.0153, "s", "15.3 ms"),
        (1, "s", "1 s"),
        (107.4, "s", "107 s"),
        (125, "s", "2 min 5 s"),
        (86400 * 3 + 3700, "s", "3 d 1 h"),
        (86400 * 61 + 3700, "s", "61 d"),
        (-86400 * 2, "s", "-2 d"),
        (2**20 * 457.3, "bytes", "457 MiB"),
        (1023, "bytes", "1023 B"),
        (35810, "Bps", "35.8 kB/s"),
        (12.345, "reqps", "12.3 req/s"),
        (2345, "reqps", "2.35 k req/s"),
        (None, "s", "-"),
        (5, "furlongs", "5 furlongs"),
    ],
)
def test_a_value_is_written_as_a_person_reads_it(value: float | None, unit: str, expected: str) -> None:
    assert with_unit(value, unit) == expected


@pytest.mark.parametrize(
    ("top", "unit", "whole", "expected"),
    [
        (7.3, "reqps", False, "0 2 4 6 8 req/s"),
        (1, "percentunit", False, "0 25 50 75 100 %"),
        (0, "percentunit", False, "0 0.25 0.5 0.75 1 %"),
        (0.31, "s", False, "0 100 200 300 400 ms"),
        (86400 * 61, "s", False, "0 20 40 60 80 d"),
        (2**30 * 3.7, "bytes", False, "0 1 2 3 4 GiB"),
        (2, "none", True, "0 1 2"),
        (2, "none", False, "0 0.5 1 1.5 2"),
        (0.9, "none", False, "0 0.25 0.5 0.75 1"),
        (13, "none", True, "0 5 10 15"),
        (0, "none", True, "0 1"),
    ],
)
def test_an_axis_has_round_numbers(top: float, unit: str, whole: bool, expected: str) -> None:
    values, texts, name = ticks(top, unit, whole)
    assert " ".join([*texts, name]).strip() == expected
    assert values[-1] >= top
    assert values[-2] < top or top == 0


def test_every_unit_of_the_dashboards_is_known() -> None:
    texts = "".join(file.read_text(encoding="utf-8") for file in DASHBOARDS.glob("*.json"))
    units = set(re.findall(r'"unit": "(\w+)"', texts)) | set(re.findall(r'"id": "unit", "value": "(\w+)"', texts))
    assert units
    assert units <= overview.SCALES.keys()


def test_rates_are_over_as_long_as_in_grafana(prometheus: Prometheus, stand: Stand) -> None:
    content(prometheus, panel("timeseries", "rate(x[$__rate_interval])"), panel("stat", "rate(x[$__rate_interval])"))
    assert sorted(parameters["query"] for _, parameters in stand.asked) == ["rate(x[60s])", "rate(x[60s])", "rate(x[615s])"]
    assert Prometheus("", 0, 60)._prepare("[$__rate_interval]", 30) == "[240s]"


def test_a_tile_has_the_words_and_colours_of_the_dashboard(prometheus: Prometheus, stand: Stand) -> None:
    steps = [{"color": "green", "value": None}, {"color": "orange", "value": 0.01}, {"color": "red", "value": 0.05}]
    words = [{"type": "value", "options": {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}}}]
    stand.answers.update({query: [({"release": "7"}, value)] for query, value in {"a": 0.0, "b": 0.02, "c": 1.0}.items()})
    share = {"unit": "percentunit", "thresholds": {"steps": steps}}
    assert '<section class="tile green">' in content(prometheus, panel("stat", "a", defaults=share))
    assert '<section class="tile orange">' in content(prometheus, panel("stat", "b", defaults=share))
    assert "2 <small>%</small>" in content(prometheus, panel("stat", "b", defaults=share))
    mapped = content(prometheus, panel("stat", "a", defaults={"mappings": words}))
    assert '<section class="tile red">' in mapped and ">no</p>" in mapped
    named = panel("stat", "c", options={"textMode": "name"})
    named["targets"][0]["legendFormat"] = "number {{release}}"
    assert ">number 7</p>" in content(prometheus, named)


def test_a_colour_of_the_dashboard_is_kept(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["x"] = [({"status": "200"}, 1.0), ({"status": "422"}, 1.0), ({"status": "500"}, 1.0), ({"status": "2xxx"}, 1.0)]
    fixed = [
        {"matcher": {"id": "byRegexp", "options": pattern}, "properties": [{"id": "color", "value": {"fixedColor": name}}]}
        for pattern, name in (("2..?", "green"), ("5..?", "red"))
    ]
    several = panel("timeseries", "x", overrides=fixed)
    several["targets"][0]["legendFormat"] = "{{status}}"
    text = part(content(prometheus, several))
    assert re.findall(r'<i class="(\w+)"></i>(\w+)', text) == [("c0", "2xxx"), ("green", "200"), ("c1", "422"), ("red", "500")]


def test_a_table_puts_together_what_is_of_one_host(prometheus: Prometheus, stand: Stand) -> None:
    stand.answers["a"] = [({"instance": HOST, "app": "shop"}, 1.0), ({"instance": "b.example.com", "app": "b"}, 0.0)]
    stand.answers["b"] = [({"instance": HOST, "version": "1.2"}, 1.0)]
    stand.answers["c"] = [({"instance": HOST}, 0.031)]
    organize = {
        "indexByName": {"instance": 0, "app": 1, "version": 2, "Value #A": 3, "Value #C": 4},
        "renameByName": {"instance": "Host", "app": "App", "version": "Version", "Value #A": "Up", "Value #C": "Errors"},
    }
    unit = [{"matcher": {"id": "byName", "options": "Errors"}, "properties": [{"id": "unit", "value": "percentunit"}]}]
    table = panel("table", "a", "b", "c", overrides=unit, transformations=[{"id": "organize", "options": organize}])
    rows = re.findall(r"<tr>(.*?)</tr>", content(prometheus, table))
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    link = f'<a href="app-{HOST}.html">{HOST}</a>'
    assert cells == [
        ["Host", "App", "Version", "Up", "Errors"],
        ["b.example.com", "b", "", "0", "-"],
        [link, "shop", "1.2", "1", "3.1 %"],
    ]


def test_releases_are_marked(prometheus: Prometheus, stand: Stand) -> None:
    at = prometheus.now - 900
    stand.answers["release"] = [({"release": "8", "app": "shop"}, at * 1000)]
    stand.answers["x"] = [({}, 1.0)]
    annotation = {"target": {"expr": "release"}, "textFormat": "release {{release}}", "tagKeys": "release"}
    dashboard = {"panels": [panel("timeseries", "x")], "annotations": {"list": [annotation]}}
    text = part(overview.Page(prometheus, dashboard, {"instance": HOST}, {}).content())
    (x,) = re.findall(r'<path class="mark" d="M([\d.]+) ', text)
    assert float(x) == pytest.approx(Frame(0, HOUR, 1).x(2700), abs=0.06)
    assert f"<title>release 8, {overview.clock(at)} UTC</title>" in text
    assert ">8</text>" in text
    assert ">shop 8</text>" in overview.Page(prometheus, dashboard, {}, {}).content()


def test_one_query_that_fails_is_told_where_it_is(prometheus: Prometheus, stand: Stand) -> None:
    stand.refused.add("x")
    stand.answers["y"] = [({}, 5.0)]
    text = content(prometheus, panel("stat", "x"), panel("timeseries", "x"), panel("stat", "y"))
    assert text.count("Prometheus does not answer this: 422 Unprocessable Entity: found &lt;many&gt; matches") == 2
    assert ">5</p>" in text


def alert(state: str, name: str, **more: str) -> dict[str, Any]:
    since = time.strftime("%Y-%m-%dT%H:%M:%S.123Z", time.gmtime(time.time() - 130))
    return {
        "state": state,
        "labels": {"alertname": name, **more},
        "annotations": {"summary": f"{name} is bad"},
        "activeAt": since,
    }


def run(stand: Stand, output: Path) -> int:
    return overview.main([stand.url, str(DASHBOARDS), str(output)])


def test_what_is_wrong_comes_first(stand: Stand, output: Path) -> None:
    stand.alerts = [
        alert("pending", "Ailing"),
        alert("firing", "Down", severity="critical", instance=HOST),
        alert("inactive", "Odd"),
    ]
    assert run(stand, output) == 0
    text = (output / "index.html").read_text(encoding="utf-8")
    assert "<title>1 alert fires</title>" in text
    assert '<div class="state red"><strong>1 alert fires</strong>' in text
    assert text.index('<b class="red">Down</b><span>Down is bad</span><em>critical, shop.example.com, for 2 min') < text.index(
        "Ailing is"
    )
    assert "<em>about to fire, for 2 min" in text
    assert "Odd is bad" not in text
    stand.alerts = [alert("firing", "Down", instance="other.example.com")]
    assert run(stand, output) == 0
    assert "Nothing is wrong" in (output / f"app-{HOST}.html").read_text(encoding="utf-8"), "it is another host's"


def test_good_news_need_alerts_and_hosts(stand: Stand, output: Path) -> None:
    assert run(stand, output) == 0
    assert '<div class="state green"><strong>Nothing is wrong</strong>' in (output / "index.html").read_text(encoding="utf-8")
    stand.alerts = [alert("pending", "Slow")]
    assert run(stand, output) == 0
    assert '<div class="state orange"><strong>Nothing fires, but' in (output / "index.html").read_text(encoding="utf-8")
    stand.alerts, stand.hosts = [], []
    assert run(stand, output) == 0
    assert "Prometheus has not measured any app" in (output / "index.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Sees that what is opened is closed, and collects tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


BAD = '<script src="//x">&\'"}{\\'


def test_nothing_of_prometheus_becomes_markup(stand: Stand, output: Path) -> None:
    names = ("instance", "app", "status", "release", "version", "handler", "program", "state", "mountpoint", "mode", "le")
    stand.hosts = [BAD, f"../{HOST}"]
    stand.otherwise = [({name: BAD if name != "le" else "1" for name in names}, 1.5)]
    stand.alerts = [alert("firing", BAD, severity=BAD, instance=BAD)]
    assert run(stand, output) == 0
    files = sorted(file.name for file in output.iterdir())
    assert files == sorted(["index.html", overview.page_name(BAD), "app-.._shop.example.com.html"])
    for file in output.iterdir():
        found = Tags(file.read_text(encoding="utf-8")).tags
        assert "script" not in {tag for tag, _ in found}
        for _, attributes in found:
            assert not {"src", "style"} & attributes.keys()
            assert not any(name.startswith("on") for name in attributes)
            assert re.fullmatch(r"#\w+|index\.html|app-[\w.%-]+", attributes.get("href") or "#x")
    queries = [parameters.get("query", "") for _, parameters in stand.asked]
    quoted = BAD.replace("\\", "\\\\").replace('"', '\\"')
    assert any(f'instance="{quoted}"' in query for query in queries)


def test_pages_need_nothing_from_elsewhere_and_are_light(stand: Stand, output: Path) -> None:
    names = ("status", "release", "handler", "instance", "mountpoint", "mode")

    def rising_from(number: int) -> Callable[[float], float]:
        return lambda at: number + (at // 30 * 7 % 11)

    stand.otherwise = [
        (
            {**dict.fromkeys(names, f"long-name-{number}"), "le": str(number)},
            rising_from(number),
        )
        for number in range(1, 13)
    ]
    assert run(stand, output) == 0
    for file in output.iterdir():
        text = file.read_text(encoding="utf-8")
        assert len(text) < 450_000, f"{file.name}: {len(text)}"
        assert "default-src 'none'" in text
        assert not re.search(r"https?://|url\(|@import", text)
        assert '<meta http-equiv="refresh" content="60">' in text
        assert re.search(r"made \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    text = (output / f"app-{HOST}.html").read_text(encoding="utf-8")
    for each in json.loads((DASHBOARDS / "app.json").read_text(encoding="utf-8"))["panels"]:
        assert Panel(each).lists_alerts == (f">{overview.escape(each['title'])}</h" not in text), each["title"]


def test_where_prometheus_is_silent_every_page_says_so(stand: Stand, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stand, output) == 0
    assert overview.main(["http://127.0.0.1:1/x", str(DASHBOARDS), str(output)]) == 1
    assert "Prometheus does not answer at http://127.0.0.1:1/x: " in capsys.readouterr().err
    assert {file.name for file in output.iterdir()} == {"index.html", f"app-{HOST}.html"}
    for file in output.iterdir():
        text = file.read_text(encoding="utf-8")
        assert '<div class="state red"><strong>Prometheus does not answer</strong>' in text
        assert "Connection refused" in text
        assert "Nothing is wrong" not in text


def test_where_it_falls_silent_in_the_middle_every_page_says_so(stand: Stand, output: Path) -> None:
    stand.silent_after = 20
    assert run(stand, output) == 1
    assert len(stand.asked) == 21, "it is not asked again and again"
    assert "Prometheus does not answer" in (output / "index.html").read_text(encoding="utf-8")


def test_an_answer_of_somebody_else_is_none(stand: Stand, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview.json, "load", lambda _: ["hello"])
    assert run(stand, output) == 1
    assert "its answer is not that of Prometheus" in (output / "index.html").read_text(encoding="utf-8")


def test_the_page_of_a_host_that_is_gone_is_removed(stand: Stand, output: Path) -> None:
    stand.hosts = [HOST, "old.example.com"]
    assert run(stand, output) == 0
    stand.hosts = [HOST]
    assert run(stand, output) == 0
    assert {file.name for file in output.iterdir()} == {"index.html", f"app-{HOST}.html"}
    (query,) = {parameters["match[]"] for path, parameters in stand.asked if path == "label/instance/values"}
    assert query == "slipway_up"


def test_a_reader_never_sees_half_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "index.html"
    overview.write(file, "old")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644

    def replace(source: str, target: Path) -> None:
        assert Path(source).read_text(encoding="utf-8") == "new"
        assert Path(target).read_text(encoding="utf-8") == "old"
        raise OSError("no")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no"):
        overview.write(file, "new")
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["index.html"]
    assert file.read_text(encoding="utf-8") == "old"
