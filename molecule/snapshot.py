"""Converged hosts as images: a test file starts a host of its own from one in seconds, and nothing it does stays.

An image is made once for each state of what a converged host is made of, by site.yml, and replaces the one before it of the same
working tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from molecule.conftest import ROOT, Host, inventory, play, podman, within

CACHE = Path.home() / ".cache" / "slipway"

# Tells the containers and images of this working tree from those of another, whose tests may run at the same time.
TREE = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]

# What lets a host run containers of its own beside cgroups of version 1, and what is there where the machine has those.
NEST = ROOT / "molecule" / "nest.sh"
CGROUPS_1 = Path("/sys/fs/cgroup/memory")

# What a converged host is made of, beside the image of the bare one.
PARTS = (
    "ansible.cfg",
    "app",
    "molecule/inventory",
    "molecule/nest.sh",
    "molecule/release/shop",
    "molecule/snapshot.py",
    "playbooks",
    "plugins",
    "requirements.txt",
    "requirements.yml",
    "roles",
    "site.yml",
    "src",
)

# As create.yml starts a bare host.
OPTIONS = ["--detach", "--systemd=always", "--cap-add=SYS_ADMIN,SYS_PTRACE,NET_ADMIN,NET_RAW", "--network=slipway"]

# Where directories are renamed, as releases are before they are removed: those of an image cannot be.
CHANGED = ["--volume=/opt"]

# What a host needs beside that to run containers of its own. Images need a file system that is not laid over another one.
NESTED = ["--cap-add=MKNOD,AUDIT_WRITE", "--device-cgroup-rule=a *:* rwm"]
NESTED += ["--volume=/var/lib/containers", "--volume=/var/lib/docker"]

# What tells one boot, or one machine, from another. /run and /tmp are not in an image.
IDENTITY = "truncate --size=0 /etc/machine-id; rm -rf /var/log/journal/* /var/lib/dbus/machine-id"


def state(bare: str) -> str:
    """Return a digest of all that goes into a converged host.

    Args:
        bare: the image of the bare host.
    """
    digest = hashlib.sha256(bare.encode())
    for part in PARTS:
        for path in sorted([ROOT / part, *(ROOT / part).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def remove(container: str) -> None:
    """Remove a container, if it is there. After a restart of the machine podman's first attempt fails."""
    command = ["podman", "rm", "--force", "--ignore", "--volumes", "--time=2", container]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        subprocess.run(command, capture_output=True, check=True)


def variables(name: str) -> dict[str, Any]:
    """Return what the inventory says of a host."""
    return dict(inventory()["_meta"]["hostvars"][name])


def boot(image: str, host: Host, *options: str) -> None:
    """Start a container and wait until it has booted, and can run containers of its own if the inventory says that it does."""
    remove(host.container)
    nested = variables(host.name).get("test_nested", False)
    options = (*OPTIONS, *(NESTED if nested else []), *options)
    podman("run", *options, f"--name={host.container}", f"--hostname={host.name}", image)
    within(60, lambda: host.run("systemctl is-system-running", check=False).strip() in ("running", "degraded"), 0.2)
    if nested and CGROUPS_1.is_dir():
        host.run(NEST.read_text(encoding="utf-8"))


def address_of(host: Host) -> dict[str, str]:
    """Return the variable that leads Ansible to a host's container: by its older name, since roles look at `ansible_host`."""
    return {"ansible_ssh_host": host.container}


def make(bare: str, host: Host, image: str) -> None:
    """Converge a bare host and make an image of it as it is when it is shut down."""
    # Packages are downloaded once, not once for each image.
    boot(bare, host, f"--volume=slipway-packages-{host.name}:/var/cache/apt/archives")
    try:
        engine = {"container_engine_name": "podman"} if variables(host.name).get("test_nested") else {}
        run = play(f"--limit={host.name}", f"--extra-vars={json.dumps(address_of(host) | engine)}")
        assert run.code == 0, run.output[-3000:]
        host.run(IDENTITY)
        podman("stop", host.container)
        podman("commit", "--quiet", host.container, image)
    finally:
        remove(host.container)


@cache
def snapshot(name: str) -> str:
    """Return the image of the converged host that the inventory calls `name`, made first where it is absent."""
    bare = subprocess.run(
        [ROOT / "script" / "image", variables(name)["test_image"]],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    repository = f"localhost/slipway-snapshot-{TREE}-{name}"
    image = f"{repository}:{state(bare)}"
    if subprocess.run(["podman", "image", "exists", image], check=False).returncode:
        make(bare, Host(name, container=f"snapshot-{TREE}-{name}"), image)
        # But for those that a container uses; none where another process removes one while they are listed.
        listing = ["podman", "images", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={repository}"]
        for each in subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split():
            if each != image:
                subprocess.run(["podman", "rmi", each], capture_output=True, check=False)
    return image


@contextlib.contextmanager
def started(name: str, label: str) -> Iterator[Host]:
    """Run a host from the snapshot of `name` while the block runs. It answers to that name at an address of its own.

    Args:
        name: what the inventory calls the host.
        label: what tells its container from others of the same snapshot.
    """
    host = Host(name, variables(name).get("app_name"), container=f"{label}-{TREE}-{name}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"snapshot-{TREE}-{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process makes it, and none removes it before it is used
        subprocess.run(["podman", "network", "create", "slipway"], capture_output=True, check=False)  # or it is there
        boot(snapshot(name), host, *CHANGED)
    try:
        within(30, host.healthy, 0.1)
        yield host
    finally:
        remove(host.container)
