"""Have a host build an app, and send it a packed source that is not small only when it lacks the build."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader

# Action plugins of a role cannot import each other.
Step: Any = action_loader.get("app_release", class_only=True)

# Bytes of a packed source up to which it goes along with the question whether it is needed: that spares four round trips.
SMALL = 2**18


class ActionModule(Step):
    """Run the module app_build; where it needs the source, or the wheels for it, transfer that and run it again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module."""
        result: dict[str, Any] = ActionBase.run(self, tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key not in ("archive", "packed", "wheels")}
        source = arguments["source"]
        packed = Path(source["archive"])
        along = not source.get("wheels") and not self._task.check_mode and packed.stat().st_size <= SMALL
        question = {**arguments, "packed": base64.b64encode(packed.read_bytes()).decode("ascii")} if along else arguments
        result.update(self.step("app_build", question, task_vars))
        needed = {"archive": result.pop("needs_archive", False), "wheels": result.pop("needs_wheels", False)}
        if result.get("failed") or not needed["archive"] or self._task.check_mode:
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        for name, local in (("archive", source["archive"]), ("wheels", (source.get("wheels") or {}).get("archive"))):
            if needed[name]:
                arguments[name] = self._connection._shell.join_path(directory, f"{name}.tar.gz")
                self._transfer_file(local, arguments[name])
        self._fixup_perms2((directory, *(arguments[name] for name in needed if needed[name])))
        result = self.step("app_build", arguments, task_vars)
        self._remove_tmp_path(directory)
        result.pop("needs_archive", None)
        result.pop("needs_wheels", None)
        return result
