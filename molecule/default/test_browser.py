"""What a person sees of the documentation in a real browser. One system is enough: the pages are the same on all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from molecule.browser import Browser
from molecule.conftest import ROOT, Host, play

HOSTS = ["debian12.test"]
OPERATION = "/items/{item_id}"
OWN_PAGES = "app.mount('/pages', StaticFiles(directory=Path(__file__).parent / 'static', html=True))\n"


@pytest.fixture
def browser(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """Start a browser that has never been anywhere, so that it remembers no redirect."""
    monkeypatch.setenv("no_proxy", "localhost")
    started = Browser(host, tmp_path)
    yield started
    started.driver.quit()


def test_an_operation_is_tried_out_in_the_documentation(browser: Browser) -> None:
    with browser.visit("docs"):
        browser.see(f'[data-path="{OPERATION}"]').click()
        browser.see(".try-out__btn").click()
        browser.see('[data-param-name="item_id"] input').send_keys("5")
        browser.see('[data-param-name="q"] input').send_keys("somequery")
        browser.see("button.execute").click()
        answer = ".live-responses-table tbody"
        assert browser.see(f"{answer} .response-col_status").text == "200"
        assert json.loads(browser.see(f"{answer} .highlight-code code").text) == {"item_id": 5, "q": "somequery"}
        assert browser.see(".request-url pre").text == f"https://{browser.host.name}/items/5?q=somequery"


def test_the_reference_is_rendered(browser: Browser) -> None:
    title = browser.host.ask("/openapi.json").json()["info"]["title"]
    with browser.visit("redoc"):
        assert title in browser.see(".api-info h1").text
        assert OPERATION in browser.see('[data-section-id*="read_item"]').text


def test_a_page_that_changed_is_seen_at_once(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    host, source = browser.host, tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns(".venv", ".*_cache", "__pycache__"))
    for name, text in (("static/page.html", "AAAA"), ("main.py", None)):
        path = source / "app" / name
        path.write_text(text or f"{path.read_text(encoding='utf-8')}\n{OWN_PAGES}", encoding="utf-8")

    def seen(text: str) -> None:
        (source / "app" / "static" / "page.html").write_text(text, encoding="utf-8")
        run = play(f"--limit={host.name}", f"--extra-vars=app_source={source}", playbook="playbooks/deploy.yml")
        assert run.code == 0, run.output[-3000:]
        for place in ("static/page.html", "pages/page.html"):  # by Nginx, and by the app itself
            browser.driver.get(f"https://{host.name}/{place}")
            assert browser.see("body").text == text, place

    try:
        seen("AAAA")
        seen("BBBB")
    finally:
        assert play(f"--limit={host.name}", playbook="playbooks/deploy.yml").code == 0


def test_http_ends_at_https_in_the_address_bar(browser: Browser) -> None:
    browser.driver.get(f"http://{browser.host.name}/")
    assert browser.driver.current_url == f"https://{browser.host.name}/"
    assert browser.see("body").text == '{"message":"Hello, World!"}'
    browser.listen()
    assert browser.hops == [(f"http://{browser.host.name}/", 301)]
