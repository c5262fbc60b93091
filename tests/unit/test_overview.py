"""The page that asks Prometheus itself: nothing but its own files, nothing as markup, and all that the dashboards have."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rendering import ROOT, Host, load

FILES = ROOT / "roles/prometheus/files/overview"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FILES.glob("*.js"))}
STYLE = (FILES / "overview.css").read_text(encoding="utf-8")
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "playbooks/files/dashboards").glob("*.json")
}
PANELS = [panel for dashboard in DASHBOARDS.values() for panel in dashboard["panels"]]
(TASK,) = load(ROOT / "roles/prometheus/tasks/overview.yml")


class Tags(HTMLParser):
    """Collects tags with their attributes, and what stands in scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.inside += data if self.tags and self.tags[-1][0] in ("script", "style") else ""


@pytest.fixture(scope="module")
def page() -> Tags:
    return Tags(Host({"prometheus_scrape_seconds": 7}).render("prometheus", "overview.html.j2"))


@pytest.fixture(scope="module")
def put() -> dict[str, str]:
    """What is put on the host, by its path below the page."""
    host = Host()
    directory = host["__prometheus_overview"]
    (found,) = host.arguments("prometheus", "configuration", "overview.yml")
    return {each["path"].removeprefix(f"{directory}/"): each["content"] for each in found["files"]}


def everything(document: Any, key: str) -> set[Any]:
    """Return all that stands under a key, anywhere in a document."""
    below = document.values() if isinstance(document, dict) else document if isinstance(document, list) else []
    here = {document[key]} if isinstance(document, dict) and isinstance(document.get(key), (str, int, float)) else set()
    return here.union(*(everything(each, key) for each in below))


def test_the_page_may_run_its_own_files_alone(page: Tags) -> None:
    (policy,) = [tag["content"] or "" for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy"]
    rules = {name: values for name, *values in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
    assert "unsafe" not in policy
    assert page.inside.strip() == ""
    for _, attributes in page.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_all_that_the_page_names_is_there(page: Tags, put: dict[str, str]) -> None:
    named = {str(tag.get("src") or tag.get("href")) for _, tag in page.tags if tag.get("src") or tag.get("href")}
    named |= {found for text in SCRIPTS.values() for found in re.findall(r'from "\./([^"]+)"', text)}
    elsewhere = {name for name in named if name.startswith(("dygraphs/", "../", "data:"))}
    assert elsewhere == {"data:,", "../prometheus/", "../alertmanager/", "dygraphs/dygraph.css", "dygraphs/dygraph.min.js"}
    assert named - elsewhere | {"index.html", "dashboards/fleet.json", "dashboards/app.json"} == put.keys()
    assert {name for name in put if "/" not in name} == {*SCRIPTS, "overview.css", "index.html"}
    assert not re.search(r"https?://|url\(|@import", "".join([*SCRIPTS.values(), STYLE]))


def test_what_is_put_there_is_as_it_is_here(put: dict[str, str]) -> None:
    for name, text in SCRIPTS.items():
        assert put[name] == text
    for name, document in DASHBOARDS.items():
        assert json.loads(put[f"dashboards/{name}.json"]) == document
    assert 'data-scrape-seconds="15"' in put["index.html"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_that_is_told_becomes_markup_or_code(name: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|createContextualFragment|setAttribute|DOMParser"
    )
    assert not re.search(forbidden, SCRIPTS[name])


def test_every_kind_of_panel_is_drawn() -> None:
    drawn = set(re.findall(r"export async function (\w+)", SCRIPTS["panels.js"]))
    assert drawn | {"row"} == {panel["type"] for panel in PANELS}


def test_every_unit_of_the_dashboards_is_known() -> None:
    overridden = {
        each["value"]
        for panel in PANELS
        for rule in panel.get("fieldConfig", {}).get("overrides", [])
        for each in rule["properties"]
        if each["id"] == "unit"
    }
    units = everything(PANELS, "unit") | overridden
    known = set(re.findall(r"^  (\w+): \[\[", SCRIPTS["units.js"], re.MULTILINE))
    assert units
    assert units <= known


def test_every_colour_of_the_dashboards_is_there_by_day_and_by_night() -> None:
    day, night = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
    fixed = everything(PANELS, "fixedColor") | {
        step["color"] for panel in PANELS if "thresholdsStyle" in str(panel) for step in everything_of(panel, "steps")
    }
    for text in (day, night.partition("* {")[0]):
        assert {f"--line-{name}" for name in [*fixed, *range(8)]} <= set(re.findall(r"--[\w-]+(?=:)", text))
    assert everything(PANELS, "color") <= set(re.findall(r"\[data-colour=(\w+)\]", STYLE))


def everything_of(panel: dict[str, Any], key: str) -> list[Any]:
    """Return a list of a panel's thresholds."""
    return list(panel["fieldConfig"]["defaults"].get("thresholds", {}).get(key, []))


def test_every_variable_of_the_dashboards_is_filled_in() -> None:
    assert {found for name in everything(PANELS, "expr") for found in re.findall(r"\$\w+", name)} == {
        "$__rate_interval",
        "$instance",
    }
    assert set(everything(DASHBOARDS["app"]["templating"], "name")) == {"instance"}
    assert all(variable in SCRIPTS["overview.js"] for variable in ("$__rate_interval", "variable?.name"))
    assert everything(PANELS, "url") == {"/d/slipway-app?var-instance=${__value.text}"}


def test_the_time_of_the_dashboards_is_one_to_choose(page: Tags) -> None:
    offered = {tag["value"] for name, tag in page.tags if name == "option"}
    assert {dashboard["time"]["from"] for dashboard in DASHBOARDS.values()} <= offered
    assert {dashboard["time"]["to"] for dashboard in DASHBOARDS.values()} == {"now"}


def test_rates_are_over_as_long_as_prometheus_needs(page: Tags) -> None:
    assert page.tags[0] == ("html", {"lang": "en", "data-scrape-seconds": "7"})


def test_what_made_pages_each_minute_is_gone_from_a_host_that_had_it() -> None:
    host = Host()
    gone = set(host.work_out(TASK["configuration"]["absent"], "prometheus"))
    units = {f"/etc/systemd/system/{name}" for name in ("slipway-overview.service", "slipway-overview.timer")}
    assert gone == units | {"/opt/slipway/overview/overview.py", "/etc/systemd/system/timers.target.wants/slipway-overview.timer"}
    assert "systemctl stop slipway-overview.timer" in TASK["configuration"]["apply"][-1]


def test_the_page_and_its_library_are_behind_the_password() -> None:
    host = Host({"prometheus_enabled": True})
    assert {path: where for path, where in host["prometheus_locations"].items() if where.startswith("/")} == {
        "/.slipway/overview/": "/opt/slipway/overview/",
        "/.slipway/overview/dygraphs/": "/usr/share/javascript/dygraphs/",
    }
