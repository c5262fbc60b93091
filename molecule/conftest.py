"""What the tests of all scenarios ask the test hosts with: requests through the front door, and commands inside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
INVENTORY = ROOT / "molecule" / "inventory"
ARTEFACTS = ROOT / ".artefacts"
PODMAN = str(ROOT / "molecule" / "podman")
SECRET = "canary-of-the-test-hosts"

# An app in a single file.
SHOP = ROOT / "molecule" / "release" / "shop"

# Hosts that some tests take for one, by what their tests are told apart by.
FLEETS = {"release.test": "fleet", "twin.test": "fleet"}


@dataclass
class Answer:
    """An answer to a request; names of headers are lower-case."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Run:
    """A finished run of ansible-playbook."""

    code: int
    output: str
    changed: dict[str, int] = field(default_factory=dict)


class Host:
    """One test host, called by its name in the inventory, which is its domain too, and its container's unless it has another."""

    def __init__(self, name: str, app: str | None = None, container: str | None = None) -> None:
        self.name = name
        self.app = app or name.replace(".", "-")
        self.container = container or name

    @property
    def address(self) -> str:
        """The address on the test network."""
        return address(self.container)

    def run(self, command: str, check: bool = True) -> str:
        """Run a shell command as root inside the host and return what it prints."""
        done = subprocess.run(
            [PODMAN, "exec", self.container, "sh", "-c", command], capture_output=True, text=True, errors="replace", check=False
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """A context that trusts the host's own certificate and checks the name in it."""
        certificate = self.run(f"cat /etc/nginx/slipway/{self.app}/fullchain.pem")
        return ssl.create_default_context(cadata=certificate)

    def connect(self, server_name: str | None = None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a TLS connection, verified."""
        raw = socket.create_connection((self.address, 443), timeout=30)
        return (context or self.trust).wrap_socket(raw, server_hostname=server_name or self.name)

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        tls: bool = True,
        name: str | None = None,
    ) -> Answer:
        """Send one request as a client would, over HTTPS unless `tls` is off."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=30)
        if tls:
            connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers={"Host": name or self.name, **(headers or {})})
            response = connection.getresponse()
            values: dict[str, str] = {}
            for key, value in response.getheaders():
                assert key.lower() not in values or key.lower() == "vary", f"{key} comes twice"
                values[key.lower()] = value
            return Answer(response.status, values, response.read().decode("utf-8", "replace"))

    def healthy(self) -> bool:
        """Say whether the app answers through the front door."""
        try:
            return self.ask("/healthz").status == 200
        except (OSError, http.client.HTTPException, AssertionError):
            return False

    def pids(self, pattern: str) -> list[int]:
        """Return the process ids whose command line has `pattern`."""
        return [int(pid) for pid in self.run(f"pgrep -f -- {shlex.quote(pattern)}", check=False).split()]

    def live(self) -> int:
        """Return the number of the live release."""
        return int(Path(self.run(f"readlink /opt/{self.app}/live.sock").strip()).stem)

    def master(self) -> int:
        """Return the process id of the live release's Gunicorn."""
        return int(self.run(f"supervisorctl pid {self.app}-{self.live()}"))


def podman(*arguments: str) -> str:
    """Run podman and return what it prints."""
    if arguments[0] in ("start", "restart", "run"):  # which may give another address
        address.cache_clear()
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout


@cache
def address(container: str) -> str:
    """Return the address of a container on the test network."""
    return str(json.loads(podman("inspect", container))[0]["NetworkSettings"]["Networks"]["slipway"]["IPAddress"])


def within(seconds: float, condition: Callable[[], Any], pause: float = 0.05) -> float:
    """Wait until `condition` holds and return how long that took; fail after `seconds`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s"
        time.sleep(pause)
    return time.monotonic() - begin


def play(*arguments: str, playbook: str = "site.yml", inventory: Path = INVENTORY, **settings: str) -> Run:
    """Run a playbook as a user would, with `settings` in its environment. Nothing of Molecule's own settings is passed on."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MOLECULE_", "ANSIBLE_"))}
    environment |= {"ANSIBLE_NOCOLOR": "1", **settings}
    done = subprocess.run(
        ["ansible-playbook", playbook, f"--inventory={inventory}", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    changed = {}
    for line in done.stdout.splitlines():
        if " : ok=" in line:
            changed[line.split()[0]] = int(line.split("changed=")[1].split()[0])
    return Run(done.returncode, done.stdout, changed)


@contextlib.contextmanager
def polling(host: Host, path: str = "/version") -> Iterator[list[str]]:
    """Ask again and again on new connections while the block runs; what failed is in the list afterwards."""
    import threading

    failures: list[str] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                answer = host.ask(path)
                if answer.status != 200:
                    failures.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
            time.sleep(0.02)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join()


@cache
def inventory() -> dict[str, Any]:
    """Return the test hosts, as Ansible lists them."""
    listing = subprocess.run(
        ["ansible-inventory", f"--inventory={INVENTORY}", "--list"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    return dict(json.loads(listing))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the app in a single file, to be changed."""
    copy = tmp_path / "shop"
    shutil.copytree(SHOP, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def changed(shop: Path) -> Callable[[str], Path]:
    """Change the app's code, so that it is another build with the same dependencies."""

    def change(text: str) -> Path:
        main = shop / "main.py"
        main.write_text(f"{(SHOP / 'main.py').read_text(encoding='utf-8')}\n{text}\n", encoding="utf-8")
        return shop

    return change


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that wants a `host` for the HOSTS that its file names, or for every host of its GROUP.

    A scenario that runs tests of another one names its own hosts in TEST_HOSTS, in its environment.
    """
    if "host" in metafunc.fixturenames and not hasattr(metafunc.module, "SNAPSHOT"):
        group = getattr(metafunc.module, "GROUP", "all")
        names = os.environ.get("TEST_HOSTS", "").split() or getattr(metafunc.module, "HOSTS", None) or inventory()[group]["hosts"]
        hosts = [Host(name, inventory()["_meta"]["hostvars"].get(name, {}).get("app_name")) for name in names]
        metafunc.parametrize("host", hosts, ids=names, scope="module")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note which test runs, for script/test, which shows it while a scenario's own output is held back."""
    if scenario := os.environ.get("MOLECULE_SCENARIO_NAME"):
        (ARTEFACTS / f"{scenario}.now").write_text(nodeid, encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run side by side, give all of one host, or of one file, to one process: they would disturb each other."""
    from xdist.scheduler import LoadScopeScheduling

    class ByHost(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = re.search(r"\[([a-z0-9.]+\.test)\b", nodeid)  # it comes first in a test's brackets
            return FLEETS.get(name[1], name[1]) if name else nodeid.partition("::")[0]

    return ByHost(config, log)
