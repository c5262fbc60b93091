"""What the tests of the fleet share: its hosts, and a load on them through the balancer."""

from __future__ import annotations

import json
import re
import shlex
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from molecule.conftest import ARTEFACTS, Answer, Host, within
from molecule.release.conftest import Load
from molecule.release.program import Step

# The name that clients know, the balancers that have it, and the hosts behind them.
DOMAIN = "shop.test"
NAMES = ["one.test", "two.test", "three.test"]
ROOT_CERTIFICATE = ARTEFACTS / "acme-root.pem"


class Door(Host):
    """A balancer, asked for the site by clients who trust the authority of its certificate."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.domain = DOMAIN

    @property
    def trust(self) -> ssl.SSLContext:
        """A context that trusts the authority, which the tests' prepare.yml asks for."""
        return ssl.create_default_context(cafile=str(ROOT_CERTIFICATE))

    def connect(self, server_name: str | None = None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a TLS connection to the site, verified."""
        return super().connect(server_name or DOMAIN, context)

    def ask(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Send one request for the site."""
        return super().ask(path, *arguments, **{"name": DOMAIN, **options})

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what the balancer says of each host."""
        hosts: dict[str, dict[str, Any]] = json.loads(self.run("cat /run/slipway-balancer/fleet/state.json"))["hosts"]
        return hosts

    def uses(self, *names: str) -> bool:
        """Say whether it uses these hosts and no others."""
        return {name for name, entry in self.state().items() if entry["slots"]} == set(names)

    def serial(self) -> str:
        """Return the serial number of the certificate that is served."""
        with self.connect() as connection:
            return str((connection.getpeercert() or {})["serialNumber"])


# Asks a host behind the balancers from there.
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
    """A host behind the balancers. It answers them and itself, and so it is asked from itself."""

    def ask(self, path: str, *_: Any, **__: Any) -> Answer:
        """Send one request as the host itself would."""
        return Answer(*json.loads(self.run(shlex.join(["python3", "-c", ITSELF, DOMAIN, path]))))


EDGE, SPARE = Door("edge.test"), Door("spare.test")
FLEET = [Member(name, "shop") for name in NAMES]


def drain(name: str, out: bool = True) -> None:
    """Have the balancers take a host out of use, or bring it back, by the step that playbooks/drain.yml has them take."""
    places = {"runtime": "/run/slipway-balancer/fleet", "drained": "/var/lib/slipway/balancer/fleet"}
    told = {"host": name, "drain": out, "seconds": 60, **places}
    for door in (EDGE, SPARE):
        result = Step(door, {}, {"step": "balancer_drain", "arguments": told}).run(task_vars={})
        assert result.get("settled"), result


class DoorLoad(Load):
    """A load on the site through a balancer, with or without streams that no drain sees the end of."""

    def __init__(self, door: Door, streams: bool) -> None:
        super().__init__(door, pause=2)
        self.streams = streams
        # What hosts took that are no more.
        self.taken: Counter[str] = Counter()

    def command(self) -> list[str]:
        """Return what is asked for where, and who vouches for it."""
        return [self.host.address, DOMAIN, str(ROOT_CERTIFICATE), str(self.pause), str(int(self.streams))]


def ledger(host: Host) -> list[str]:
    """Return the orders that a host took, each as often as it did."""
    return host.run("cat /opt/shop/shared/ledger 2>/dev/null", check=False).split()


@contextmanager
def loaded(door: Door = EDGE, allowed: int = 0, expected: str = "", streams: bool = True) -> Iterator[DoorLoad]:
    """Have a load while the block runs, and see afterwards that nothing failed and no order was taken twice.

    Args:
        door: the balancer that is asked.
        allowed: how many requests may fail: those that a killed host had.
        expected: what a failure may be that a release is meant to have, as a regular expression.
        streams: whether a WebSocket and an event stream are part of it.
    """
    for host in FLEET:
        host.run("test ! -e /opt/shop/shared/ledger || : > /opt/shop/shared/ledger", check=False)
    with DoorLoad(door, streams) as load:
        time.sleep(2)
        yield load
        time.sleep(1)
    taken = sum((Counter(ledger(host)) for host in FLEET), load.taken)
    assert load.result["requests"] > 200, load.result
    failures = [failure for failure in load.result["failures"] if not (expected and re.search(expected, failure))]
    assert len(failures) <= allowed, failures[:10]
    assert [number for number, times in taken.items() if times > 1] == []
    assert set(load.result["posted"]) <= set(taken)


def all_in_use() -> None:
    """Wait until both balancers use all hosts."""
    within(60, lambda: EDGE.uses(*NAMES) and SPARE.uses(*NAMES), pause=0.5)


@pytest.fixture(autouse=True, scope="module")
def ready() -> None:
    """Begin with all hosts in use."""
    all_in_use()


@pytest.fixture(autouse=True)
def whole(ready: None) -> Iterator[None]:
    """See that each test leaves all hosts in use."""
    yield
    all_in_use()
