"""A certificate: ordered when one is needed and the authority would find this host, and at no other time."""

from __future__ import annotations

import errno
import functools
import http.server
import itertools
import os
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import LIFETIMES, certify, renewed_at_the_latest

from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink
from slipway.host.tls import order as orders
from slipway.host.tls.order import is_valid, order, preflight, probe_challenge, reach, why_order

DOMAINS = ["api.example.com", "www.api.example.com"]
NO_ROUTE = "2001:db8::dead"
AUTHORITY = "https://acme-v02.api.letsencrypt.org/directory"

# Orders as certbot does: files and links in its directory, or an error.
CERTBOT = """#!/bin/sh
printf '%s\\n' "$*" >>{log}
{extra}
while [ $# -gt 0 ]; do
    case $1 in
    --cert-name) name=$2 ;;
    --config-dir) directory=$2 ;;
    --server) server=$2 ;;
    --webroot | --standalone) authenticator=${{1#--}} ;;
    --domain) names="$names${{names:+,}}DNS:$2" ;;
    esac
    shift
done
mkdir -p "$directory/live/$name" "$directory/renewal"
printf 'authenticator = %s\\nserver = %s\\n' "$authenticator" "$server" >"$directory/renewal/$name.conf"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN=x -days 90 -addext "subjectAltName=$names" \\
    -keyout "$directory/live/$name/privkey.pem" -out "$directory/live/$name/fullchain.pem" 2>/dev/null
"""


class Site(http.server.ThreadingHTTPServer):
    """Answers challenges from a web root, as Nginx does; or with a status of its own."""

    daemon_threads = True

    def __init__(self, address: str, webroot: Path, status: int = 0) -> None:
        self.hosts: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.hosts.append(self.headers["Host"])
                file = webroot / self.path.lstrip("/")
                body = file.read_bytes() if file.is_file() and not status else b"<html>other</html>"
                self.send_response(status or (200 if file.is_file() else 404))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__((address, 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Names with the addresses that they lead to, and what answers at port 80 of each."""
    names: dict[str, list[str]] = {}
    sites: dict[str, Site] = {}
    connect = socket.create_connection
    resolve = socket.getaddrinfo

    def find(name: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if name not in DOMAINS:
            return resolve(name, port, *arguments, **options)
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in address], socket.SOCK_STREAM, 6, "", (address, port)) for address in names[name]]

    def arrive(address: Any, *arguments: Any, **options: Any) -> Any:
        if address[1] != 80:
            return connect(address, *arguments, **options)
        if address[0] not in sites:
            reason = errno.ENETUNREACH if address[0] == NO_ROUTE else errno.ECONNREFUSED
            raise OSError(reason, os.strerror(reason))
        return connect(("127.0.0.1", sites[address[0]].server_port), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    # Port 80 of the test machine is not the test's.
    monkeypatch.setattr(socket, "create_connection", arrive)

    def set_up(name: str, *addresses: str, status: int = 0) -> None:
        names[name] = list(addresses)
        for address in set(addresses) - {NO_ROUTE}:
            sites.setdefault(address, Site("127.0.0.1", tmp_path / "www", status))

    set_up.sites = sites  # type: ignore[attr-defined]
    yield set_up
    for site in sites.values():
        site.shutdown()
        site.server_close()


@pytest.fixture
def certbot(tmp_path: Path, program: Callable[[str, str], Path]) -> Callable[..., Callable[[], list[list[str]]]]:
    """Put a certbot on PATH, and return what reads its calls."""

    def put(extra: str = "") -> Callable[[], list[list[str]]]:
        log = tmp_path / "certbot.log"
        program("certbot", CERTBOT.format(log=log, extra=extra))
        return lambda: [shlex.split(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    return put


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "nginx").mkdir()
    return {
        "name": "shop",
        "domains": DOMAINS,
        "server": AUTHORITY,
        "email": "ops@example.com",
        "webroot": str(tmp_path / "www"),
        "certificate": str(tmp_path / "nginx/fullchain.pem"),
        "key": str(tmp_path / "nginx/privkey.pem"),
        "directory": str(tmp_path / "letsencrypt"),
        "port": 0,
        "service": "nginx",
    }


@pytest.fixture
def module(run_step: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(orders, "reach", lambda server: None)
    return functools.partial(run_step, "tls_order")


def issue(directory: Path, domains: list[str] = DOMAINS, server: str = AUTHORITY, **options: Any) -> tuple[Path, Path]:
    """Have certbot's directory hold a certificate, and return the paths that why_order looks at."""
    live, renewal = directory / "live/shop", directory / "renewal/shop.conf"
    live.mkdir(parents=True)
    renewal.parent.mkdir()
    renewal.write_text(
        f"version = 2.1.0\n[renewalparams]\nauthenticator = webroot\nserver = {server}\nkey_type = ecdsa\n", encoding="utf-8"
    )
    certify(live / "fullchain.pem", live / "privkey.pem", domains, **options)
    return live, renewal


# Whether to order


def test_a_certificate_that_will_do_is_not_ordered(tmp_path: Path) -> None:
    live, renewal = issue(tmp_path)
    assert why_order(live, renewal, DOMAINS, AUTHORITY, "webroot") is None
    assert why_order(live, renewal, list(reversed(DOMAINS)), AUTHORITY, "webroot") is None
    assert "challenges" in str(why_order(live, renewal, DOMAINS, AUTHORITY, "standalone"))


@pytest.mark.parametrize(
    ("domains", "server", "words"),
    [
        (DOMAINS[:1], AUTHORITY, "names"),
        ([*DOMAINS, "new.example.com"], AUTHORITY, "names"),
        (DOMAINS, "https://acme-staging-v02.api.letsencrypt.org/directory", "CA"),
        (DOMAINS, AUTHORITY + "/", "CA"),
    ],
)
def test_one_for_other_names_or_from_elsewhere_is(tmp_path: Path, domains: list[str], server: str, words: str) -> None:
    assert words in str(why_order(*issue(tmp_path), domains, server, "webroot"))


def test_one_that_expired_is(tmp_path: Path) -> None:
    assert why_order(*issue(tmp_path, days=-0.1), DOMAINS, AUTHORITY, "webroot") == "it expired"


@pytest.mark.parametrize("lifetime", LIFETIMES)
@pytest.mark.parametrize(("share", "reason"), [(None, None), (0.24, "its renewal is overdue"), (0.02, "its renewal is overdue")])
def test_one_whose_renewal_certbot_missed_is(tmp_path: Path, lifetime: float, share: float | None, reason: str | None) -> None:
    days = renewed_at_the_latest(lifetime) if share is None else share * lifetime
    assert why_order(*issue(tmp_path, days=days, lifetime=lifetime), DOMAINS, AUTHORITY, "webroot") == reason


@pytest.mark.parametrize("lost", ["fullchain.pem", "renewal", "damaged", "no server"])
def test_one_that_is_not_whole_is(tmp_path: Path, lost: str) -> None:
    live, renewal = issue(tmp_path)
    if lost == "renewal":
        renewal.unlink()
    elif lost == "no server":
        renewal.write_text("# server = x\n", encoding="utf-8")
    elif lost == "damaged":
        (live / "fullchain.pem").write_text("x", encoding="utf-8")
    else:
        (live / lost).unlink()
    assert why_order(live, renewal, DOMAINS, AUTHORITY, "webroot") is not None


@pytest.mark.parametrize(
    ("options", "expected"), [({}, True), ({"days": 0.1}, True), ({"days": -0.1}, False), ({"issuer": DOMAINS[0]}, False)]
)
def test_what_browsers_take(tmp_path: Path, options: dict[str, Any], expected: bool) -> None:
    certify(tmp_path / "certificate", tmp_path / "key", DOMAINS, **options)
    assert is_valid(tmp_path / "certificate") is expected


@pytest.mark.parametrize("text", [None, "", "damaged"])
def test_no_certificate_is_none_that_browsers_take(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "certificate").write_text(text, encoding="utf-8")
    assert is_valid(tmp_path / "certificate") is False


# Whether the authority would find this host


def test_names_that_lead_here_pass(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.1")
    network(DOMAINS[1], "192.0.2.1", "2001:db8::1")
    preflight(DOMAINS, str(tmp_path / "www"), 0)
    assert {host for site in network.sites.values() for host in site.hosts} == set(DOMAINS)
    assert len(network.sites["2001:db8::1"].hosts) == 1
    assert [path for path in (tmp_path / "www").rglob("*") if path.is_file()] == []


def test_a_name_without_an_address_is_told(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.1")
    with pytest.raises(ReleaseError, match=rf"{DOMAINS[1]} has no DNS record: add an A record.*certbot_preflight") as error:
        preflight(DOMAINS, str(tmp_path / "www"), 0)
    assert f"{DOMAINS[0]}:" not in str(error.value)


def test_a_name_that_leads_elsewhere_is_told(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.9", status=404)
    network(DOMAINS[1], "192.0.2.8", status=200)
    with pytest.raises(ReleaseError) as error:
        preflight(DOMAINS, str(tmp_path / "www"), 0)
    message = str(error.value)
    assert "No certificate was ordered" in message
    assert re.search(rf"{DOMAINS[0]}: 192\.0\.2\.9 answers 404", message)
    assert re.search(rf"{DOMAINS[1]}: 192\.0\.2\.8 answers 200", message)
    assert [path for path in (tmp_path / "www").rglob("*") if path.is_file()] == []


def test_a_closed_port_is_told(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.1")
    site = network.sites.pop("192.0.2.1")
    with pytest.raises(ReleaseError, match=r"port 80 of 192\.0\.2\.1 does not answer.*open port 80"):
        preflight(DOMAINS[:1], str(tmp_path / "www"), 0)
    site.shutdown()
    site.server_close()


def test_a_second_address_that_leads_elsewhere_is_told(tmp_path: Path, network: Any) -> None:
    # The authority asks at the IPv6 address first, and only there if that answers.
    network(DOMAINS[0], "192.0.2.1")
    network(DOMAINS[1], "2001:db8::9", status=404)
    network(DOMAINS[0], "192.0.2.1", "2001:db8::9")
    with pytest.raises(ReleaseError, match="2001:db8::9"):
        preflight(DOMAINS[:1], str(tmp_path / "www"), 0)


def test_a_host_without_ipv6_is_not_asked_what_answers_there(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.1", NO_ROUTE)
    preflight(DOMAINS[:1], str(tmp_path / "www"), 0)


def test_a_redirect_or_another_token_is_not_the_challenge(tmp_path: Path, network: Any) -> None:
    network(DOMAINS[0], "192.0.2.1", status=301)
    assert "301" in str(probe_challenge(DOMAINS[0], "192.0.2.1", "/x", "token"))
    network(DOMAINS[1], "192.0.2.2")
    (tmp_path / "www").mkdir()
    (tmp_path / "www/x").write_text("token\n", encoding="utf-8")
    assert probe_challenge(DOMAINS[1], "192.0.2.2", "/x", "token") is None
    assert probe_challenge(DOMAINS[1], "192.0.2.2", "/x", "tok") is not None


def test_nginx_can_read_the_challenge_whatever_the_umask(
    tmp_path: Path, network: Any, arguments: dict[str, Any], module: Any, certbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    network(DOMAINS[0], "192.0.2.1")

    def see(domain: str, address: str, path: str, expected: str) -> None:
        file = tmp_path / "www" / path.lstrip("/")
        modes.extend(place.stat().st_mode & 0o005 for place in (file.parent, file.parent.parent))
        modes.append(file.stat().st_mode & 0o004 | 1)

    monkeypatch.setattr(orders, "probe_challenge", see)
    certbot()
    os.umask(0o077)
    assert module(**{**arguments, "domains": DOMAINS[:1]})["changed"]
    assert modes == [5, 5, 5]


def test_an_authority_that_answers_is_reached(tmp_path: Path) -> None:
    (tmp_path / "directory").touch()
    site = Site("127.0.0.1", tmp_path)
    port = site.server_address[1]
    reach(f"http://127.0.0.1:{port}/directory")
    with pytest.raises(ReleaseError, match=r"No certificate was ordered.*certbot_server"):
        reach(f"http://127.0.0.1:{port}/other")
    site.shutdown()
    site.server_close()
    with pytest.raises(ReleaseError, match=r"does not answer \(.*refused"):
        reach(f"http://127.0.0.1:{port}/directory")


# The order


def test_an_order_says_what_it_must(certbot: Any, arguments: dict[str, Any]) -> None:
    calls = certbot()
    order(arguments)
    (call,) = calls()
    pairs = dict(zip(call, call[1:]))  # noqa: B905, RUF007 - of Python 3.9
    assert call[0] == "certonly"
    assert {"--non-interactive", "--agree-tos", "--webroot", "--renew-with-new-domains"} <= set(call)
    wanted = {
        "--webroot-path": arguments["webroot"],
        "--cert-name": "shop",
        "--server": AUTHORITY,
        "--email": "ops@example.com",
        "--config-dir": arguments["directory"],
    }
    assert {key: pairs[key] for key in wanted} == wanted
    assert [word for before, word in itertools.pairwise(call) if before == "--domain"] == DOMAINS
    # Kept by certbot for each renewal.
    assert "--deploy-hook systemctl reload nginx" in " ".join(call)


def test_an_order_without_an_address_registers_none(certbot: Any, arguments: dict[str, Any]) -> None:
    calls = certbot()
    order({**arguments, "email": ""})
    (call,) = calls()
    assert "--register-unsafely-without-email" in call and "--email" not in call


def test_an_order_that_fails_says_what_certbot_says(certbot: Any, arguments: dict[str, Any]) -> None:
    certbot("seq 30; echo 'Saving debug log to /var/log/x'; echo 'DNS problem: NXDOMAIN' >&2; exit 1")
    with pytest.raises(ReleaseError) as error:
        order(arguments)
    lines = str(error.value).splitlines()
    assert lines[-1] == "DNS problem: NXDOMAIN"
    assert "Saving debug log" not in str(error.value)
    assert len(lines) == 16


def test_another_certbot_is_waited_for(certbot: Any, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(orders, "time", SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits)))
    calls = certbot('test "$(wc -l <"$0.log" 2>/dev/null || echo 0)" -ge 2 || { echo x >>"$0.log"; '
                    "echo 'Another instance of Certbot is already running.'; exit 1; }")  # fmt: skip
    order(arguments)
    assert len(calls()) == 3
    assert len(waits) == 2
    assert all(wait > 0 for wait in waits)


def test_another_certbot_is_not_waited_for_for_ever(
    certbot: Any, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(orders, "time", SimpleNamespace(sleep=waits.append, monotonic=lambda: 10 * sum(waits)))
    certbot("echo 'Another instance of Certbot is already running.'; exit 1")
    with pytest.raises(ReleaseError, match="Another instance"):
        order(arguments)
    assert 100 < 10 * sum(waits) < 300


def test_a_link_changes_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "fullchain.pem"
    link.write_text("placeholder", encoding="utf-8")
    with pytest.raises(ReleaseError, match="is not a symbolic link"):
        atomic_symlink(link, tmp_path / "one")
    for name in ("one", "two"):
        atomic_symlink(link, tmp_path / name, over_file=True)
        assert os.readlink(link) == str(tmp_path / name)
    (tmp_path / "directory").mkdir()
    with pytest.raises(ReleaseError, match="is not a symbolic link"):
        atomic_symlink(tmp_path / "directory", tmp_path / "one", over_file=True)
    (tmp_path / "directory").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["fullchain.pem"]


# The step


def test_the_step_orders_once(arguments: dict[str, Any], module: Any, certbot: Any, network: Any) -> None:
    calls = certbot()
    for domain in DOMAINS:
        network(domain, "192.0.2.1")
    result = module(**arguments)
    assert (result["changed"], result["reason"]) == (True, "there is none")
    for link, name in (("certificate", "fullchain.pem"), ("key", "privkey.pem")):
        assert os.readlink(arguments[link]) == f"{arguments['directory']}/live/shop/{name}"
        assert os.path.exists(arguments[link])
    again = module(**arguments)
    assert (again["changed"], again["reason"]) == (False, None)
    assert len(calls()) == 1
    assert module(**{**arguments, "domains": DOMAINS[:1]})["reason"] == "the names changed"
    assert len(calls()) == 2


def test_a_good_certificate_is_only_linked(arguments: dict[str, Any], module: Any, certbot: Any) -> None:
    calls = certbot()
    issue(Path(arguments["directory"]))
    Path(arguments["key"]).write_text("placeholder", encoding="utf-8")
    assert module(check=True, **arguments)["changed"] is True
    assert Path(arguments["key"]).read_text(encoding="utf-8") == "placeholder"
    assert module(**arguments)["changed"] is True
    assert Path(arguments["key"]).resolve() == Path(arguments["directory"], "live/shop/privkey.pem")
    assert module(**arguments)["changed"] is False
    assert calls() == []


def test_nothing_is_ordered_where_the_authority_would_not_find_the_host(
    arguments: dict[str, Any], module: Any, certbot: Any, network: Any
) -> None:
    calls = certbot()
    result = module(**arguments)
    assert result["failed"]
    assert "has no DNS record" in result["msg"]
    assert result["valid"] is False
    assert calls() == []
    assert not os.path.lexists(arguments["certificate"])
    assert module(**arguments, preflight=False)["changed"] is True


def test_nothing_is_ordered_from_an_authority_that_is_away(
    arguments: dict[str, Any], run_step: Callable[..., dict[str, Any]], certbot: Any
) -> None:
    calls = certbot()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        arguments["server"] = f"https://127.0.0.1:{closed.getsockname()[1]}/directory"
    result = run_step("tls_order", **arguments, preflight=False)
    assert "certbot_server" in result["msg"]
    assert calls() == []


def test_a_dry_run_orders_nothing(arguments: dict[str, Any], module: Any, certbot: Any) -> None:
    calls = certbot()
    result = module(check=True, **arguments)
    assert (result["changed"], result["reason"]) == (True, "there is none")
    assert calls() == []
    assert not os.path.lexists(arguments["certificate"])


def test_a_failed_order_leaves_what_nginx_has(arguments: dict[str, Any], module: Any, certbot: Any) -> None:
    certbot("exit 1")
    issue(Path(arguments["directory"]), DOMAINS[:1])
    module(**{**arguments, "domains": DOMAINS[:1]})
    before = os.readlink(arguments["certificate"])
    result = module(**arguments, preflight=False)
    assert (result["failed"], result["valid"]) == (True, True)
    assert "Output of certbot" in result["msg"]
    assert result["summary"] == {"certificate": "could not be ordered"}
    assert os.readlink(arguments["certificate"]) == before


@pytest.mark.parametrize("trouble", ["hangs", "missing"])
def test_a_certbot_that_cannot_be_run_is_a_failed_order(
    tmp_path: Path, arguments: dict[str, Any], module: Any, certbot: Any, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    certbot("exec sleep 60")
    if trouble == "missing":
        (tmp_path / "bin" / "certbot").write_text("#!/no/such/interpreter\n", encoding="utf-8")
    monkeypatch.setattr(orders, "ORDER_SECONDS", 0.2)
    result = module(**arguments, preflight=False)
    assert result["failed"]
    assert "certbot could not run" in result["msg"]
    assert result["valid"] is False
