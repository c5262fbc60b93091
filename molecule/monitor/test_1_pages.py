"""The page that asks Prometheus, in a real browser: each panel shows something, and what a host tells stays text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from molecule.browser import Browser
from molecule.conftest import ARTEFACTS, ROOT, within
from molecule.monitor.conftest import PASSWORD, WATCH, WATCHED, ask_for

PAGE = f"https://monitor:{PASSWORD}@{WATCH.name}/.slipway/overview/"
APP = f"#/d/slipway-app?var-instance={WATCHED.name}&from=now-15m&to=now"
FLEET = "#/d/slipway-fleet?from=now-15m&to=now"
HOSTILE = "<img src=x onerror=document.body.remove()>'&lt;__proto__"
DIRECTORY = "/opt/slipway/overview"

# What a reader sees of each panel: values, columns of a table, and what is wrong.
SEEN = """
const texts = (place, selector) => [...place.querySelectorAll(selector)].map((each) => each.textContent.trim());
return [...document.querySelectorAll("#panels section")].map((section) => ({
  title: section.firstChild.textContent,
  wrong: texts(section, ".none, .failed"),
  values: texts(section, "p, .keys b, .heatmap .keys li").filter((text) => text && text !== "-"),
  columns: texts(section, "th").map((_, index) =>
    texts(section, `td:nth-child(${index + 1})`).find((text) => text && text !== "-")),
}));
"""


class Page:
    """The page in a browser of its own."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.driver = browser.driver

    def load(self, what: str) -> None:
        """Load the page anew, with an address of its own."""
        self.driver.get("about:blank")
        self.driver.get(PAGE + what)
        self.is_there()

    def show(self, what: str) -> None:
        """Have the page ask for what is at an address of its own, again where it shows that already."""
        if self.driver.current_url == "about:blank":
            return self.load(what)
        self.driver.execute_script(
            'document.getElementById("panels").ariaBusy = "true";'
            "if (location.hash === arguments[0]) onhashchange(); else location.hash = arguments[0];",
            what,
        )
        self.is_there()

    def is_there(self) -> None:
        """Wait until all has been asked."""
        within(30, lambda: bool(self.run('return document.getElementById("panels")?.ariaBusy === "false"')), pause=0.1)

    def run(self, script: str) -> Any:
        """Return what a script says in the page."""
        return self.driver.execute_script(script)

    def forgive(self, status: int) -> None:
        """Take an answer for no fault of the page's."""
        self.browser.listen()
        self.browser.errors = [error for error in self.browser.errors if f"status of {status}" not in error]

    def all(self, selector: str) -> list[str]:
        """Return the texts of what fits a selector."""
        return [str(each.text) for each in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def photograph(self, name: str, width: int = 1400) -> None:
        """Leave a picture of the whole page among the artefacts."""
        height = self.run("return document.documentElement.scrollHeight")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        ARTEFACTS.mkdir(exist_ok=True)
        self.driver.save_screenshot(str(ARTEFACTS / f"overview-{name}.png"))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module", autouse=True)
def hostile() -> Iterator[None]:
    """An app chooses the values of its labels; Node exporter tells of this one as an app would."""
    file = "/var/lib/prometheus/node-exporter/hostile.prom"
    sample = f'http_requests_total{{handler="{HOSTILE}"}} 7'
    WATCHED.run(f"printf '%s\\n' {shlex.quote(sample)} > {file}")
    yield
    WATCHED.run(f"rm {file}")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "localhost")
        page = Page(Browser(WATCH, tmp_path_factory.mktemp("browser")))
        yield page
        page.driver.quit()


@pytest.fixture
def page(started: Page) -> Iterator[Page]:
    """The page, which must need no other host and cause no error."""
    started.browser.errors.clear()
    yield started
    started.forgive(429)  # Nginx holds off who asks as often as these tests; the page asks again
    started.browser.is_at_peace()


@pytest.mark.parametrize(("name", "what"), [("fleet", FLEET), ("app", APP)])
def test_each_panel_shows_something(page: Page, name: str, what: str) -> None:
    """Every query of the dashboards finds something in this Prometheus, but for lists of what is wrong, and of load balancers."""
    dashboard = json.loads((ROOT / "playbooks" / "files" / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    missing: list[str] = []

    def whole(panel: dict[str, Any], seen: dict[str, Any]) -> bool:
        assert panel["title"] == seen["title"]
        if any(mark in panel["targets"][0]["expr"] for mark in ("haproxy_", 'app="haproxy"')):
            return seen["wrong"] == ["no data"]
        if panel["type"] != "table":
            return not seen["wrong"] and len(seen["values"]) >= len(panel["targets"])
        return all(seen["columns"][:1] if "ALERTS" in str(panel) else seen["columns"]) and bool(seen["columns"])

    def all_show() -> bool:
        ask_for(5)
        page.show(what)
        missing[:] = [panel["title"] for panel, seen in zip(panels, page.run(SEEN), strict=True) if not whole(panel, seen)]
        return not missing

    try:
        within(60, all_show, pause=1)
    except AssertionError as error:
        raise AssertionError(f"nothing is seen of {missing}") from error
    finally:
        page.photograph(name)
        page.photograph(f"{name}-phone", 400)
    assert page.all("#state") == ["Nothing is wrong"]
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_what_a_host_tells_stays_text(page: Page) -> None:
    def seen() -> bool:
        page.show(APP)
        return any(text.startswith(HOSTILE) for text in page.all(".keys li"))

    within(40, seen, pause=1)
    assert page.run("return document.images.length") == 0


def test_a_reader_looks_closer_and_comes_back(page: Page) -> None:
    page.show(FLEET)
    plot = page.driver.find_element(By.CSS_SELECTOR, ".plot")
    ActionChains(page.driver).move_to_element(plot).perform()
    within(15, lambda: len(set(page.all(".pointer"))) == 1 and all(page.all(".pointer")), pause=0.1)
    ActionChains(page.driver).move_to_element(plot).click_and_hold().move_by_offset(60, 0).release().perform()
    within(15, lambda: "to=now" not in page.driver.current_url, pause=0.1)
    page.is_there()
    page.driver.back()
    within(15, lambda: page.driver.current_url.endswith("to=now"), pause=0.1)
    page.is_there()
    plot = page.driver.find_element(By.CSS_SELECTOR, ".plot")
    plot.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    before = page.all(".pointer")[0]
    plot.send_keys(Keys.ARROW_LEFT)
    assert page.all(".pointer")[0] not in ("", before)
    page.driver.find_element(By.LINK_TEXT, WATCHED.name).click()
    within(15, lambda: page.run("return document.title").startswith(WATCHED.name), pause=0.1)
    assert APP in page.driver.current_url
    page.is_there()


def test_good_news_need_a_host_that_is_measured(page: Page) -> None:
    page.show(APP.replace(WATCHED.name, "gone.test"))
    assert page.all("#state") == ["Prometheus has not measured this host in this time"]


def test_a_question_that_fails_is_told_where_it_is(page: Page) -> None:
    file = f"{DIRECTORY}/dashboards/fleet.json"
    WATCH.run(f"sed -i.kept 's/sum(slipway_up)\"/sum(slipway_up\"/' {file}")
    try:
        page.load(FLEET)
        assert ["parse error" in text for text in page.all(".failed")] == [True]
        assert WATCHED.name in page.all(".table")[0]
    finally:
        WATCH.run(f"mv {file}.kept {file}")
    page.forgive(400)
    page.load(FLEET)


def test_without_prometheus_nothing_looks_as_of_now(page: Page) -> None:
    page.show(FLEET)
    WATCH.run("systemctl stop prometheus")
    try:
        page.driver.find_element(By.NAME, "out").click()
        within(10, lambda: "Prometheus does not answer" in page.all("#state")[0], pause=0.1)
        assert page.all("#panels *") == []
    finally:
        WATCH.run("systemctl start prometheus")

    def back() -> bool:
        page.show(FLEET)
        return page.all("#panels section") != []

    within(30, back, pause=0.5)
    page.forgive(502)
    page.forgive(503)  # while it starts


@pytest.mark.parametrize("path", ["", "index.html", "overview.js", "dashboards/app.json", "dygraphs/dygraph.min.js"])
def test_without_the_password_there_is_no_page(path: str) -> None:
    assert WATCH.ask(f"/.slipway/overview/{path}").status == 401


NUMBERS = {
    (0, "none"): "0",
    (1234, "none"): "1234",
    (0.2371, "none"): "0.237",
    (0.0213, "percentunit"): "2.13 %",
    (1, "percentunit"): "100 %",
    (0.0153, "s"): "15.3 ms",
    (107.4, "s"): "107 s",
    (125, "s"): "2 min 5 s",
    (86400 * 3 + 3700, "s"): "3 d 1 h",
    (86400 * 61 + 3700, "s"): "61 d",
    (-86400 * 2, "s"): "-2 d",
    (2**20 * 457.3, "bytes"): "457 MiB",
    (35810, "Bps"): "35.8 kB/s",
    (2345, "reqps"): "2.35 k req/s",
    (None, "s"): "-",
    (5, "furlongs"): "5 furlongs",
}
AXES = {
    (7.3, "reqps", False): "0, 2 req/s, 4 req/s, 6 req/s, 8 req/s",
    (1, "percentunit", False): "0, 25 %, 50 %, 75 %, 100 %",
    (0, "percentunit", False): "0, 0.25 %, 0.5 %, 0.75 %, 1 %",
    (0.31, "s", False): "0, 100 ms, 200 ms, 300 ms, 400 ms",
    (2**30 * 3.7, "bytes", False): "0, 1 GiB, 2 GiB, 3 GiB, 4 GiB",
    (2, "none", True): "0, 1, 2",
    (2, "none", False): "0, 0.5, 1, 1.5, 2",
    (13, "none", True): "0, 5, 10, 15",
}


def test_numbers_are_written_as_a_person_reads_them(page: Page) -> None:
    page.show(FLEET)
    script = """const [numbers, axes, done] = arguments;
    import("./units.js").then(({ withUnit, ticks }) => done([
      numbers.map((each) => withUnit(...each)), axes.map((each) => ticks(...each).map(({ label }) => label).join(", "))]));"""
    found = page.driver.execute_async_script(script, [list(each) for each in NUMBERS], [list(each) for each in AXES])
    assert found == [list(NUMBERS.values()), list(AXES.values())]
