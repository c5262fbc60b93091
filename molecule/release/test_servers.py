"""Every server keeps the same promises, and a change from any to any other is a release like all others."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from pathlib import Path

import pytest
from websockets.sync.client import connect

from molecule.conftest import Host, polling, within
from molecule.release.conftest import Load, deploy, serves

HOSTS = ["other.test"]
SERVERS = {
    "gunicorn": {"app_server": "gunicorn"},
    "asgi": {"app_server": "gunicorn", "app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}

# Each server is followed by each other one, once.
CHANGES = ["gunicorn", "asgi", "gunicorn", "uvicorn", "gunicorn", "hypercorn", "asgi", "uvicorn", "asgi"]
CHANGES += ["hypercorn", "uvicorn", "hypercorn", "gunicorn"]


def processes(host: Host) -> list[int]:
    """Return the app's processes that serve: Supervisor's own program, and those right below it that have read the app."""
    master = host.master()
    workers = host.run(f"pgrep --parent {master}").split()
    return [master, *(int(pid) for pid in workers if "resource_tracker" not in host.run(f"cat /proc/{pid}/cmdline"))]


def strays(host: Host) -> list[str]:
    """Return those of the app's processes that Supervisor does not know."""
    master = host.master()
    family = {str(master), *host.run(f"pgrep --parent {master}").split()}
    return sorted(set(host.run(f"pgrep -u {host.app}").split()) - family)


def test_each_change_of_the_server_under_load(host: Host) -> None:
    assert {*itertools.pairwise(CHANGES)} == {*itertools.permutations(SERVERS, 2)}
    host.run("rm -f /opt/shop/shared/ledger")
    assert deploy(host, app_env={"GREETING": "before"}).code == 0
    with Load(host) as load:
        for name in CHANGES:
            run = deploy(host, app_env={"GREETING": name}, app_watch_seconds=1, **SERVERS[name])
            assert run.code == 0, f"{name}\n{run.output[-3000:]}"
            assert "warning" not in run.output.lower(), f"the public door was found wanting with {name}\n{run.output[-3000:]}"
            assert serves(host)
    assert load.result["failures"] == []
    assert load.result["requests"] > 10_000
    done = Counter(host.run("cat /opt/shop/shared/ledger").split())
    assert [order for order, times in done.items() if times > 1] == []
    assert set(done) == set(load.result["posted"])
    assert strays(host) == []


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_keeps_the_promises(host: Host, shop: Path, name: str) -> None:
    # Called as a file of the release is.
    (shop / "main.py").rename(shop / "server.py")
    run = deploy(host, app_source=str(shop), app_module="server:app", app_watch_seconds=1, **SERVERS[name])
    assert run.code == 0, run.output[-3000:]
    release = str(serves(host))

    answer = host.ask("/whoami", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Real-IP": "6.6.6.6"})
    seen = answer.json()
    assert answer.headers["x-release"] == release
    assert answer.headers["server"] == "nginx"
    assert (seen["scheme"], seen["url"]) == ("https", f"https://{host.name}/")
    with host.connect() as probe:
        assert seen["client"] == probe.getsockname()[0]
    assert host.ask("/items/").headers["location"] == f"https://{host.name}/items"
    raw = socket.create_connection((host.address, 443), timeout=30)
    with connect(f"wss://{host.name}/ws/whoami", sock=raw, ssl=host.trust) as websocket:
        assert websocket.recv(timeout=5) == f"wss {seen['client']}"
    assert host.ask("/upload", method="POST", body=b"x" * 2**20).json() == {"bytes": 2**20}
    assert host.ask("/upload", method="POST", headers={"Content-Length": str(2**30)}).status == 413

    # More of each than before is none: 2 workers, as the inventory says.
    before = processes(host)
    assert len(before) == 3
    host.run(f"kill -9 {before[1]}")
    within(5, lambda: len(processes(host)) == 3 and before[1] not in processes(host) and host.healthy())
    before = processes(host)
    with polling(host, "/healthz") as failures:
        host.run(f"kill -9 {before[0]}")
        within(10, lambda: not set(before) & set(map(int, host.run(f"pgrep -u {host.app}").split())))
    assert failures == []
    within(5, lambda: strays(host) == [] and len(processes(host)) == 3)


@pytest.mark.parametrize("name", SERVERS)
def test_an_app_that_fails_at_its_start_never_gets_live(host: Host, name: str) -> None:
    live = serves(host)
    run = deploy(host, app_env={"FAIL_AT_START": "yes"}, **SERVERS[name])
    assert run.code != 0
    assert "it stopped right after its start" in run.output
    assert "RuntimeError: told to fail" in run.output
    assert serves(host) == live


def test_the_usual_server_again(host: Host) -> None:
    assert deploy(host, app_env={"GREETING": "usual"}).code == 0
    serves(host)
