"""What the tests of the fleet share: its hosts, and a load on them through a load balancer."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from molecule.conftest import ARTEFACTS, Answer, Host, podman, within
from molecule.release.conftest import Load
from molecule.release.program import Step

# The name that clients know, the load balancers that have it, and the hosts behind them.
DOMAIN = "shop.test"
NAMES = ["one.test", "two.test", "three.test"]
ROOT_CERTIFICATE = ARTEFACTS / "acme.lab.test-root.pem"

SOCKET = "/run/haproxy/admin.sock"
STATE_FILE = "/var/lib/slipway/haproxy/server-state"
CONFIGURATION = "/etc/haproxy/haproxy.cfg"

# Sends a command to the runtime API. There is no socket for a moment while HAProxy starts.
ADMIN = """
import socket, sys, time
deadline, answer = time.monotonic() + 10, b""
while not answer:
    try:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(10)
            admin.connect(sys.argv[1])
            admin.sendall(sys.argv[2].encode() + b"\\n")
            while part := admin.recv(65536):
                answer += part
    except OSError:
        answer = b""
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
print(answer.decode(), end="")
"""


@dataclass
class Backend:
    """An app host as a load balancer sees it.

    Args:
        state: the first word of HAProxy's status, in lower case: up, down, drain or maint.
        check: how the last health check ended, as HAProxy abbreviates it: L7OK, L7STS, L4TOUT.
        code: the HTTP status that the check was answered with, if any.
        sessions: requests and connections in progress, of both backends.
    """

    state: str
    check: str
    code: str
    sessions: int


def parse(statistics: str) -> dict[str, Backend]:
    """Return the servers of the backend app in what `show stat` prints."""
    rows = csv.DictReader(statistics.removeprefix("# ").strip().splitlines())
    servers = [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND") and row["pxname"] in ("app", "app_once")]
    sessions: Counter[str] = Counter()
    for row in servers:
        sessions[row["svname"]] += int(row["scur"])
    return {
        row["svname"]: Backend(
            row["status"].split()[0].lower(),
            row["check_status"].removeprefix("* "),
            row["check_code"],
            sessions[row["svname"]],
        )
        for row in servers
        if row["pxname"] == "app"
    }


class Balancer(Host):
    """A load balancer, asked for the site by clients who trust the CA of its certificate."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.domain = DOMAIN

    @property
    def trust(self) -> ssl.SSLContext:
        """A context that trusts the CA, whose certificate the tests' prepare.yml fetches."""
        return ssl.create_default_context(cafile=str(ROOT_CERTIFICATE))

    def connect(self, server_name: str | None = None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a TLS connection to the site, verified."""
        return super().connect(server_name or DOMAIN, context)

    def ask(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Send one request for the site."""
        return super().ask(path, *arguments, **{"name": DOMAIN, **options})

    def admin(self, command: str) -> str:
        """Send a command to the runtime API and return the answer."""
        return self.run(shlex.join(["python3", "-c", ADMIN, SOCKET, command]))

    def state(self) -> dict[str, Backend]:
        """Return how it uses each app host."""
        return parse(self.admin("show stat"))

    def uses(self, *names: str) -> bool:
        """Return whether it sends requests to these hosts and no others."""
        return {name for name, backend in self.state().items() if backend.state == "up"} == set(names)

    def pid(self) -> int:
        """Return the id of the process that answers requests."""
        (found,) = re.findall(r"^Pid: (\d+)$", self.admin("show info"), re.MULTILINE)
        return int(found)

    def reload(self) -> None:
        """Reload HAProxy, and wait for the process that takes over."""
        before = self.pid()
        self.run("systemctl reload haproxy")
        within(10, lambda: self.pid() != before)

    def active(self, before: int = 0) -> bool:
        """Return whether HAProxy runs, by another process than `before`, and the site answers."""
        running = self.run("systemctl is-active haproxy", check=False).strip() == "active"
        return running and self.pid() != before and self.healthy()

    def certificate(self) -> dict[str, Any]:
        """Return the certificate that is served, verified."""
        with self.connect() as connection:
            return dict(connection.getpeercert() or {})

    def serial(self) -> str:
        """Return the serial number of the certificate that is served."""
        return str(self.certificate()["serialNumber"])

    def renew(self) -> None:
        """Renew the certificate, and wait until the new one is served."""
        before = self.serial()
        self.run("certbot renew --force-renewal --no-random-sleep-on-renew")
        within(15, lambda: self.serial() != before)


# Asks a host behind the load balancers from there.
ITSELF = """
import http.client, json, socket, ssl, sys
connection = http.client.HTTPConnection("127.0.0.1")
raw = socket.create_connection(("127.0.0.1", 443))
connection.sock = ssl._create_unverified_context().wrap_socket(raw, server_hostname=sys.argv[1])
connection.request("GET", sys.argv[2], headers={"Host": sys.argv[1]})
answer = connection.getresponse()
print(json.dumps([answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()]))
"""


class Member(Host):
    """A host behind the load balancers. It answers them and itself, and so it is asked from itself."""

    def ask(self, path: str, *_: Any, **__: Any) -> Answer:
        """Send one request as the host itself would."""
        return Answer(*json.loads(self.run(shlex.join(["python3", "-c", ITSELF, DOMAIN, path]))))

    @property
    def pinned(self) -> str:
        """The path of the certificate that the load balancers pin."""
        return f"/etc/nginx/slipway/backend/{self.name}.pem"

    @property
    def key(self) -> str:
        """The path of that certificate's private key, which is beside it."""
        return self.run(f"grep -l 'PRIVATE KEY' /etc/nginx/slipway/backend/{self.name}.*").strip()


EDGE, SPARE = Balancer("edge.test"), Balancer("spare.test")
BALANCERS = [EDGE, SPARE]
FLEET = [Member(name, "shop") for name in NAMES]


def drain(name: str, out: bool = True) -> None:
    """Drain a host on the load balancers, or put it back into use, by the step of playbooks/drain.yml."""
    arguments = {"host": name, "drain": out, "seconds": 60, "socket": SOCKET, "state_file": STATE_FILE}
    for balancer in BALANCERS:
        result = Step(balancer, {}, {"step": "haproxy_drain", "arguments": arguments}).run(task_vars={})
        assert not result.get("failed"), result
        assert result.get("settled"), result


def start_again(host: Host, address: str) -> None:
    """Start the container of a host that was killed, and give it back the address that it had, as a server keeps its own.

    Podman gives it another one. The old one becomes the first, from which it connects; it answers at both.

    Args:
        host: the host.
        address: the address that it had.
    """
    podman("start", host.container)
    within(30, lambda: host.run("systemctl is-system-running", check=False).strip() in ("running", "degraded", "starting"))
    (device, current), *_ = re.findall(
        r"^\d+: (\S+) +inet (\S+/\d+) .*scope global", host.run("ip -oneline -4 address"), re.MULTILINE
    )
    new, _, bits = current.partition("/")
    if new != address:
        gateway = host.run("ip -4 route show default").split()[2]
        host.run(
            f"ip address delete {current} dev {device}; ip address add {address}/{bits} dev {device};"
            f" ip address add {current} dev {device}; ip route replace default via {gateway}"
        )


class FleetLoad(Load):
    """A load on the site through a load balancer, with or without streams, whose end no drain lives to see."""

    def __init__(self, balancer: Balancer, streams: bool) -> None:
        super().__init__(balancer, pause=2)
        self.streams = streams
        # What hosts took that are no more.
        self.taken: Counter[str] = Counter()

    def command(self) -> list[str]:
        """Return what to ask for, where, and the CA."""
        return [self.host.address, DOMAIN, str(ROOT_CERTIFICATE), str(self.pause), str(int(self.streams))]


def ledger(host: Host) -> list[str]:
    """Return the orders that a host took, each as often as it did."""
    return host.run("cat /opt/shop/shared/ledger 2>/dev/null", check=False).split()


def logged(balancer: Balancer, failures: list[str]) -> list[str]:
    """Return what the load balancer and the hosts logged of the requests that failed, and that they logged at all."""
    paths = {path for failure in failures[:10] for path in re.findall(r"(/orders/[0-9-]+|/items/[0-9]+|/ws|/events)\b", failure)}
    pattern = "|".join(f'"{path}"' for path in sorted(paths)) or "no path"
    files = "/var/log/haproxy/access.log /var/log/nginx/shop.access.log"
    return [
        line
        for host in (balancer, *FLEET)
        for line in host.run(f"grep -EH '{pattern}' {files} 2>&1 | tail -n 20", check=False).splitlines()
        if line
    ]


@contextmanager
def loaded(balancer: Balancer = EDGE, allowed: int = 0, expected: str = "", streams: bool = True) -> Iterator[FleetLoad]:
    """Keep up a load while the block runs; afterwards nothing may have failed, and no order may have been taken twice.

    Args:
        balancer: the load balancer that is asked.
        allowed: how many requests may fail: those that a killed host had.
        expected: what a failure may be that a release is meant to have, as a regular expression.
        streams: whether a WebSocket and an event stream are part of it.
    """
    for host in FLEET:
        host.run("test ! -e /opt/shop/shared/ledger || : > /opt/shop/shared/ledger", check=False)
    with FleetLoad(balancer, streams) as load:
        time.sleep(2)
        yield load
        time.sleep(1)
    taken = sum((Counter(ledger(host)) for host in FLEET), load.taken)
    assert load.result["requests"] > 200, load.result
    failures = [failure for failure in load.result["failures"] if not (expected and re.search(expected, failure))]
    assert len(failures) <= allowed, "\n".join([*failures[:10], *logged(balancer, failures)])
    assert [number for number, times in taken.items() if times > 1] == []
    assert set(load.result["posted"]) <= set(taken)


@contextlib.contextmanager
def running(host: Host, unit: str, *command: str) -> Iterator[None]:
    """Run a command on a host as a service while the block runs; what it prints is in /run/UNIT.log.

    Args:
        host: the host.
        unit: the name of the service.
        command: the command and its arguments.
    """
    log = f"--property=StandardOutput=append:/run/{unit}.log --property=StandardError=append:/run/{unit}.log"
    host.run(f"rm -f /run/{unit}.log; systemd-run --quiet --collect --unit={unit} {log} {shlex.join(command)}")
    try:
        yield
    finally:
        host.run(f"systemctl stop {unit}", check=False)


def all_in_use() -> None:
    """Wait until both load balancers use all hosts."""
    within(60, lambda: EDGE.uses(*NAMES) and SPARE.uses(*NAMES), pause=0.5)


@pytest.fixture(autouse=True, scope="module")
def ready() -> None:
    """Begin with all hosts in use."""
    all_in_use()


@pytest.fixture(autouse=True)
def whole(ready: None) -> Iterator[None]:
    """Require that each test leaves all hosts in use."""
    yield
    all_in_use()
