"""Say how far a run is, and at its end what became of each host."""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import callback_loader
from ansible.utils import color

from slipway.controller.commands import given_options
from slipway.host.tables import text_table

DOCUMENTATION = """
name: slipway
type: aggregate
short_description: How far a run is, and at its end what became of each host
description:
  - Adds to what C(default), or a callback made from it, prints. Beside others, such as C(ansible.posix.json), it prints nothing,
    but to standard error that there is no inventory.
  - The roles of a play are its steps; one line is printed when the next begins.
  - At a terminal, which hosts are still at work after a while stands in the last line.
  - A table at the end has a line for each host of which there is something to tell. What a role wants in it stands in a result,
    as C(summary); its keys are those of COLUMNS.
requirements: ["C(callbacks_enabled = slipway) in ansible.cfg"]
options:
  patience:
    type: float
    default: 10
    description: Seconds after which a task is called long.
    env: [{name: SLIPWAY_PATIENCE}]
    ini: [{section: callback_slipway, key: patience}]
"""

COLUMNS = {
    "host": "HOST",
    "changed": "CHANGED",
    "url": "URL",
    "release": "RELEASE",
    "version": "VERSION",
    "canary": "CANARY",
    "certificate_days": "CERT DAYS",
    "certificate": "CERTIFICATE",
}
PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
CLEAR = "\r\x1b[2K"

# How Ansible names a sudo that asks for its password in words that it does not know.
UNKNOWN_PROMPT = "waiting for privilege escalation prompt"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def role_of(task: Any) -> str:
    """Return the role that a task is of; empty where it is the playbook's own."""
    return str(task._role.get_name()) if task._role else ""


def near(path: str | Path) -> str:
    """Return a path as it is typed here."""
    return min(str(path), os.path.relpath(path), key=len)


class Ticker(threading.Thread):
    """Shows who is still at work in the last line of a terminal, which goes before anything else is written.

    Args:
        display: Ansible's; from now on it takes that line away first.
        patience: seconds after which a task is called long.

    Attributes:
        at_work: hosts, with when their task began, in seconds of the monotonic clock, and its name.
    """

    def __init__(self, display: Any, patience: float) -> None:
        super().__init__(daemon=True)
        self.patience = patience
        self.at_work: dict[str, tuple[float, str]] = {}
        self.over = threading.Event()
        self.shown = False
        write = display.display

        def display_alone(*arguments: Any, **options: Any) -> None:
            self.show("")
            write(*arguments, **options)

        display.display = display_alone

    def show(self, text: str) -> None:
        """Have `text` in the line, or nothing. No lock is held: Ansible forks whenever it likes."""
        if text or self.shown:
            self.shown = bool(text)
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), (CLEAR + text).encode(sys.stdout.encoding, "replace"))

    def run(self) -> None:
        """Look once a second."""
        while not self.over.wait(1):
            now = time.monotonic()
            late = {host: begun for host, begun in list(self.at_work.items()) if now - begun[0] >= self.patience}
            text = ""
            if late:
                since, task = min(late.values())
                text = f"{duration(now - since)} at [{task}]: {', '.join(late)}"
            self.show(text[: shutil.get_terminal_size().columns - 1])

    def stop(self) -> None:
        """Take the line away for good."""
        self.over.set()
        self.join(5)
        self.show("")


class CallbackModule(CallbackBase):
    """Listens to the run. What it raises Ansible turns into a warning."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slipway"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.playbook = ""
        self.roles: list[str] = []
        self.reached: set[str] = set()
        self.wanted: set[str] = set()
        self.changed: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.told: dict[str, dict[str, Any]] = collections.defaultdict(dict)
        self.failed: dict[str, tuple[str, str]] = {}
        self.ticker: Ticker | None = None
        # How many plays there were, and in how many of them no host was.
        self.plays = self.empty = 0
        # What other callbacks print may be for programs.
        printer = callback_loader.get(C.DEFAULT_STDOUT_CALLBACK, class_only=True)
        self.silent = not (printer and issubclass(printer, Default))

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """See that there is an inventory, also beside what programs read, and begin, at a terminal, to look who is late."""
        self.playbook = playbook._file_name
        for path in context.CLIARGS["inventory"]:
            if "," not in path and not os.path.exists(path):
                self.stop(f"There is no inventory {near(path)}: nothing was done. Name one that is there with -i.")
        self.disabled = self.silent
        if not self.silent and sys.stdout.isatty() and color.ANSIBLE_COLOR:
            self.ticker = Ticker(self._display, self.get_option("patience"))
            self.ticker.start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Count the play, and its roles as far as its tags let them run."""
        self.plays += 1
        self.wanted |= set(map(str, play.hosts if isinstance(play.hosts, list) else [play.hosts]))
        variables = play.get_variable_manager().get_vars(play=play)
        blocks = [block.filter_tagged_tasks(variables) for block in play.compile()]
        tasks = [task for block in blocks for task in block.get_tasks() if not task.implicit]
        self.roles = list(dict.fromkeys(role_of(task) for task in tasks if role_of(task)))
        self.reached = set()

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Count a play in which no host is."""
        self.empty += 1

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Say so when the first task of another role begins."""
        role = role_of(task)
        if not role or role in self.reached:
            return
        self.reached.add(role)
        if role not in self.roles:  # included on the way
            self.roles.append(role)
        if len(self.roles) > 1:
            step = f"[{self.roles.index(role) + 1}/{len(self.roles)}] {role}"
            self._display.display(f"\n{step}, after {duration(time.monotonic() - self.began)}", color=C.COLOR_HIGHLIGHT)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note that a host is at work, unless it is people who are waited for."""
        if self.ticker and task.action.rpartition(".")[2] != "pause":
            self.ticker.at_work[host.get_name()] = (time.monotonic(), task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note what it changed. What a playbook only tries, such as the doctor's, is its own matter."""
        host = self.heard(result)
        if result.is_changed() and result.task.check_mode == context.CLIARGS["check"]:
            self.changed[host][role_of(result.task) or "playbook"] += 1

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Note that the host is done."""
        self.heard(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note what failed. Whether that was the end of it is known later."""
        host = self.heard(result)
        self.failed[host] = (role_of(result.task), result.task.get_name())

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Note that it could not be reached, or that its sudo could not be spoken to."""
        role = UNKNOWN_PROMPT if UNKNOWN_PROMPT in str(result.result.get("msg")) else ""
        self.failed[self.heard(result)] = (role, result.task.get_name())

    def heard(self, result: Any) -> str:
        """Note that a host has done its task and what it wants in the summary, and return its name."""
        host: str = result.host.get_name()
        if self.ticker:
            self.ticker.at_work.pop(host, None)
        summary = result.result.get("summary")
        if isinstance(summary, Mapping):
            for key, value in summary.items():  # a host may say whatever it likes
                self.told[host][key] = "".join(filter(str.isprintable, str("" if value is None else value)))
        return host

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Sum it up."""
        if self.ticker:
            self.ticker.stop()
        failed: dict[tuple[str, str], list[str]] = {}
        rows, colors = [], []
        for host in sorted(stats.processed):
            count, changed = stats.summarize(host), self.changed[host]
            # Where a task of the playbook's own fails, as the doctor's last does, its message has said it all.
            broken = count["unreachable"] or (count["failures"] and self.failed.get(host, [""])[0])
            if broken:
                failed.setdefault(self.failed[host], []).append(host)
            if broken or changed or self.told[host]:
                words = ", ".join(f"{role} {times}" for role, times in changed.items()) or "nothing"
                rows.append({**self.told[host], "host": host, "changed": words})
                colors.append(C.COLOR_ERROR if broken else C.COLOR_CHANGED if changed else C.COLOR_OK)
        if rows:
            columns = {**COLUMNS, "changed": "WOULD CHANGE"} if context.CLIARGS["check"] else COLUMNS
            lines = text_table(rows, columns)
            for line, shade in zip(lines, [None, *colors], strict=True):
                self._display.display(line, color=shade)
            for (role, task), hosts in failed.items():
                self._display.display(f"\n{self.next_step(role, task, hosts)}", color=C.COLOR_ERROR)
            self._display.display(f"\nTook {duration(time.monotonic() - self.began)}.")
        # A group that only some inventories have is named in another way by a playbook, and is not in here then.
        if self.plays == self.empty and self.wanted - {""}:
            limit = context.CLIARGS["subset"]
            what = f"that -l {limit} leaves" if limit else f"of {', '.join(map(near, context.CLIARGS['inventory']))}"
            command = ["ansible-inventory", *given_options(), "--graph"]
            self.stop(
                f"No host {what} is in {', '.join(sorted(self.wanted))}, which {near(self.playbook)} is for: nothing was done. "
                f"The hosts there are: {shlex.join(command)}"
            )

    def stop(self, why: str) -> None:
        """End the run here, as one that failed: Ansible itself calls it a success that no host was found.

        Raises:
            SystemExit: always. Ansible turns any other exception into a warning.
        """
        if self.ticker:
            self.ticker.stop()
        self._display.display(f"\n{why}", color=C.COLOR_ERROR, stderr=self.silent)
        raise SystemExit(2)

    def next_step(self, role: str, task: str, hosts: list[str]) -> str:
        """Return where some hosts failed, and the command to run next."""
        names = ",".join(hosts)
        if role == UNKNOWN_PROMPT:
            said = f"{', '.join(hosts)} failed at [{task}]: sudo did not ask for the password in the words that Ansible expects."
            hint = "sudo-rs, the sudo of Ubuntu 25.10 and later, has others. If so, set in the inventory, then run this again:"
            return f"{said} {hint}\n    ansible_become_exe: sudo.ws"
        options = given_options()
        if not role:
            command = ["ansible", *options, "-m", "ping", names]
            return f"{', '.join(hosts)} cannot be reached since [{task}]. Try it with:\n    {shlex.join(command)}"
        playbook, word = (self.playbook, "Mend what it says, then") if role == "inventory" else (PLAYBOOKS / "doctor.yml", "Next")
        command = ["ansible-playbook", near(playbook), *options, "-l", names]
        return f"{', '.join(hosts)} failed at [{task}]. {word}:\n    {shlex.join(command)}"
