"""Every way to serve keeps the same promises, and a change from any to any other is a release like all others."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from molecule import attacks
from molecule.conftest import Host, polling, within
from molecule.release import program
from molecule.release.conftest import Load, base, deploy, have_engine, programs, serves

SNAPSHOT = "other.test"
SERVERS: dict[str, dict[str, Any]] = {
    "gunicorn": {"app_server": "gunicorn"},
    "asgi": {"app_server": "gunicorn", "app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}
WAYS = (*SERVERS, "container")

# Each way is followed by each other one, once.
CHANGES = ["gunicorn", "asgi", "gunicorn", "uvicorn", "gunicorn", "hypercorn", "gunicorn", "container", "asgi", "uvicorn", "asgi"]
CHANGES += [
    "hypercorn",
    "asgi",
    "container",
    "uvicorn",
    "hypercorn",
    "uvicorn",
    "container",
    "hypercorn",
    "container",
    "gunicorn",
]


def variables(way: str) -> dict[str, Any]:
    """Return the variables by which an app is served in a way; none for that of the inventory."""
    return {"app_runtime": "container", "app_image_base": base()} if way == "container" else SERVERS.get(way, {})


@pytest.fixture(scope="module", autouse=True)
def engine(host: Host) -> None:
    have_engine(host, "podman")


def first(host: Host) -> int:
    """Return the server's first process, in a container or not; 0 while the container is not there."""
    program = f"shop-{host.live()}"
    if host.run("ls /opt/shop/current/container.py", check=False):
        return int(host.run(f"podman inspect --format '{{{{.State.Pid}}}}' {program}", check=False) or 0)
    return host.master()


def processes(host: Host) -> list[int]:
    """Return the app's processes that serve: the server's first one, and those right below it that have read the app."""
    master = first(host)
    workers = host.run(f"pgrep --parent {master}", check=False).split() if master else []
    return [master, *(int(pid) for pid in workers if "resource_tracker" not in host.run(f"cat /proc/{pid}/cmdline"))]


def strays(host: Host) -> list[str]:
    """Return those of the app's processes that Supervisor does not know."""
    master = first(host)
    family = {str(master), *host.run(f"pgrep --parent {master}").split()}
    return sorted(set(host.run(f"pgrep -u {host.app}").split()) - family)


def test_each_change_of_the_way_to_serve_under_load(host: Host) -> None:
    assert {*itertools.pairwise(CHANGES)} == {*itertools.permutations(WAYS, 2)}
    host.run("rm -f /opt/shop/shared/ledger")
    assert program.deploy(host, app_env={"GREETING": "before"}, app_watch_seconds=0).code == 0
    # So that the changes, and not the requests, take the time.
    with Load(host, pause=3) as load:
        for name in CHANGES:
            run = program.deploy(host, app_env={"GREETING": name}, app_watch_seconds=1, **variables(name))
            assert run.code == 0, f"{name}\n{run.output[-3000:]}"
            assert "warning" not in run.output.lower(), f"the public endpoint has findings with {name}\n{run.output[-3000:]}"
            assert serves(host)
    assert load.result["failures"] == []
    assert len(load.result["releases"]) == len(CHANGES) + 1, "each of them was asked, and the one before them"
    assert load.result["requests"] > 100 * len(CHANGES)
    done = Counter(host.run("cat /opt/shop/shared/ledger").split())
    assert [order for order, times in done.items() if times > 1] == []
    assert set(done) == set(load.result["posted"])
    assert strays(host) == []


@pytest.mark.parametrize("runtime", ["venv", "container"])
@pytest.mark.parametrize("name", SERVERS)
def test_each_way_to_serve_keeps_the_promises(host: Host, shop: Path, name: str, runtime: str) -> None:
    # Called as a file of the release is.
    (shop / "main.py").rename(shop / "launch.py")
    way = SERVERS[name] | variables(runtime)
    run = program.deploy(host, app_source=str(shop), app_module="launch:app", app_watch_seconds=1, **way)
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
    begin = time.monotonic()
    with host.connect() as stream:
        stream.sendall(f"GET /events HTTP/1.1\r\nHost: {host.name}\r\n\r\n".encode())
        received = b""
        while received.count(b"data: tick") < 2:
            received += stream.recv(4096)
    assert 0.4 < time.monotonic() - begin < 5

    # Nginx hands on what the app would answer, and not a path that is closed, nor another protocol.
    ask = "import http.client as h, socket as s; c = h.HTTPConnection('x'); c.sock = s.socket(s.AF_UNIX); "
    ask += "c.sock.connect('/opt/shop/live.sock'); c.request('GET', '/metrics%0a'); print(c.getresponse().read())"
    assert "told to nobody" in host.run(f'python3 -c "{ask}"')
    closed = attacks.metrics(host.address, host.name)
    assert [asked for asked, answer in closed.items() if b"told to nobody" in answer] == []
    settings = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    assert b"HTTP/1.1 200 " in attacks.plain(host.address, host.name, "/healthz", host.name, headers=settings)[:20]

    # More of each than before is none: 2 workers, as the inventory says.
    before = processes(host)
    assert len(before) == 3
    host.run(f"kill -9 {before[1]}")
    within(15, lambda: len(processes(host)) == 3 and before[1] not in processes(host) and host.healthy())
    before = processes(host)
    with polling(host, "/healthz") as failures:
        # In a container nothing outlives the first process; what the engine's client takes with it is only itself.
        host.run(f"kill -9 {before[0] if runtime == 'venv' else host.master()}")
        if runtime == "venv":
            within(10, lambda: not set(before) & set(map(int, host.run(f"pgrep -u {host.app}").split())))
        else:
            time.sleep(3)
            assert processes(host) == before
    assert failures == []
    if runtime == "container":
        host.run(f"kill -9 {before[0]}")
        within(10, lambda: not set(before) & set(processes(host)) and host.healthy())
    within(15, lambda: strays(host) == [] and len(processes(host)) == 3)


@pytest.mark.parametrize("name", WAYS)
def test_an_app_that_fails_at_its_start_never_gets_live(host: Host, name: str) -> None:
    live = serves(host)
    run = program.deploy(host, app_env={"FAIL_AT_START": "yes"}, **variables(name))
    assert run.code != 0
    assert "it stopped right after it was started" in run.output
    assert "RuntimeError: told to fail" in run.output
    assert serves(host) == live


def test_several_instances_are_served_and_switched_as_one(host: Host) -> None:
    three: dict[str, Any] = {"app_server": "uvicorn", "app_workers": 1, "app_instances": 3, "app_watch_seconds": 1}

    def sockets() -> set[str]:
        return {host.ask("/digests").json()["SLIPWAY_SOCKET"] for _ in range(12)}

    # Nginx is reloaded where their number changes, which ends idle connections of clients.
    with polling(host, "/items/1") as failures:
        run = deploy(host, playbook="site.yml", **three)
    assert (run.code, failures) == (0, []), run.output[-3000:]
    with Load(host) as load:
        run = program.deploy(host, app_env={"GREETING": "again"}, **three)
        assert run.code == 0, run.output[-3000:]
        live = host.live()
        assert programs(host) == [f"shop-{live}:shop-{live}-{number}" for number in range(3)]
        names = [f"{live}.1", f"{live}.2", str(live)]
        assert host.run("ls /run/shop").split() == [f"{name}.{kind}" for name in names for kind in ("metrics", "sock")]
        assert len(sockets()) == 3
        assert deploy(host, playbook="site.yml", app_env={"GREETING": "again"}, **three).changed[host.name] == 0
        run = program.rollback(host, **three)
        assert run.code == 0, run.output[-3000:]
        assert len(sockets()) == 3
    assert load.result["failures"] == []
    with polling(host, "/items/1") as failures:
        first = int(host.run(f"supervisorctl pid shop-{host.live()}:shop-{host.live()}-0"))
        host.run(f"kill -9 {first}")
        within(30, lambda: len(sockets()) == 3)
    assert failures == []
    with polling(host, "/items/1") as failures:
        run = deploy(host, playbook="site.yml", app_watch_seconds=1)
    assert (run.code, failures) == (0, []), run.output[-3000:]
    serves(host)
    assert len(sockets()) == 1
