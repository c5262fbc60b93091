"""Load balancers: which hosts are behind them, what HAProxy is configured to do, and what a host behind them answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rendering import Host as Inventory
from rendering import parse_nginx

from slipway.controller.balancing import balancer_relations

HOSTS = ["one.test", "two.test", "three.test"]

EDGE = {"balancer": ["edge.test", "spare.test"], "web": HOSTS, "fleet": HOSTS}
VARS: dict[str, dict[str, Any]] = {
    **{name: {"inventory_hostname": name, "nginx_timeout": 30, "app_health_status": 204} for name in HOSTS},
    **{
        name: {
            "inventory_hostname": name,
            "haproxy_group": "fleet",
            "haproxy_domains": ["shop.test"],
            "ansible_facts": {"all_ipv4_addresses": [address], "all_ipv6_addresses": ["fe80::1", "2001:db8::1"]},
        }
        for name, address in (("edge.test", "192.0.2.1"), ("spare.test", "192.0.2.2"))
    },
}


def test_hosts_and_balancers_are_related() -> None:
    edge, spare, one = (balancer_relations(EDGE, VARS, name) for name in ("edge.test", "spare.test", "one.test"))
    assert (edge["hosts"], edge["peers"], spare["peers"], edge["balancers"]) == (HOSTS, ["spare.test"], ["edge.test"], [])
    assert (one["balancers"], one["hosts"], one["balanced"]) == (["edge.test", "spare.test"], [], HOSTS)
    assert one["domains"] == ["shop.test"]
    assert one["addresses"] == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert edge["settings"] == {"app_health_status": 204, "nginx_timeout": 30}
    assert (edge["unknown"], one["unknown"]) == ([], [])


def interface(kind: str, *addresses: str, sixth: str = "fe80::1") -> dict[str, Any]:
    """Return what a host says of a network interface."""
    first, *others = [{"address": address, "prefix": "24"} for address in addresses]
    return {"type": kind, "ipv4": first, "ipv4_secondaries": others, "ipv6": [{"address": sixth, "scope": "link"}]}


@pytest.mark.parametrize("through", ["eth0", "br-lan"])
def test_a_balancers_bridges_for_containers_are_not_trusted(through: str) -> None:
    bridges = {"docker0": interface("bridge", "172.17.0.1"), "podman0": interface("bridge", "10.88.0.1", sixth="fd00:88::1")}
    kind = "ether" if through == "eth0" else "bridge"
    own = {through.replace("-", "_"): interface(kind, "192.0.2.1", "192.0.2.9", sixth="2001:db8::1")}
    private = {"eth1": interface("ether", "10.0.0.5"), "lo": interface("loopback", "127.0.0.1", sixth="::1")}
    facts = {
        **bridges,
        **own,
        **private,
        "interfaces": ["lo", "docker0", "podman0", through, "eth1"],
        "default_ipv4": {"address": "192.0.2.1", "interface": through},
        "default_ipv6": {"address": "2001:db8::1", "interface": through},
        "all_ipv4_addresses": ["172.17.0.1", "10.88.0.1", "192.0.2.1", "192.0.2.9", "10.0.0.5"],
        "all_ipv6_addresses": ["fe80::1", "fd00:88::1", "2001:db8::1"],
    }
    known = {**VARS, "edge.test": {"haproxy_group": "fleet", "ansible_facts": facts}}
    assert sorted(balancer_relations(EDGE, known, "one.test")["addresses"]) == [
        "10.0.0.5",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.9",
        "2001:db8::1",
    ]


def test_of_a_balancer_that_tells_no_interfaces_the_way_out_is_trusted() -> None:
    facts = {"all_ipv4_addresses": ["172.17.0.1", "192.0.2.1"], "default_ipv4": {"address": "192.0.2.1", "interface": "eth0"}}
    known = {**VARS, "edge.test": {"haproxy_group": "fleet", "ansible_facts": facts}}
    assert balancer_relations(EDGE, known, "one.test")["addresses"] == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]


def test_a_balancer_without_facts_is_unknown_and_one_of_other_hosts_no_peer() -> None:
    groups = {**EDGE, "balancer": [*EDGE["balancer"], "other.test"], "blog": ["blog.test"]}
    known = {**VARS, "spare.test": {"haproxy_group": "fleet"}, "other.test": {"haproxy_group": "blog"}, "blog.test": {}}
    one, other, blog = (balancer_relations(groups, known, name) for name in ("one.test", "other.test", "blog.test"))
    assert (one["unknown"], one["domains"]) == (["spare.test"], ["shop.test", "spare.test"])
    assert (other["hosts"], other["peers"]) == (["blog.test"], [])
    assert (blog["balancers"], blog["domains"]) == (["other.test"], ["other.test"])


def member(name: str, group: str, **inventory: Any) -> Inventory:
    """Return a host of a fleet with two balancers."""
    usual = {"groups": EDGE, "hostvars": VARS, "group_names": [group]}
    own = {"haproxy_group": "fleet", "haproxy_domains": ["shop.test"], "app_name": "edge"} if group == "balancer" else {}
    return Inventory({**usual, **own, **inventory}, name=name)


def server(host: Inventory) -> Any:
    """Return the server that hands requests on."""
    servers = [words[-1] for words in parse_nginx(host.render("nginx", "site.conf.j2")).find("server")]
    return next(
        each
        for each in servers
        if each.find("server_tokens") and "https://" not in str(each.find("return")) and each.find("error_page")
    )


def test_a_host_behind_balancers_answers_them_alone_and_believes_them() -> None:
    host = member("one.test", "web")
    text = host.render("nginx", "site.conf.j2")
    site, main = parse_nginx(text), server(host)
    ((source, variable, entries),) = site.find("geo")
    assert (source, variable) == ("$realip_remote_addr", "$slipway_from_one_test")
    kinds = dict(entries)
    assert kinds["default"] == "stranger" and kinds["127.0.0.1"] == "itself"
    assert {address for address, kind in kinds.items() if kind == "balancer"} == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert {words[0] for words in main.find("set_real_ip_from")} == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    headers = main.pairs("proxy_set_header")
    assert headers["X-Forwarded-For"] == ["$remote_addr"]
    assert headers["X-Forwarded-Proto"] == ["$slipway_scheme_one_test"]
    assert headers["Host"] == ["$slipway_host_one_test"]
    assert main.find("server_name") == [["shop.test", "one.test"]]
    for name, location in main.locations().items():
        handed = location.find("proxy_pass") and "unix" not in str(location.find("proxy_pass"))
        if handed or name == "^~ /static/":
            assert location.find("if") == [["($slipway_from_one_test", "=", "stranger)", [["return", "403"]]]], name
    files = server(member("one.test", "web", app_frontend="dist")).locations()
    for name in ("/", "@slipway_frontend", "@slipway_assets", "@slipway_app"):
        assert ["($slipway_from_one_test", "=", "stranger)", [["return", "403"]]] in files[name].find("if"), name
    assert host["certbot_mode"] == "selfsigned"
    backend = next(
        words[-1] for words in site.find("server") if words[-1].find("server_name") == [["one.test.backend.slipway.internal"]]
    )
    assert backend.one("ssl_certificate") == "/etc/nginx/slipway/backend/one.test.pem"
    assert backend.one("return") == ["444"] or backend.one("return") == "444"


# What the balancer's certificates are known to be, as its tasks found them.
PINNED = {"results": [{"item": name, "content": "UEVN"} for name in HOSTS]}


def configuration(**inventory: Any) -> dict[str, list[str]]:
    """Return the lines of each section of a balancer's configuration."""
    facts: dict[str, Any] = {
        "__haproxy_placeholder": {"version": "Running on OpenSSL version : OpenSSL 3.5.4 30 Sep 2025\n"},
        "__haproxy_backend_certificates": PINNED,
        "__haproxy_backend_files": {"files": []},
    }
    text = member("edge.test", "balancer", **{**facts, **inventory}).render("haproxy", "haproxy.cfg.j2")
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            lines = sections[line] = []
        elif line.strip() and not line.strip().startswith("#"):
            lines.append(line.strip())
    return sections


def servers(lines: list[str]) -> dict[str, str]:
    """Return the options of each server of a backend."""
    return {words[1]: words[2] for words in (line.split(" ", 2) for line in lines) if words[0] == "server"}


def test_each_host_is_verified_by_its_own_certificate() -> None:
    for backend in ("backend app", "backend app_once"):
        lines = configuration()[backend]
        assert any(line.startswith("default-server ") and "ssl verify required" in line for line in lines)
        for name, options in servers(lines).items():
            assert f"ca-file /etc/haproxy/slipway/backends/{name}.pem" in options
            assert f"sni str({name}.backend.slipway.internal)" in options
            assert f"verifyhost {name}.backend.slipway.internal" in options
        assert list(servers(lines)) == HOSTS


def test_a_host_without_a_known_certificate_is_left_out() -> None:
    some = {"results": [*PINNED["results"][:1], {"item": "two.test", "msg": "unreachable"}, {"item": "three.test"}]}
    before = {"files": [{"path": f"/etc/haproxy/slipway/backends/{name}.pem"} for name in ("two.test", "gone.test")]}
    found = configuration(__haproxy_backend_certificates=some, __haproxy_backend_files=before)
    assert list(servers(found["backend app"])) == ["one.test", "two.test"]
    host = member("edge.test", "balancer", __haproxy_backend_certificates=some, __haproxy_backend_files=before)
    assert host["__haproxy_unread"] == ["two.test"], "an operator is not told"


def test_another_address_of_a_name_is_another_configuration() -> None:
    def rendered(*found: dict[str, Any]) -> str:
        names = {"results": [{"item": "a name", "ansible_facts": {"getent_ahosts": each}} for each in found]}
        host = member("edge.test", "balancer", __haproxy_names=names, __haproxy_backend_certificates=PINNED)
        return host.render("haproxy", "haproxy.cfg.j2")

    socket = [["STREAM", "spare.test"], ["DGRAM"], ["RAW"]]
    before = rendered({"192.0.2.2": socket}, {"nosuch.test": None}, {"192.0.2.1": socket, "2001:db8::1": socket})
    assert "# Names were looked up then: 192.0.2.1 192.0.2.2 2001:db8::1\n" in before
    assert rendered({"2001:db8::1": socket, "192.0.2.1": socket}, {"192.0.2.2": socket}) == before, "the order counts"
    assert rendered({"192.0.2.3": socket}) != before


def test_only_requests_that_may_be_repeated_are() -> None:
    found = configuration()
    assert "retry-on conn-failure" in found["backend app_once"]
    assert {"http-reuse never", "option http-server-close"} <= {*found["backend app_once"]}
    assert {f"track app/{name}" in options for name, options in servers(found["backend app_once"]).items()} == {True}
    https = found["frontend https"]
    assert https[-2:] == ["use_backend app if { method GET HEAD OPTIONS }", "default_backend app_once"]


def test_health_checks_are_the_apps_own() -> None:
    hosts = {name: {**VARS[name], "app_health_body": "it's 100%", "app_health_headers": {"X-Key": "a'b%c"}} for name in HOSTS}
    lines = configuration(hostvars={**VARS, **hosts})["backend app"]
    (send,) = [line for line in lines if line.startswith("http-check send ")]
    assert " uri /.slipway/health " in send
    assert send.endswith("hdr X-Key 'a'\\''b%%c'")
    assert "http-check expect status 204" in lines
    assert "http-check expect rstring 'it'\\''s 100%'" in lines


@pytest.mark.parametrize(
    ("sticky", "lines"), [("address", ["balance source", "hash-type consistent"]), ("cookie", ["balance roundrobin"])]
)
def test_clients_keep_to_a_host(sticky: str, lines: list[str]) -> None:
    found = configuration(haproxy_sticky=sticky)
    for backend in ("backend app", "backend app_once"):
        assert found[backend][: len(lines)] == lines
        cookies = [re.search(r" cookie ([0-9a-f]{32}) ", options) for options in servers(found[backend]).values()]
        assert all(cookies) is (sticky == "cookie")
        assert any(line.startswith("cookie slipway_host insert indirect nocache httponly secure") for line in found[backend]) is (
            sticky == "cookie"
        )


def test_the_front_is_https_and_http_leads_there() -> None:
    found = configuration()
    assert "http-request redirect scheme https code 301 unless challenge" in found["frontend http"]
    assert any("curves X25519MLKEM768:X25519:" in line and "alpn h2,http/1.1" in line for line in found["frontend https"])
    assert "http-after-response set-header Strict-Transport-Security max-age=63072000" in found["frontend https"]
    plain = configuration(certbot_mode="none")
    assert "frontend https" not in plain
    assert plain["frontend http"][-1] == "default_backend app_once"
    assert not any("redirect" in line or "Strict" in line for line in plain["frontend http"])


def test_challenges_are_asked_on_to_the_other_balancers_and_no_further() -> None:
    found = configuration()
    front = found["frontend http"]
    assert "acl challenge path_beg /.well-known/acme-challenge/" in front
    assert front[-2:] == ["use_backend acme_local if { req.hdr(X-Slipway-Peer) -m found }", "default_backend acme"]
    assert "http-request set-header X-Slipway-Peer edge.test" in found["backend acme"]
    assert servers(found["backend acme"]) == {"edge.test": "127.0.0.1:80", "spare.test": "spare.test:80 init-addr libc,none"}
    assert servers(found["backend acme_local"]) == {"edge.test": "127.0.0.1:8888"}


def test_a_balancer_orders_a_certificate_of_its_own() -> None:
    edge, spare = (member(name, "balancer") for name in ("edge.test", "spare.test"))
    for host in (edge, spare):
        assert (host["certbot_mode"], host["certbot_domains"], host["certbot_webroot"]) == ("acme", ["shop.test"], "")
        assert (host["certbot_port"], host["certbot_certificate"]) == (8888, "/etc/haproxy/slipway/site.crt")


def test_answers_of_streaming_paths_may_pause_for_long() -> None:
    found = configuration(haproxy_streaming_paths=["/events"], haproxy_streaming_timeout=900)
    for backend in ("backend app", "backend app_once"):
        assert "http-request set-timeout server 900s if { path_beg /events }" in found[backend]
