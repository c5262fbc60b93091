"""What an app runs beside its web server: which processes belong on this host, and how they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.store import Store
from slipway.host.supervisor import Program, Supervisor


def defined(layout: Store, number: int, first: bool | None = None) -> dict[str, dict[str, Any]]:
    """Return the definitions of the processes of release `number` that belong on this host, by their names.

    Args:
        layout: where the release is.
        number: the release; one that was made before there were processes has none.
        first: whether those that run on one host of the app alone run on this one; None for what the last run said.
    """
    if first is None:
        first = bool(layout.record(number).get("first", True))
    try:
        settings = json.loads((layout.release(number) / "runtime.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, dict[str, Any]] = settings.get("processes", {})
    return {name: each for name, each in found.items() if first or each["hosts"] == "all"}


def lacking(expected: Iterable[str], programs: list[Program], number: int) -> str:
    """Say which process of release `number` does not run as it should; empty where all do.

    Args:
        expected: the names of those that belong on this host.
        programs: what Supervisor knows.
        number: the release.
    """
    # Of two that have the same name, the one that is about to end is no longer the release's.
    own = [program for program in programs if program.release == number and program.states and program.state != "STOPPING"]
    states = {program.process: program.state for program in own}
    for name in expected:
        if states.get(name) not in ("RUNNING", "STARTING"):
            return f"its process {name} {f'is {states[name]}' if name in states else 'does not run'}"
    return ""


def programs_beside(supervisor: Supervisor, expected: Iterable[str]) -> list[Program]:
    """Return the programs beside the web server; none of an app that has none where Supervisor does not answer.

    Raises:
        ReleaseError: when it does not, and some are expected.
    """
    try:
        return supervisor.programs()
    except ReleaseError:
        if [*expected]:
            raise
        return []


def overview(definitions: dict[str, dict[str, Any]], programs: list[Program], live: int) -> list[dict[str, Any]]:
    """Return how each process is: those of the live release, and those of others that are at their last task.

    Returns:
        For each its `process`, `release`, `state`, and of how many `instances` how many are `running`.
    """
    found = []
    own = {program.process: program for program in programs if program.release == live and program.state != "STOPPING"}
    for name, definition in definitions.items():
        states = own[name].states if name in own else []
        facts = {"state": own[name].state if name in own else "UNKNOWN", "running": states.count("RUNNING")}
        found.append({"process": name, "release": live, "instances": definition["instances"], **facts})
    for program in programs:
        if program not in own.values() and not program.ended:
            running = len([state for state in program.states if state in ("RUNNING", "STOPPING")])
            facts = {"state": program.state, "running": running, "instances": len(program.states)}
            found.append({"process": program.process, "release": program.release, **facts})
    return found


def in_words(processes: list[dict[str, Any]], live: int) -> str:
    """Return an overview of processes for a table."""
    return ", ".join(
        f"{each['process']} {each['running']}/{each['instances']}"
        if each["release"] == live
        else f"{each['process']} of release {each['release']} {each['state'].lower()}"
        for each in processes
    )
