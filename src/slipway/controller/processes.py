"""The processes of an app beside its web server: what is wrong with a definition, and what it says in full."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
# The web server of a Procfile, and what Heroku runs before a release: app_module and app_migrate_command say that here.
NOT_PROCESSES = ("web", "release")

# What may be set of a process, with what holds otherwise; the limit of memory is that of the web server.
DEFAULTS: dict[str, Any] = {"hosts": "all", "instances": 1, "stop_seconds": 30}
HOSTS = ("all", "first")
MOST_INSTANCES = 64
LONGEST_STOP_SECONDS = 24 * 60 * 60
# Of a process that may run only once: a release that is live already waits for it, and is not watched meanwhile.
LONGEST_WAIT_SECONDS = 300
LEAST_MEMORY_MB = 16


def full(processes: Mapping[str, Any], memory_mb: int) -> dict[str, dict[str, Any]]:
    """Return definitions of processes in full, by their names.

    Args:
        processes: a command, or what is set, by the name of each process.
        memory_mb: the limit of one that sets none, in MiB; 0 for none.
    """
    found = {}
    for name, given in processes.items():
        settings = {"command": given} if isinstance(given, str) else given
        definition = {**DEFAULTS, "memory_mb": memory_mb, **settings}
        whole = {key: int(definition[key]) for key in ("instances", "stop_seconds", "memory_mb")}
        found[str(name)] = {"command": str(definition["command"]).strip(), "hosts": definition["hosts"], **whole}
    return found


def errors(processes: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with definitions of processes, each problem with the name that it is about."""
    found = []
    for name, given in processes.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            found.append(f"{name!r} is no name: 1 to 31 lower-case letters, digits, '-' or '_', starting with a letter")
        elif name in NOT_PROCESSES:
            instead = "app_module and app_server say how the app is served" if name == "web" else "app_migrate_command does that"
            found.append(f"{name} cannot be the name of a process: {instead}")
        elif isinstance(given, Mapping):
            found += [f"{name}: {error}" for error in _errors(given)]
        elif not isinstance(given, str) or not _is_command(given):
            found.append(f"{name} must be a command, or a dict with one as `command`")
    return found


def _errors(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with what is set of one process."""
    known = ("command", *DEFAULTS, "memory_mb")
    unknown = [str(key) for key in given if key not in known]
    found = [f"{', '.join(unknown)} cannot be set; {', '.join(known)} can"] if unknown else []
    if not _is_command(given.get("command")):
        found.append("`command` must be a command")
    hosts = given.get("hosts", DEFAULTS["hosts"])
    if hosts not in HOSTS:
        found.append("`hosts` must be all, or first for a process that may run only once")
    found += _of_range(given, "instances", 1, MOST_INSTANCES)
    if hosts == "first":
        found += _of_range(given, "stop_seconds", 1, LONGEST_WAIT_SECONDS, " with `hosts: first`, since a release waits for it")
    else:
        found += _of_range(given, "stop_seconds", 1, LONGEST_STOP_SECONDS)
    if given.get("memory_mb") not in (0, "0"):
        found += _of_range(given, "memory_mb", LEAST_MEMORY_MB, 2**20, ", or 0 for no limit")
    if hosts == "first" and str(given.get("instances", 1)) != "1":
        found.append("`instances` must be 1 with `hosts: first`, which is for a process that may run only once")
    return found


def _is_command(given: Any) -> bool:
    """Say whether this is a command."""
    return isinstance(given, str) and bool(given.strip()) and "\0" not in given


def _of_range(given: Mapping[str, Any], key: str, least: int, most: int, besides: str = "") -> list[str]:
    """Return what is wrong with a number that may be set."""
    value = given.get(key, least)
    whole = isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch(r"\d+", str(value))
    return [] if whole and least <= int(value) <= most else [f"`{key}` must be from {least} to {most}{besides}"]
