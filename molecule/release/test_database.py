"""A database of the app's own on its host: made by one run, used by releases without a password, closed to all others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import Host, Run, play, polling, within
from molecule.release import program
from molecule.release.conftest import flat
from molecule.snapshot import address_of, variables

SNAPSHOT = "twin.test"
URL = "://shop@/shop?host=/run/postgresql"

APP = """
import os
from fastapi import FastAPI
from sqlalchemy import create_engine, text

app = FastAPI()
engine = create_engine(os.environ["DATABASE_URL"], pool_pre_ping=True)

@app.get("/healthz")
def healthz():
    return {"status": "ok"}

@app.post("/orders/{number}")
def order(number: int):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES (:number)"), {"number": number})

@app.get("/orders")
def orders():
    with engine.connect() as connection:
        return [row.number for row in connection.execute(text("SELECT number FROM orders ORDER BY number"))]
"""
MIGRATE = """
import os
from sqlalchemy import create_engine, text

with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(text("CREATE TABLE IF NOT EXISTS orders (number integer PRIMARY KEY)"))
"""
# What each driver makes of the URL, by SQLAlchemy or, if the URL names no driver, by itself.
ASK = """
import asyncio, os
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

url, query = os.environ["DATABASE_URL"], "SELECT current_user || ' of ' || current_database()"

async def ask():
    async with create_async_engine(url).connect() as connection:
        return (await connection.execute(text(query))).scalar()

async def ask_directly():
    import asyncpg
    return await (await asyncpg.connect(url)).fetchval(query)

if "+asyncpg" in url:
    print(asyncio.run(ask()))
elif "+" in url:
    with create_engine(url).connect() as connection:
        print(connection.execute(text(query)).scalar())
else:
    import psycopg
    print(psycopg.connect(url).execute(query).fetchone()[0], "and", asyncio.run(ask_directly()))
"""

Site = Callable[..., Run]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app that keeps its orders in PostgreSQL."""
    folder = tmp_path_factory.mktemp("shop")
    requirements = ["fastapi==0.165.0", "sqlalchemy[asyncio]>=2", "psycopg[binary]", "asyncpg", "psycopg2-binary"]
    files = {"main.py": APP, "migrate.py": MIGRATE, "ask.py": ASK, "requirements.txt": "\n".join(requirements)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="ascii")
    return folder


@pytest.fixture(scope="module")
def wanted(source: Path) -> dict[str, Any]:
    """What the app is released with."""
    migrate = {"app_migrate_command": "python migrate.py", "app_watch_seconds": 0, "app_watch_hang_seconds": 0}
    return {"app_source": str(source), "app_database": "postgresql", **migrate}


@pytest.fixture(scope="module")
def site(host: Host, wanted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Run parts of site.yml for the host, in an inventory in which no other host has its app."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    hosts = {"web": {"hosts": {host.name: variables(host.name) | address_of(host)}}}
    inventory.write_text(json.dumps(hosts), encoding="ascii")

    def run(*arguments: str, **more: Any) -> Run:
        return play(*arguments, f"--extra-vars={json.dumps({**wanted, **more})}", inventory=inventory)

    return run


def psql(host: Host, query: str, user: str = "postgres", database: str = "postgres") -> str:
    """Return what the server answers a user of the host, or why it does not."""
    return host.run(f"runuser -u {user} -- psql -X -A -t -d {database} -c '{query}' 2>&1", check=False).strip()


def test_a_run_makes_the_database_and_the_app_uses_it(host: Host, site: Site) -> None:
    dry = site("--check", "--diff", "--tags=postgresql")
    assert dry.code == 0, dry.output[-3000:]
    assert host.run("command -v psql", check=False) == ""

    run = site("--tags=postgresql,app", postgresql_extensions=["pgcrypto"])
    assert run.code == 0, run.output[-3000:]
    for number in (1, 2):
        assert host.ask(f"/orders/{number}", "POST").status == 200
    assert host.ask("/orders").json() == [1, 2]
    assert host.run("slipway run shop -- printenv DATABASE_URL").strip() == f"postgresql+psycopg{URL}"
    assert psql(host, "SELECT rolname || rolsuper FROM pg_roles WHERE rolname = $$shop$$") == "shopfalse"
    # Its own settings are in effect, and it listens on no port.
    settings = "SELECT string_agg(name, $$ $$) FROM pg_settings WHERE pending_restart"
    assert psql(host, settings) == ""
    assert psql(host, "SHOW listen_addresses") == ""
    assert psql(host, "SHOW password_encryption") == "scram-sha-256"
    assert host.run("ss -Hltn 'sport = :5432'") == ""


def test_a_second_run_changes_nothing_and_a_dry_one_drops_nothing(host: Host, site: Site) -> None:
    for arguments, extensions in ([], ["pgcrypto"]), (["--check", "--diff"], []):
        run = site("--tags=postgresql,app", *arguments, postgresql_extensions=extensions)
        assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]


def test_releases_keep_the_rows_and_fail_no_request(host: Host, wanted: dict[str, Any]) -> None:
    with polling(host, "/orders") as failures:
        for greeting in ("one", "two"):
            run = program.deploy(host, **wanted, app_env={"GREETING": greeting})
            assert run.code == 0, run.output[-3000:]
            assert host.ask("/orders").json() == [1, 2]
    assert failures == []


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        ("psycopg2", "shop of shop"),
        ("asyncpg", "shop of shop"),
        ("", "shop of shop and shop of shop"),
        ("psycopg", "shop of shop"),
    ],
)
def test_each_driver_takes_the_url(host: Host, wanted: dict[str, Any], driver: str, answer: str) -> None:
    # The app itself can only be served with a driver that is not asynchronous, and what it is told by another one is asked here.
    url = f"postgresql+{driver}{URL}" if driver else f"postgresql{URL}"
    assert program.Controller(host, {**wanted, "app_database_driver": driver}).role["app_database_url"] == url
    command = f'DATABASE_URL="{url}" python ask.py'
    assert host.run(f"slipway run shop -- sh -c '{command}'").strip() == answer


def test_nobody_else_on_the_host_can_use_it(host: Host, site: Site) -> None:
    host.run("useradd --system --shell /usr/sbin/nologin kiosk")
    run = site("--tags=postgresql", postgresql_database="kiosk", postgresql_user="kiosk", app_user="shop")
    assert run.code == 0, run.output[-3000:]
    assert psql(host, "SELECT current_user", "kiosk", "kiosk") == "kiosk"
    assert 'permission denied for database "shop"' in psql(host, "SELECT * FROM orders", "kiosk", "shop")
    assert 'permission denied for database "kiosk"' in psql(host, "SELECT 1", "shop", "kiosk")
    assert 'role "nobody" does not exist' in psql(host, "SELECT 1", "nobody", "shop")
    assert "Peer authentication failed" in psql(host, "SELECT 1", "nobody", "shop -U shop")
    assert "Connection refused" in psql(host, "SELECT 1", "nobody", "shop -h 127.0.0.1 -U shop")


def test_a_database_of_somebody_else_is_not_taken_over(host: Host, site: Site) -> None:
    psql(host, "CREATE DATABASE ledger")
    run = site("--tags=postgresql", postgresql_database="ledger")
    assert run.code != 0
    assert "already has a database ledger, which belongs to postgres" in flat(run)
    assert "postgres" in psql(host, "SELECT datdba::regrole FROM pg_database WHERE datname = $$ledger$$")


def test_a_setting_that_needs_a_restart_waits_until_one_is_allowed(host: Host, site: Site) -> None:
    since = "SELECT pg_postmaster_start_time()"
    started = psql(host, since)
    run = site("--tags=postgresql", postgresql_settings={"max_connections": 40, "work_mem": "5MB"})
    assert run.code == 0, run.output[-3000:]
    assert "takes max_connections with its next restart" in flat(run)
    assert psql(host, since) == started
    within(10, lambda: psql(host, "SHOW work_mem") == "5MB")
    found = host.run("slipway doctor shop", check=False)
    assert "WARNING shop: The database server waits for a restart" in found
    assert "It takes max_connections then." in found

    run = site("--tags=postgresql", postgresql_settings={"max_connections": 40}, postgresql_restart=True)
    assert run.code == 0, run.output[-3000:]
    assert psql(host, "SHOW max_connections") == "40"
    assert host.ask("/orders").json() == [1, 2]
    assert "database" not in host.run("slipway doctor shop", check=False)
    # No run since the first one had the extension among its variables.
    assert psql(host, "SELECT count(*) FROM pg_extension WHERE extname = $$pgcrypto$$", database="shop") == "1"


def test_a_setting_with_which_the_server_would_not_start_is_put_back(host: Host, site: Site) -> None:
    before = host.run("cat /etc/postgresql/*/main/conf.d/slipway.conf")
    run = site("--tags=postgresql", postgresql_settings={"work_mem": "much"})
    assert run.code != 0
    assert 'invalid value for parameter "work_mem"' in flat(run)
    assert host.run("cat /etc/postgresql/*/main/conf.d/slipway.conf") == before


def test_a_database_that_is_down_stops_a_release_and_the_doctor_names_it(host: Host, site: Site, wanted: dict[str, Any]) -> None:
    live = host.live()
    host.run("systemctl stop postgresql")
    run = program.deploy(host, **wanted, app_env={"GREETING": "three"})
    assert run.code != 0
    assert "/run/postgresql/.s.PGSQL.5432" in run.output
    assert host.live() == live
    found = host.run("slipway doctor shop", check=False)
    assert "ERROR shop: The database is down" in found
    assert "Fix: systemctl restart postgresql" in found
    host.run("systemctl restart postgresql")
    within(30, lambda: host.ask("/orders").status == 200)
    host.run("runuser -u postgres -- psql -c 'ALTER ROLE shop NOLOGIN'")
    found = host.run("slipway doctor shop", check=False)
    assert "ERROR shop: The app cannot use its database" in found
    assert 'role "shop" is not permitted to log in' in found
    assert "Fix: ansible-playbook site.yml --tags postgresql" in found
    run = site("--tags=postgresql", postgresql_settings={"max_connections": 40})
    assert run.code == 0, run.output[-3000:]
    assert "its database" not in host.run("slipway doctor shop", check=False)
    assert host.ask("/orders").json() == [1, 2]
