"""Events of an Ansible run, handed to those who show them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import callback_loader, connection_loader, filter_loader, test_loader
from ansible.utils import color

from slipway.controller.commands import ROOT
from slipway.controller.display.advice import UNKNOWN_PROMPT, next_command, no_host, no_inventory
from slipway.controller.display.duration import duration
from slipway.controller.display.result import FAILED, ResultFile, exit_code, host_results
from slipway.controller.display.steps import Steps, role_of
from slipway.controller.display.summary import Summary
from slipway.controller.display.ticker import Ticker
from slipway.controller.program import program


class RunCallback(CallbackBase):
    """Listens to the run. What it raises Ansible turns into a warning."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.playbook = ""
        self.steps = Steps()
        self.summary = Summary()
        self.ticker: Ticker | None = None
        self.result: ResultFile | None = None
        # The groups that plays are for, how many plays there were, and in how many of them no host was.
        self.patterns: set[str] = set()
        self.plays = self.empty = 0
        # What other callbacks print may be for programs.
        printer = callback_loader.get(C.DEFAULT_STDOUT_CALLBACK, class_only=True)
        self.quiet = not (printer and issubclass(printer, Default))

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Check that there is an inventory, also beside what programs read, and begin, at a terminal, to show late hosts."""
        self.playbook = playbook._file_name
        self.begin_result()
        self.preload()
        for path in context.CLIARGS["inventory"]:
            if "," not in path and not os.path.exists(path):
                self.stop(no_inventory(path))
        if not self.quiet and sys.stdout.isatty() and color.ANSIBLE_COLOR:
            self.ticker = Ticker(self._display, self.get_option("patience"))
            self.ticker.start()

    @staticmethod
    def preload() -> None:
        """Load what most tasks need: each is run by a process that is forked from this one, and would load it again."""
        filter_loader.get("bool")  # and with it all others
        test_loader.get("defined")
        program()

    @staticmethod
    def preload_connections(play: Any) -> None:
        """Load the ways to the hosts, for the same reason: its options are in its documentation, which takes long to read."""
        inventory = play.get_variable_manager()._inventory
        places = [*inventory.groups.values(), *inventory.hosts.values()] if inventory else []
        for name in {str(C.DEFAULT_TRANSPORT), *(str(place.vars.get("ansible_connection", "")) for place in places)}:
            # What is worked out for each host, or is not there, is left to the task.
            if name and "{{" not in name:
                with contextlib.suppress(Exception):
                    connection_loader.get(name, class_only=True)

    def begin_result(self) -> None:
        """Begin the file with the result. A run goes on without it if it cannot be written."""
        name = self.get_option("result_file")
        try:
            self.result = ResultFile(ROOT / name if name else None, self.playbook, list(context.CLIARGS["inventory"]))
        except OSError as error:
            self._display.warning(f"The result of this run cannot be written: {error}")

    def display(self, text: str, color: str | None) -> None:
        """Print a line, unless what is printed is for programs."""
        if not self.quiet:
            self._display.display(text, color=color)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Count the play, and its roles."""
        self.plays += 1
        self.patterns |= set(map(str, play.hosts if isinstance(play.hosts, list) else [play.hosts]))
        self.preload_connections(play)
        self.steps.begin_play(play)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Count a play in which no host is."""
        self.empty += 1

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Print a line when the first task of another role begins."""
        step = self.steps.begin(role_of(task))
        if step:
            self.display(f"\n{step}, after {duration(time.monotonic() - self.began)}", C.COLOR_HIGHLIGHT)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note that a host is at work, unless it is people who are waited for."""
        if self.ticker and task.action.rpartition(".")[2] != "pause":
            self.ticker.begin(host.get_name(), task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note what it changed. What a playbook only tries, such as the doctor's, is its own matter."""
        host = self.finish(result)
        if result.is_changed() and result.task.check_mode == context.CLIARGS["check"]:
            self.summary.changed[host][role_of(result.task) or "playbook"] += 1
            self.summary.changed_tasks[host].append(result.task.get_name())

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Note that the host is done."""
        self.finish(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note what failed. Whether that was the end of it is known later."""
        self.summary.fail(self.finish(result), role_of(result.task), result.task.get_name(), result.result.get("msg"))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Note that it could not be reached, or that its sudo could not be spoken to."""
        role = UNKNOWN_PROMPT if UNKNOWN_PROMPT in str(result.result.get("msg")) else ""
        self.summary.fail(self.finish(result), role, result.task.get_name(), result.result.get("msg"))

    def finish(self, result: Any) -> str:
        """Note that a host has done its task and what it wants in the table, and return its name."""
        host: str = result.host.get_name()
        if self.ticker:
            self.ticker.end(host)
        self.summary.note(host, result.result.get("summary"))
        return host

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the result, and print the table and what to run next."""
        if self.ticker:
            self.ticker.stop()
        if self.result:
            self.result.finish(exit_code(stats), host_results(self.playbook, self.summary, stats))
        table = self.summary.table(stats, context.CLIARGS["check"])
        if table:
            for line, shade in table:
                self.display(line, shade)
            for (role, task), hosts in self.summary.failures(stats).items():
                self.display(f"\n{next_command(self.playbook, role, task, hosts)}", C.COLOR_ERROR)
            self.display(f"\nTook {duration(time.monotonic() - self.began)}.", None)
        # A group that only some inventories have is named in another way by a playbook, and is not in here then.
        if not self.quiet and self.plays == self.empty and self.patterns - {""}:
            self.stop(no_host(self.playbook, self.patterns))

    def stop(self, why: str) -> None:
        """End the run here, as one that failed: Ansible itself calls it a success that no host was found.

        Raises:
            SystemExit: always. Ansible turns any other exception into a warning.
        """
        if self.ticker:
            self.ticker.stop()
        if self.result:
            self.result.finish(FAILED, {}, why)
        self._display.display(f"\n{why}", color=C.COLOR_ERROR, stderr=self.quiet)
        raise SystemExit(FAILED)
