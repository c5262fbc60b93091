"""A real browser, which notes what it asks for and what it complains of."""

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

from molecule.conftest import ARTEFACTS, Host

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
        for program in ("chromium", "chromedriver"):
            if not shutil.which(program):
                pytest.fail(f"{program} is missing; install it with: apt-get install chromium chromium-driver", pytrace=False)
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
        self.is_at_peace()

    def is_at_peace(self) -> None:
        """See that nothing but the host was asked for anything, and that nothing was complained of."""
        urls = [urlsplit(url) for request, url in self.sent if request not in self.blocked]
        asked = {(url.scheme, url.hostname) for url in urls if url.scheme not in ("data", "blob")}
        assert asked == {("https", self.host.name)}, asked
        # Another scenario makes and removes networks beside this one.
        errors = [error for error in self.errors if EXPECTED_ERROR not in error and "ERR_NETWORK_CHANGED" not in error]
        assert errors == [], errors

    def see(self, selector: str) -> WebElement:
        """Wait until something is to be seen, and return it."""
        there = visibility_of_element_located((By.CSS_SELECTOR, selector))
        try:
            return WebDriverWait(self.driver, PATIENCE).until(there)
        except TimeoutException:
            raise AssertionError(f"{selector} is not to be seen on the page {self.driver.title!r}") from None
