"""Which run of Ansible this is, and whether another one is dead."""

from __future__ import annotations

import getpass
import hashlib
import multiprocessing
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any


class DeadRun(Exception):
    """The run of Ansible that this process belongs to was killed."""


def machine() -> str:
    """Return what tells this controller, since its last boot, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = str(uuid.getnode())
    return hashlib.sha256(f"{boot.strip()} {socket.gethostname()}".encode()).hexdigest()[:12]


# The time of files that change with this run, on all of its hosts: it is read before workers are forked.
STARTED = int(time.time())


def process(pid: int) -> str:
    """Return what tells the process `pid` from a later one of the same number; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = stat[stat.rindex(")") + 2 :].split()
        return "" if state == "Z" else f"{pid} {fields[18]}"
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    try:  # not a Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return str(pid)


def this_run() -> dict[str, str]:
    """Return who runs Ansible, where, and in which process: the parent of the worker that this is.

    Raises:
        DeadRun: when that process is dead: a worker that outlives it must not begin anything.
    """
    parent = multiprocessing.parent_process()
    running = process(parent.pid if parent and parent.pid else os.getpid())
    if not running:
        raise DeadRun("This run of Ansible was killed; nothing more is done in its name.")
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = str(os.getuid())
    return {
        "id": f"{machine()} {running}",
        "who": os.environ.get("USER") or who,
        "where": socket.gethostname(),
        "dead": "",
        "at": str(STARTED),
    }


def is_dead(owner: dict[str, Any]) -> bool:
    """Say whether the run that holds an app was one of this controller, and is no more."""
    name, _, running = str(owner.get("id", "")).partition(" ")
    pid = running.partition(" ")[0]
    return name == machine() and pid.isdigit() and process(int(pid)) != running
