"""The database of an app on its host: what the app is told of it, how the server is set up, and what the doctor finds."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from rendering import ROOT, Host, load
from test_app_doctor import subject, whats

from slipway.host.doctor import database

OWN = {"app_name": "shop", "app_database": "postgresql"}
URL = "://shop@/shop?host=/run/postgresql"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, f"postgresql+psycopg{URL}"),
        ({"app_database_driver": "asyncpg"}, f"postgresql+asyncpg{URL}"),
        ({"app_database_driver": ""}, f"postgresql{URL}"),
        ({"app_user": "web"}, "postgresql+psycopg://web@/shop?host=/run/postgresql"),
        ({"postgresql_database": "orders"}, "postgresql+psycopg://shop@/orders?host=/run/postgresql"),
    ],
)
def test_an_app_with_a_database_is_told_its_url(settings: dict[str, str], url: str) -> None:
    assert Host({**OWN, **settings})["__app_settings"] == {"DATABASE_URL": url}


def test_an_app_without_a_database_keeps_its_own_settings() -> None:
    host = Host({"app_name": "shop", "app_env": {"DATABASE_URL": "sqlite://"}})
    assert host["__app_settings"] == {"DATABASE_URL": "sqlite://"}
    assert (host["app_doctor"]["database"], host["postgresql_database"]) == ("", "")


def test_a_container_has_the_directory_of_the_socket_only_with_a_database() -> None:
    options = {"app_runtime": "container", "app_container_options": ["--init"]}
    mount = "--volume=/run/postgresql:/run/postgresql:ro"
    assert Host({**OWN, **options})["__app_runtime"]["container"]["options"] == [mount, "--init"]
    assert Host({"app_name": "shop", **options})["__app_runtime"]["container"]["options"] == ["--init"]


@pytest.mark.parametrize(("other", "refused"), [("shop", True), ("kiosk", False)])
def test_an_app_of_several_hosts_cannot_have_a_database_on_each(other: str, refused: bool) -> None:
    names = ["api.example.com", "two.example.com"]
    hosts = {
        names[0]: {"app_name": "shop", "inventory_hostname": names[0]},
        names[1]: {"app_name": other, "inventory_hostname": names[1]},
    }
    host = Host({**OWN, "groups": {"web": names, "all": names}, "hostvars": hosts})
    rules = load(ROOT / "roles/app/vars/main/rules.yml")["__app_rules"]
    (rule,) = (rule for rule in rules if rule["variable"] == "app_database" and "other hosts" in rule["expected"])
    assert host.work_out(trust_as_template("{{ " + rule["that"] + " }}")) is not refused
    assert host["__app_other_hosts"] == names[1:] * refused


@pytest.mark.parametrize(
    ("memory", "buffers", "cache", "maintenance"),
    [(450, 128, 256, 64), (2000, 512, 1024, 64), (2050, 512, 1024, 64), (16000, 4032, 8064, 504), (64300, 8192, 32128, 1024)],
)
def test_the_servers_memory_follows_the_machines(memory: int, buffers: int, cache: int, maintenance: int) -> None:
    text = Host(OWN, facts={"slipway_memory_mb": memory}).render("postgresql", "slipway.conf.j2")
    for line in (
        f"shared_buffers = '{buffers}MB'",
        f"effective_cache_size = '{cache}MB'",
        f"maintenance_work_mem = '{maintenance}MB'",
    ):
        assert line in text.splitlines()


def test_an_operators_settings_take_precedence_and_are_quoted() -> None:
    more = {"shared_buffers": "1GB", "jit": False, "max_connections": 200, "log_line_prefix": "it's \\ "}
    lines = (
        Host({**OWN, "postgresql_settings": more}, facts={"slipway_memory_mb": 2000})
        .render("postgresql", "slipway.conf.j2")
        .splitlines()
    )
    assert [line for line in lines if "shared_buffers" in line] == ["shared_buffers = '1GB'"]
    assert {"jit = 'False'", "max_connections = '200'", "log_line_prefix = 'it''s \\\\ '", "listen_addresses = ''"} <= set(lines)


@pytest.mark.parametrize(
    ("system", "there", "missing"),
    [
        ("Debian", [], ["postgresql", "python3-psycopg2", "sudo"]),
        ("Debian", ["postgresql", "python3-psycopg2", "sudo"], []),
        # One of an earlier version of the distribution: its package of all versions would bring another server.
        ("Debian", ["postgresql-15", "sudo"], ["python3-psycopg2"]),
        ("Debian", ["postgresql-client-17", "postgresql-common"], ["postgresql", "python3-psycopg2", "sudo"]),
        ("RedHat", [], ["postgresql-server", "postgresql-contrib", "python3-psycopg2", "sudo"]),
        ("RedHat", ["postgresql-server", "python3-psycopg2"], ["sudo"]),
    ],
)
def test_a_server_that_is_there_is_kept(system: str, there: list[str], missing: list[str]) -> None:
    assert Host(OWN, facts={"os_family": system, "slipway_packages": there})["__postgresql_missing"] == missing


def asked(**owners: str) -> dict[str, Any]:
    """Return the answer of a server with databases of those owners."""
    return {
        "query_result": [
            {"file": "/etc/postgresql/17/main/postgresql.conf", "programs": "/usr/lib/postgresql/17/bin", "owners": owners}
        ]
    }


@pytest.mark.parametrize(("system", "edits"), [("Debian", []), ("RedHat", ["include_dir = 'conf.d'"])])
def test_the_server_reads_the_directory_of_the_file(system: str, edits: list[str]) -> None:
    facts = {"os_family": system, "slipway_memory_mb": 2000}
    (arguments,) = Host(OWN, facts=facts).arguments("postgresql", "configuration", "configure.yml", __postgresql_asked=asked())
    first, *others = arguments["files"]
    assert first["path"] == "/etc/postgresql/17/main/conf.d/slipway.conf"
    assert [line for other in others for line in other["edit"].values()] == edits
    assert arguments["test"][4:] == [
        "/usr/lib/postgresql/17/bin/postgres",
        "-D",
        "/etc/postgresql/17/main",
        "-C",
        "data_directory",
    ]


@pytest.mark.parametrize(
    ("owners", "allowed", "restarts"), [({}, False, True), ({"shop": "shop"}, False, False), ({"shop": "shop"}, True, True)]
)
def test_only_a_server_that_serves_nobody_is_restarted_unasked(owners: dict[str, str], allowed: bool, restarts: bool) -> None:
    assert (
        Host({**OWN, "postgresql_restart": allowed, "__postgresql_asked": asked(**owners)})["__postgresql_restarts"] is restarts
    )


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[None]:
    """Listen where a database server does, while the block runs."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / database.SOCKET))
        server.listen()
        yield


@pytest.mark.parametrize(
    ("enabled", "psql", "found"),
    [
        (0, (0, ""), []),
        (1, (0, ""), [("warning", "The database will not start after a reboot")]),
        (0, (2, 'FATAL:  database "shop" does not exist'), [("error", "The app cannot use its database")]),
        (0, (0, "max_connections"), [("warning", "The database server waits for a restart")]),
    ],
)
def test_the_doctor_asks_the_database_as_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: int, psql: tuple[int, str], found: list[tuple[str, str]]
) -> None:
    commands = []

    def output(*command: str) -> tuple[int, str]:
        commands.append(command)
        return (enabled, "") if command[0] == "systemctl" else psql

    monkeypatch.setattr(database, "output", output)
    with listening(tmp_path):
        findings = list(database.database(subject(tmp_path, database="orders", database_directory=str(tmp_path))))
    assert whats(findings) == found
    assert commands[-1][:3] == ("runuser", "--user", "shop")
    assert "--dbname=orders" in commands[-1]
    assert all(psql[1] in each.evidence for each in findings if "reboot" not in each.what)


def test_the_doctor_says_that_a_database_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "output", lambda *command: (0, "the server's last words"))
    (found,) = database.database(subject(tmp_path, database="shop", database_directory=str(tmp_path)))
    assert (found.severity, found.what) == ("error", "The database is down")
    assert "No such file or directory\nthe server's last words" in found.evidence


def test_the_doctor_asks_no_database_of_an_app_without_one(tmp_path: Path) -> None:
    assert list(database.database(subject(tmp_path, database="", database_directory=""))) == []
