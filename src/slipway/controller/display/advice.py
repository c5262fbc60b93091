"""What is wrong with a run, and the command to run next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from ansible import context

from slipway.controller.commands import ROOT, given_options, near

# How Ansible names a sudo that asks for its password in words that it does not know.
UNKNOWN_PROMPT = "waiting for privilege escalation prompt"


def next_command(playbook: str, role: str, task: str, hosts: list[str]) -> str:
    """Return where some hosts failed, and the command to run next.

    Args:
        playbook: the one that was run.
        role: the one that the task is of; empty if the hosts cannot be reached, UNKNOWN_PROMPT if their sudo cannot be spoken to.
        task: its name.
        hosts: their names.
    """
    names = ",".join(hosts)
    if role == UNKNOWN_PROMPT:
        message = f"{', '.join(hosts)} failed at [{task}]: sudo did not ask for the password in the words that Ansible expects."
        hint = "sudo-rs, the sudo of Ubuntu 25.10 and later, has others. If so, set in the inventory, then run this again:"
        return f"{message} {hint}\n    ansible_become_exe: sudo.ws"
    options = given_options()
    if not role:
        command = ["ansible", *options, "-m", "ping", names]
        return f"{', '.join(hosts)} cannot be reached since [{task}]. Try it with:\n    {shlex.join(command)}"
    path, advice = (playbook, "Mend what it says, then") if role == "preflight" else (ROOT / "playbooks" / "doctor.yml", "Next")
    command = ["ansible-playbook", near(path), *options, "-l", names]
    return f"{', '.join(hosts)} failed at [{task}]. {advice}:\n    {shlex.join(command)}"


def no_inventory(path: str) -> str:
    """Return that an inventory is not there."""
    return f"There is no inventory {near(path)}: nothing was done. Name one that is there with -i."


def no_host(playbook: str, patterns: Iterable[str]) -> str:
    """Return that no host is in any of the groups that a playbook is for, and the command that lists those there are."""
    limit = context.CLIARGS["subset"]
    what = f"that -l {limit} leaves" if limit else f"of {', '.join(map(near, context.CLIARGS['inventory']))}"
    command = ["ansible-inventory", *given_options(), "--graph"]
    return (
        f"No host {what} is in {', '.join(sorted(patterns))}, which {near(playbook)} is for: nothing was done. "
        f"The hosts there are: {shlex.join(command)}"
    )
