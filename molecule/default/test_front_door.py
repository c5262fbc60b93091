"""What a user sees of each system, through its front door."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from molecule import attacks
from molecule.conftest import SECRET, Host, play, within

GROUP = "systems"
HEADERS = {"x-content-type-options", "x-frame-options", "referrer-policy"}


def test_http_leads_to_https(host: Host) -> None:
    for path in ("/", "/items/5?q=a%20b", "/.well-known/other"):
        answer = host.ask(path, tls=False)
        assert (answer.status, answer.headers["location"]) == (301, f"https://{host.name}{path}")


def test_the_example_routes(host: Host) -> None:
    assert host.ask("/").json() == {"message": "Hello, World!"}
    assert host.ask("/items/5?q=somequery").json() == {"item_id": 5, "q": "somequery"}
    assert host.ask("/items/five").status == 422
    assert host.ask("/healthz").status == 200
    version = host.ask("/version")
    assert version.json()["release"] == version.headers["x-release"] == str(host.live())


def test_a_request_has_one_name_everywhere(host: Host) -> None:
    log = f"/var/log/nginx/{host.app}.access.log"
    for path in ("/", "/static/style.css", "/nowhere"):
        assert host.ask(path, headers={"X-Request-ID": "of-the-client.1"}).headers["x-request-id"] == "of-the-client.1"
    within(10, lambda: host.run(f"cat {log}").count('"id":"of-the-client.1"') >= 3)
    for unfit in ("", "short", 'a"b,"c":"d', "x" * 200):
        made = host.ask("/", headers={"X-Request-ID": unfit}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_needs_no_other_host(host: Host, page: str) -> None:
    answer = host.ask(page)
    assert answer.status == 200
    assets = re.findall(r'(?:src|href)="([^"]+\.(?:js|css|svg))"', answer.body)
    assert assets
    for asset in assets:
        assert not re.match(r"(https?:)?//", asset), asset
        assert host.ask(f"/{asset.lstrip('/')}").status == 200, asset


def test_static_files_come_from_nginx(host: Host) -> None:
    answer = host.ask("/static/style.css")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert "x-release" not in answer.headers, "the app answered"
    assert answer.headers["cache-control"] == "no-cache", "it may change at any release"


@pytest.mark.parametrize(
    "path", ["/static../main.py", "/static/../main.py", "/static/%2e%2e/main.py", "/static/..%2fmain.py", "/static//../main.py"]
)
def test_static_files_do_not_lead_out_of_their_folder(host: Host, path: str) -> None:
    assert "FastAPI(" not in host.ask(path).body


def test_websocket(host: Host) -> None:
    raw = socket.create_connection((host.address, 443), timeout=10)
    with connect(f"wss://{host.name}/ws", sock=raw, ssl=host.trust) as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=5) == "hello"


def test_events_are_not_held_back(host: Host) -> None:
    connection = http.client.HTTPConnection(host.name, timeout=10)
    connection.sock = host.connect()
    begin = time.monotonic()
    connection.request("GET", "/events?count=3")
    response = connection.getresponse()
    line = response.readline()
    first = time.monotonic() - begin
    rest = response.read()
    assert line.startswith(b"data:")
    assert rest.count(b"data:") == 2
    assert first < 1 < time.monotonic() - begin, "the first event came with the last"


def test_a_name_that_is_not_served_is_refused(host: Host) -> None:
    for name in ("other.test", host.address, ""):
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            host.ask("/", tls=False, name=name or "_")
        context = ssl._create_unverified_context()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            host.connect(server_name=name or "_", context=context)


@pytest.fixture(scope="module")
def neighbour(host: Host) -> Iterator[str]:
    """The name of a site that somebody else has on the machine, and that Nginx reads before all of ours."""
    file = "/etc/nginx/conf.d/0-neighbour.conf"
    of_ours = f"/etc/nginx/slipway/{host.app}"
    certificate = f"ssl_certificate {of_ours}/fullchain.pem; ssl_certificate_key {of_ours}/privkey.pem;"
    listens = "listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;"
    lines = f"{listens} server_name neighbour.test; {certificate} return 200 NEIGHBOUR;"
    host.run(f"echo 'server {{ {lines} }}' >{file} && nginx -t && nginx -s reload")

    def there() -> bool:
        with contextlib.suppress(OSError):  # until the workers of before are gone
            return b"NEIGHBOUR" in attacks.plain(host.address, "neighbour.test", "/", "neighbour.test")
        return False

    within(10, there)
    yield "neighbour.test"
    host.run(f"rm {file} && nginx -s reload")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_request_for_a_name_that_no_site_has_gets_nothing_whatever_tls_is_for(host: Host, neighbour: str, address: str) -> None:
    script = Path(attacks.__file__).read_text(encoding="utf-8")
    for name in (host.name, neighbour):
        command = ["podman", "exec", "--interactive", host.name, "python3", "-", address, name]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
        answers = json.loads(done.stdout)
        assert len(answers) > 40
        assert {asked: answer for asked, answer in answers.items() if answer} == {}
    # Were it asked for by its name, it would have answered.
    assert attacks.multiplexed(host.address, host.name, [("/healthz", host.name)]) != [None]
    for name in (f"{host.name}:444", f"{host.name}.", host.name.upper()):
        assert b" 200 " in attacks.plain(host.address, host.name, "/healthz", name)


def test_a_closed_path_is_closed_in_every_spelling(host: Host) -> None:
    closed = attacks.metrics(host.address, host.name)
    assert len(closed) > 100
    assert {asked: answer for asked, answer in closed.items() if b"http_request" in answer} == {}


def test_a_client_goes_over_to_websocket_and_to_nothing_else(host: Host) -> None:
    for protocol in ("h2c", "websocket, h2c", "h2c, websocket", "TLS/1.3", "none"):
        headers = f"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        answer = attacks.plain(host.address, host.name, "/healthz", host.name, headers=headers)
        assert answer.startswith(b"HTTP/1.1 200 "), (protocol, answer)


def test_more_than_a_thousand_slow_clients_leave_room_for_others(host: Host) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    with contextlib.ExitStack() as slow:
        for _ in range(1200):
            connection = slow.enter_context(socket.create_connection((host.address, 80), timeout=5))
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host.name}\r\nX: ".encode())
        begin = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "create_connection", lambda *a, of=socket.create_connection, **_: of(*a, timeout=5))
            assert host.ask("/version").status == 200
        assert time.monotonic() - begin < 5
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_the_app_sees_the_true_client(host: Host) -> None:
    seen = host.ask("/whoami").json()
    assert seen["scheme"] == "https"
    assert seen["host"] == host.name
    assert seen["url"] == f"https://{host.name}/"
    with socket.create_connection((host.address, 80)) as probe:
        assert seen["client"] == probe.getsockname()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "6.6.6.6"},
        {"X-Forwarded-For": "6.6.6.6, 7.7.7.7"},
        {"X-Forwarded-For": "::1", "X-Real-IP": "6.6.6.6"},
        {"Forwarded": "for=6.6.6.6;proto=http;host=evil.test"},
        {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.test", "X-Forwarded-Port": "81"},
        {"X-Forwarded-Proto": "wss, http", "X-Forwarded-Prefix": "/evil"},
    ],
    ids=lambda headers: "+".join(headers),
)
def test_nothing_that_a_client_says_of_itself_is_believed(host: Host, headers: dict[str, str]) -> None:
    assert host.ask("/whoami", headers=headers).json() == host.ask("/whoami").json()


def test_every_answer_has_the_security_headers(host: Host) -> None:
    answers = {
        "a page": (host.ask("/"), 200),
        "a redirect": (host.ask("/", tls=False), 301),
        "a static file": (host.ask("/static/logo.svg"), 200),
        "no such static file": (host.ask("/static/none"), 404),
        "no such page": (host.ask("/none"), 404),
        "a bad value": (host.ask("/items/x"), 422),
        "a body too large": (host.ask("/", method="POST", headers={"Content-Length": "99999999"}), 413),
        "what is closed": (host.ask("/metrics"), 404),
    }
    for what, (answer, status) in answers.items():
        assert answer.status == status, what
        assert answer.headers.keys() >= HEADERS, what
        assert answer.headers.get("server") == "nginx", "its version is nobody's business"
        if what != "a redirect":
            assert answer.headers["strict-transport-security"] == "max-age=63072000", what


def test_the_tls_that_is_spoken(host: Host) -> None:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with host.connect(context=context) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == "h2"
    old = ssl._create_unverified_context()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        host.connect(context=old)


def test_text_is_compressed(host: Host) -> None:
    assert host.ask("/docs/assets/swagger-ui.css", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_the_app_runs_as_its_own_user(host: Host) -> None:
    processes = host.run("ps -eo user:40,args").splitlines()
    app = {line.split()[0] for line in processes if "gunicorn" in line}
    assert app == {host.app}
    assert (
        host.run(f"su -s /bin/sh {host.app} -c 'touch /opt/{host.app}/current/build/app/main.py' 2>&1 || echo no").strip() != ""
    )
    owned = host.run(f"find /opt/{host.app} -xdev -user {host.app}").split()
    assert owned == [f"/opt/{host.app}/shared"]


def test_the_secret_is_the_apps_alone(host: Host) -> None:
    settings, configuration = f"/opt/{host.app}/current/settings.json", f"/etc/slipway/apps/{host.app}.json"
    assert json.loads(host.run(f"cat {settings}"))["SECRET_KEY"] == SECRET
    for file in (settings, configuration, f"/proc/{host.master()}/environ"):
        assert "denied" in host.run(f"su -s /bin/sh nobody -c 'cat {file}' 2>&1", check=False), file
    assert "denied" in host.run(f"su -s /bin/sh {host.app} -c 'cat {configuration}' 2>&1", check=False), "it is root's"
    places = "/etc /opt /var/log /var/lib/supervisor /tmp /run /root /home /var/cache/apt"
    leaks = host.run(f"grep -rlsF --exclude=settings.json -- {SECRET} {places}", check=False)
    assert leaks.split() == [configuration]
    assert SECRET not in host.run("ps axww -o args; supervisorctl avail; journalctl --no-pager -n 5000")


def test_a_dry_run_on_a_converged_host_changes_nothing_and_shows_no_secret(host: Host) -> None:
    run = play("--check", "--diff", "-vvv", f"--limit={host.name}")
    assert (run.code, run.changed) == (0, {host.name: 0}), run.output[-3000:]
    assert SECRET not in run.output
