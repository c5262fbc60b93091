"""A site behind load balancers: what clients and the app see through two proxies, who may ask whom, TLS, and sticky sessions."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import re
import shlex
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from molecule.attacks import multiplexed
from molecule.conftest import Host, play, podman, within
from molecule.fleet.conftest import BALANCERS, CONFIGURATION, DOMAIN, EDGE, FLEET, NAMES, SPARE, Balancer, drain, loaded

EACH = pytest.mark.parametrize("balancer", BALANCERS, ids=lambda balancer: balancer.name)
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=gopher;host=evil.test",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "99",
}
LOG = "/var/log/haproxy/access.log"
# What Nginx logs of a request, and what only a load balancer can.
LOGGED = {"at", "time", "id", "client", "method", "host", "path", "status", "bytes", "seconds", "upstream_seconds", "release"}
LOGGED |= {"agent", "backend_host", "termination"}


# In the place of HAProxy's program: it refuses every configuration that it is to test.
REFUSES = """#!/bin/sh
case " $* " in *" -c"*) echo refused by the test >&2; exit 1 ;; esac
exec "$0.real" "$@"
"""


def hosts_asked(balancer: Balancer, count: int, headers: dict[str, str] | None = None, method: str = "GET") -> Counter[str]:
    """Ask a number of times, and return which hosts answered how often, by their own logs."""
    mark = f"marked-{time.monotonic_ns()}"
    path, body = ("/items/1", None) if method == "GET" else ("/upload", b"x")
    for _ in range(count):
        assert balancer.ask(path, method, headers={"User-Agent": mark, **(headers or {})}, body=body).status == 200
    time.sleep(1.2)  # Nginx writes its log once a second
    found: Counter[str] = Counter()
    for host in FLEET:
        found[host.name] = int(host.run(f"grep -c {mark} /var/log/nginx/shop.access.log", check=False))
    return found


@pytest.fixture
def sticky(request: pytest.FixtureRequest) -> Iterator[str]:
    """Keep clients at a host, as the test's parameter names it; then put back HAProxy's configuration."""
    kind = request.param
    EDGE.run(f"cp -a {CONFIGURATION} /root/haproxy.cfg")
    run = play(f"--limit={EDGE.name}", "--tags=haproxy", f"--extra-vars=haproxy_sticky={kind}")
    assert run.code == 0, run.output[-3000:]
    yield kind
    EDGE.run(f"mv /root/haproxy.cfg {CONFIGURATION}")
    EDGE.reload()


@EACH
def test_requests_are_shared_out(balancer: Balancer) -> None:
    asked = hosts_asked(balancer, 30)
    assert sum(asked.values()) == 30
    assert all(asked[name] >= 5 for name in NAMES), asked
    asked = hosts_asked(balancer, 12, method="POST")
    assert sum(asked.values()) == 12
    assert all(asked[name] >= 2 for name in NAMES), asked


@EACH
def test_forged_headers_have_no_effect(balancer: Balancer) -> None:
    plain = balancer.ask("/whoami").json()
    assert plain["scheme"] == "https"
    assert plain["url"] == f"https://{DOMAIN}/"
    assert plain["client"] not in {Host(name).address for name in [*NAMES, EDGE.name, SPARE.name]}
    assert balancer.ask("/whoami", headers=FORGED).json() == plain


def test_a_request_has_one_id_on_its_whole_way_and_both_proxies_log_it() -> None:
    answer = EDGE.ask("/items/5", headers={"X-Request-ID": "named-by-the-client"})
    assert answer.headers["x-request-id"] == "named-by-the-client"
    assert answer.headers["x-release"].isdigit()
    answer = EDGE.ask("/items/5?q=1", headers={"User-Agent": 'quoted "agent"'})
    mark = answer.headers["x-request-id"]
    assert EDGE.ask("/items/5", headers={"X-Request-ID": 'a"b,"c":"d'}).headers["x-request-id"] != 'a"b,"c":"d'
    within(15, lambda: mark in EDGE.run(f"tail -n 500 {LOG}"))
    (entry,) = [line for line in map(json.loads, EDGE.run(f"tail -n 500 {LOG}").splitlines()) if line.get("id") == mark]
    assert entry.keys() >= LOGGED
    expected = {"method": "GET", "host": DOMAIN, "path": "/items/5", "agent": 'quoted "agent"'}
    assert {key: entry[key] for key in expected} == expected
    assert int(entry["status"]) == 200
    assert str(entry["release"]) == answer.headers["x-release"]
    (home,) = [host for host in FLEET if host.name == entry["backend_host"]]
    within(15, lambda: f'"id":"{mark}"' in home.run("tail -n 500 /var/log/nginx/shop.access.log"))


@pytest.mark.parametrize("member", FLEET, ids=NAMES)
def test_an_app_host_answers_the_balancers_alone(member: Host) -> None:
    context = ssl._create_unverified_context()
    for asked in (DOMAIN, member.name):
        for path in ("/healthz", "/.slipway/health", "/"):
            connection = http.client.HTTPSConnection(member.address, context=context, timeout=10)
            with contextlib.closing(connection):
                connection.sock = context.wrap_socket(socket.create_connection((member.address, 443)), server_hostname=asked)
                connection.request("GET", path, headers={"Host": asked, "X-Forwarded-For": "127.0.0.1"})
                assert connection.getresponse().status == 403, path
    assert member.ask("/healthz").status == 200, "it does not answer itself"


def test_internal_paths_are_not_for_clients() -> None:
    for path in ("/.slipway/health", "/.slipway/door", "/%2eslipway/health", "/.slipway/metrics/haproxy"):
        assert EDGE.ask(path).status == 404, path


@EACH
def test_http_leads_to_https(balancer: Balancer) -> None:
    for path in ("/", "/items/5?q=a%20b", "/.well-known/other"):
        answer = balancer.ask(path, tls=False)
        assert (answer.status, answer.headers["location"]) == (301, f"https://{DOMAIN}{path}")


@EACH
def test_the_tls_that_is_spoken(balancer: Balancer) -> None:
    context = balancer.trust
    context.set_alpn_protocols(["h2", "http/1.1"])
    with balancer.connect(context=context) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == "h2"
    twelve = balancer.trust
    twelve.maximum_version = ssl.TLSVersion.TLSv1_2
    with balancer.connect(context=twelve) as connection:
        assert connection.version() == "TLSv1.2"
        cipher = connection.cipher()
        assert cipher
        assert "DHE" in cipher[0]
    old = ssl._create_unverified_context()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        balancer.connect(context=old)
    answers = multiplexed(balancer.address, DOMAIN, [(f"/items/{number}", DOMAIN) for number in range(20)])
    assert [json.loads(answer or b"{}").get("item") for answer in answers] == list(range(20))
    for answer in (balancer.ask("/items/1"), balancer.ask("/nowhere")):
        assert answer.headers["strict-transport-security"] == "max-age=63072000"


def test_an_order_goes_over_no_connection_that_a_host_may_just_have_closed() -> None:
    def connections() -> tuple[int, int]:
        """Return how many new connections were made for what must not be repeated, and how often one was used again."""
        rows = csv.DictReader(EDGE.admin("show stat").removeprefix("# ").strip().splitlines())
        (row,) = [row for row in rows if (row["pxname"], row["svname"]) == ("app_once", "BACKEND")]
        return int(row["connect"]), int(row["reuse"])

    made, used_again = connections()
    client = http.client.HTTPConnection(DOMAIN)
    client.sock = EDGE.connect()
    with contextlib.closing(client):
        for number in range(12):
            client.request("POST", f"/orders/kept-{number}", headers={"Host": DOMAIN})
            answer = client.getresponse()
            answer.read()
            assert (answer.status, answer.will_close) == (200, False)  # the client's own is kept
    within(5, lambda: connections() == (made + 12, used_again))


def test_a_websocket_an_event_stream_and_an_upload_come_through() -> None:
    raw = socket.create_connection((EDGE.address, 443), timeout=30)
    with connect(f"wss://{DOMAIN}/ws/whoami", sock=raw, ssl=EDGE.trust, additional_headers=FORGED) as talk:
        scheme, client = str(talk.recv(timeout=10)).split()
    assert (scheme, client) == ("wss", EDGE.ask("/whoami").json()["client"])
    begin = time.monotonic()
    times: list[float] = []
    connection = http.client.HTTPConnection(DOMAIN, timeout=30)
    connection.sock = EDGE.connect()
    connection.request("GET", "/events")
    answer = connection.getresponse()
    while len(times) < 3:
        if answer.readline().startswith(b"data:"):
            times.append(time.monotonic() - begin)
    connection.close()
    assert times[0] < 0.5 < times[2], "the events are held back"
    assert "x-accel-buffering" not in {name.lower() for name, _ in answer.getheaders()}
    assert EDGE.ask("/upload", "POST", body=b"x" * (2 * 2**20 - 1)).json() == {"bytes": 2 * 2**20 - 1}
    refused = EDGE.ask("/upload", "POST", body=b"x" * (2 * 2**20 + 1))
    assert (refused.status, "x-request-id" in refused.headers) == (413, True)


def cookie_of(balancer: Balancer, headers: dict[str, str] | None = None) -> str:
    """Ask once, and return the cookie that the answer sets, as a client sends it back."""
    name, _, rest = str(balancer.ask("/items/1", headers=headers).headers["set-cookie"]).partition("=")
    value, *attributes = rest.split("; ")
    assert name == "slipway_host"
    assert {attribute.lower() for attribute in attributes} == {"path=/", "httponly", "secure", "samesite=lax"}
    return f"{name}={value}"


@pytest.mark.parametrize("sticky", ["address", "cookie"], indirect=True)
def test_a_client_keeps_to_its_host_while_that_is_healthy(sticky: str) -> None:
    headers: dict[str, str] = {}
    if sticky == "cookie":
        headers = {"Cookie": cookie_of(EDGE)}
        assert "set-cookie" not in EDGE.ask("/items/1", headers=headers).headers
        assert sum(times > 0 for times in hosts_asked(EDGE, 12).values()) > 1, "clients without a cookie are all sent to one host"
    asked = hosts_asked(EDGE, 12, headers)
    (home,) = [name for name, times in asked.items() if times]
    assert asked[home] == 12
    assert hosts_asked(EDGE, 6, headers, method="POST")[home] == 6
    others = {name for name in NAMES if name != home}
    drain(home)
    # The client keeps the cookie of the host that it is sent to now.
    moved = {"Cookie": cookie_of(EDGE, headers)} if headers else {}
    (second,) = [name for name, times in hosts_asked(EDGE, 12, moved).items() if times]
    assert second in others
    drain(home, out=False)
    assert hosts_asked(EDGE, 6, headers)[home] == 6


def test_a_bad_configuration_is_put_back_and_a_bad_edit_put_right() -> None:
    haproxy = EDGE.run("command -v haproxy").strip()
    right = EDGE.run(f"cat {CONFIGURATION}")
    process = EDGE.pid()
    with loaded():
        EDGE.run(f"echo '  nonsense of an operator' >> {CONFIGURATION}")
        # Whatever is tested now fails.
        EDGE.run(f"mv {haproxy} {haproxy}.real && echo {shlex.quote(REFUSES)} > {haproxy} && chmod +x {haproxy}")
        try:
            run = play(f"--limit={EDGE.name}", "--tags=haproxy", "--extra-vars=haproxy_retry_after_seconds=6")
        finally:
            EDGE.run(f"mv {haproxy}.real {haproxy}")
        assert run.code != 0
        assert "refused by the test" in run.output
        assert EDGE.run(f"cat {CONFIGURATION}") == f"{right}  nonsense of an operator\n"
        assert EDGE.pid() == process
        run = play(f"--limit={EDGE.name}", "--tags=haproxy")
        assert run.code == 0, run.output[-3000:]
        assert run.changed[EDGE.name] > 0
        assert EDGE.run(f"cat {CONFIGURATION}") == right
        assert EDGE.uses(*NAMES)


def test_clients_go_on_while_one_balancer_is_away() -> None:
    podman("pause", SPARE.name)
    try:
        with loaded():
            table = play("--limit=one.test,balancer", playbook="playbooks/status.yml")
        assert table.code == 2
        assert re.search(r"spare\.test +unreachable", table.output), table.output[-3000:]
        assert re.search(r"edge\.test +haproxy +ok ", table.output)
        assert re.search(r"one\.test +shop .* up +ok ", table.output)
    finally:
        podman("unpause", SPARE.name)
