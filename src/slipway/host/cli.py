"""The command `slipway` on a host."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slipway.host import steps


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(prog="slipway", description="Looks after the apps that Slipway serves on this host.")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    step = commands.add_parser("step", help="take a step of a playbook, told by JSON on standard input")
    step.add_argument("name", choices=sorted(steps.STEPS), metavar="STEP", help=", ".join(sorted(steps.STEPS)))
    step.add_argument("--check", action="store_true", help="say what it would do, and change nothing")
    exporter = commands.add_parser("exporter", help="write a file of metrics for Prometheus again and again")
    exporter.add_argument("settings", help="a file of settings, in JSON")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    given = parser().parse_args(words)
    if given.command == "step":
        return steps.main(given.name, given.check)
    from slipway.host import exporter  # needs a package that only hosts with monitoring have

    exporter.main(given.settings)
    return 0
