"""The machine: room, memory, time, what was refused, and what was changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.host.doctor.subject import Subject, output
from slipway.host.finding import Finding, error, warning

# From where on a disk is called full, in percent.
FULL, NEARLY_FULL = 95, 85
SKEW_SECONDS = 60
RECENT = "-3 days"


def disks(subject: Subject) -> Iterator[Finding]:
    """Room, and inodes."""
    seen = set()
    for place in (subject.layout.home, subject.layout.logs, Path("/var/log"), Path("/var/lib"), Path("/tmp"), Path("/")):
        if not place.exists() or place.stat().st_dev in seen:
            continue
        seen.add(place.stat().st_dev)
        system = os.statvfs(place)
        capacity = system.f_blocks - system.f_bfree + system.f_bavail
        for what, part, whole in (("disk", system.f_bavail, capacity), ("inodes", system.f_favail, system.f_files)):
            used = 100 * (1 - part / whole) if whole else 0
            if used >= NEARLY_FULL:
                yield Finding(
                    "error" if used >= FULL else "warning",
                    f"The {what} of {place} {'are' if what == 'inodes' else 'is'} {used:.0f} % full",
                    f"{part} of {whole} {'blocks' if what == 'disk' else 'inodes'} are free.",
                    "Lower app_keep_releases and deploy, or: journalctl --vacuum-size=200M",
                )


def memory(subject: Subject) -> Iterator[Finding]:
    """What is free, and who was killed for want of it."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
    if sizes.get("MemAvailable", sizes["MemTotal"]) < sizes["MemTotal"] * 0.05:
        yield warning(
            "Memory is nearly used up",
            f"{sizes['MemAvailable'] // 1024} of {sizes['MemTotal'] // 1024} MiB are available.",
            "Lower app_workers, and deploy.",
        )
    lines = output("journalctl", "--dmesg", f"--since={RECENT}", "--no-pager", "--output=short-iso")[1].splitlines()
    lines += output("journalctl", f"--since={RECENT}", "--no-pager", "--output=short-iso", "_PID=1")[1].splitlines()
    killed = [line for line in lines if re.search(r"Out of memory|oom-kill|OOM killer", line)]
    if killed:
        yield warning("Processes were killed for want of memory", killed[-1], "Lower app_workers, or add memory.")


def clock(subject: Subject) -> Iterator[Finding]:
    """The time."""
    skew = time.time() - subject.arguments["now"]
    if abs(skew) > SKEW_SECONDS:
        yield error("The clock is wrong", f"It is {skew:+.0f} s off the controller's.", "timedatectl set-ntp true")


def guards(subject: Subject) -> Iterator[Finding]:
    """What SELinux refused."""
    if output("getenforce")[1] != "Enforcing":
        return
    code, text = output("ausearch", "--message", "AVC", "--start", "yesterday")
    if code == 127:
        text = output("journalctl", "_TRANSPORT=audit", f"--since={RECENT}", "--no-pager", "--output=cat")[1]
    ours = ('comm="nginx"', str(subject.layout.home), str(subject.layout.runtime), str(subject.layout.logs))
    denied = [line for line in text.splitlines() if "denied" in line and any(pattern in line for pattern in ours)]
    if denied:
        yield error("SELinux refuses something to Nginx or the app", denied[-1], "ansible-playbook site.yml --tags nginx")


def reboot(subject: Subject) -> Iterator[Finding]:
    """Whether updates wait for a reboot."""
    if Path("/run/reboot-required").exists() or output("needs-restarting", "-r")[0] == 1:
        names = Path("/run/reboot-required.pkgs")
        text = names.read_text(encoding="utf-8").split() if names.exists() else []
        yield warning("Updates wait for a reboot", ", ".join(sorted(set(text))), "systemctl reboot")


def drift(subject: Subject) -> Iterator[Finding]:
    """What somebody changed by hand."""
    if subject.arguments["drift"]:
        files = ", ".join(subject.arguments["drift"])
        yield warning("Files are not what the roles would write", files, "ansible-playbook site.yml --check --diff")


CHECKS = (disks, memory, clock, guards, reboot, drift)
