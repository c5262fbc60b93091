import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from app import __version__
from tests.conftest import Load


class References(HTMLParser):
    """Collects every address that a page makes a browser fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found = re.findall(r"\burl: '([^']+)'", page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "spec-url") and value]


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/docs", {"/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"}),
        ("/redoc", {"/docs/assets/redoc.standalone.js"}),
    ],
)
def test_docs_come_from_us_alone(client: TestClient, path: str, needed: set[str]) -> None:
    response = client.get(path)
    assert response.status_code == 200
    own = urlsplit(str(response.url)).netloc
    addresses = [urljoin(str(response.url), reference) for reference in References(response.text).found]
    assert {urlsplit(address).netloc for address in addresses} == {own}
    assert {urlsplit(address).path for address in addresses} == needed | {"/openapi.json", "/static/logo.svg"}
    for address in addresses:
        assert client.get(address).status_code == 200, address


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_browsers_are_told_to_ask_nobody_else(client: TestClient, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'self'"
    sources = {source for value in directives.values() for source in value.split()}
    assert sources == {"'self'", "'none'", "'unsafe-inline'", "data:", "blob:"}


def test_styles_fetch_nothing(client: TestClient) -> None:
    styles = client.get("/docs/assets/swagger-ui.css").text
    assert "@import" not in styles
    assert {match for match in re.findall(r"url\(\W*(\w+:|//)", styles) if match != "data:"} == set()


def test_schema(load: Load) -> None:
    schema = TestClient(load(APP_TITLE="My API")).get("/openapi.json").json()
    assert schema["info"] == {"title": "My API", "version": __version__}
    assert set(schema["paths"]) == {
        "/",
        "/events",
        "/healthz",
        "/items/{item_id}",
        "/signed",
        "/version",
        "/whoami",
    }


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/assets/swagger-ui.css"])
def test_docs_can_be_turned_off(load: Load, path: str) -> None:
    client = TestClient(load(DOCS_ENABLED="false"))
    assert client.get(path).status_code == 404
    assert client.get("/").status_code == 200
