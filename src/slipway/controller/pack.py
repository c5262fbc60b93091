"""Have a host pack what it built, and bring that here for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import constants

from slipway.controller.step import StepAction


class PackAction(StepAction):
    """Takes the step that packs a build, and fetches what it packed into the directory that ends with this run of Ansible."""

    _supports_check_mode = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step, with `files`: by piece, the file here and its digest."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        result.update(self.step("pack", {**self._task.args, "folder": directory}, task_vars))
        result["files"] = {}
        for payload, digest in result.pop("digests", {}).items():
            file = Path(constants.DEFAULT_LOCAL_TMP, f"{(task_vars or {})['inventory_hostname']}-{payload}.tar.gz")
            self._connection.fetch_file(self._connection._shell.join_path(directory, f"{payload}.tar.gz"), str(file))
            result["files"][payload] = {"file": str(file), "digest": digest}
        self._remove_tmp_path(directory)
        return result
