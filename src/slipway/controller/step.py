"""Take a step on a host, in the name of this run of Ansible."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from slipway.controller.commands import as_typed, taking_over
from slipway.controller.identity import DeadRun, is_dead, this_run
from slipway.controller.program import program
from slipway.controller.secrets import split
from slipway.host.lock import owner_name


class StepAction(ActionBase):
    """Has the host's program take a step; the program is sent first where the host has another version of it.

    If a dead run of this controller had locked the app, the step is run once more.
    """

    _supports_check_mode = True

    def step(self, name: str, arguments: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the step `name` with `arguments`, and return its result."""
        try:
            run: dict[str, Any] = this_run()
        except DeadRun as error:
            raise AnsibleActionFail(str(error)) from error
        named = (task_vars or {}).get("__app_take_over_lock") or ""
        run["take_over"] = str(self._templar.template(named)) if named else ""
        plain, secret = split(arguments)
        for _ in range(2):
            result = self.call({"step": name, "arguments": plain, "secrets": secret, "run": run}, task_vars)
            owner = result.pop("locked_by", None)
            if not owner or not is_dead(owner):
                break
            run["dead"] = str(owner["id"])
        if result.get("msg"):
            result["msg"] = as_typed(result["msg"])
        if owner:
            result["msg"] += (
                f" If you are sure that that run is dead, take over its lock: {taking_over(owner_name(owner))}"
                " (this waits for a running step to end; a run that is not dead would stop halfway)."
            )
        return result

    def call(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module `slipway`, and once more with the program where the host has another one."""
        content, digest = program()
        options["program"] = digest
        result: dict[str, Any] = self._execute_module("slipway", module_args=options, task_vars=task_vars)
        if not result.pop("program_missing", False):
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        sent = self._connection._shell.join_path(directory, "slipway.pyz")
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "slipway.pyz")
            file.write_bytes(content)
            self._transfer_file(str(file), sent)
        self._fixup_perms2((directory, sent))
        result = self._execute_module("slipway", module_args={**options, "file": sent}, task_vars=task_vars)
        self._remove_tmp_path(directory)
        return result
