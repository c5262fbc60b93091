import asyncio
import hashlib
import hmac

import httpx2
import pytest
from fastapi.testclient import TestClient

from app import __version__
from tests.conftest import Load

FORWARDED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "Host": "api.example.com"}


def test_root(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.json() == {"message": "Hello, World!"}


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("/items/5?q=somequery", {"item_id": 5, "q": "somequery"}),
        ("/items/5?q=7", {"item_id": 5, "q": "7"}),
        ("/items/5", {"item_id": 5, "q": None}),
    ],
)
def test_item(client: TestClient, url: str, answer: dict[str, object]) -> None:
    assert client.get(url).json() == answer


def test_item_id_must_be_a_number(client: TestClient) -> None:
    response = client.get("/items/five")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["path", "item_id"]


def test_healthz(client: TestClient) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


def test_version(load: Load) -> None:
    answer = TestClient(load(RELEASE_ID="42", RELEASE_REVISION="c0ffee")).get("/version").json()
    assert answer == {"version": __version__, "release": "42", "revision": "c0ffee"}


def test_version_of_no_release(client: TestClient) -> None:
    assert client.get("/version").json() == {"version": __version__, "release": "dev", "revision": None}


def test_whoami_believes_a_trusted_proxy(served: httpx2.Client) -> None:
    response = served.get("/whoami", headers=FORWARDED)
    assert response.json() == {
        "client": "203.0.113.7",
        "scheme": "https",
        "host": "api.example.com",
        "url": "https://api.example.com/",
    }
    assert response.headers["cache-control"] == "no-store"


def test_whoami_does_not_believe_the_client(client: TestClient) -> None:
    answer = client.get("/whoami", headers=FORWARDED).json()
    assert (answer["client"], answer["scheme"]) == ("testclient", "http")


def test_signed(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        answer = TestClient(load(SECRET_KEY="the-key-of-this-test")).get("/signed").json()
    assert ("app.main", "the greeting is signed") in [(record.name, record.getMessage()) for record in caplog.records]
    expected = hmac.new(b"the-key-of-this-test", b"Hello, World!", hashlib.sha256).hexdigest()
    assert answer == {"message": "Hello, World!", "signature": expected}


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/static/", "text/html; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/logo.svg", "image/svg+xml"),
    ],
)
def test_static(client: TestClient, path: str, content_type: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type


def test_unknown_paths_are_not_found(client: TestClient) -> None:
    for path in ("/nothing", "/static/nothing", "/static/../main.py", "/static/%2e%2e/main.py"):
        assert client.get(path).status_code == 404, path


@pytest.mark.anyio
async def test_requests_side_by_side(load: Load) -> None:
    transport = httpx2.ASGITransport(app=load())
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.example.com") as client:
        answers = await asyncio.gather(*(client.get(f"/items/{number}") for number in range(20)))
    assert [answer.json()["item_id"] for answer in answers] == list(range(20))
