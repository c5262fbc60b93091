"""A service under systemd that is started, and seen to work with its configuration."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from slipway.host.configure.change import newest
from slipway.host.errors import ReleaseError
from slipway.host.process import run

RELOAD_SECONDS = 10.0
SECONDS = 120.0


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl, whatever its exit code.

    Raises:
        ReleaseError: when it cannot be started, or takes longer than two minutes.
    """
    return run(["systemctl", *arguments], SECONDS, check=False)


class Service:
    """A service under systemd.

    Args:
        name: what systemd calls it.
        title: regular expression for the whole title of its worker processes; empty if it has none that a reload replaces.
        keeps: whether workers that only finish their last requests keep that title, so that only the newest one counts.
    """

    def __init__(self, name: str, title: str = "", keeps: bool = False) -> None:
        self.name = name
        self.title = title
        self.keeps = keeps

    def runs(self) -> bool:
        """Return whether it runs."""
        return systemctl("is-active", "--quiet", self.name).returncode == 0

    def starts_at_boot(self) -> bool:
        """Return whether it starts at boot."""
        return systemctl("is-enabled", "--quiet", self.name).returncode == 0

    def start(self) -> None:
        """Start it, now and at boot.

        Raises:
            ReleaseError: when it does not start, with what it says about that.
        """
        answer = systemctl("enable", "--now", self.name)
        if answer.returncode:
            status = systemctl("status", "--no-pager", self.name)
            raise ReleaseError(f"{self.name} does not start:\n{answer.stdout}{status.stdout}")

    def workers(self) -> dict[int, float]:
        """Return the process ids of its workers, with the time at which each was started, in seconds since 1970.

        Those that only finish their last requests are left out.
        """
        master = systemctl("show", "--property=MainPID", "--value", self.name).stdout.strip()
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        found = {}
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit() or master in ("", "0"):
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (directory / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
                title = (directory / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
                if fields[1] == master and re.fullmatch(self.title, title):
                    found[int(directory.name)] = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return dict([max(found.items(), key=lambda worker: worker[1])]) if self.keeps and found else found

    def is_older_than(self, paths: Sequence[str]) -> bool:
        """Return whether its workers were started before the last change of `paths`; one second is forgiven."""
        return bool(self.title) and any(started < newest(paths) - 1 for started in self.workers().values())

    def reload(self, seconds: float = RELOAD_SECONDS) -> None:
        """Reload it, and wait for workers that have the new configuration.

        Raises:
            ReleaseError: when there are none within `seconds`, with what it says about that.
        """
        before = set(self.workers())
        answer = systemctl("reload", self.name)
        deadline = time.monotonic() + seconds
        while answer.returncode == 0 and time.monotonic() < deadline:
            now = set(self.workers())
            if now and not now & before:
                return
            time.sleep(0.05)
        log = run(["journalctl", "--no-pager", "--lines=5", "--unit", self.name], SECONDS, check=False).stdout
        errors = run(["tail", "-n", "5", f"/var/log/{self.name}/error.log"], SECONDS, check=False).stdout
        raise ReleaseError(f"{self.name} did not take the new configuration:\n{answer.stdout}{log}{errors}")
