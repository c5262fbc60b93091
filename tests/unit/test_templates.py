"""Rendered templates: what they say to Nginx, Gunicorn, Supervisor and systemd, for several inventories."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import released
from rendering import ROOT, Block, Host, load, parse_nginx

from slipway.host import configuration
from slipway.host.release.context import Context
from slipway.host.release.record import runtime_settings
from slipway.host.release.step import PARAMETERS
from slipway.host.store import Store
from slipway.runtime import launch
from slipway.runtime.agreement import CACHED_CONNECTION_SECONDS
from slipway.runtime.release import Release

PYTHON = os.path.realpath(sys.executable)

INVENTORIES: dict[str, Host] = {
    "plain": Host(),
    "public port": Host({"nginx_public_https_port": 8443}),
    "no https": Host({"certbot_mode": "none"}),
    "debian 12": Host(nginx="1.22.1", openssl=("3.0.15",), facts={"distribution_major_version": "12"}),
    "no nginx yet": Host(nginx=None),
    "ipv6": Host(facts={"all_ipv6_addresses": ["2001:db8::1"]}),
    "caching": Host({"nginx_cache_seconds": 60}),
    "streaming": Host({"nginx_streaming_paths": ["/events", "/ws/"]}),
    "behind a proxy": Host({"nginx_real_ip_from": ["192.0.2.0/24", "2001:db8::/32"]}),
    "no static files": Host({"app_static": ""}),
    "several static folders": Host({"app_directory": "web", "app_static": {"/static/": "static", "/up/": "shared/up/loads"}}),
    "front end": Host({"app_frontend": "web/dist", "nginx_cache_seconds": 60}),
    "in a folder": Host({"app_directory": "backend", "app_static": "web/static"}),
    "several names": Host({"nginx_domains": ["shop.example.com", "www.shop.example.com"], "app_name": "my-shop"}),
    "patient": Host({"app_graceful_timeout": 120, "app_drain_seconds": 30, "app_timeout": 90, "nginx_timeout": 90}),
    "by -e": Host({"app_graceful_timeout": "45", "app_max_requests": "1000", "nginx_public_https_port": "8443"}),
    "red hat": Host(facts={"os_family": "RedHat", "distribution": "CentOS", "distribution_major_version": "9"}, nginx="1.20.1"),
}

each_host = pytest.mark.parametrize("host", INVENTORIES.values(), ids=INVENTORIES)
WITH_HTTPS = {name: host for name, host in INVENTORIES.items() if name != "no https"}
each_host_with_https = pytest.mark.parametrize("host", WITH_HTTPS.values(), ids=WITH_HTTPS)


@cache
def site(host: Host) -> Block:
    return parse_nginx(host.render("nginx", "site.conf.j2"))


def main_server(host: Host) -> Block:
    """Return the server that hands requests to the app."""
    servers = [words[-1] for words in site(host).find("server")]
    (found,) = [server for server in servers if "proxy_pass" in str(server)]
    return found


def redirect_server(host: Host) -> Block:
    """Return the server that leads to HTTPS."""
    servers = [words[-1] for words in site(host).find("server")]
    (found,) = [server for server in servers if "proxy_pass" not in str(server)]
    return found


def seconds(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(m?)s?", text)
    assert found, text
    return float(found[1]) / (1000 if found[2] else 1)


# Nginx


@each_host
def test_every_template_of_nginx_is_well_formed(host: Host) -> None:
    for template in ("site.conf.j2", "shared.conf.j2"):
        text = host.render("nginx", template)
        assert parse_nginx(text)
        assert not re.search(r"{{|{%|\bNone\b|\bTrue\b|\bFalse\b|\n\n\n|[ \t]\n", text)
        assert text.endswith("\n")
        assert "Ansible managed" in text


@each_host
def test_clients_cannot_say_who_they_are(host: Host) -> None:
    headers = main_server(host).pairs("proxy_set_header")
    assert headers["X-Forwarded-For"] == ["$remote_addr"]
    assert headers["X-Real-IP"] == ["$remote_addr"]
    assert headers["X-Forwarded-Proto"] == ["$scheme"]
    assert headers["Forwarded"] == headers["X-Forwarded-Port"] == headers["X-Forwarded-Host"] == [""]
    assert "proxy_add_x_forwarded_for" not in host.render("nginx", "site.conf.j2")
    # A directive of a location would put all of these out of force there.
    for name, location in main_server(host).locations().items():
        assert location.everywhere("proxy_set_header") == [], name


@each_host
def test_no_location_loses_the_headers_of_its_server(host: Host) -> None:
    for words in site(host).find("server"):
        for name, location in words[-1].locations().items():
            assert location.everywhere("add_header") == [], name
    headers = main_server(host).pairs("add_header")
    for name, value in host["nginx_headers"].items():
        assert headers[name] == [value, "always"]
    assert all(words[-1] == "always" for words in headers.values())


def test_no_header_is_sent_twice() -> None:
    server = main_server(INVENTORIES["plain"])
    hidden = [words[0] for words in server.find("proxy_hide_header")]
    # These two are added to answers without them only.
    assert sorted(hidden) == sorted({*server.pairs("add_header")} - {"Retry-After", "Cache-Control"})


def test_a_request_has_one_name_for_client_app_and_log() -> None:
    host = INVENTORIES["plain"]
    server = main_server(host)
    assert server.pairs("proxy_set_header")["X-Request-ID"] == ["$slipway_request_id"]
    assert server.pairs("add_header")["X-Request-ID"] == ["$slipway_request_id", "always"]
    maps = {words[1]: words[-1] for words in parse_nginx(host.render("nginx", "shared.conf.j2")).find("map")}
    (pattern,) = (entry[0] for entry in maps["$slipway_request_id"] if entry[0].startswith("~"))
    for name, fit in {
        "a" * 8: True,
        "0f-Az.9_" * 16: True,
        "short": False,
        "with space": False,
        'a"b/c{d}': False,
        "a" * 129: False,
    }.items():
        assert bool(re.fullmatch(pattern[1:].strip("^$"), name)) is fit, name


@pytest.mark.parametrize("name", ["plain", "patient", "caching"])
def test_the_old_release_is_out_of_use_before_it_is_stopped(gunicorn: Callable[[Host], dict[str, Any]], name: str) -> None:
    host = INVENTORIES[name]
    (upstream,) = [words[-1] for words in site(host).find("upstream")]
    kept = seconds(upstream.one("keepalive_time"))
    idle = seconds(upstream.one("keepalive_timeout"))
    release = release_arguments(host)
    assert kept + idle < release["drain"]
    assert kept + idle <= CACHED_CONNECTION_SECONDS < release["drain"]
    assert idle < gunicorn(host)["keepalive"]
    # Also for the shortest drain that the inventory may ask for.
    (rule,) = [rule for rule in rules("app") if rule["variable"] == "app_drain_seconds"]
    assert kept + idle < int(re.search(r"range\((\d+),", rule["that"])[1])  # type: ignore[index]


@each_host
def test_requests_go_to_the_live_socket(host: Host) -> None:
    ((name, upstream),) = site(host).find("upstream")
    assert upstream.one("server") == [f"unix:{host['app_home']}/live.sock", "max_fails=0"]
    assert upstream.one("server")[0] == f"unix:{Store(**host['__app_layout']).live_socket}"
    passes = [words[0] for words in main_server(host).everywhere("proxy_pass")]
    assert set(passes) == {f"http://{name}"}
    server = main_server(host)
    assert server.one("proxy_http_version") == "1.1"
    assert server.pairs("proxy_set_header")["Connection"] == ["$slipway_connection"]
    shared = parse_nginx(host.render("nginx", "shared.conf.j2"))
    maps = {words[1]: dict(words[-1]) for words in shared.find("map")}
    # An empty Connection keeps the connection to the app.
    assert maps["$slipway_connection"] == {"websocket": "upgrade", "default": ""}


@each_host
def test_a_request_that_an_instance_may_be_at_still_is_not_handed_to_another(host: Host) -> None:
    assert main_server(host).find("proxy_next_upstream") == [["error"]]


@each_host
def test_names_and_ports(host: Host) -> None:
    names = host["nginx_domains"]
    for words in site(host).find("server"):
        assert words[-1].find("server_name") == [names]
    ports = [words[0] for words in main_server(host).find("listen")]
    port = "443" if host["nginx_https"] else "80"
    assert ports == ([port, f"[::]:{port}"] if host["nginx_ipv6"] else [port])
    shared = parse_nginx(host.render("nginx", "shared.conf.j2"))
    listens = [words for server in shared.find("server") for words in server[-1].find("listen")]
    addresses = ["80", "443"] if not host["nginx_ipv6"] else ["80", "[::]:80", "443", "[::]:443"]
    assert [words[0] for words in listens] == addresses
    assert all({"default_server", "reuseport"} <= set(words) for words in listens)


def test_ipv6_is_listened_on_where_the_host_has_it() -> None:
    assert INVENTORIES["ipv6"]["nginx_ipv6"] is True
    assert INVENTORIES["plain"]["nginx_ipv6"] is False


@each_host
def test_a_stranger_gets_nothing(host: Host) -> None:
    plain, secure = [words[-1] for words in parse_nginx(host.render("nginx", "shared.conf.j2")).find("server")]
    assert plain.one("return") == secure.one("return") == "444"
    # Nor what Nginx says by itself of a request that it cannot read.
    assert {"400", "414", "494", "505"} <= set(plain.one("error_page")) & set(secure.one("error_page"))
    assert plain.one("server_tokens") == secure.one("server_tokens") == "off"
    assert secure.one("ssl_reject_handshake") == "on"


@each_host_with_https
def test_http_leads_to_https(host: Host) -> None:
    server = redirect_server(host)
    port = "" if int(host["nginx_public_https_port"]) == 443 else f":{host['nginx_public_https_port']}"
    assert server.locations()["/"].one("return") == ["301", f"https://$host{port}$request_uri"]
    assert server.everywhere("ssl_certificate") == []
    headers = main_server(host).pairs("proxy_set_header")
    assert headers["Host"] == [f"$host{port}"]


@each_host
def test_challenges_are_answered_over_plain_http(host: Host) -> None:
    server = redirect_server(host) if host["nginx_https"] else main_server(host)
    challenge = server.locations()["^~ /.well-known/acme-challenge/"]
    assert challenge.one("root") == "/var/www/acme"
    assert next(words[0] for words in server.find("listen")) == "80"


def test_without_https_there_is_no_tls() -> None:
    host = INVENTORIES["no https"]
    assert len(site(host).find("server")) == 1
    assert "ssl" not in host.render("nginx", "site.conf.j2")
    assert "Strict-Transport-Security" not in host.render("nginx", "site.conf.j2")
    assert host["nginx_url"] == "http://api.example.com/"
    assert (release_arguments(host)["endpoint"]["port"], release_arguments(host)["endpoint"]["tls"]) == (80, False)


def test_without_https_a_public_port_of_https_means_nothing() -> None:
    host = Host({"certbot_mode": "none", "nginx_public_https_port": 8443})
    assert "8443" not in host.render("nginx", "site.conf.j2")


@each_host_with_https
def test_tls_is_what_mozilla_says(host: Host) -> None:
    (stranger,) = [
        words[-1] for words in parse_nginx(host.render("nginx", "shared.conf.j2")).find("server") if "ssl_protocols" in str(words)
    ]
    server = main_server(host)
    for name in ("ssl_protocols", "ssl_ciphers", "ssl_ecdh_curve", "ssl_prefer_server_ciphers", "ssl_session_cache"):
        # The server that a client's first bytes reach decides, which may be the one for strangers.
        assert server.one(name) == stranger.one(name), name
    assert server.one("ssl_protocols") == ["TLSv1.2", "TLSv1.3"]
    ciphers = server.one("ssl_ciphers").split(":")
    assert len(ciphers) == 6
    assert all(cipher.startswith("ECDHE-") and re.search("GCM|CHACHA20", cipher) for cipher in ciphers)
    assert server.one("ssl_session_tickets") == "off"
    assert server.one("ssl_certificate") == host["certbot_certificate"]
    assert server.one("ssl_certificate_key") == host["certbot_key"]
    assert server.pairs("add_header")["Strict-Transport-Security"] == ["max-age=63072000", "always"]


@pytest.mark.parametrize(
    ("openssl", "quantum"),
    [(("3.0.15",), False), (("3.5.1",), True), (("3.0.0", "3.5.1"), True), (("3.5.1", "3.4.9"), False), (("3.10.0",), True)],
)
def test_the_newest_curve_needs_the_openssl_that_runs(openssl: tuple[str, ...], quantum: bool) -> None:
    curves = main_server(Host(openssl=openssl)).one("ssl_ecdh_curve").split(":")
    assert curves == [*(["X25519MLKEM768"] if quantum else []), "X25519", "prime256v1", "secp384r1"]


@pytest.mark.parametrize(
    ("nginx", "directive"), [("1.20.1", False), ("1.22.1", False), ("1.25.0", False), ("1.25.1", True), ("1.26.3", True)]
)
def test_http2_is_asked_for_as_the_version_wants(nginx: str, directive: bool) -> None:
    server = main_server(Host(nginx=nginx, facts={"all_ipv6_addresses": ["2001:db8::1"]}))
    assert bool(server.find("http2")) is directive
    assert [("http2" in words) for words in server.find("listen")] == [not directive] * 2


def test_a_host_without_nginx_is_taken_for_the_oldest() -> None:
    host = INVENTORIES["no nginx yet"]
    assert main_server(host).find("http2") == []
    assert "MLKEM" not in host.render("nginx", "site.conf.j2")


def test_hsts_can_be_off() -> None:
    assert "Strict-Transport-Security" not in host_headers({"nginx_hsts_seconds": 0})
    assert host_headers({"nginx_hsts_seconds": 300})["Strict-Transport-Security"] == ["max-age=300", "always"]


def host_headers(inventory: dict[str, Any]) -> dict[str, list[str]]:
    return main_server(Host(inventory)).pairs("add_header")


def test_headers_are_the_operators() -> None:
    headers = {"Content-Security-Policy": "default-src 'self'; img-src *", "X-Frame-Options": "DENY"}
    server = main_server(Host({"nginx_headers": headers}))
    assert server.pairs("add_header")["Content-Security-Policy"] == ["default-src 'self'; img-src *", "always"]
    assert "Referrer-Policy" not in server.pairs("add_header")
    assert ["Content-Security-Policy"] in server.find("proxy_hide_header")


@pytest.mark.parametrize(
    ("said", "added"),
    [
        (",,Tue, 01 Jan 2030", True),
        ("max-age=60,,Tue, 01 Jan 2030", False),
        (",Wed, 02 Jan 2030,Tue, 01 Jan 2030", False),
        (",,", False),
    ],
)
def test_a_file_of_the_apps_own_is_asked_for_each_time_unless_the_app_says_how_long_it_lasts(said: str, added: bool) -> None:
    host = INVENTORIES["plain"]
    maps = {words[1]: (words[0], words[-1]) for words in parse_nginx(host.render("nginx", "shared.conf.j2")).find("map")}
    about, entries = maps["$slipway_cache_control"]
    assert about == "$upstream_http_cache_control,$upstream_http_expires,$upstream_http_last_modified"
    (pattern,) = (entry[0][1:] for entry in entries if entry[0].startswith("~"))
    assert bool(re.search(pattern, said)) == added
    assert main_server(host).pairs("add_header")["Cache-Control"] == ["$slipway_cache_control", "always"]


def test_a_static_file_is_looked_for_in_its_folder_and_not_beside_it() -> None:
    for host, directory in [
        (INVENTORIES["plain"], "/opt/api-example-com/current/build/app/static"),
        (INVENTORIES["in a folder"], "/opt/api-example-com/current/build/backend/web/static"),
    ]:
        location = main_server(host).locations()["^~ /static/"]
        # Without both slashes, /static../ would lead to its neighbours.
        assert location.one("alias") == f"{directory}/"
        assert location.one("expires") == "-1", "a file may change at any release"
        assert location.find("proxy_pass") == []
        # The app has what is neither there nor among the files of a front end.
        assert location.find("error_page") == [["403", "404", "405", "=", "@slipway_assets"]]
        assert main_server(host).locations()["@slipway_assets"].find("error_page") == [["403", "404", "405", "=", "@slipway_app"]]
        assert location.one("disable_symlinks") == ["if_not_owner", f"from={directory}"]
        app = main_server(host).locations()["@slipway_app"]
        assert app.find("proxy_pass") == main_server(host).locations()["/"].find("proxy_pass")
    cached = main_server(Host({"nginx_static_cache_seconds": 3600})).locations()["^~ /static/"]
    assert seconds(cached.one("expires")) == 3600
    assert "^~ /static/" not in main_server(INVENTORIES["no static files"]).locations()
    assert release_arguments(INVENTORIES["plain"])["layout"]["home"] == "/opt/api-example-com"


def test_static_folders_are_served_below_their_paths_also_shared_ones() -> None:
    host = INVENTORIES["several static folders"]
    home = "/opt/api-example-com"
    directories = {"/static/": f"{home}/current/build/web/static", "/up/": f"{home}/shared/up/loads"}
    locations = main_server(host).locations()
    assert {path: locations[f"^~ {path}"].one("alias") for path in directories} == {
        path: f"{directory}/" for path, directory in directories.items()
    }
    assert host["__app_runtime"]["static"] == {"/static": "static", "/up": f"{home}/shared/up/loads"}
    assert release_arguments(host)["served"] == {"group": "www-data", "folders": ["up/loads"]}
    assert host["__app_static_folders"] == ["static"]
    text = host.render("app", "directories.conf.j2")
    assert f"d {home}/shared 0710 api-example-com www-data\n" in text, "Nginx looks up names, and lists none"
    plain = Host({"app_directory": ".", "app_static": {"/s/": "shared", "/t/": "web"}})
    assert plain["app_live_static"] == {"/s/": f"{home}/current/build/shared", "/t/": f"{home}/current/build/web"}
    assert Host({"app_static": "shared/x"})["app_live_static"] == {"/static/": f"{home}/current/build/shared/x"}


def test_hashed_files_are_kept_for_a_year_and_pages_are_not() -> None:
    host, home = INVENTORIES["front end"], "/opt/api-example-com"
    locations = main_server(host).locations()
    (pattern,) = (name for name in locations if name.startswith("~"))
    hashed, pages = locations[pattern], locations["/"]
    names = pattern.partition(" ")[2].strip('"')
    for path in ("/assets/index-BfX9k2aQ.js", "/main.3f2a1b9c.chunk.js.map"):
        assert re.search(names, path)
    for path in ("/", "/index.html", "/orders/BfX9k2aQ", "/favicon.ico"):
        assert not re.search(names, path)
    assert hashed.one("root") == f"{home}/assets"
    assert hashed.find("error_page") == [["403", "404", "405", "=", "@slipway_frontend"]]
    assert hashed.find("set") == [["$slipway_hashed", "yes"]]
    assert pages.one("root") == locations["@slipway_frontend"].one("root") == f"{home}/current/frontend"
    assert pages.one("index") == "index.html"
    assert pages.one("expires") == locations["@slipway_frontend"].one("expires") == "-1"
    assert locations["@slipway_frontend"].find("set") == [["$slipway_hashed", ""]]
    assert locations["@slipway_app"].one("proxy_cache") == "api-example-com"
    assert locations["@slipway_app"].find("set") == [["$slipway_hashed", ""]], (
        "a cached answer of the app would be kept for a year"
    )
    # Its scripts may lie in a folder of that name, as create-react-app has them.
    assert locations["^~ /static/"].find("error_page") == [["403", "404", "405", "=", "@slipway_assets"]]
    assert locations["@slipway_assets"] == hashed
    for location in (pages, locations["@slipway_frontend"]):
        assert location.find("error_page") == [["403", "404", "405", "=", "@slipway_app"]]
        assert location.find("add_header") == [], "it would be instead of those of the server"
    maps = {words[1]: (words[0], words[-1]) for words in parse_nginx(host.render("nginx", "shared.conf.j2")).find("map")}
    about, entries = maps["$slipway_year"]
    assert about == "$slipway_hashed,$upstream_addr,$status"
    year, _ = entries
    assert year[-1] == "public, max-age=31536000, immutable"
    for said in ("yes,,200", "yes,,304", "yes,,206"):
        assert re.search(year[0][1:], said)
    for said in (",,200", "yes,,404", "yes,unix:/opt/x/live.sock,200"):
        assert not re.search(year[0][1:], said)
    assert maps["$slipway_cache_control"][1][-1][-1] == "$slipway_year"


def test_an_app_that_serves_its_front_end_is_asked_for_its_pages() -> None:
    locations = main_server(INVENTORIES["plain"]).locations()
    (pattern,) = (name for name in locations if name.startswith("~"))
    assert locations[pattern].find("error_page") == [["403", "404", "405", "=", "@slipway_app"]]
    assert locations["/"].find("proxy_pass") == locations["@slipway_app"].find("proxy_pass") != []
    assert "@slipway_frontend" not in locations
    assert INVENTORIES["plain"]["__app_runtime"]["frontend"] == "auto"


def test_streams_are_neither_buffered_nor_cached_and_may_be_silent() -> None:
    for inventory in ({}, {"nginx_cache_seconds": 60}):
        locations = main_server(Host({"nginx_streaming_paths": ["/events", "/ws/"], **inventory})).locations()
        for path in ("^~ /events", "^~ /ws/"):
            assert locations[path].one("proxy_buffering") == "off"
            assert seconds(locations[path].one("proxy_read_timeout")) == 3600
            assert seconds(locations[path].one("proxy_send_timeout")) == 3600
            assert locations[path].find("proxy_cache") == []
        assert locations["/"].find("proxy_buffering") == []


def test_closed_paths_are_closed_with_what_is_below_them() -> None:
    locations = main_server(Host({"nginx_blocked_paths": ["/metrics", "/internal/"]})).locations()
    closed = {path for path, location in locations.items() if location.find("return") == [["404"]]}
    assert {"= /metrics", "^~ /internal/"} <= closed
    # Where the app mounts /metrics, its answer lies at /metrics/.
    assert "^~ /metrics/" in closed


def test_only_named_proxies_are_believed() -> None:
    server = main_server(INVENTORIES["behind a proxy"])
    assert [words[0] for words in server.find("set_real_ip_from")] == ["192.0.2.0/24", "2001:db8::/32"]
    assert server.one("real_ip_header") == "X-Forwarded-For"
    assert server.one("real_ip_recursive") == "on"
    assert "real_ip" not in INVENTORIES["plain"].render("nginx", "site.conf.j2")


def test_what_is_cached_is_nobodys_own() -> None:
    host = INVENTORIES["caching"]
    path = site(host).one("proxy_cache_path")
    location = main_server(host).locations()["/"]
    zone = location.one("proxy_cache")
    assert f"keys_zone={zone}:10m" in path
    assert location.one("proxy_cache_valid") == ["200", "60s"]
    for name in ("proxy_cache_bypass", "proxy_no_cache"):
        assert {"$http_authorization", "$http_cookie"} <= set(location.one(name))
    assert "$host" in location.one("proxy_cache_key")
    assert "$request_uri" in location.one("proxy_cache_key")
    assert "proxy_cache" not in INVENTORIES["plain"].render("nginx", "site.conf.j2")


def test_a_release_is_not_proved_by_what_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    host = INVENTORIES["caching"]
    bypass = main_server(host).locations()["/"].one("proxy_cache_bypass")
    sent: dict[str, str] = {}

    def request(connection: Any, method: str, path: str, headers: dict[str, str]) -> None:
        sent.update(headers)
        raise ConnectionRefusedError

    monkeypatch.setattr("http.client.HTTPConnection.request", request)
    monkeypatch.setattr("slipway.host.endpoint.PublicEndpoint.open", lambda door: None)
    arguments = release_arguments(host)
    arguments["endpoint"]["tls"] = False
    with pytest.raises(ConnectionRefusedError):
        Context.of({**arguments, "run": {}}).endpoint.ask("/healthz")
    names = {f"$http_{name.lower().replace('-', '_')}" for name, value in sent.items() if value not in ("", "0")}
    assert names & set(bypass), "the answer of the old release would be taken for the new one's"


@pytest.mark.parametrize("name", ["plain", "no https", "several names"])
def test_an_app_that_does_not_answer_is_excused(name: str) -> None:
    host = INVENTORIES[name]
    server = main_server(host)
    assert server.one("error_page") == ["502", "503", "504", "/.slipway/unavailable.html"]
    location = server.locations()["= /.slipway/unavailable.html"]
    assert location.find("internal") == [[]]
    (task,) = host.arguments("nginx", "configuration")
    files = {file["path"]: file.get("content", "") for file in task["files"]}
    page = files[location.one("alias")]
    HTMLParser().feed(page)
    assert host["nginx_domains"][0] in page
    (variable,) = server.pairs("add_header")["Retry-After"][:1]
    shared = parse_nginx(host.render("nginx", "shared.conf.j2"))
    maps = {words[1]: dict(words[-1]) for words in shared.find("map")}
    number = "$slipway_retry_seconds"
    # What the app, or a host behind a balancer, says of it itself is said once.
    assert maps[variable] == {"": "$slipway_retry", "default": ""}
    assert maps["$slipway_retry"] == {"502": number, "503": number, "504": number, "default": ""}
    assert server.pairs("set")[number] == [str(host["nginx_retry_after_seconds"])]
    # Nginx must know the name where no site has it yet.
    assert any(words[-1].find("set") for words in shared.find("server"))
    assert re.fullmatch(r"\$[A-Za-z0-9_]+", variable)
    assert f'http-equiv="refresh" content="{host["nginx_retry_after_seconds"]}"' in page


@each_host
def test_slow_clients_are_cut_off(host: Host) -> None:
    for words in site(host).find("server") + parse_nginx(host.render("nginx", "shared.conf.j2")).find("server"):
        assert seconds(words[-1].one("client_header_timeout")) == 10
        assert words[-1].one("server_tokens") == "off"
    assert seconds(main_server(host).one("proxy_read_timeout")) == int(host["nginx_timeout"])


def test_two_apps_on_one_machine_share_no_name() -> None:
    one, two = (Host({"app_name": name, "nginx_cache_seconds": 1}, name=f"{name}.example.com") for name in ("a-b", "a_b"))
    names = []
    for host in (one, two):
        zones = re.findall(r"keys_zone=([^:]+):", host.render("nginx", "site.conf.j2"))
        names.append([words[0] for words in site(host).find("upstream")] + zones)
    assert [len({first, second}) for first, second in zip(*names, strict=True)] == [2, 2]
    shared = [host.render("nginx", "shared.conf.j2") for host in (one, two)]
    assert shared[0] == shared[1]


# The app


def rules(role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load(ROOT / "roles" / role / "vars" / "main" / "rules.yml")[f"__{role}_rules"]
    return found


@cache
def worked_out_release(host: Host) -> dict[str, Any]:
    fetched = {"source": {"revision": "r1", "origin": "directory"}}
    (arguments,) = host.arguments(
        "app", "slipway", "step.yml", __app_build={"build": "b1"}, __app_fetched=fetched, __app_step="prepare"
    )
    told = dict(arguments["arguments"])
    return {**told.pop("configuration"), **told}


def release_arguments(host: Host) -> dict[str, Any]:
    """Return the arguments with which a host's app is released."""
    return deepcopy(worked_out_release(host))


def section(host: Host) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(host.render("app", "program.conf.j2"))
    (name,) = parser.sections()
    assert name == f"program:{host['app_name']}-@RELEASE@"
    return parser[name]


STUB = """
class UvicornWorker:
    CONFIG_KWARGS = {"loop": "auto", "http": "auto"}
"""

DUMP = """
import json, runpy, sys
sys.path.append(sys.argv[2])
values = runpy.run_path(sys.argv[1])
worker = values["worker_class"]
plain = {name: value for name, value in values.items() if isinstance(value, (str, int, float, type(None))) and name[0] != "_"}
print(json.dumps({**plain, "worker": {**worker.CONFIG_KWARGS}, "bases": [base.__name__ for base in worker.__mro__]}))
"""


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages that stand in for Gunicorn and uvicorn-worker; tests/servers has the real ones."""
    directory = tmp_path_factory.mktemp("stub")
    (directory / "uvicorn_worker.py").write_text(STUB, encoding="utf-8")
    (directory / "gunicorn").mkdir()
    (directory / "gunicorn" / "glogging.py").write_text("class Logger:\n    pass\n", encoding="utf-8")
    return directory


@pytest.fixture
def gunicorn(tmp_path: Path, stub: Path) -> Callable[[Host], dict[str, Any]]:
    """Return what Gunicorn makes of its configuration for a host."""

    def make(host: Host) -> dict[str, Any]:
        released.write(tmp_path / "7", released.told(host))
        command = [PYTHON, "-IS", "-c", DUMP, str(tmp_path / "7" / "gunicorn_conf.py"), str(stub)]
        environment = {"SLIPWAY_SOCKET": "/run/shop/7.sock"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return make


@pytest.mark.parametrize("name", ["plain", "patient", "by -e", "in a folder", "several names"])
def test_gunicorn_is_told(gunicorn: Callable[[Host], dict[str, Any]], name: str) -> None:
    host = INVENTORIES[name]
    told = gunicorn(host)
    assert told["bind"] == "unix:/run/shop/7.sock"
    assert "workers" not in told, "what launch.py works out would not be heard"
    assert told["timeout"] == int(host["app_timeout"])
    assert told["graceful_timeout"] == int(host["app_graceful_timeout"])
    assert told["max_requests"] == int(host["app_max_requests"])
    assert told["max_requests_jitter"] == int(host["app_max_requests"]) // 10
    assert told["forwarded_allow_ips"] == "*"
    assert told["control_socket_disable"] is True
    assert told["reload"] is False
    assert (told["accesslog"], told["errorlog"], told["loglevel"]) == (None, "-", "info")
    worker = told["worker"]
    assert worker["headers"] == [["X-Release", "7"]]
    assert worker["server_header"] is False
    assert worker["loop"] == "auto"
    assert told["bases"][1] == "UvicornWorker"


@pytest.mark.parametrize("graceful", [2, 30, 3600])
def test_whoever_stops_first_is_within(gunicorn: Callable[[Host], dict[str, Any]], graceful: int) -> None:
    host = Host({"app_graceful_timeout": graceful})
    told, arguments = gunicorn(host), release_arguments(host)
    limits = [
        told["worker"]["timeout_graceful_shutdown"],
        told["graceful_timeout"],
        int(section(host)["stopwaitsecs"]),
    ]
    assert 0 < limits[0] < limits[1] < limits[2]
    assert arguments["stop"] == limits[2]


@pytest.mark.parametrize(
    ("processors", "memory", "inventory", "workers"),
    [
        (2, 2048, {}, 5),
        (1, 2048, {}, 3),
        (2, 512, {}, 1),
        (2, 100, {}, 1),
        (64, 4096, {}, 12),
        (2, 2048, {"app_worker_memory_mb": 400}, 2),
        (2, 2048, {"app_workers": 9}, 9),
        (2, 2048, {"app_workers": "9"}, 9),
        (2, 2048, {"app_instances": 4}, 1),
        (2, 2048, {"app_instances": "4", "app_workers": 2}, 2),
    ],
)
def test_as_many_workers_as_fit_twice(
    processors: int, memory: int, inventory: dict[str, Any], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PHYS_PAGES": memory * 256, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    assert launched(Host(inventory), tmp_path, monkeypatch)["WEB_CONCURRENCY"] == str(workers)


def launched(host: Host, directory: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, str]:
    """Return the environment with which launch.py becomes the server."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (directory / "settings.json").write_text("{}", encoding="utf-8")
    return launch.environment(released.told(host), directory)


@pytest.mark.parametrize(("count", "instances"), [(1, [""]), ("3", ["0", "1", "2"])])
def test_each_instance_has_a_socket_that_nginx_finds(
    count: Any, instances: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host({"app_name": "shop", "app_instances": count})
    layout = Store(**host["__app_layout"])
    for number, instance in enumerate(instances):
        told = {"SLIPWAY_INSTANCE": instance} if instance else {}
        assert launched(host, tmp_path, monkeypatch, **told)["SLIPWAY_SOCKET"] == str(layout.socket(7, number))
    ((_, upstream),) = site(host).find("upstream")
    servers = [words[0] for words in upstream.find("server")]
    links = [layout.current / f"{number}.sock" for number in range(1, len(instances))]
    assert servers == [f"unix:{link}" for link in (layout.live_socket, *links)]
    assert int(release_arguments(host)["instances"]) == len(instances)
    program = section(host)
    assert program.get("numprocs", "1") == str(len(instances))
    assert ("%(process_num)d" in program["stdout_logfile"]) == ("process_name" in program) == (len(instances) > 1)
    assert program.get("environment", "") == ("" if len(instances) == 1 else 'SLIPWAY_INSTANCE="%(process_num)d"')


@pytest.mark.parametrize("name", ["plain", "in a folder", "several names", "patient", "red hat"])
def test_supervisor_runs_the_release(name: str) -> None:
    host = INVENTORIES[name]
    told = section(host)
    home = host["app_home"]
    release = f"{home}/releases/@RELEASE@"
    python, script = told["command"].split()
    assert (python, script) == (f"{release}/build/.venv/bin/python", f"{release}/launch.py")
    folder = "backend" if host["app_directory"] == "backend" else ""
    assert os.path.normpath(told["directory"]) == os.path.normpath(f"{release}/build/{folder}")
    assert told["user"] == host["app_user"]
    assert told["stdout_logfile"] == str(Store(**host["__app_layout"]).log(7)).replace("7.log", "@RELEASE@.log")
    wanted = {"killasgroup": "true", "stopasgroup": "false", "redirect_stderr": "true", "autorestart": "true"}
    assert {name: told[name] for name in wanted} == wanted
    assert "environment" not in told
    # Supervisor expands what follows a percent sign.
    assert "%" not in host.render("app", "program.conf.j2")
    # So that a release that never runs is seen to be one before its health is given up on.
    assert 1 < int(told["startsecs"]) < int(host["app_health_timeout"])


@pytest.mark.parametrize("name", ["plain", "no https", "several names", "by -e", "red hat"])
def test_a_release_is_told_all_it_needs(name: str) -> None:
    host = INVENTORIES[name]
    arguments = release_arguments(host)
    assert {*arguments, "configuration", "run"} == {*PARAMETERS, *configuration.PARAMETERS}
    assert "@RELEASE@" in arguments["program"]
    # All that a release goes by, and nothing else.
    assert Release(**runtime_settings(Context.of({**arguments, "run": {}}), 7)) == released.told(host, revision="r1")
    health = {"path": "/healthz", "status": 200, "body": "", "headers": {}, "attempts": 0, "timeout": 60}
    assert arguments["health"] == {**health, "host": host["nginx_domains"][0]}
    assert arguments["access_log"] == host["nginx_access_log"]
    assert arguments["endpoint"]["host"] in host["nginx_domains"]
    assert (arguments["endpoint"]["port"], arguments["endpoint"]["tls"]) == ((443, True) if host["nginx_https"] else (80, False))
    assert arguments["program_suffix"] == (".ini" if host["ansible_facts"]["os_family"] == "RedHat" else ".conf")


@pytest.mark.parametrize(
    ("inventory", "to"), [({}, ""), ({"release": "7"}, "7"), ({"release": 7}, "7"), ({"app_rollback_to": "8"}, "8")]
)
def test_the_release_to_go_back_to_can_be_named(inventory: dict[str, Any], to: str) -> None:
    assert str(release_arguments(Host(inventory))["to"]) == to


def test_how_a_release_is_judged_is_the_operators() -> None:
    inventory = {
        "app_health_body": "^ok$",
        "app_health_headers": {"X-Probe": "yes"},
        "app_health_attempts": "3",
        "app_watch_seconds": 60,
        "app_openapi_gate": "yes",
        "app_openapi_path": "/v1/openapi.json",
        "app_migrate_command": "alembic upgrade head",
        "app_migrate_timeout": "900",
        "app_rollback_across_migrations": True,
        "app_rollback_settings": "current",
        "nginx_access_log": "/var/log/nginx/shop.log",
        "app_secrets": {"KEY": "x"},
        "app_env": {"PLAIN": "y"},
    }
    told = release_arguments(Host(inventory))
    assert (told["health"]["body"], told["health"]["attempts"], told["watch"]) == ("^ok$", 3, 60)
    assert told["health"]["headers"] == {"X-Probe": "yes"}
    assert told["migrate"] == {"command": "alembic upgrade head", "timeout": 900, "backup": True}
    assert (told["openapi_path"], told["access_log"]) == ("/v1/openapi.json", "/var/log/nginx/shop.log")
    assert (told["across_migrations"], told["rollback_settings"], told["secret_names"]) == (True, "current", ["KEY"])
    assert release_arguments(Host({**inventory, "app_openapi_gate": "no"}))["openapi_path"] == ""


@pytest.mark.parametrize("name", ["plain", "no https", "several names"])
def test_what_nginx_logs_is_what_a_release_is_watched_by(name: str) -> None:
    host = INVENTORIES[name]
    shared = parse_nginx(host.render("nginx", "shared.conf.j2"))
    ((format_name, escape, *parts),) = shared.find("log_format")
    assert escape == "escape=json"
    for words in site(host).find("server"):
        assert words[-1].one("access_log")[:2] == [release_arguments(host)["access_log"], format_name]
    numbers = {"$msec": "1763979600.123", "$status": "502", "$body_bytes_sent": "1", "$request_time": "0.1"}
    line = re.sub(r"\$\w+", lambda word: numbers.get(word[0], word[0]), "".join(parts))
    wanted = {"at": 1763979600.123, "status": 502, "release": "$upstream_http_x_release", "id": "$slipway_request_id"}
    assert wanted.items() <= json.loads(line).items()
    # A query may hold a token.
    assert not {"$request", "$request_uri", "$args", "$query_string", "$http_referer"} & set(re.findall(r"\$\w+", "".join(parts)))


def test_the_same_inventory_is_the_same_release() -> None:
    # The digest of a release is made of these.
    first, second = (release_arguments(Host({"app_env": {"B": "1", "A": "2"}})) for _ in range(2))
    assert first == second


def test_a_secret_is_in_the_settings_and_nowhere_else() -> None:
    host = Host({"app_env": {"A": "1", "SHADOWED": "no"}, "app_secrets": {"KEY": "hunter2"}})
    arguments = release_arguments(host)
    assert json.loads(arguments.pop("settings")) == {"A": "1", "SHADOWED": "no", "KEY": "hunter2"}
    assert "hunter2" not in str(arguments)


TRICKY = {
    "PERCENT": "100%(ENV_HOME)s %% %s p%40ss",
    "QUOTES": """'"` it's "quoted" \\" \\'""",
    "LINES": "one\ntwo\r\nthree\n",
    "SHELL": "$HOME ${HOME} $(id) `id` | & > < ; #no comment",
    "BLANKS": "  \t leading and trailing \t ",
    "UNICODE": "Größe 漢字 🚀 \u202e\u00a0",
    "LONG": "x%'\"\n" * 1640,
    "EMPTY": "",
    "JSON": '{"a": ["b", null], "c": "{[ no template ]}"}',
    "URL": "postgresql://u:p%40s;s#@db:5432/x?a=b&c=d",
    "BACKSLASH": "\\n \\\\ \\u0041 C:\\new",
}


def test_settings_reach_the_app_byte_for_byte(tmp_path: Path) -> None:
    host = Host({"app_env": TRICKY, "app_secrets": {"KEY": "hunter2"}})
    arguments = release_arguments(host)
    assert len(TRICKY["LONG"]) > 8 * 1024 - 10
    release, venv = tmp_path / "release", tmp_path / "venv"
    build = tmp_path / "build"
    for directory in (release, build, venv / "bin"):
        directory.mkdir(parents=True)
    (release / "build").symlink_to("../build")
    (build / ".venv").symlink_to("../venv")
    sockets = f"{tmp_path}/run/api-example-com"
    released.write(release, released.told(host, sockets=sockets), json.loads(arguments["settings"]))
    counts = tmp_path / "run" / "api-example-com" / "7.metrics"
    counts.mkdir(parents=True)
    (counts / "counter_1.db").touch()  # of one that ran before
    seen = tmp_path / "seen"
    server = "import json, os, sys\nvalues = {os.fsdecode(k): os.environb[k].hex() for k in os.environb}\n"
    server += f"json.dump([sys.argv, values], open({str(seen)!r}, 'w'))\n"
    python, own = venv / "bin" / "python", release / "build" / ".venv" / "bin" / "python"
    python.write_text(f"#!{PYTHON} -IS\n{server}", encoding="utf-8")
    python.chmod(0o755)
    # As under supervisord: root's environment, without a word on the language.
    outer = {"PATH": "/usr/bin", "SECRET_OF_ROOT": "1", "PYTHONPATH": "/root", "SUPERVISOR_ENABLED": "1"}
    subprocess.run([PYTHON, str(release / "launch.py")], env=outer, check=True, cwd="/")
    words, values = json.loads(seen.read_text(encoding="utf-8"))
    environment = {name: bytes.fromhex(value) for name, value in values.items()}
    for name, value in {**TRICKY, "KEY": "hunter2"}.items():
        assert environment.pop(name) == value.encode(), name
    fixed = {
        "HOME": b"/opt/api-example-com/shared",
        "USER": b"api-example-com",
        "RELEASE_ID": b"7",
        "RELEASE_REVISION": b"abc",
        "PYTHONUNBUFFERED": b"1",
        "FASTAPI_ENV": b"production",
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin".encode(),
    }
    assert {name: environment.pop(name) for name in fixed} == fixed
    assert int(environment.pop("WEB_CONCURRENCY")) >= 1
    assert environment.pop("SLIPWAY_SOCKET") == f"{tmp_path}/run/api-example-com/7.sock".encode()
    assert environment.pop("PROMETHEUS_MULTIPROC_DIR") == str(counts).encode()
    assert list(counts.iterdir()) == []
    assert set(environment) <= {"LANG", "LC_CTYPE"}
    assert words[1:6] == ["-m", "gunicorn", "--name", "api-example-com release 7", "--config"]
    assert words[6:] == [str(release / "gunicorn_conf.py"), "slipway.runtime.served:app"]
    # What is checked before has the same environment, and counts nothing.
    del values["PROMETHEUS_MULTIPROC_DIR"]
    subprocess.run([PYTHON, str(release / "launch.py"), "--check"], env=outer, check=True, cwd="/")
    assert json.loads(seen.read_text(encoding="utf-8")) == [[str(own), str(release / "preflight.py")], values]
    # So has a hook, and what it is told besides.
    outer |= {"SLIPWAY_TO": "8"}
    shell = [PYTHON, str(release / "launch.py"), "--shell", f"{python} hook && exit 3"]
    assert subprocess.run(shell, env=outer, check=False, cwd="/").returncode == 3
    words, values = json.loads(seen.read_text(encoding="utf-8"))
    environment = {name: bytes.fromhex(value) for name, value in values.items()}
    assert (words[1:], environment["SLIPWAY_TO"], environment["PERCENT"]) == (["hook"], b"8", TRICKY["PERCENT"].encode())
    assert "SECRET_OF_ROOT" not in environment


@pytest.mark.parametrize("rights", [True, "false"])
def test_a_release_gives_up_what_no_app_needs(tmp_path: Path, rights: Any) -> None:
    (tmp_path / "build" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "build" / ".venv" / "bin" / "python").symlink_to(PYTHON)
    released.write(tmp_path, released.told(Host({"app_no_new_privileges": rights})))
    look = "cat /proc/self/status /proc/self/limits /proc/self/oom_score_adj"
    limited = ["sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh", PYTHON, str(tmp_path / "launch.py"), "--shell", look]
    shown = subprocess.run(limited, capture_output=True, text=True, check=True).stdout
    assert re.search(r"NoNewPrivs:\s+(\d)", shown)[1] == str(int(rights is True))  # type: ignore[index]
    assert re.search(r"Max core file size\s+0\s+0\s", shown)
    soft, hard = re.search(r"Max open files\s+(\d+)\s+(\d+)", shown).groups()  # type: ignore[union-attr]
    assert soft == hard != "64"
    assert shown.splitlines()[-1] == "500"


@pytest.mark.parametrize("count", [1, 2])
def test_a_limit_of_memory_is_set_before_the_app_starts_as_its_user(count: int) -> None:
    host = Host({"app_name": "shop", "app_user": "clerk", "app_memory_mb": "256", "app_instances": count})
    told = section(host)
    assert told["user"] == "root"
    limit, user, app = told["command"].split(" -- ")
    assert limit.split()[:2] == ["/usr/bin/systemd-run", "--quiet"]
    assert {"--scope", "--collect", "--property=MemoryMax=256M", "--property=MemorySwapMax=0"} <= set(limit.split())
    assert user.split() == ["/usr/bin/setpriv", "--reuid=clerk", "--regid=clerk", "--init-groups"]
    assert app.split() == section(Host({"app_name": "shop"}))["command"].split()
    assert "%" not in told["command"]


@pytest.mark.parametrize(("memory", "workers"), [(0, 5), (256, 1), ("800", 5), (500, 3)])
def test_as_many_workers_as_fit_into_the_limit(
    memory: Any, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 4096 * 256, "SC_PAGE_SIZE": 4096}.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    host = Host({"app_memory_mb": memory})
    assert launched(host, tmp_path, monkeypatch)["WEB_CONCURRENCY"] == str(workers)
    assert str(host["app_container_memory_mb"]) == str(memory)


def test_settings_go_before_what_slipway_sets_but_for_its_own_names(tmp_path: Path) -> None:
    settings = dict.fromkeys(["HOME", "LANG", "PATH", "USER", "RELEASE_ID", "RELEASE_REVISION", "WEB_CONCURRENCY"], "mine")
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    told = launch.environment(released.told(INVENTORIES["plain"]), tmp_path)
    assert [name for name in settings if told[name] != "mine"] == ["RELEASE_ID", "RELEASE_REVISION", "WEB_CONCURRENCY"]
    assert {"RELEASE_ID", "RELEASE_REVISION"} <= set(INVENTORIES["plain"]["__app_env_refused"])


def test_the_apps_directories() -> None:
    lines = [line.split() for line in INVENTORIES["plain"].render("app", "directories.conf.j2").splitlines() if line[:1] == "d"]
    found = {path: (mode, user, group) for _, path, mode, user, group in lines}
    name = "api-example-com"
    # Nginx looks a socket up by its name; nobody lists them.
    assert found[f"/run/{name}"] == ("0710", name, "www-data")
    for folder in ("", "/builds", "/venvs", "/releases"):
        assert found[f"/opt/{name}{folder}"] == ("0755", "root", "root")
    assert found[f"/opt/{name}/shared"] == ("0750", name, name)
    assert found[f"/var/log/{name}"] == ("0750", "root", name)
    layout = Store(**INVENTORIES["plain"]["__app_layout"])
    made = {layout.home, layout.runtime, layout.logs, layout.builds, layout.venvs, layout.releases}
    assert made <= {Path(path) for path in found}


# The check before the start

APPS = {
    "good": "import os\napp = os.environ['KEY']\n",
    "missing module": "import no_such_package\napp = None\n",
    "no attribute": "application = None\n",
    "broken": "app = 1 / 0\n",
    "misspelt": "app = = 1\n",
    "settings": """
class ValidationError(ValueError):
    title = "Settings"
    def errors(self, include_input=True, include_url=True):
        problems = [{"loc": ("DATABASE_URL",), "msg": "Field required"}, {"loc": ("db", 0), "msg": "Input should be a number"}]
        return [{**problem, "input": "hunter2"} if include_input else problem for problem in problems]
    def __str__(self):
        return "input_value='hunter2'"
raise ValidationError
""",
    "static": """
class Mount:
    path = "/files"
    class app:
        directory = "static"
class app:
    routes = [Mount]
""",
    **{
        f"below {root} with {path}": f"""
class Route:
    path = {path!r}
class app:
    root_path = {root!r}
    routes = [object(), Route]
"""
        for root in ("", "/", "/api", "/api/", "api", "/metrics")
        for path in ("/metrics", "/metrics/", "/internal/users", "/metricsx", "/{path:path}")
    },
    "included": """
import sys, types
class Route:
    path = "/metrics"
class app:
    root_path = "/api"
    routes = ["a router with routes of its own"]
sys.modules["fastapi.routing"] = types.ModuleType("fastapi.routing")
sys.modules["fastapi.routing"].iter_route_contexts = lambda routes: iter([Route] * len(routes))
""",
    "long": "raise ImportError('failed to find libmagic.\\nset this: export IT=quiet\\n')\n",
    "chained": "try:\n    {}['URL']\nexcept KeyError as error:\n    raise RuntimeError('\\n no URL\\nat all') from error\n",
    "group": "raise BaseExceptionGroup('two things', [ValueError('first\\nline'), KeyError('x')])\n",
    "dotted": "import json\njson.loads('{')\n",
    "silent": "raise AssertionError\n",
    "ends": "raise SystemExit('no configuration\\nhere')\n",
    "noisy": "print('slipway says nothing')\nimport sys\nsys.stderr.write('last words\\n')\nraise ValueError('one\\ntwo')\n",
    "factory": "def make(name='x'):\n    open('made', 'w').write(name)\n    return object()\napp = make\n",
    "broken factory": "def app():\n    raise ValueError('no key')\n",
    "plain": "async def app(scope, receive, send):\n    raise ValueError('nobody calls this')\n",
    "wrapped": "def app(*arguments):\n    raise ValueError('nobody calls this')\n",
    "busy": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\napp = None\n",
}


FILES = Host({"app_static": {"/files/": "app/static"}})
CLOSED = Host({"nginx_blocked_paths": ["/metrics", "/internal/"]})


@pytest.fixture
def preflight(tmp_path: Path) -> Any:
    """Check an app before its start, in its folder."""

    def run(app: str, host: Host = INVENTORIES["plain"]) -> tuple[int, str]:
        released.write(tmp_path / "7", released.told(host))
        folder = tmp_path / "build" / "app"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(APPS[app], encoding="utf-8")
        command = [PYTHON, str(tmp_path / "7" / "preflight.py")]
        environment = {"KEY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        joined = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=folder.parent, env=environment, timeout=5, check=False, **joined)  # type: ignore[call-overload]
        return done.returncode, done.stdout

    return run


def test_an_app_that_can_be_imported_passes(preflight: Any) -> None:
    assert preflight("good") == (0, "")


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("missing module", ["app/main.py", "No module named 'no_such_package'", "app_extra_requirements"]),
        ("no attribute", ["app.main", "app"]),
        ("broken", ["app/main.py", "app = 1 / 0", "ZeroDivisionError"]),
        ("misspelt", ["main.py", "SyntaxError"]),
    ],
)
def test_an_app_that_cannot_be_imported_says_why(preflight: Any, app: str, words: list[str]) -> None:
    code, text = preflight(app)
    assert code == 1
    for word in words:
        assert word in text
    assert "importlib" not in text


@pytest.mark.parametrize(
    ("app", "headline"),
    [
        ("missing module", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("misspelt", "SyntaxError: invalid syntax (main.py, line 1)"),
        ("long", "ImportError: failed to find libmagic."),
        ("chained", "RuntimeError: no URL"),
        ("dotted", "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("silent", "AssertionError"),
        ("ends", "it exits with exit code 1: no configuration"),
        ("noisy", "ValueError: one"),
        (
            "settings",
            "Settings refuses the settings (app_env, app_secrets): DATABASE_URL: Field required; db.0: Input should be a number",
        ),
        ("broken factory", "ValueError: no key"),
        pytest.param(
            "group",
            "ExceptionGroup: two things (2 sub-exceptions): ValueError: first",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups"),
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(preflight: Any, app: str, headline: str) -> None:
    code, text = preflight(app)
    assert code == 1
    assert [line for line in text.splitlines() if line.startswith("slipway-headline:")] == [f"slipway-headline: {headline}"]


def test_what_an_exception_came_from_is_told(preflight: Any) -> None:
    assert "It came from KeyError: 'URL'\n" in preflight("chained")[1]


@pytest.mark.parametrize(("app", "called"), [("factory", True), ("plain", False), ("wrapped", False)])
def test_a_function_that_makes_the_app_is_called(preflight: Any, tmp_path: Path, app: str, called: bool) -> None:
    assert preflight(app) == (0, "")
    assert (tmp_path / "build" / "made").exists() is called


def test_settings_that_are_refused_are_named_without_their_values(preflight: Any) -> None:
    code, text = preflight("settings")
    assert code == 1
    assert "app_env" in text
    assert "DATABASE_URL: Field required" in text
    assert "db.0: Input should be a number" in text
    assert "hunter2" not in text


def test_a_static_file_of_the_apps_own_that_nginx_would_hide_is_named(preflight: Any, tmp_path: Path) -> None:
    own, nginx = tmp_path / "build" / "static" / "css", tmp_path / "build" / "app" / "static" / "css"
    for folder, text in ((own, "mine"), (nginx, "else")):
        folder.mkdir(parents=True)
        (folder / "a.css").write_text(text, encoding="utf-8")
        (folder / "same.css").write_text("same", encoding="utf-8")
    code, text = preflight("static", FILES)
    assert code == 3
    assert "/files/css/a.css is one file for the app (in static) and another for Nginx" in text
    assert "set app_static" in text and "same.css" not in text


@pytest.mark.parametrize("theirs", [None, "mine"])
def test_static_files_of_the_apps_own_that_nobody_hides_are_none_of_nginx(
    preflight: Any, tmp_path: Path, theirs: str | None
) -> None:
    folders = [tmp_path / "build" / "static"] + ([tmp_path / "build" / "app" / "static"] if theirs else [])
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.css").write_text("mine", encoding="utf-8")
    assert preflight("static", FILES) == (0, "")


@pytest.mark.parametrize(
    ("root", "path", "open_at"),
    [
        ("/api", "/metrics", "/api/metrics"),
        ("/api/", "/metrics/", "/api/metrics/"),
        ("/api", "/internal/users", "/api/internal/users"),
        ("/api", "/metricsx", ""),
        ("/api", "/{path:path}", ""),
        ("", "/metrics", ""),
        ("/", "/metrics", ""),
        # It is taken off no path.
        ("api", "/metrics", ""),
        # What comes of it is closed, too.
        ("/metrics", "/internal/users", ""),
    ],
)
def test_a_path_that_is_closed_and_open_below_the_root_path_of_the_app_is_named(
    preflight: Any, root: str, path: str, open_at: str
) -> None:
    code, text = preflight(f"below {root} with {path}", CLOSED)
    words = (
        f"slipway-headline: the app has {path}, which is closed, at {open_at}, too, since its root_path is {root.rstrip('/')}\n"
    )
    assert (code, text) == ((4, words) if open_at else (0, ""))


def test_routes_that_a_router_brings_are_looked_at_too(preflight: Any) -> None:
    code, text = preflight("included")
    assert (code, "/api/metrics" in text) == (4, True)


def test_a_path_that_is_closed_below_the_root_path_as_well_is_none_to_refuse(preflight: Any) -> None:
    host = Host({"nginx_blocked_paths": ["/metrics", "/api/metrics/"]})
    assert preflight("below /api with /metrics", host) == (0, "")
    assert preflight("below /api with /internal/users", host) == (0, "")


def test_an_app_that_is_at_work_once_imported_is_not_waited_for(preflight: Any) -> None:
    assert preflight("busy")[0] == 0


# The guards of Gunicorn


GUARD = """
import os, runpy, signal, sys
sys.path.insert(0, {stub!r})
open({socket!r}, "w").close()
values = runpy.run_path({conf!r})
values["when_ready"](None)
worker = os.fork()
if worker == 0:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    import slipway.runtime.served
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""

SUPERVISORD = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def tree(tmp_path: Path, stub: Path, short: Path) -> Iterator[tuple[int, list[int], Path]]:
    """A supervisord, a Gunicorn's master with one worker under it, and the socket of the release."""
    host = Host({"app_name": "shop", "app_graceful_timeout": 2})
    socket = short / "7.sock"
    release = tmp_path / "7"
    released.write(release, released.told(host))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("app = None\n", encoding="utf-8")
    code = GUARD.format(stub=str(stub), conf=str(release / "gunicorn_conf.py"), socket=str(socket))
    supervisord = subprocess.Popen(
        [PYTHON, "-c", SUPERVISORD, code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "SLIPWAY_SOCKET": str(socket)},
        cwd=tmp_path,
    )
    assert supervisord.stdout is not None
    pids = [int(supervisord.stdout.readline()) for _ in range(2)]
    pids.sort(
        key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1] in map(str, pids))
    )
    yield supervisord.pid, pids, socket
    with contextlib.suppress(ProcessLookupError):
        os.killpg(supervisord.pid, signal.SIGKILL)
    supervisord.communicate()


def replace_socket(socket: Path) -> None:
    (socket.parent / "new").touch()
    (socket.parent / "new").replace(socket)


def test_a_server_outlives_its_supervisor_until_another_serves(tree: tuple[int, list[int], Path]) -> None:
    supervisord, (master, worker), socket = tree
    os.kill(supervisord, signal.SIGKILL)
    time.sleep(0.6)
    assert is_alive(master)
    assert is_alive(worker)
    replace_socket(socket)
    assert gone_within([master, worker], 10)
    assert socket.exists()


def test_workers_outlive_their_master_until_another_serves(tree: tuple[int, list[int], Path]) -> None:
    _, (master, worker), socket = tree
    os.kill(master, signal.SIGKILL)
    time.sleep(0.6)
    assert is_alive(worker)
    replace_socket(socket)
    assert gone_within([worker], 10)
    assert socket.exists()


# systemd and SELinux


@pytest.mark.parametrize(("role", "variable"), [("nginx", "nginx_restart_seconds"), ("supervisor", "supervisor_restart_seconds")])
def test_a_service_that_dies_comes_back_for_ever(role: str, variable: str) -> None:
    host = Host({variable: 7})
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(host.render(role, "restart.conf.j2"))
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "always"
    assert unit["Service"]["RestartSec"] == "7"
    # Programs of a supervisord that was killed go on serving.
    assert (unit["Service"].get("KillMode") == "process") is (role == "supervisor")


def test_the_selinux_rule_lets_nginx_connect() -> None:
    text = INVENTORIES["red hat"].render("nginx", "selinux.cil.j2")
    assert text.count("(") == text.count(")")
    rules = [line.strip() for line in text.splitlines() if line.strip().startswith("(allow")]
    assert any("connectto" in rule for rule in rules)
    assert any("sock_file" in rule for rule in rules)
    assert all(line.lstrip().startswith(("(", ";")) or not line for line in text.splitlines())
