"""The balancer's own service: who gets which slots, and when a host is taken out and in."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import os
import re
import socketserver
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slipway_balancer
import yaml
from ansible.template import trust_as_template
from certificates import certify, renewed_at_the_latest
from rendering import ROOT, load, parse_nginx
from rendering import Host as Inventory
from slipway_balancer import Balancer, Host, leading, shared_out

from slipway.controller.balancers import balancer_relations
from slipway.host import balancer_drain as balancer_drain
from slipway.host import balancer_status as balancer_status
from slipway.host import certificate
from slipway.host.tls import ca

HOSTS = ["one.test", "two.test", "three.test"]
SLOTS = range(1, 25)

Answer = dict[str, Any]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 23, 24])
def test_slots_are_shared_out_evenly(count: int) -> None:
    hosts = [f"host{number}" for number in range(count)]
    found = shared_out(SLOTS, hosts)
    assert sorted(found) == list(SLOTS)
    shares = Counter(found.values())
    assert set(shares) == set(hosts)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert shared_out(SLOTS, hosts[::-1]) == found, "two balancers do it differently"


def test_few_slots_move_when_a_host_comes() -> None:
    two, three = shared_out(SLOTS, HOSTS[:2]), shared_out(SLOTS, HOSTS)
    assert sum(two[slot] != three[slot] for slot in SLOTS) <= 12
    assert {three[slot] for slot in SLOTS if three[slot] != two[slot]} == {"three.test"}


def test_the_slots_of_a_host_that_is_not_used_go_to_all_others_and_no_other_slot_moves() -> None:
    homes, found = leading(24, HOSTS, HOSTS), leading(24, HOSTS, ["one.test", "three.test"])
    assert [slot for slot in SLOTS if homes[slot] != found[slot]] == [slot for slot in SLOTS if homes[slot] == "two.test"]
    assert Counter(found.values()) == {"one.test": 12, "three.test": 12}


def test_a_host_must_fail_and_be_well_a_number_of_times() -> None:
    host = Host("one.test", failures=2, successes=3, healthy=True)
    assert [host.hears(reason) for reason in ("slow", "", "slow", "slow")] == [False, False, False, True]
    assert (host.healthy, host.state, host.reason) == (False, "unhealthy", "slow")
    assert [host.hears(reason) for reason in ("", "", "gone", "", "", "")] == [False, False, False, False, False, True]
    assert (host.healthy, host.state, host.reason) == (True, "in use", "")
    host.drained = True
    assert host.state == "drained"


@pytest.fixture
def settings(short: Path) -> dict[str, Any]:
    for name in ("run", "drained"):
        (short / name).mkdir()
    authority, key = short / "authority.pem", short / "authority.key"
    ca.create_ca(authority, key)
    return {
        "hosts": {name: f"{name}:443" for name in HOSTS},
        "ways": {},
        "slots": 6,
        "domain": "shop.test",
        "scheme": "https",
        "path": "/.slipway/health",
        "status": 200,
        "authority": str(authority),
        "seconds": 0.1,
        "timeout": 5,
        "failures": 2,
        "successes": 2,
        "runtime": str(short / "run"),
        "drained": str(short / "drained"),
        "unit": "to@",
    }


@pytest.fixture
def balancer(settings: dict[str, Any], short: Path) -> Balancer:
    listing = short / "unix"
    listing.write_text("Num RefCount Protocol Flags Type St Inode Path\n", encoding="ascii")
    return Balancer(settings, listing)


def slots(balancer: Balancer) -> Counter[str]:
    """Return how many links lead to each host."""
    return Counter(os.readlink(link).removesuffix(".sock") for link in balancer.runtime.glob("*.slot"))


def rounds(balancer: Balancer, count: int, said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have some rounds in which hosts say what is wrong with them, and return what is told of them then."""
    monkeypatch.setattr(balancer, "ask", lambda name: said.get(name, ""))
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        for _ in range(count):
            balancer.round(pool)
    hosts: dict[str, Any] = json.loads((balancer.runtime / "state.json").read_text(encoding="utf-8"))["hosts"]
    return hosts


def test_hosts_that_are_well_share_the_slots(balancer: Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(balancer, 1, {}, monkeypatch)
    assert slots(balancer) == dict.fromkeys(HOSTS, 2), "before any is known to be well, all are tried"
    told = rounds(balancer, 1, {}, monkeypatch)
    assert {name: entry["state"] for name, entry in told.items()} == dict.fromkeys(HOSTS, "in use")


def test_a_host_that_is_unwell_has_no_slots_until_it_is_well(balancer: Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(balancer, 2, {}, monkeypatch)
    told = rounds(balancer, 1, {"two.test": "it answers 502"}, monkeypatch)
    assert told["two.test"]["slots"] == 2, "once is not enough"
    told = rounds(balancer, 1, {"two.test": "it answers 502"}, monkeypatch)
    assert (told["two.test"]["state"], told["two.test"]["reason"], told["two.test"]["slots"]) == (
        "unhealthy",
        "it answers 502",
        0,
    )
    assert slots(balancer) == {"one.test": 3, "three.test": 3}
    assert rounds(balancer, 2, {}, monkeypatch)["two.test"]["slots"] == 2


def test_a_drained_host_has_no_slots_however_well_it_is(balancer: Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(balancer, 2, {}, monkeypatch)
    (balancer.drained / "one.test").touch()
    told = rounds(balancer, 1, {}, monkeypatch)
    assert (told["one.test"]["state"], told["one.test"]["slots"]) == ("drained", 0)
    (balancer.drained / "one.test").unlink()
    assert rounds(balancer, 1, {}, monkeypatch)["one.test"]["slots"] == 2


@pytest.mark.parametrize(
    ("drained", "unwell", "used"),
    [
        ([], HOSTS, HOSTS),
        (["one.test"], ["two.test", "three.test"], ["two.test", "three.test"]),
        (HOSTS, ["two.test"], ["one.test", "three.test"]),
        (HOSTS, HOSTS, HOSTS),
    ],
)
def test_something_is_always_tried(
    balancer: Balancer, monkeypatch: pytest.MonkeyPatch, drained: list[str], unwell: list[str], used: list[str]
) -> None:
    rounds(balancer, 2, {}, monkeypatch)
    for name in drained:
        (balancer.drained / name).touch()
    rounds(balancer, 2, dict.fromkeys(unwell, "gone"), monkeypatch)
    assert set(slots(balancer)) == set(used)


def test_a_new_process_takes_nobody_out(balancer: Balancer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(balancer, 2, {"two.test": "gone"}, monkeypatch)
    settings["hosts"]["four.test"] = "four.test:443"
    again = Balancer(settings, balancer.sockets)
    again.point()
    assert set(slots(again)) == {"one.test", "three.test"}, "a host that is new must be well first"
    (balancer.runtime / "state.json").write_text("{", encoding="ascii")
    assert [host.healthy for host in Balancer(settings, balancer.sockets).hosts] == [False] * 4


def test_connections_are_counted_by_the_host_that_they_lead_to(balancer: Balancer) -> None:
    path = balancer.runtime / "one.test.sock"
    lines = [
        f"0: 00000002 00000000 00010000 0001 01 100 {path}",
        f"0: 00000003 00000000 00000000 0001 03 101 {path}",
        f"0: 00000003 00000000 00000000 0001 03 102 {path}",
        "0: 00000003 00000000 00000000 0001 03 103",
        "0: 00000003 00000000 00000000 0001 03 104 /run/other/one.test.sock",
    ]
    with balancer.sockets.open("a", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    assert balancer.connections() == {"one.test": 2}


def test_ways_come_and_go_with_the_inventory(
    balancer: Balancer, settings: dict[str, Any], program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    program("systemctl", f'#!/bin/sh\necho "$@" >>{log}\n')

    def said() -> list[str]:
        lines = log.read_text(encoding="ascii").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    balancer.have_ways()
    assert {f"start to@{name}.socket" for name in HOSTS} <= set(said())
    assert (balancer.runtime / "two.test.env").read_text(encoding="ascii") == "ADDRESS=two.test:443\n"
    settings["hosts"]["two.test"] = "192.0.2.2:443"
    del settings["hosts"]["three.test"]
    balancer.have_ways()
    assert [line for line in said() if line.startswith("stop")] == ["stop to@two.test.service"], (
        "the others' connections would be cut"
    )
    for name in ("two.test", "three.test"):
        (balancer.drained / name).touch()
    balancer.leave_ways({"three.test": 1})
    assert said() == [], "something was still on its way"
    balancer.leave_ways({})
    assert said() == ["stop to@three.test.socket to@three.test.service"]
    balancer.leave_ways({})
    assert said() == []
    assert [note.name for note in balancer.drained.iterdir()] == ["two.test"], "the next host of that name begins drained"


class App(http.server.BaseHTTPRequestHandler):
    """An app host that is well where it is asked for the right thing."""

    def do_GET(self) -> None:
        well = (self.path, self.headers["Host"], self.headers["X-Forwarded-Proto"]) == ("/.slipway/health", "shop.test", "https")
        self.send_response(200 if well else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def hosted(settings: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[str, bool], None]]:
    """Have a host that answers at its socket, with a certificate for a name, vouched for or not."""
    servers = []

    def have(name: str, vouched: bool) -> None:
        certificate, key = tmp_path / "host.pem", tmp_path / "host.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 40 -subj /CN=x"
        extra = ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command.split(), *extra], check=True, capture_output=True)
        if vouched:
            authority = Path(settings["authority"])
            text, _ = ca.issued(certificate.read_text(encoding="ascii"), authority, authority.with_suffix(".key"))
            certificate.write_text(text, encoding="ascii")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        path = Path(settings["runtime"], "one.test.sock")

        class Server(socketserver.ThreadingUnixStreamServer):
            def get_request(self) -> Any:
                raw, _ = super().get_request()
                return context.wrap_socket(raw, server_side=True), ("unix", 0)

            def handle_error(self, *_: object) -> None:
                pass

        server = Server(str(path), App)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

    yield have
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_host_is_asked_as_a_client_would(balancer: Balancer, hosted: Callable[[str, bool], None]) -> None:
    hosted("shop.test", True)
    assert balancer.ask("one.test") == ""
    balancer.settings["status"] = 204
    assert balancer.ask("one.test") == "it answers 200 instead of 204"


@pytest.mark.parametrize(("name", "vouched", "why"), [("shop.test", False, "self"), ("evil.test", True, "mismatch")])
def test_whoever_is_not_vouched_for_is_not_well(
    balancer: Balancer, hosted: Callable[[str, bool], None], name: str, vouched: bool, why: str
) -> None:
    hosted(name, vouched)
    assert why in balancer.ask("one.test")


def test_a_host_that_nobody_is_at_is_not_well(balancer: Balancer) -> None:
    assert "No such file" in balancer.ask("one.test")


# Draining


def told(runtime: Path, hosts: dict[str, Answer], age: float = 0) -> None:
    state = {"when": slipway_balancer.time.time() - age, "hosts": hosts}
    slipway_balancer.write(runtime / "state.json", json.dumps(state))


def entry(state: str, slots: int = 2, connections: int = 0) -> Answer:
    return {"state": state, "slots": slots, "connections": connections, "reason": ""}


@pytest.fixture
def drain(short: Path, run_step: Callable[..., Answer]) -> Callable[..., Answer]:
    def run(check: bool = False, **arguments: Any) -> Answer:
        usual = {"host": "one.test", "drain": True, "runtime": str(short), "drained": str(short / "drained"), "seconds": 1}
        return run_step("balancer_drain", check=check, **{**usual, **arguments})

    return run


def test_a_host_is_noted_and_waited_for(short: Path, drain: Callable[..., Answer]) -> None:
    told(short, {"one.test": entry("in use"), "two.test": entry("in use")})
    timer = threading.Timer(0.5, lambda: told(short, {"one.test": entry("drained", 0), "two.test": entry("in use")}))
    timer.start()
    result = drain(seconds=20)
    assert (result["changed"], result["settled"], result["connections"]) == (True, True, 0)
    assert (short / "drained" / "one.test").exists()


def test_what_takes_too_long_is_told(short: Path, drain: Callable[..., Answer]) -> None:
    told(short, {"one.test": entry("drained", 0, 3), "two.test": entry("in use")})
    result = drain()
    assert (result["settled"], result["connections"]) == (False, 3)


@pytest.mark.parametrize(
    ("hosts", "age", "says"),
    [
        ({"one.test": entry("in use"), "two.test": entry("unhealthy")}, 0, "is the last host in use"),
        ({"two.test": entry("in use")}, 0, "does not know one.test: run site.yml"),
        ({"one.test": entry("in use"), "two.test": entry("in use")}, 60, "service is not at work"),
    ],
)
def test_a_host_is_not_drained_where_that_does_harm(
    short: Path, drain: Callable[..., Answer], hosts: dict[str, Answer], age: float, says: str
) -> None:
    told(short, hosts, age)
    result = drain()
    assert result["failed"] and says in result["msg"]
    assert not (short / "drained").exists()


def test_a_dry_run_drains_nobody(short: Path, drain: Callable[..., Answer]) -> None:
    told(short, {"one.test": entry("in use"), "two.test": entry("in use")})
    assert drain(check=True)["changed"]
    assert not (short / "drained").exists()


# The authority


def written(directory: Path, result: Answer) -> Path:
    file = directory / "vouched.pem"
    file.write_text(result["certificate"], encoding="ascii")
    return file


def test_the_authority_is_made_once_and_vouches_once(
    short: Path, run_step: Callable[..., Answer], settings: dict[str, Any]
) -> None:
    authority = short / "new" / "authority.pem"
    assert run_step("tls_ca", check=True, ca=str(authority))["changed"]
    assert not authority.exists()
    assert run_step("tls_ca", ca=str(authority))["changed"]
    assert authority.with_suffix(".key").stat().st_mode & 0o777 == 0o600
    again = run_step("tls_ca", ca=str(authority))
    assert (again["changed"], again["ca"]) == (False, authority.read_text(encoding="ascii"))
    pair = short / "own.pem", short / "own.key"
    certify(*pair, ["shop.test", "one.test"], "Slipway placeholder")
    given = pair[0].read_text(encoding="ascii")
    first = run_step("tls_ca", ca=str(authority), certificate=given)
    assert first["changed"] and first["certificate"] != given
    assert re.findall(r"DNS:([^\s,]+)", certificate.openssl("x509", "-text", "-in", written(short, first))) == [
        "shop.test",
        "one.test",
    ]
    second = run_step("tls_ca", ca=str(authority), certificate=first["certificate"])
    assert (second["changed"], second["certificate"]) == (False, first["certificate"])
    other = run_step("tls_ca", ca=settings["authority"], certificate=first["certificate"])
    assert other["changed"], "another authority's word counts"


def test_of_several_that_ask_at_once_one_creates_the_authority(
    short: Path, run_step: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    create, created = ca.create, list[Path]()

    def create_slowly(file: Path, *arguments: Any) -> None:
        created.append(file)
        time.sleep(0.2)
        create(file, *arguments)

    monkeypatch.setattr(ca, "create", create_slowly)
    authority = short / "new" / "authority.pem"
    pair = short / "own.pem", short / "own.key"
    certify(*pair, ["shop.test"], "Slipway placeholder")
    asked = {"ca": str(authority), "certificate": pair[0].read_text(encoding="ascii")}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: run_step("tls_ca", **asked), range(8)))
    assert created == [authority]
    assert {answer["ca"] for answer in answers} == {authority.read_text(encoding="ascii")}
    for answer in answers:
        certificate.openssl("verify", "-CAfile", authority, written(short, answer))


# Status


@pytest.fixture
def status(short: Path, run_step: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Tell how a balancer is whose certificate of 90 days lasts for so many more, and of whose services some do not run."""

    def tell(days: float = 60.5, stopped: tuple[str, ...] = (), **arguments: Any) -> Answer:
        certify(short / "c.pem", short / "c.key", ["shop.test"], days=days)
        monkeypatch.setattr(certificate, "served", lambda _: certificate.read((short / "c.pem").read_text(encoding="ascii")))
        monkeypatch.setattr(balancer_status, "runs", lambda unit: unit not in stopped)
        door = {"host": "shop.test", "port": 443, "tls": True}
        return run_step(
            "balancer_status", **{"runtime": str(short), "service": "slipway-balancer-fleet", "endpoint": door, **arguments}
        )

    return tell


def test_a_balancer_that_is_well_has_nothing_to_tell(short: Path, status: Callable[..., Answer]) -> None:
    told(short, {"one.test": entry("in use"), "two.test": entry("in use")})
    result = status()
    assert (result["changed"], result["findings"]) == (False, [])
    assert result["hosts"] == {"one.test": "in use", "two.test": "in use"}
    assert (result["status"]["health"], result["status"]["certificate_days"], result["status"]["server"]) == (
        "ok",
        60,
        "balancer",
    )


def test_a_balancer_tells_what_is_wrong_the_worst_first(short: Path, status: Callable[..., Answer]) -> None:
    told(short, {"one.test": entry("drained"), "two.test": {**entry("unhealthy"), "reason": "it is slow"}})
    result = status(days=12.5, stopped=("nginx",), drift=["/etc/nginx/nginx.conf"])
    found = [(finding["severity"], finding["what"]) for finding in result["findings"]]
    assert found == [
        ("error", "nginx does not run"),
        ("error", "two.test is not well"),
        ("warning", "one.test is drained"),
        ("warning", "The certificate expires in 12 days"),
        ("warning", "Files are not what the roles would write"),
    ]
    assert "it is slow" in str(result["findings"]) and "/etc/nginx/nginx.conf" in str(result["findings"])
    assert result["status"]["health"] == "two.test is not well"


@pytest.mark.parametrize(("days", "severity"), [(renewed_at_the_latest(90), None), (22, "warning"), (8, "error"), (-1, "error")])
def test_the_certificate_of_a_balancer_is_short_by_its_own_lifetime(
    short: Path, status: Callable[..., Answer], days: float, severity: str | None
) -> None:
    told(short, {"one.test": entry("in use")})
    assert [finding["severity"] for finding in status(days=days)["findings"]] == ([severity] if severity else [])


@pytest.mark.parametrize("age", [None, 60])
def test_a_balancer_whose_service_says_nothing_is_not_well(short: Path, status: Callable[..., Answer], age: float | None) -> None:
    if age:
        told(short, {"one.test": entry("in use")}, age)
    result = status()
    assert result["findings"][0]["remedy"] == "systemctl restart slipway-balancer-fleet"
    assert result["status"]["health"] == "it does not look at its hosts"


# The inventory


EDGE = {"balancer": ["edge.test", "spare.test"], "web": HOSTS, "fleet": HOSTS}
VARS: dict[str, dict[str, Any]] = {
    **{name: {"inventory_hostname": name, "nginx_max_body_size": "2m", "app_health_status": 204} for name in HOSTS},
    **{
        name: {
            "inventory_hostname": name,
            "balancer_group": "fleet",
            "nginx_domains": ["shop.test"],
            "ansible_facts": {"all_ipv4_addresses": [address], "all_ipv6_addresses": ["fe80::1", "2001:db8::1"]},
        }
        for name, address in (("edge.test", "192.0.2.1"), ("spare.test", "192.0.2.2"))
    },
}


def test_hosts_and_balancers_know_of_each_other() -> None:
    edge, spare, one = (balancer_relations(EDGE, VARS, name) for name in ("edge.test", "spare.test", "one.test"))
    assert (edge["hosts"], edge["peers"], spare["peers"], edge["doors"]) == (HOSTS, ["spare.test"], ["edge.test"], [])
    assert (one["doors"], one["hosts"], one["balanced"]) == (["edge.test", "spare.test"], [], HOSTS)
    assert one["in_front"] == [["edge.test", "fleet"], ["spare.test", "fleet"]]
    assert {each["voucher"] for each in (edge, spare, one)} == {"edge.test"}
    assert [each["vouchers"] for each in (edge, spare, one)] == [["edge.test"]] * 3
    assert (edge["issuer"], spare["issuer"], one["issuer"]) == ("edge.test", "edge.test", "")
    assert one["domains"] == ["shop.test"]
    assert one["addresses"] == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert spare["addresses"] == ["192.0.2.1", "2001:db8::1"]
    assert edge["settings"] == {"app_health_status": 204, "nginx_max_body_size": "2m"}
    assert (edge["strangers"], one["strangers"]) == ([], [])


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
    known = {**VARS, "edge.test": {"balancer_group": "fleet", "ansible_facts": facts}}
    assert sorted(balancer_relations(EDGE, known, "spare.test")["addresses"]) == [
        "10.0.0.5",
        "192.0.2.1",
        "192.0.2.9",
        "2001:db8::1",
    ]


def test_of_a_balancer_that_tells_no_interfaces_the_way_out_is_trusted() -> None:
    facts = {"all_ipv4_addresses": ["172.17.0.1", "192.0.2.1"], "default_ipv4": {"address": "192.0.2.1", "interface": "eth0"}}
    known = {**VARS, "edge.test": {"balancer_group": "fleet", "ansible_facts": facts}}
    assert balancer_relations(EDGE, known, "spare.test")["addresses"] == ["192.0.2.1"]


def test_a_balancer_that_was_not_asked_is_a_stranger_and_one_of_other_hosts_no_peer() -> None:
    groups = {**EDGE, "balancer": [*EDGE["balancer"], "other.test"], "blog": ["blog.test"]}
    known = {**VARS, "spare.test": {"balancer_group": "fleet"}, "other.test": {"balancer_group": "blog"}, "blog.test": {}}
    one, other, blog = (balancer_relations(groups, known, name) for name in ("one.test", "other.test", "blog.test"))
    assert (one["strangers"], one["domains"]) == (["spare.test"], ["shop.test", "spare.test"])
    assert (other["hosts"], other["peers"], other["issuer"]) == (["blog.test"], [], "other.test")
    assert (blog["doors"], blog["voucher"], blog["domains"]) == (["other.test"], "other.test", ["other.test"])
    assert blog["vouchers"] == ["edge.test", "other.test"]


def test_the_balancer_that_is_named_orders_and_vouches() -> None:
    known = {name: {**said, "balancer_issuer": "spare.test"} for name, said in VARS.items()}
    assert {balancer_relations(EDGE, known, name)["voucher"] for name in ("edge.test", "spare.test", "one.test")} == {
        "spare.test"
    }


def member(name: str, group: str, **inventory: Any) -> Inventory:
    """Return a host of a fleet with two balancers."""
    usual = {"groups": EDGE, "hostvars": VARS, "group_names": [group]}
    own = {"balancer_group": "fleet", "nginx_domains": ["shop.test"]} if group == "balancer" else {}
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
    assert ["X-Accel-Buffering"] in main.find("proxy_pass_header")
    for name, location in main.locations().items():
        handed = location.find("proxy_pass") and "unix" not in str(location.find("proxy_pass"))
        if handed or name == "^~ /static/":
            assert location.find("if") == [["($slipway_from_one_test", "=", "stranger)", [["return", "403"]]]], name
    assert (host["certbot_mode"], host["nginx_voucher"]) == ("selfsigned", "edge.test")


def test_a_balancer_hands_requests_to_its_slots_over_verified_tls() -> None:
    host = member("edge.test", "balancer")
    site, main = parse_nginx(host.render("nginx", "site.conf.j2")), server(host)
    ((name, upstream),) = site.find("upstream")
    assert upstream.find("server") == [[f"unix:/run/slipway-balancer/fleet/{slot}.slot", "max_fails=0"] for slot in SLOTS]
    assert upstream.find("hash") == []
    assert {words[0] for words in main.everywhere("proxy_pass")} == {f"https://{name}"}
    assert main.one("proxy_ssl_verify") == "on"
    assert main.one("proxy_ssl_trusted_certificate") == host["balancer_authority"]
    assert main.one("proxy_ssl_name") == "shop.test"
    assert main.find("proxy_next_upstream") == [["error", "timeout", "http_502"]], "never for a POST that was sent"
    headers = main.pairs("proxy_set_header")
    assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == (["$remote_addr"], ["$scheme"])
    assert main.one("client_max_body_size") == "2m", "what the hosts behind take must come through"
    assert main.locations()["^~ /.slipway/"].find("return") == [["404"]]
    assert host["__balancer_program_settings"]["status"] == 204
    assert host["certbot_mode"] == "acme"


@pytest.mark.parametrize(("sticky", "key"), [("address", "$remote_addr"), ("cookie", "$slipway_sticky_edge_test")])
def test_clients_keep_to_a_slot(sticky: str, key: str) -> None:
    host = member("edge.test", "balancer", balancer_sticky=sticky)
    site = parse_nginx(host.render("nginx", "site.conf.j2"))
    assert site.find("upstream")[0][-1].find("hash") == [[key, "consistent"]]
    assert ("Set-Cookie" in server(host).pairs("add_header")) is (sticky == "cookie")
    for words in server(host).locations().values():
        assert words.everywhere("add_header") == []


def test_one_balancer_orders_and_the_others_hand_challenges_on_to_it() -> None:
    edge, spare = member("edge.test", "balancer"), member("spare.test", "balancer")
    assert (edge["certbot_issuer"], spare["certbot_issuer"]) == ("edge.test", "edge.test")
    assert "acme-challenge/ {\n        root" in edge.render("nginx", "site.conf.j2")
    assert "proxy_pass http://unix:/run/slipway-balancer/fleet/issuer.sock;" in spare.render("nginx", "site.conf.j2")
    assert spare["__balancer_program_settings"]["ways"] == {"issuer": "edge.test:80"}
    assert edge["__balancer_program_settings"]["ways"] == {}
    assert "allow 192.0.2.2;" in edge.render("nginx", "site.conf.j2")
    assert "/.slipway/peer/" not in spare.render("nginx", "site.conf.j2")


def test_hosts_behind_balancers_are_watched_by_their_own_names_and_verified() -> None:
    watch = Inventory(
        {"groups": {**EDGE, "monitoring": ["watch.test"]}, "hostvars": VARS, "group_names": ["monitoring"]}, "watch.test"
    )
    jobs = {job["job_name"]: job for job in yaml.safe_load(watch.render("prometheus", "prometheus.yml.j2"))["scrape_configs"]}
    job = jobs["balanced"]
    assert {target for each in job["static_configs"] for target in each["targets"]} == set(HOSTS)
    assert (job["scheme"], job["tls_config"]) == ("https", {"ca_file": "/etc/prometheus/slipway.balancers.pem"})
    assert not {"verified", "selfsigned"} & jobs.keys()


@pytest.mark.parametrize(
    ("own", "reached"),
    [
        ({}, "one.test:443"),
        ({"ansible_host": "192.0.2.9"}, "192.0.2.9:443"),
        ({"ansible_host": "192.0.2.9", "balancer_address": "2001:db8::9"}, "[2001:db8::9]:443"),
    ],
)
def test_hosts_are_reached_where_their_variables_say(own: dict[str, str], reached: str) -> None:
    edge = member("edge.test", "balancer", hostvars={**VARS, "one.test": {**VARS["one.test"], **own}})
    assert edge["__balancer_program_settings"]["hosts"]["one.test"] == reached


def test_without_balancers_nothing_is_different() -> None:
    text = Inventory().render("nginx", "site.conf.j2")
    assert not [word for word in ("slipway_from", "proxy_ssl", "/.slipway/health", "X-Accel", "peer") if word in text]


def test_a_host_is_a_balancer_or_serves_an_app() -> None:
    rules = load(ROOT / "roles" / "balancer" / "vars" / "main" / "rules.yml")["__balancer_rules"]
    (rule,) = [rule for rule in rules if rule["variable"] == "balancer_group"]

    def holds(host: Inventory) -> bool:
        return all(host.work_out(trust_as_template("{{ " + condition + " }}")) for condition in rule["that"])

    assert holds(member("edge.test", "balancer")) and holds(member("one.test", "web"))
    assert not holds(member("edge.test", "balancer", group_names=["balancer", "web"]))
    assert not holds(member("edge.test", "balancer", balancer_group="nobody"))
