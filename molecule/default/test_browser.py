"""What a person sees of the documentation in a real browser. One system is enough: the pages are the same on all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import visibility_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from molecule.conftest import ARTEFACTS, ROOT, Host, play

HOSTS = ["debian12.test"]
OPERATION = "/items/{item_id}"
OWN_PAGES = "app.mount('/pages', StaticFiles(directory=Path(__file__).parent / 'static', html=True))\n"
PATIENCE = 60  # seconds; a busy machine takes some

# ReDoc wants to show its makers' logo at the foot of its menu. The page's Content-Security-Policy has the browser not ask for it.
EXPECTED_ERROR = "Loading the image 'https://cdn.redoc.ly/redoc/logo-mini.svg' violates the following Content Security Policy"


def pin(host: Host) -> str:
    """Return the hash of the host's public key. A certificate with this key is trusted, and no other."""
    certificate = x509.load_pem_x509_certificate(host.run(f"cat /etc/nginx/slipway/{host.app}/fullchain.pem").encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Browser:
    """Chromium without a window, which notes what it asks for and what it complains of."""

    def __init__(self, host: Host, profile: Path) -> None:
        self.host = host
        self.sent: list[tuple[str, str]] = []
        self.blocked: set[str] = set()
        self.hops: list[tuple[str, int]] = []
        self.errors: list[str] = []
        options = Options()
        options.binary_location = str(shutil.which("chromium"))
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for argument in (
            f"--user-data-dir={profile}",
            f"--host-resolver-rules=MAP {host.name} {host.address}, MAP * ~NOTFOUND",
            f"--ignore-certificate-errors-spki-list={pin(host)}",
            "--headless=new",
            "--no-sandbox",  # root cannot have it, and only our own pages are opened
            "--window-size=1280,1700",
            "--no-proxy-server",
            "--no-first-run",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-sync",
            "--disable-component-update",
            "--disable-background-networking",
            "--disable-features=HttpsUpgrades",  # it is the server that must lead from http to https
        ):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(PATIENCE)
        # Leave the browser's own start page, and forget what that asked for.
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")

    def listen(self) -> bool:
        """Note what has happened and say whether anything was asked for."""
        before = len(self.sent)
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            what = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                self.sent.append((what["requestId"], what["request"]["url"]))
                if "redirectResponse" in what:
                    self.hops.append((what["redirectResponse"]["url"], what["redirectResponse"]["status"]))
            elif event["method"] == "Network.webSocketCreated":
                self.sent.append((what["requestId"], what["url"]))
            elif event["method"] == "Network.loadingFailed" and what.get("blockedReason") == "csp":
                self.blocked.add(what["requestId"])
        self.errors += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return len(self.sent) > before

    @contextlib.contextmanager
    def visit(self, page: str) -> Iterator[None]:
        """Open a page and keep a picture of what came of it. It must need no other host and cause no error."""
        self.driver.get(f"https://{self.host.name}/{page}")
        try:
            yield
        finally:
            ARTEFACTS.mkdir(exist_ok=True)
            self.driver.save_screenshot(str(ARTEFACTS / f"{page}.png"))
            self.listen()
            print("The console:", *self.errors, sep="\n")
        time.sleep(1)
        while self.listen():
            time.sleep(1)
        urls = [urlsplit(url) for request, url in self.sent if request not in self.blocked]
        asked = {(url.scheme, url.netloc) for url in urls if url.scheme not in ("data", "blob")}
        assert asked == {("https", self.host.name)}
        assert [error for error in self.errors if EXPECTED_ERROR not in error] == []

    def see(self, selector: str) -> WebElement:
        """Wait until something is to be seen, and return it."""
        there = visibility_of_element_located((By.CSS_SELECTOR, selector))
        try:
            return WebDriverWait(self.driver, PATIENCE).until(there)
        except TimeoutException:
            raise AssertionError(f"{selector} is not to be seen on the page {self.driver.title!r}") from None


@pytest.fixture
def browser(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """Start a browser that has never been anywhere, so that it remembers no redirect."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.fail(f"{program} is missing; install it with: apt-get install chromium chromium-driver", pytrace=False)
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
