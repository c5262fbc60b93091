"""Call podman, and make it able to start containers on machines where it cannot by itself.

Two things stop it: crun refuses a machine that still has cgroup v1 hierarchies, and limits above the caller's own
are refused to a process without CAP_SYS_RESOURCE. One settings file mends both.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONTAINERS_CONF = Path("/etc/containers/containers.conf.d/50-slipway.conf")
INSTALL = "sudo apt-get install -y podman runc netavark aardvark-dns iptables"


class PodmanError(Exception):
    """Podman cannot be used; the message says why and what mends it."""


def podman(*arguments: str, within: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run podman quietly; one that takes more than `within` seconds counts as failed.

    Raises:
        PodmanError: podman is not installed.
    """
    command = ["podman", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=within, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {within} seconds")
    except FileNotFoundError:
        raise PodmanError(f"podman is not installed; run: {INSTALL}") from None


def last_lines(text: str, count: int) -> str:
    """Return the last `count` lines of `text` that are not blank."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))  # a progress bar is one line
    return "\n".join([line for line in lines if line.strip()][-count:])


def as_root(command: Sequence[str]) -> list[str]:
    """Prefix `command` with sudo unless this process is root already."""
    return [*([] if os.geteuid() == 0 else ["sudo"]), *command]


def start_trial_container() -> str:
    """Start a container that holds no more than this machine's /usr; return podman's complaint or nothing."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as root:
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr"):
            (Path(root) / name).mkdir()
        for name in ("bin", "lib", "lib64", "sbin"):
            (Path(root) / name).symlink_to(f"usr/{name}")
        options = ["--rm", "--security-opt=label=disable", "--volume=/usr:/usr:ro"]
        trial = podman("run", *options, "--rootfs", root, "/usr/bin/true", within=60)
    return "" if trial.returncode == 0 else last_lines(trial.stderr, 1) or f"code {trial.returncode}"


def containers_conf(unified_cgroups: bool, files: int, processes: int) -> str:
    """Compose the settings that let podman start containers.

    Args:
        unified_cgroups: whether the machine has cgroup v2 alone.
        files: how many open files a container may have; no more than this process's hard limit.
        processes: likewise, how many processes.
    """
    limits = f'"nofile={files}:{files}", "nproc={processes}:{processes}"'
    text = f"# Written by Slipway's script/image --prepare.\n[containers]\ndefault_ulimits = [{limits}]\n"
    if not unified_cgroups:
        text += 'pids_limit = 0\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    return text


def hard_limit(kind: int, most: int) -> int:
    """Return this process's hard limit of `kind`, but `most` at most."""
    hard = resource.getrlimit(kind)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def prepare() -> str:
    """Make podman able to start containers here and return one sentence about what that took.

    Raises:
        PodmanError: podman is missing or cannot be made to work.
    """
    if sys.platform != "linux":
        return "podman runs in a virtual machine of its own; nothing to prepare"
    complaint = start_trial_container()
    if not complaint:
        return "podman starts containers here; nothing to prepare"
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if unified and "rlimit" not in complaint:
        raise PodmanError(f"podman cannot start a container: {complaint}; all it needs comes with: {INSTALL}")
    if not unified and not shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        raise PodmanError(f"crun does not start containers beside cgroup v1, and runc is missing; run: {INSTALL}")
    files, processes = hard_limit(resource.RLIMIT_NOFILE, 10000), hard_limit(resource.RLIMIT_NPROC, 4096)
    script = f"mkdir -p {CONTAINERS_CONF.parent} && cat >{CONTAINERS_CONF} && chmod 0644 {CONTAINERS_CONF}"
    write = as_root(["sh", "-c", script])
    if subprocess.run(write, input=containers_conf(unified, files, processes), text=True, check=False).returncode != 0:
        raise PodmanError(f"cannot write {CONTAINERS_CONF}; run once as root: script/image --prepare")
    complaint = start_trial_container()
    if complaint:
        reason = f"podman cannot start a container even with {CONTAINERS_CONF}: {complaint}"
        raise PodmanError(f"{reason}; all it needs comes with: {INSTALL}")
    return f"podman could not start a container here; wrote {CONTAINERS_CONF}, and now it can"
