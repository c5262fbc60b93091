import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from app import metrics
from tests.conftest import Load


def counted(text: str) -> dict[str, float]:
    """Return the samples of an answer of /metrics."""
    return {name: float(value) for name, value in re.findall(r"^([a-z].*) (\S+)$", text, re.MULTILINE)}


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient) -> None:
    for number in range(3):
        client.get(f"/items/{number}")
    client.get("/items/none")
    client.get("/healthz")
    found = counted(client.get("/metrics").text)
    requests = {name: value for name, value in found.items() if name.startswith("http_requests_total")}
    assert requests == {
        'http_requests_total{handler="/items/{item_id}",method="GET",status="200"}': 3,
        'http_requests_total{handler="/items/{item_id}",method="GET",status="422"}': 1,
    }
    assert found['http_request_duration_seconds_count{handler="/items/{item_id}",method="GET"}'] == 4
    assert found["http_requests_inprogress"] == 0
    edges = {float(edge) for name in found for edge in re.findall(r'le="([0-9.]+)"', name)}
    assert edges == set(metrics.BUCKETS)


def test_a_route_of_an_included_router_or_a_mounted_app_is_counted_with_its_prefix(load: Load) -> None:
    app, router, mounted = load(), APIRouter(prefix="/inner"), FastAPI()

    @router.get("/{name}")
    @mounted.get("/{name}")
    async def named(name: str) -> str:
        return name

    app.include_router(router, prefix="/outer")
    app.mount("/mounted", mounted)
    client = TestClient(app)
    paths = ("/outer/inner/a", "/mounted/a", "/static/logo.svg", "/static/none", "/nowhere/a", "/nowhere/b")
    assert [client.get(path).status_code for path in paths] == [200, 200, 200, 404, 404, 404]
    found = counted(client.get("/metrics").text)
    assert {name: value for name, value in found.items() if name.startswith("http_requests_total")} == {
        'http_requests_total{handler="/outer/inner/{name}",method="GET",status="200"}': 1,
        'http_requests_total{handler="/mounted/{name}",method="GET",status="200"}': 1,
        'http_requests_total{handler="/static",method="GET",status="200"}': 1,
        'http_requests_total{handler="/static",method="GET",status="404"}': 1,
        'http_requests_total{handler="none",method="GET",status="404"}': 2,
    }


def test_methods_that_clients_make_up_count_as_one(client: TestClient) -> None:
    assert [client.request(method, "/").status_code for method in ("BREW", "STEEP")] == [405, 405]
    found = counted(client.get("/metrics").text)
    assert found['http_requests_total{handler="/",method="other",status="405"}'] == 2


def test_a_request_is_in_progress_until_it_has_its_answer(load: Load) -> None:
    app = load()

    @app.get("/during")
    async def during() -> float | None:
        return REGISTRY.get_sample_value("http_requests_inprogress")

    client = TestClient(app)
    assert [client.get("/during").json(), client.get("/during").json()] == [1, 1]
    assert counted(client.get("/metrics").text)["http_requests_inprogress"] == 0


def test_an_error_is_counted_as_one(load: Load) -> None:
    app = load()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/broken").status_code == 500
    found = counted(client.get("/metrics").text)
    assert found['http_requests_total{handler="/broken",method="GET",status="500"}'] == 1


def test_metrics_are_no_part_of_the_documentation(client: TestClient) -> None:
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


def test_the_release_is_told(load: Load) -> None:
    client = TestClient(load(RELEASE_ID="7", RELEASE_REVISION="abc"))
    assert counted(client.get("/metrics").text)['app_release_info{release="7",revision="abc"}'] == 1


def test_processes_count_together(tmp_path: Path) -> None:
    ask = (
        "import sys\n"
        "from fastapi.testclient import TestClient\n"
        "from app.main import app\n"
        "client = TestClient(app)\n"
        "for _ in range(int(sys.argv[1])): client.get('/')\n"
        "print(client.get('/metrics').text)\n"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    seen: Counter[str] = Counter()
    for count in (2, 5):
        done = subprocess.run(
            [sys.executable, "-c", ask, str(count)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        seen[str(count)] = int(counted(done.stdout)['http_requests_total{handler="/",method="GET",status="200"}'])
    assert seen == {"2": 2, "5": 7}


@pytest.mark.parametrize("handler", metrics.UNCOUNTED)
def test_what_nobody_asks_for_is_not_counted(client: TestClient, handler: str) -> None:
    client.get(handler)
    assert f'handler="{handler}"' not in client.get("/metrics").text


def test_metrics_can_be_left_out(load: Load) -> None:
    assert TestClient(load(METRICS_ENABLED="false")).get("/metrics").status_code == 404
