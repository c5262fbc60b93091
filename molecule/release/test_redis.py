"""A Redis of the app's own on its host: made by one run, reached by a socket and by no other user, its data kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from molecule.conftest import Host, Run, play, within
from molecule.release import program
from molecule.release.conftest import flat
from molecule.snapshot import address_of, variables

SNAPSHOT = "twin.test"
SOCKET = "/run/slipway/redis/shop/redis.sock"
SERVICE = "slipway-redis-shop"

APP = """
import os
from fastapi import FastAPI
from redis import Redis

app = FastAPI()
orders = Redis.from_url(os.environ["REDIS_URL"])

@app.get("/healthz")
def healthz():
    return {"status": "ok"}

@app.post("/orders/{number}")
def order(number: int):
    return orders.rpush("orders", number)

@app.get("/orders")
def read():
    return [int(number) for number in orders.lrange("orders", 0, -1)]
"""

Site = Callable[..., Run]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the app, which keeps its orders in Redis, is released with."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "main.py").write_text(APP, encoding="ascii")
    (folder / "requirements.txt").write_text("fastapi==0.165.0\nredis>=5", encoding="ascii")
    return {"app_source": str(folder), "app_redis": True, "app_watch_seconds": 0, "app_watch_hang_seconds": 0}


@pytest.fixture(scope="module")
def site(host: Host, wanted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Run parts of site.yml for the host, in an inventory in which no other host has its app."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    hosts = {"web": {"hosts": {host.name: variables(host.name) | address_of(host)}}}
    inventory.write_text(json.dumps(hosts), encoding="ascii")

    def run(*arguments: str, **more: Any) -> Run:
        return play("--tags=redis", *arguments, f"--extra-vars={json.dumps({**wanted, **more})}", inventory=inventory)

    return run


def ask(host: Host, *words: str, user: str = "root") -> str:
    """Return what the server answers a user of the host, or why it does not."""
    return host.run(f"runuser -u {user} -- redis-cli -s {SOCKET} {' '.join(words)} 2>&1", check=False).strip()


def test_a_run_makes_it_and_the_app_uses_it(host: Host, site: Site, wanted: dict[str, Any]) -> None:
    dry = site("--check", "--diff")
    assert dry.code == 0, dry.output[-3000:]
    assert host.run("command -v redis-server", check=False) == ""

    run = site()
    assert run.code == 0, run.output[-3000:]
    run = program.deploy(host, **wanted)
    assert run.code == 0, run.output[-3000:]
    for number in (1, 2):
        assert host.ask(f"/orders/{number}", "POST").status == 200
    assert host.ask("/orders").json() == [1, 2]
    assert host.run("slipway run shop -- printenv REDIS_URL").strip() == f"unix://{SOCKET}"
    for name, value in {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}.items():
        assert ask(host, "CONFIG GET", name).splitlines()[1:] == [value] * bool(value)
    # No server listens on a port, that of the package included.
    assert host.run("ss -Hltnp | grep -i redis", check=False) == ""
    assert host.run("systemctl is-enabled redis-server", check=False).strip() == "disabled"


def test_a_second_run_changes_nothing(site: Site) -> None:
    run = site()
    assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]
    assert "next restart" not in flat(run)


def test_no_other_user_reaches_it(host: Host) -> None:
    host.run("useradd --system --shell /usr/sbin/nologin kiosk")
    assert ask(host, "PING", user="shop") == "PONG"
    assert "Permission denied" in ask(host, "PING", user="kiosk")
    assert "Permission denied" in host.run("runuser -u kiosk -- ls /var/lib/slipway/redis/shop 2>&1", check=False)


def test_settings_are_taken_and_what_needs_a_restart_waits_until_one_is_allowed(host: Host, site: Site) -> None:
    server = host.run(f"systemctl show --property=MainPID {SERVICE}")
    run = site(redis_memory_mb=77, redis_settings={"databases": 3})
    assert run.code == 0, run.output[-3000:]
    assert "takes databases with its next restart" in flat(run)
    assert host.run(f"systemctl show --property=MainPID {SERVICE}") == server
    assert ask(host, "CONFIG GET maxmemory").splitlines()[1] == str(77 * 2**20)
    assert "WARNING shop: Redis waits for a restart" in host.run("slipway doctor shop", check=False)

    run = site(redis_memory_mb=77, redis_settings={"databases": 3}, redis_restart=True)
    assert run.code == 0, run.output[-3000:]
    assert host.run(f"systemctl show --property=MainPID {SERVICE}") != server
    assert ask(host, "CONFIG GET databases").splitlines()[1] == "3"
    # It has its data, and the app its server.
    within(20, lambda: host.ask("/orders").status == 200)
    assert host.ask("/orders").json() == [1, 2]
    assert "Redis" not in host.run("slipway doctor shop", check=False)


def test_settings_with_which_it_would_not_start_are_put_back(host: Host, site: Site) -> None:
    before = host.run("cat /etc/slipway/redis/shop.conf")
    run = site(redis_memory_mb=77, redis_settings={"databases": "many"})
    assert run.code != 0
    assert "argument couldn't be parsed into an integer" in flat(run)
    assert host.run("cat /etc/slipway/redis/shop.conf") == before


def test_the_doctor_names_a_server_that_is_full_or_down(host: Host) -> None:
    ask(host, "CONFIG SET maxmemory 2mb")
    ask(host, "SETRANGE ballast 2000000 x")
    assert "OOM" in ask(host, "SET more x")
    assert "ERROR shop: Redis is at its memory limit" in host.run("slipway doctor shop", check=False)
    host.run(f"systemctl stop {SERVICE}")
    found = host.run("slipway doctor shop", check=False)
    assert "ERROR shop: Redis is down" in found
    assert f"Fix: systemctl restart {SERVICE}.service" in found


def test_switched_off_it_keeps_its_data(host: Host, site: Site) -> None:
    host.run(f"systemctl start {SERVICE}")
    run = site(app_redis=False)
    assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]
    assert "shop uses no Redis any more. Its server on twin.test keeps running with its data" in flat(run)
    assert ask(host, "LRANGE orders 0 -1").split() == ["1", "2"]
