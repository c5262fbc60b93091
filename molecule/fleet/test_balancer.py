"""A site behind balancers: what clients and the app see through two proxies, who may ask whom, and one certificate for all."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from molecule.conftest import Host, play, podman, within
from molecule.fleet.conftest import DOMAIN, EDGE, FLEET, NAMES, SPARE, Door, drain, loaded

DOORS = pytest.mark.parametrize("door", [EDGE, SPARE], ids=lambda door: door.name)
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=gopher;host=evil.test",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "99",
}


def hosts_asked(door: Door, count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Ask a number of times, and return which hosts answered how often, by their own logs."""
    mark = f"marked-{time.monotonic_ns()}"
    for _ in range(count):
        assert door.ask("/items/1", headers={"User-Agent": mark, **(headers or {})}).status == 200
    time.sleep(1.2)  # Nginx writes its log once a second
    found: Counter[str] = Counter()
    for host in FLEET:
        found[host.name] = int(host.run(f"grep -c {mark} /var/log/nginx/shop.access.log", check=False))
    return found


@pytest.fixture
def sticky(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have clients keep to a host, as the test's parameter says; then put back the file that says so to Nginx."""
    kind, site = request.param, "/etc/nginx/conf.d/edge-test.conf"
    EDGE.run(f"cp -a {site} /root/site.conf")
    run = play(f"--limit={EDGE.name}", "--tags=nginx", f"--extra-vars=balancer_sticky={kind}")
    assert run.code == 0, run.output[-3000:]
    yield kind
    EDGE.run(f"mv /root/site.conf {site} && systemctl reload nginx")


def test_a_dry_run_changes_nothing() -> None:
    run = play("--limit=one.test,two.test,balancer", "--check")  # the third host is as the second
    assert (run.code, set(run.changed.values())) == (0, {0}), run.output[-3000:]


@DOORS
def test_requests_are_shared_out(door: Door) -> None:
    asked = hosts_asked(door, 30)
    assert sum(asked.values()) == 30
    assert all(asked[name] >= 5 for name in NAMES), asked


@DOORS
def test_what_a_client_says_of_itself_changes_nothing(door: Door) -> None:
    plain = door.ask("/whoami").json()
    assert plain["scheme"] == "https"
    assert plain["url"] == f"https://{DOMAIN}/"
    assert plain["client"] not in {Host(name).address for name in [*NAMES, EDGE.name, SPARE.name]}
    assert door.ask("/whoami", headers=FORGED).json() == plain


def test_a_request_has_one_name_on_its_whole_way_and_the_release_is_told() -> None:
    answer = EDGE.ask("/items/5", headers={"X-Request-ID": "named-by-the-client"})
    assert answer.headers["x-request-id"] == "named-by-the-client"
    assert answer.headers["x-release"].isdigit()
    mark = EDGE.ask("/items/5").headers["x-request-id"]
    time.sleep(1.2)
    logs = "".join(host.run("tail -n 500 /var/log/nginx/shop.access.log") for host in FLEET)
    assert f'"id":"{mark}"' in logs
    assert f'"id":"{mark}"' in EDGE.run("tail -n 500 /var/log/nginx/edge-test.access.log")


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


def test_what_the_hosts_say_to_each_other_is_not_for_clients() -> None:
    assert EDGE.ask("/.slipway/health").status == 404
    assert EDGE.ask("/.slipway/door").status == 404
    assert EDGE.ask("/.slipway/peer/spare.test.cms", tls=False).status == 403


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
    assert EDGE.ask("/upload", "POST", body=b"x" * (2 * 2**20 + 1)).status == 413


def test_a_host_that_is_not_vouched_for_gets_no_requests() -> None:
    host = FLEET[1]
    files = "/etc/nginx/slipway/shop"
    host.run(f"cp -a {files}/fullchain.pem /root/vouched.pem; cp -a {files}/privkey.pem /root/vouched.key")
    # A POST that was under way as that Nginx was restarted is sent nowhere else.
    with loaded(expected="POST .*: 502"):
        host.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN={DOMAIN} "
            f"-addext subjectAltName=DNS:{DOMAIN} -keyout {files}/privkey.pem -out {files}/fullchain.pem 2>/dev/null"
        )
        within(5, lambda: EDGE.uses(*NAMES))  # until Nginx reads it
        host.run("systemctl restart nginx")
        within(15, lambda: EDGE.uses("one.test", "three.test"))
        host.run(
            f"cp -a /root/vouched.pem {files}/fullchain.pem; cp -a /root/vouched.key {files}/privkey.pem; systemctl restart nginx"
        )


@pytest.mark.parametrize("sticky", ["address", "cookie"], indirect=True)
def test_a_client_keeps_to_its_host_while_that_is_well(sticky: str) -> None:
    headers: dict[str, str] = {}
    if sticky == "cookie":
        cookie = EDGE.ask("/items/1").headers["set-cookie"]
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
        headers = {"Cookie": cookie.partition(";")[0]}
        assert "set-cookie" not in EDGE.ask("/items/1", headers=headers).headers
        assert sum(times > 0 for times in hosts_asked(EDGE, 12).values()) > 1, "clients without a cookie are all sent to one host"
    asked = hosts_asked(EDGE, 12, headers)
    (home,) = [name for name, times in asked.items() if times]
    assert asked[home] == 12
    others = {name for name in NAMES if name != home}
    drain(home)
    (second,) = [name for name, times in hosts_asked(EDGE, 12, headers).items() if times]
    assert second in others
    drain(home, out=False)
    assert hosts_asked(EDGE, 6, headers)[home] == 6


def test_a_renewed_certificate_is_served_by_all_balancers() -> None:
    serial = EDGE.serial()
    assert SPARE.serial() == serial
    EDGE.run("certbot renew --force-renewal --no-random-sleep-on-renew")
    within(10, lambda: EDGE.serial() != serial)
    # A timer looks for it once an hour, here every ten seconds.
    within(30, lambda: SPARE.serial() == EDGE.serial(), pause=1)
    assert "privkey" not in EDGE.run("grep -la PRIVATE /var/lib/slipway/certificate/*/*", check=False)
    run = play("--limit=balancer", "--tags=nginx,certbot")
    assert (run.code, set(run.changed.values())) == (0, {0}), run.output[-3000:]


def test_only_one_balancer_orders() -> None:
    assert SPARE.run("command -v certbot || echo none").strip() == "none"
    assert json.loads(SPARE.run("cat /etc/slipway/certificate/*/fetch.json"))["domains"] == [DOMAIN]


def test_clients_go_on_while_one_balancer_is_away() -> None:
    podman("pause", SPARE.name)
    try:
        with loaded():
            table = play("--limit=one.test,balancer", playbook="playbooks/status.yml")
        assert table.code == 2
        assert re.search(r"spare\.test +it does not answer", table.output), table.output[-3000:]
        assert re.search(r"edge\.test +balancer +ok ", table.output)
        assert re.search(r"one\.test +shop .* in use +ok ", table.output)
    finally:
        podman("unpause", SPARE.name)
