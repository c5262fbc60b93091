"""Containers that stand for bare servers, playbooks run against them, and a line on what the figures were taken on."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".venv" / "bin"
IMAGE = "debian12"
OPTIONS = [
    "--detach",
    "--systemd=always",
    "--cap-add=SYS_ADMIN,SYS_PTRACE,NET_ADMIN,NET_RAW",
]


class BenchError(Exception):
    """Something that keeps the benchmark from measuring; the message says what."""


@dataclass
class Server:
    """A running container; its name is the domain it serves and its name in the inventory."""

    name: str
    id: str

    @property
    def address(self) -> str:
        """The address on podman's network."""
        return call("podman", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.id)

    def run(self, command: str) -> str:
        """Run a shell command as root in the container and return what it prints."""
        return call("podman", "exec", self.id, "sh", "-c", command)


@dataclass
class Play:
    """A finished run of a playbook."""

    seconds: float
    output: str
    changed: int
    cpu: float
    """CPU seconds of ansible-playbook and what it started and waited for; a kept SSH connection's own are not in it."""

    @property
    def tasks(self) -> list[tuple[float, str]]:
        """Seconds and name of every task that was walked through, the slowest first."""
        found = re.findall(r"^(\S.*?) -{3,} (\d+\.\d+)s$", self.output, re.MULTILINE)
        return sorted(((float(seconds), name) for name, seconds in found), reverse=True)


class Lab:
    """The containers of one benchmark and a directory for its inventories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[Server] = []

    def start(self, name: str, cache: str = IMAGE) -> Server:
        """Start a bare server and wait until it has booted; those that install at the same time need a cache each."""
        image = call(str(ROOT / "script" / "image"), IMAGE).splitlines()[-1]
        volume = f"--volume=slipway-packages-{cache}:/var/cache/apt/archives"
        server = Server(name, call("podman", "run", f"--name={name}", f"--hostname={name}", *OPTIONS, volume, image))
        self.servers.append(server)
        deadline = time.monotonic() + 60
        while call("podman", "exec", server.id, "systemctl", "is-system-running", check=False) not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise BenchError(f"{name} does not boot within 60 s.")
            time.sleep(0.2)
        return server

    def inventory(self, name: str, hosts: dict[str, dict[str, object]], **variables: object) -> Path:
        """Write an inventory whose group web has `hosts`, and return its path."""
        return self.write(name, {"web": {"hosts": hosts, "vars": {"certbot_mode": "selfsigned", **variables}}})

    def write(self, name: str, groups: dict[str, object]) -> Path:
        """Write an inventory of groups, and return its path."""
        path = self.directory / f"{name}.yml"
        path.write_text(json.dumps(groups))
        return path

    def remove(self) -> None:
        """Remove the containers that were started here."""
        for server in self.servers:
            for _ in range(2):  # after a restart of the machine podman's first attempt fails
                call("podman", "rm", "--force", "--ignore", "--volumes", "--time=2", server.id, check=False)


def over_ssh(bench: Lab, *servers: Server, **variables: object) -> Path:
    """Install an SSH server in each container, let a key made for this run in, and return an inventory that uses it."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openssh-server"
    key = bench.directory / "key"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = key.with_suffix(".pub").read_text(encoding="ascii").strip()
    for server in servers:
        server.run(f"apt-get update -qq && {install}")
        server.run(f"mkdir -pm 700 /root/.ssh && echo '{public}' >/root/.ssh/authorized_keys && systemctl start ssh")
    options = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={bench.directory}/known_hosts -o LogLevel=ERROR"
    return bench.inventory(
        "ssh",
        {server.name: {"ansible_host": server.address} for server in servers},
        ansible_user="root",
        ansible_ssh_private_key_file=str(key),
        ansible_ssh_common_args=options,
        **variables,
    )


@contextmanager
def lab() -> Iterator[Lab]:
    """Give a lab, and take it away whatever happens."""
    signal.signal(signal.SIGTERM, lambda *_: exit(1))
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as directory:
        made = Lab(Path(directory))
        try:
            yield made
        finally:
            made.remove()


def call(*command: str, check: bool = True) -> str:
    """Run a command and return what it prints, without the last newline.

    Raises:
        BenchError: when it fails and `check` is set.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise BenchError(f"{' '.join(command)}\nfailed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def play(inventory: Path, limit: str = "all", *options: str, playbook: str = "site.yml", **environment: str) -> Play:
    """Run a playbook as a user would, with a list of what each task took.

    Raises:
        BenchError: when it fails.
    """
    unlike = ("ANSIBLE_", "MOLECULE_", "PYTHONDONTWRITEBYTECODE")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(unlike)}
    clean |= {
        "PATH": f"{TOOLS}:{clean['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
        **environment,
    }
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["ansible-playbook", playbook, f"--inventory={inventory}", f"--limit={limit}", *options],
        cwd=ROOT,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{playbook} failed:\n{done.stdout[-4000:]}")
    changed = sum(int(count) for count in re.findall(r" changed=(\d+)", done.stdout))
    return Play(seconds, done.stdout, changed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def machine() -> str:
    """Describe what the figures are taken on: date, system, processors, load (averages of 1, 5, 15 minutes), versions."""
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text(encoding="utf-8"))
    kernel = os.uname()
    ansible = call(str(TOOLS / "ansible"), "--version").splitlines()[0]
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {system[1] if system else kernel.sysname}, kernel {kernel.release.split('-')[0]}, "
        f"{os.cpu_count()} processors, load {load}, {ansible}, {call('podman', '--version')}"
    )


def verdict(label: str, figure: float, target: float, unit: str = "", least: bool = False) -> str:
    """Return a line with a figure, its target (the most or, with `least`, the least it may be) and whether that is met."""
    met = figure >= target if least else figure <= target
    return f"{label:<46}{figure:8.2f}{unit:<4}target {'>=' if least else '<='} {target:g}{unit}  {'met' if met else 'MISSED'}"
