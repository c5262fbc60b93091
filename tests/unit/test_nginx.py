"""What Nginx is told to keep out, in every configuration that the role writes: alone, watched, and behind load balancers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rendering import Block, Host, parse_nginx
from test_haproxy import member
from test_templates import INVENTORIES

from slipway.host.configure.change import edited
from slipway.host.errors import ReleaseError

SETS: dict[str, Host] = {
    **INVENTORIES,
    "watched": Host(
        {"metrics_enabled": True, "metrics_password": "of-the-monitoring", "app_server": "uvicorn", "app_workers": 2}
    ),
    "watching": Host(
        {
            "group_names": ["web", "monitoring"],
            "groups": {"web": ["api.example.com"], "monitoring": ["api.example.com"]},
            "hostvars": {"api.example.com": {}},
        }
    ),
    "private of its own": Host({"nginx_private_locations": {"/reports/": "/srv/reports/"}, "nginx_private_password": "x" * 12}),
    "behind balancers": member("one.test", "web", metrics_enabled=True, metrics_password="of-the-monitoring"),
}

each_set = pytest.mark.parametrize("host", SETS.values(), ids=SETS)
# Those that have something behind the password.
PRIVATE = ("watched", "watching", "private of its own", "behind balancers")
each_private = pytest.mark.parametrize("host", [SETS[name] for name in PRIVATE], ids=PRIVATE)


def shared(host: Host) -> Block:
    return parse_nginx(host.render("nginx", "shared.conf.j2"))


def servers(host: Host) -> list[Block]:
    """Return the servers of the site, without the one that tells how many connections there are."""
    site = [words[-1] for words in parse_nginx(host.render("nginx", "site.conf.j2")).find("server")]
    return [server for server in site if not server.find("stub_status")]


def handing(host: Host) -> Block:
    """Return the server that hands requests on."""
    return servers(host)[-1]


def private(host: Host) -> list[Block]:
    return [location for location in handing(host).locations().values() if location.find("auth_basic")]


# What gixy finds and is meant to be so.
DEFENDED = {
    "ssl_ecdh_curve": "the newest curve is named where the host's own OpenSSL has it, which is asked",
    "worker_rlimit_nofile_vs_connections": "the unit has the limit: one above what a container may have would not count at all",
    "proxy_buffering_off": "an operator names the paths whose answers must not be held back",
}


def test_gixy_finds_nothing(tmp_path: Path) -> None:
    around = "user www-data;\nworker_processes 1;\nevents { worker_connections 8192; }\nhttp {\n%s}\n"
    for name, host in SETS.items():
        text = host.render("nginx", "shared.conf.j2") + host.render("nginx", "site.conf.j2")
        (tmp_path / f"{name}.conf").write_text(around % text, encoding="utf-8")
    gixy: list[str | Path] = [Path(sys.executable).with_name("gixy"), "--format=json", f"--skips={','.join(DEFENDED)}"]
    done = subprocess.run([*gixy, *tmp_path.iterdir()], capture_output=True, text=True, check=False)
    assert [f"{Path(found['file']).stem}: {found['summary']} {found['config']}" for found in json.loads(done.stdout)] == []
    assert done.returncode == 0, done.stderr


@each_set
def test_a_client_may_go_over_to_websocket_and_to_nothing_else(host: Host) -> None:
    maps = {words[1]: (words[0], dict(words[-1])) for words in shared(host).find("map")}
    source, upgrades = maps["$slipway_upgrade"]
    assert source == "$http_upgrade"
    assert upgrades.pop("default") == ""
    ((pattern, value),) = upgrades.items()
    assert value == "websocket"
    assert pattern.startswith("~*")
    for asked in ("websocket", "WebSocket"):
        assert re.search(pattern[2:], asked, re.IGNORECASE)
    for asked in ("h2c", "websocket, h2c", "h2c, websocket", "websocket/13", "xwebsocket", "TLS/1.0", ""):
        assert not re.search(pattern[2:], asked, re.IGNORECASE), asked
    assert maps["$slipway_connection"] == ("$slipway_upgrade", {"websocket": "upgrade", "default": ""})
    headers = handing(host).pairs("proxy_set_header")
    assert (headers["Upgrade"], headers["Connection"]) == (["$slipway_upgrade"], ["$slipway_connection"])
    assert headers["HTTP2-Settings"] == [""]


def condition(words: list[Any]) -> str:
    return " ".join(words[:-1]).strip("() ")


@each_set
def test_no_path_with_a_control_character_reaches_an_app(host: Host) -> None:
    (pattern,) = [found for words in handing(host).find("if") if (found := condition(words)).startswith("$uri ~ [")]
    (answer,) = [words[-1] for words in handing(host).find("if") if condition(words) == pattern]
    assert answer == [["return", "400"]]
    for number in [*range(32), 127]:
        assert re.search(pattern.removeprefix("$uri ~ "), f"/metrics{chr(number)}"), number
    assert not re.search(pattern.removeprefix("$uri ~ "), "/a-Z/0 9/~;,:@!$&'()*+=é/")


def test_all_that_is_private_is_behind_the_password() -> None:
    assert {name for name, host in SETS.items() if host["nginx_private_locations"]} == set(PRIVATE)
    assert {name for name, host in SETS.items() if private(host)} == set(PRIVATE)


@each_private
def test_a_password_is_looked_at_so_often_and_no_more(host: Host) -> None:
    zones = {
        words[1].removeprefix("zone=").partition(":")[0]: (words[0], words[2]) for words in shared(host).find("limit_req_zone")
    }
    for location in private(host):
        limits = [words[0].removeprefix("zone=") for words in location.find("limit_req")]
        # The first that refuses ends it: who has used up a share of one's own does not use up that of all.
        assert [zones[limit][0] for limit in limits] == ["$binary_remote_addr", "$slipway_others"]
        assert all("nodelay" in words for words in location.find("limit_req"))
        # Looked at before both.
        ((*_, answer),) = location.find("if")
        assert answer == [["return", "401"]]
    assert shared(host).one("limit_req_status") == "429"


def counted(host: Host) -> dict[str, str]:
    """Return whose tries are counted among those of all, by address; empty for nobody's."""
    ((_, entries),) = [(words[0], words[-1]) for words in shared(host).find("geo") if words[0] == "$slipway_others"]
    return dict(entries)


def test_those_who_watch_are_not_shut_out_by_what_others_try() -> None:
    inventory: dict[str, Any] = {
        "groups": {"web": ["api.example.com"], "monitoring": ["four.test", "six.test", "named.test", "else.test", "twice.test"]},
        "hostvars": {
            "four.test": {"ansible_host": "192.0.2.7"},
            "six.test": {"ansible_host": "2001:db8::7"},
            "named.test": {"ansible_host": "named.internal"},
            "else.test": {},
            "twice.test": {"ansible_host": "192.0.2.7"},
        },
    }
    themselves = {"127.0.0.0/8": "", "::1": ""}
    assert counted(Host(inventory)) == {"default": "all", **themselves, "192.0.2.7": "", "2001:db8::7": ""}
    # A run for one host alone has asked no other: what it knows is from the inventory.
    one, other = Host(inventory), Host(inventory, facts={"all_ipv4_addresses": ["192.0.2.9"]}, name="shop.example.com")
    assert one.render("nginx", "shared.conf.j2") == other.render("nginx", "shared.conf.j2")
    named = Host({**inventory, "nginx_monitoring_addresses": ["192.0.2.0/24"]})
    assert counted(named) == {"default": "all", **themselves, "192.0.2.0/24": ""}
    assert counted(Host()) == {"default": "all", **themselves}


def test_an_overlong_credential_is_none_and_the_longest_password_is_not_overlong() -> None:
    import base64

    (words,) = private(SETS["private of its own"])[0].find("if")
    pattern = condition(words).removeprefix("$http_authorization ~ ")
    for name, length, refused in (("monitor", 12, False), ("monitor", 128, False), ("monitor", 511, True), ("m" * 500, 12, True)):
        credential = "Basic " + base64.b64encode(f"{name}:{'x' * length}".encode()).decode()
        assert bool(re.search(pattern, credential)) is refused, (name, length)


@each_set
def test_no_app_receives_the_credentials_of_the_monitoring(host: Host) -> None:
    server = handing(host)
    assert server.pairs("proxy_set_header")["Authorization"] == ["$slipway_authorization"]
    assert server.pairs("set")["$slipway_authorization"] == ["$http_authorization"]
    # Also at a path that is not there any more.
    (inner,) = [words[-1] for words in server.find("if") if condition(words) == "$uri ~ ^/\\.slipway/"]
    assert inner == [["set", "$slipway_authorization", ""]]
    for location in private(host):
        assert location.find("set")[0] == ["$slipway_authorization", ""]
        assert "unix:" not in str(location.find("proxy_pass")) or len(location.find("set")) == 1
    # Others' own credentials reach what they are for.
    for path in host["nginx_locations"]:
        assert server.locations()[f"^~ {path}"].find("set") == [["$slipway_authorization", "$http_authorization"]]


@each_private
def test_nobody_who_asks_with_the_password_is_led_elsewhere_by_an_app(host: Host) -> None:
    for path, target in host["nginx_private_locations"].items():
        location = handing(host).locations()[f"{'^~' if path.endswith('/') else '='} {path}"]
        if target.startswith("/") or path.endswith("/"):
            # Prometheus and Alertmanager lead to their own pages.
            assert location.find("proxy_intercept_errors") == [], path
            continue
        assert location.one("proxy_intercept_errors") == "on"
        *statuses, equals, nothing = location.one("error_page")
        assert {"301", "302", "303", "307", "308"} <= set(statuses), path
        assert (equals, nothing) == ("=", "@slipway_nothing")
    assert handing(host).locations()["@slipway_nothing"].one("return") == ["200", ""]


@each_set
def test_connections_are_limited_by_address_and_all_in_all(host: Host) -> None:
    ((key, zone),) = shared(host).find("limit_conn_zone")
    assert key == "$binary_remote_addr"
    assert handing(host).one("limit_conn") == [zone.removeprefix("zone=").partition(":")[0], "2000"]


def test_a_limit_by_address_is_left_out_where_it_is_zero() -> None:
    assert "limit_conn " not in Host({"nginx_connections_per_address": 0}).render("nginx", "site.conf.j2")


def test_nginx_has_the_connections_that_are_asked_for_and_the_files_for_them(tmp_path: Path) -> None:
    (task,) = Host().arguments("nginx", "configuration")
    (edit,) = [file["edit"] for file in task["files"] if file.get("edit")]
    (pattern,) = [each for each in edit if "worker_connections" in each]
    file = tmp_path / "nginx.conf"
    for before, after in {
        "\tworker_connections 768;": "\tworker_connections 8192;",
        "    worker_connections 1024; # few": "    worker_connections 8192; # few",
        "events { worker_connections 4096; }": "events { worker_connections 8192; }",
        "events {use epoll;worker_connections  512 ;}": "events {use epoll;worker_connections 8192;}",
        "events {\nworker_connections 8192;\n}\n# own": "events {\nworker_connections 8192;\n}\n# own",
    }.items():
        file.write_text(before, encoding="utf-8")
        assert edited(str(file), {pattern: edit[pattern]}) == after
    for other in ("# worker_connections 768;", "# events { worker_connections 768; }", "my_worker_connections 768;"):
        file.write_text(other, encoding="utf-8")
        with pytest.raises(ReleaseError, match="has no line"):
            edited(str(file), {pattern: edit[pattern]})
    assert "LimitNOFILE=" in Host().render("nginx", "restart.conf.j2")
    # What runs already is told, too.
    assert "prlimit" in task["apply"][-1]


def test_two_apps_on_one_machine_write_the_same_for_both() -> None:
    """Also where one is watched, and the other is not."""
    one, two = Host(), SETS["watched"]
    assert one["nginx_status_port"] != two["nginx_status_port"]
    assert one.render("nginx", "shared.conf.j2") == two.render("nginx", "shared.conf.j2")
    (status,) = [
        words[-1] for words in parse_nginx(two.render("nginx", "site.conf.j2")).find("server") if words[-1].find("stub_status")
    ]
    assert status.find("listen") == [["127.0.0.1:9112"]]
    assert status.one("server_name") == two["nginx_site"]


def test_the_server_that_red_hat_brings_answers_nobody_over_ipv6() -> None:
    """Which listens there whatever nginx_ipv6 is."""
    facts = {
        "os_family": "RedHat",
        "distribution": "CentOS",
        "distribution_major_version": "9",
        "lo": {"ipv6": [{"address": "::1"}]},
    }
    plain, secure = [words[-1] for words in shared(Host({"nginx_ipv6": False}, facts=facts)).find("server")]
    assert ["[::]:80"] in [words[:1] for words in plain.find("listen")]
    assert [words[0] for words in secure.find("listen")] == ["443"]


def test_static_files_are_not_others() -> None:
    location = handing(SETS["plain"]).locations()["^~ /static/"]
    assert location.one("disable_symlinks") == ["if_not_owner", f"from={location.one('alias').rstrip('/')}"]
