"""The Redis of an app on its host: what the app is told of it, how its server is set up, and that it is its own."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible.template import trust_as_template
from rendering import ROOT, Host, load

OWN = {"app_name": "shop", "app_redis": True}
SOCKET = "/run/slipway/redis/shop/redis.sock"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, f"unix://{SOCKET}"),
        ({"app_redis_scheme": "redis+socket"}, f"redis+socket://{SOCKET}"),
        ({"app_redis_scheme": "redis+unix"}, f"redis+unix://{SOCKET}"),
        ({"app_redis_url": f"unix://{SOCKET}?db=1"}, f"unix://{SOCKET}?db=1"),
    ],
)
def test_an_app_with_a_redis_is_told_its_url(settings: dict[str, str], url: str) -> None:
    assert Host({**OWN, **settings})["__app_settings"] == {"REDIS_URL": url}


def test_an_app_may_have_a_database_too() -> None:
    assert Host({**OWN, "app_database": "postgresql"})["__app_settings"].keys() == {"REDIS_URL", "DATABASE_URL"}


def test_an_app_with_clients_of_two_kinds_is_told_both_urls() -> None:
    more = {"CELERY_BROKER_URL": trust_as_template("redis+socket://{{ app_redis_socket }}")}
    assert Host({**OWN, "app_env": more})["__app_settings"]["CELERY_BROKER_URL"] == f"redis+socket://{SOCKET}"


def test_an_app_without_a_redis_keeps_its_own_settings() -> None:
    host = Host({"app_name": "shop", "app_env": {"REDIS_URL": "redis://cache"}})
    assert host["__app_settings"] == {"REDIS_URL": "redis://cache"}
    assert (host["app_doctor"]["redis"], host["redis_enabled"]) == ("", False)


@pytest.mark.parametrize(
    ("more", "directories"),
    [({}, ["/run/slipway/redis/shop"]), ({"app_database": "postgresql"}, ["/run/postgresql", "/run/slipway/redis/shop"])],
)
def test_a_container_has_the_directory_of_the_socket(more: dict[str, str], directories: list[str]) -> None:
    host = Host({**OWN, **more, "app_runtime": "container", "app_container_options": ["--init"]})
    mounts = [f"--volume={directory}:{directory}:ro" for directory in directories]
    assert host["__app_runtime"]["container"]["options"] == [*mounts, "--init"]


@pytest.mark.parametrize(("other", "refused"), [("shop", True), ("kiosk", False)])
def test_an_app_of_several_hosts_cannot_have_a_redis_on_each(other: str, refused: bool) -> None:
    names = ["api.example.com", "two.example.com"]
    hosts = {
        names[0]: {"app_name": "shop", "inventory_hostname": names[0]},
        names[1]: {"app_name": other, "inventory_hostname": names[1]},
    }
    host = Host({**OWN, "groups": {"web": names, "all": names}, "hostvars": hosts})
    rules = load(ROOT / "roles/app/vars/main/rules.yml")["__app_rules"]
    (rule,) = (rule for rule in rules if rule["variable"] == "app_redis" and "other hosts" in rule["expected"])
    assert host.work_out(trust_as_template("{{ " + rule["that"] + " }}")) is not refused


@pytest.mark.parametrize(("memory", "limit"), [(450, 64), (950, 128), (2000, 256), (2050, 256), (16000, 2016), (64300, 4096)])
def test_the_limit_follows_the_machines_memory(memory: int, limit: int) -> None:
    text = Host(OWN, facts={"slipway_memory_mb": memory}).render("redis", "redis.conf.j2")
    assert f"maxmemory {limit}mb" in text.splitlines()


def test_the_server_listens_at_a_socket_alone_and_keeps_its_data() -> None:
    lines = Host(OWN, facts={"slipway_memory_mb": 2000}).render("redis", "redis.conf.j2").splitlines()
    assert {"port 0", f"unixsocket {SOCKET}", "unixsocketperm 700", "appendonly yes", "appendfsync everysec"} <= set(lines)
    assert {"maxmemory-policy noeviction", 'save ""'} <= set(lines)


def test_an_operators_settings_take_precedence() -> None:
    more = {"appendonly": False, "save": "3600 1", "databases": 3, "notify-keyspace-events": "Ex", "appendfsync": ""}
    more = {**OWN, "redis_settings": more, "redis_memory_mb": 100, "redis_eviction": "allkeys-lru"}
    lines = Host(more, facts={"slipway_memory_mb": 2000}).render("redis", "redis.conf.j2").splitlines()
    assert {"appendonly no", "save 3600 1", "databases 3", "notify-keyspace-events Ex", 'appendfsync ""'} <= set(lines)
    assert {"maxmemory 100mb", "maxmemory-policy allkeys-lru"} <= set(lines)
    assert [line for line in lines if line.startswith("save ")] == ["save 3600 1"]


def unit(inventory: dict[str, Any]) -> dict[str, str]:
    """Return what a server's unit says, by name."""
    text = Host(inventory, facts={"slipway_packages": []}).render("redis", "redis.service.j2")
    return {name: value for name, found, value in (line.partition("=") for line in text.splitlines()) if found}


def test_each_app_has_a_server_of_its_own_user() -> None:
    shop, kiosk = (unit({"app_name": name, "app_redis": True, "app_user": f"{name}-user"}) for name in ("shop", "kiosk"))
    for name in ("User", "Group", "ExecStart", "ExecStartPre", "StateDirectory", "RuntimeDirectory", "WorkingDirectory"):
        assert kiosk[name] == shop[name].replace("shop", "kiosk"), name
    assert (shop["User"], shop["StateDirectoryMode"], shop["RuntimeDirectoryMode"]) == ("shop-user", "0700", "0700")
    assert f"/{SOCKET}" == f"//run/{shop['RuntimeDirectory']}/redis.sock"
    # A container has the directory, which must outlive the server that made it.
    assert shop["RuntimeDirectoryPreserve"] == "yes"
    assert shop["RestrictAddressFamilies"] == "AF_UNIX"


@pytest.mark.parametrize(
    ("system", "version", "there", "package", "program"),
    [
        ("Debian", "13", [], "redis-server", "redis-server"),
        ("Debian", "13", ["valkey-server"], "valkey-server", "valkey-server"),
        ("Debian", "13", ["redis-tools", "redis-server", "valkey-server"], "redis-server", "redis-server"),
        ("RedHat", "9", [], "redis", "redis-server"),
        ("RedHat", "9", ["valkey"], "valkey", "valkey-server"),
        ("RedHat", "10", [], "valkey", "valkey-server"),
    ],
)
def test_the_distributions_server_is_installed_and_one_that_is_there_kept(
    system: str, version: str, there: list[str], package: str, program: str
) -> None:
    facts = {"os_family": system, "distribution_major_version": version, "slipway_packages": there}
    host = Host(OWN, facts=facts)
    assert host["__redis_package"] == package
    assert (len(host["__redis_there"]) > 0) is (package in there)
    assert unit_of(host)["ExecStart"].startswith(f"/usr/bin/{program} /etc/slipway/redis/shop.conf ")


def unit_of(host: Host) -> dict[str, str]:
    """Return what the unit of a host says, by name."""
    lines = host.render("redis", "redis.service.j2").splitlines()
    return {name: value for name, found, value in (line.partition("=") for line in lines) if found}


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("Configured to not listen anywhere, exiting.", 0),
        ("*** FATAL CONFIG FILE ERROR (Redis 8.0.2) ***", 1),
        ("*** FATAL CONFIG FILE ERROR (Version 8.1.1) ***", 1),
    ],
)
def test_settings_with_which_the_server_would_not_start_fail_the_test(says: str, code: int) -> None:
    facts = {"slipway_memory_mb": 2000}
    (arguments,) = Host(OWN, facts=facts).arguments("redis", "configuration", "configure.yml")
    shell, option, script = arguments["test"]
    assert "runuser -u shop -- /usr/bin/redis-server /etc/slipway/redis/shop.conf --port 0 --unixsocket ''" in script
    tested = f'runuser() {{ echo "{says}"; return 1; }}; {script}'
    done = subprocess.run([shell, option, tested], capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stdout) == (code, code == 1)
    assert arguments["service"] == "slipway-redis-shop"


def test_a_former_server_is_looked_for_only_where_a_server_is() -> None:
    (task,) = [task for task in load(ROOT / "roles/redis/tasks/main.yml") if "unused.yml" in str(task)]

    def done(packages: list[str], **more: Any) -> bool:
        host = Host({"app_name": "shop", **more}, facts={"slipway_packages": packages})
        return all(host.work_out(trust_as_template("{{ " + condition + " }}")) for condition in task["when"])

    assert not done([])
    assert not done(["redis-server"], app_redis=True)
    assert done(["redis-server"])
