"""Run a step of a release on a host, in the name of this run of Ansible."""

from __future__ import annotations

import getpass
import hashlib
import multiprocessing
import os
import shlex
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader


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
        AnsibleActionFail: when that process is dead: a worker that outlives it must not begin anything.
    """
    parent = multiprocessing.parent_process()
    running = process(parent.pid if parent and parent.pid else os.getpid())
    if not running:
        raise AnsibleActionFail("This run of Ansible was killed; nothing more is done in its name.")
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


def is_dead(holder: dict[str, Any]) -> bool:
    """Say whether the run that holds an app was one of this controller, and is no more."""
    name, _, running = str(holder.get("id", "")).partition(" ")
    pid = running.partition(" ")[0]
    return name == machine() and pid.isdigit() and process(int(pid)) != running


def taking_over() -> str:
    """Return the command that does what this run does, though another one holds the app."""
    given, plugin = context.CLIARGS, filter_loader.get("given_options").j2_function
    playbook = next(iter(given.get("args") or ()), "site.yml")
    limit = ["-l", str(given["subset"])] if given.get("subset") else []
    command = shlex.join(["ansible-playbook", playbook, *plugin(), *limit, "-e", "app_take_over=true"])
    return f"{command}{', with what else was given as -e' if given.get('extra_vars') else ''}"


class ActionModule(ActionBase):
    """Run the module, and once more where a dead run of this controller held the app."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self.step(self._task.action, dict(self._task.args), task_vars))
        return result

    def step(self, module: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run `module` in the name of this run, and return its result."""
        run: dict[str, Any] = this_run()
        asked = (task_vars or {}).get("__app_take_over", False)
        run["take_over"] = boolean(self._templar.template(asked)) if asked else False
        for _ in range(2):
            result: dict[str, Any] = self._execute_module(module, module_args={**arguments, "run": run}, task_vars=task_vars)
            holder = result.pop("holder", None)
            if not holder or not is_dead(holder):
                break
            run["dead"] = str(holder["id"])
        if result.get("msg"):
            result["msg"] = filter_loader.get("as_typed").j2_function(result["msg"])
        if holder:
            result["msg"] += f" If that run is gone, take the app over from it: {taking_over()} (it waits for a step under way)."
        return result
