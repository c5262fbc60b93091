"""What the tests of releases share: deploying with variables, sources to change, and a steady load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from molecule.conftest import ROOT, SHOP, Host, Run, play
from molecule.snapshot import address_of, started

# The two hosts of one app.
FLEET = "release.test:twin.test"


@cache
def base() -> str:
    """Return the image that images are made from here, which is made the first time."""
    return subprocess.run([ROOT / "script" / "image", "python"], capture_output=True, text=True, check=True).stdout.strip()


def flat(run: Run) -> str:
    """Return what a run printed, in one line."""
    return " ".join(run.output.split())


def deploy(
    host: Host | str,
    *arguments: str,
    playbook: str = "playbooks/deploy.yml",
    settings: dict[str, Any] | None = None,
    **variables: object,
) -> Run:
    """Run a playbook on a host, or on what a pattern names, with variables on top of the inventory and settings of Ansible."""
    if isinstance(host, Host) and host.container != host.name:
        variables |= address_of(host)
    limit = host if isinstance(host, str) else host.name
    return play(f"--limit={limit}", f"--extra-vars={json.dumps(variables)}", *arguments, playbook=playbook, **(settings or {}))


def rollback(host: Host | str, *arguments: str, **variables: Any) -> Run:
    """Go back on a host."""
    return deploy(host, *arguments, playbook="playbooks/rollback.yml", **variables)


def programs(host: Host) -> list[str]:
    """Return the programs under Supervisor."""
    return [line.split()[0] for line in host.run("supervisorctl status", check=False).splitlines()]


def serves(host: Host) -> int:
    """Return the release that answers, having seen that it is live, alone, and what a reboot would start."""
    number = host.live()
    assert host.ask("/healthz").headers["x-release"] == str(number)
    assert programs(host) == [f"{host.app}-{number}"]
    # What runs once keeps its lock, so that no two processes ever hold one that they think is the same.
    assert host.run(f"ls --ignore='*.lock' /run/{host.app}").split() == [f"{number}.metrics", f"{number}.sock"]
    assert host.run("ls /etc/supervisor/conf.d").split() == [f"{host.app}-{number}.conf"]
    return number


def have_engine(host: Host, name: str) -> None:
    """Have an engine on the host, and the image that others are made from, which no registry has here."""
    if not host.run(f"command -v {name}", check=False):
        run = deploy(host, "--tags=container_engine", playbook="site.yml", app_runtime="container", app_container_engine=name)
        assert run.code == 0, run.output[-3000:]
    subprocess.run(f"podman save {base()} | podman exec --interactive {host.container} {name} load", shell=True, check=True)


class Load:
    """A load in a process of its own while the block runs; `result` is what became of it.

    `pause` is how many times as long as usual a client waits between two requests.
    """

    def __init__(self, host: Host, pause: float = 1) -> None:
        self.host = host
        self.pause = pause
        self.result: dict[str, Any] = {}

    def command(self) -> list[str]:
        """Return what is asked for where, and who vouches for it."""
        certificate = ROOT / ".artefacts" / f"{self.host.container}.pem"
        certificate.write_text(self.host.run(f"cat /etc/nginx/slipway/{self.host.app}/fullchain.pem"), encoding="ascii")
        return [self.host.address, self.host.name, str(certificate), str(self.pause)]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "molecule.release.load", *self.command()]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        output, _ = self.process.communicate(timeout=90)
        self.result = json.loads(output)


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host of the file's own, from the snapshot of the converged host that its SNAPSHOT names: nobody else changes that one."""
    with started(request.module.SNAPSHOT, request.module.__name__.rpartition(".")[2].replace("_", "-")) as one:
        yield one


@pytest.fixture
def kiosk(tmp_path: Path) -> Path:
    """A project that is a package, with the same app in a src layout, and a uv.lock."""
    project = tmp_path / "project"
    (project / "src" / "kiosk").mkdir(parents=True)
    version = "from importlib.metadata import version\n__version__ = version('kiosk')\n"
    (project / "src" / "kiosk" / "__init__.py").write_text(version, encoding="ascii")
    code = (SHOP / "main.py").read_text(encoding="utf-8")
    (project / "src" / "kiosk" / "main.py").write_text(
        f"{code}\nimport kiosk\nassert kiosk.__version__ == '2.0'\n", encoding="utf-8"
    )
    (project / "pyproject.toml").write_text(
        '[project]\nname = "kiosk"\nversion = "2.0"\nrequires-python = ">=3.11"\ndependencies = ["fastapi==0.165.0"]\n'
        '[dependency-groups]\ndev = ["pytest"]\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
        encoding="ascii",
    )
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(
        [Path(sys.executable).with_name("uv"), "lock", "--quiet", f"--python={sys.executable}"],
        cwd=project,
        check=True,
        env=environment,
    )
    return project
