"""The dashboards: Grafana takes them, Prometheus takes their queries, and these ask for nothing that nobody measures."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "playbooks/files/dashboards").glob("*.json"))
DASHBOARDS = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
SOURCE = {"type": "prometheus", "uid": "slipway"}

# What is measured, by where it comes from.
KNOWN = {
    "host": """
        slipway_up slipway_endpoint_up slipway_release_info slipway_release_timestamp_seconds slipway_release_failed
        slipway_program_state slipway_program_start_timestamp_seconds slipway_workers slipway_memory_bytes
        slipway_process_exits_total slipway_http_requests_total slipway_http_request_duration_seconds_bucket
        slipway_http_response_bytes_total slipway_certificate_not_after_timestamp_seconds
        slipway_certificate_not_before_timestamp_seconds
        slipway_certificate_served_is_stored slipway_certificate_renewal_failed slipway_certificate_placeholder
        slipway_gathered_timestamp_seconds
    """,
    "app": "http_requests_total http_request_duration_seconds_bucket http_requests_inprogress",
    "node": """
        node_cpu_seconds_total node_memory_MemAvailable_bytes node_memory_MemTotal_bytes node_filesystem_avail_bytes
        node_filesystem_size_bytes node_network_receive_bytes_total node_network_transmit_bytes_total node_load5
    """,
    "nginx": "nginx_connections_reading nginx_connections_writing nginx_connections_waiting",
    "haproxy": """
        haproxy_server_http_responses_total haproxy_frontend_http_responses_total haproxy_server_current_sessions
        haproxy_server_status haproxy_server_check_duration_seconds
    """,
    "prometheus": "up ALERTS",
}
METRICS = {name for names in KNOWN.values() for name in names.split()}
FUNCTIONS = {"sum", "min", "max", "avg", "count", "topk", "rate", "increase", "time", "vector", "scalar", "clamp_min"}
FUNCTIONS |= {"histogram_quantile", "label_replace"}
WORDS = {"by", "on", "or", "unless", "group_right"}

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[tuple[str, str]]:
    """Yield what asks, and what it asks."""
    for panel in panels(name):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARDS[name]["annotations"]["list"]:
        yield annotation["name"], annotation["target"]["expr"]


ALL = [pytest.param(name, query, id=f"{name}-{title}") for name in DASHBOARDS for title, query in queries(name)]


def test_there_is_one_of_the_fleet_and_one_of_an_app() -> None:
    assert {name: (each["uid"], each["title"]) for name, each in DASHBOARDS.items()} == {
        "app": ("slipway-app", "Slipway: one app"),
        "fleet": ("slipway-fleet", "Slipway: fleet"),
    }


@each_dashboard
def test_each_panel_is_there_once(name: str) -> None:
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    rows = [(panel["type"], panel["title"]) for panel in panels(name)]
    assert len(set(rows)) >= len(rows) - 1, "two panels of one title; but the app has a memory, and its host another"


@each_dashboard
def test_panels_do_not_overlap_and_fill_the_grid(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "there is a hole in it"
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in DASHBOARDS[name]["panels"]]
    assert places == sorted(places), "the file is in the order of the screen"


@each_dashboard
def test_each_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    for panel in panels(name):
        assert re.match(r"[A-Z0-9]", panel["title"]), panel
        assert re.fullmatch(r"[A-Z].*\.", panel["description"]), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in {"none", "reqps", "percentunit", "s", "bytes", "Bps"}, panel["title"]
        assert panel["type"] != "stat" or defaults["thresholds"]["steps"][0]["value"] is None, panel["title"]
        assert panel["datasource"] == SOURCE
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJKLMN"[: len(panel["targets"])])
        for target in panel["targets"]:
            wanted = {"timeseries", "heatmap"} if panel["type"] in ("timeseries", "heatmap") else set()
            assert ("legendFormat" in target) or panel["type"] not in wanted, panel["title"]
            assert target.get("format") == {"table": "table", "heatmap": "heatmap"}.get(panel["type"])


@each_dashboard
def test_a_legend_names_a_label_that_the_query_keeps(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                bare = not kept and not re.search(r"\b(sum|max|min)\(", target["expr"])
                assert bare or any(label in each.split(", ") for each in kept), panel["title"]


@each_dashboard
def test_columns_are_of_queries_and_rules_of_columns(name: str) -> None:
    for panel in panels(name):
        if panel["type"] != "table":
            continue
        merge, organize = panel["transformations"]
        assert (merge["id"], organize["id"]) == ("merge", "organize")
        several = len(panel["targets"]) > 1
        labels = {
            each for target in panel["targets"] for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for each in by.split(", ")
        }
        values = {f"Value #{target['refId']}" if several else "Value" for target in panel["targets"]}
        shown, hidden = set(organize["options"]["indexByName"]), set(organize["options"]["excludeByName"]) - {"Time"}
        assert shown | hidden == (labels - {"le"}) | values, panel["title"]
        assert not shown & hidden
        assert shown == set(organize["options"]["renameByName"])
        titles = organize["options"]["renameByName"].values()
        for rule in panel["fieldConfig"]["overrides"]:
            pattern = rule["matcher"]["options"]
            matched = [title for title in titles if re.fullmatch(pattern, title)]
            assert len(matched) == pattern.count("|") + 1, pattern


@pytest.mark.parametrize(("name", "query"), ALL)
def test_only_what_is_measured_is_asked_for(name: str, query: str) -> None:
    assert [query.count(left) for left in "([{"] == [query.count(right) for right in ")]}"]
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r"\{[^}]*\}", "", re.sub(r'"[^"]*"', "", query)))
    bare = re.sub(r"(by|on|group_right) \([^)]*\)", r"\1", bare)
    words = set(re.findall(r"[A-Za-z_]\w*", bare)) - {"e"}
    assert words - METRICS - FUNCTIONS - WORDS == set()
    for inside in re.findall(r"\{([^}]*)\}", query):
        assert re.fullmatch(r'(\w+(=|!=|=~|!~)"[^"]*"(, )?)+', inside), inside


def test_what_is_known_is_asked_for() -> None:
    asked = " ".join(query for name in DASHBOARDS for _, query in queries(name))
    assert [metric for metric in METRICS if not re.search(rf"\b{metric}\b", asked)] == []


def test_of_one_app_nothing_of_another_is_asked() -> None:
    for title, query in queries("app"):
        for metric in METRICS:
            for place in re.finditer(rf"(?<!\w){metric}(?!\w)(?!\")", query):
                assert (
                    query[place.end() :].startswith("{") and 'instance="$instance"' in query[place.end() :].partition("}")[0]
                ), title


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: the package prometheus has it")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"a:{number}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", "shop.example.com")}
        for number, (_, query) in enumerate(each for name in DASHBOARDS for each in queries(name))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALL)} rules found" in done.stdout


@each_dashboard
def test_releases_are_annotations(name: str) -> None:
    (annotation,) = DASHBOARDS[name]["annotations"]["list"]
    assert annotation["target"]["expr"].startswith("1000 * slipway_release_timestamp_seconds"), "Grafana wants milliseconds"
    assert annotation["useValueForTime"] is True
    assert annotation["datasource"] == SOURCE
    assert annotation["tagKeys"] == "release"


def test_a_host_is_chosen_among_those_that_are_measured() -> None:
    (variable,) = DASHBOARDS["app"]["templating"]["list"]
    assert (variable["name"], variable["query"]["query"]) == ("instance", "label_values(slipway_up, instance)")
    assert DASHBOARDS["fleet"]["templating"]["list"] == []


def test_the_dashboards_lead_to_each_other() -> None:
    assert [link["url"] for link in DASHBOARDS["app"]["links"]] == ["/d/slipway-fleet"]
    assert [link["url"] for link in DASHBOARDS["fleet"]["links"]] == ["/d/slipway-app"]
    assert "/d/slipway-app?var-instance=${__value.text}" in FILES[1].read_text(encoding="utf-8")


def missing(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield what is in one document and not, or otherwise, in another."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            yield from (
                missing(value, found[key], f"{where}.{key}") if isinstance(found, dict) and key in found else [f"{where}.{key}"]
            )
    elif isinstance(wanted, list):
        for index, value in enumerate(wanted):
            yield from missing(value, found[index], f"{where}[{index}]") if index < len(found) else [f"{where}[{index}]"]
    elif wanted != found:
        yield where


@each_dashboard
def test_grafana_knows_every_key(name: str) -> None:
    """What Grafana's own library reads and writes again is all there: a misspelt key would be lost."""
    sdk = pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    assert sdk
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    again = json.loads(encoder.JSONEncoder().encode(Dashboard.from_json(DASHBOARDS[name])))
    # What an annotation takes depends on its source, of which the library does not know here.
    of_prometheus = ("useValueForTime", "titleFormat", "textFormat", "tagKeys")
    assert [key for key in missing(DASHBOARDS[name], again) if not key.endswith(of_prometheus) and ".target." not in key] == []
    broken = json.loads(json.dumps(DASHBOARDS[name]))
    broken["panels"][-1]["fieldConfg"] = {}
    assert list(missing(broken, json.loads(encoder.JSONEncoder().encode(Dashboard.from_json(broken)))))


@each_dashboard
def test_a_certificate_is_coloured_by_the_share_of_its_lifetime_that_is_left(name: str) -> None:
    """As the alerts are: a number of days is much for some certificates, and little for others."""
    text = json.dumps(DASHBOARDS[name])
    assert not re.findall(r'"value": \d{5,}', text), "a threshold in seconds"
    shares = [panel for panel in panels(name) if panel["type"] == "stat" and "certificate_not_after" in json.dumps(panel)]
    assert shares
    for panel in shares:
        assert all("certificate_not_before" in target["expr"] for target in panel["targets"])
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [(step["color"], step["value"]) for step in steps] == [("red", None), ("orange", 0.1), ("green", 0.25)]
