"""Have a host build an app, and send it the packed source only when it lacks the build."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Run the module app_build; where it needs the source, transfer that and run it again."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "archive"}
        result.update(self._execute_module("app_build", module_args=arguments, task_vars=task_vars))
        if result.get("failed") or not result.pop("needs_archive", False) or self._task.check_mode:
            return result
        self._make_tmp_path()
        archive = self._connection._shell.join_path(self._connection._shell.tmpdir, "source.tar.gz")
        self._transfer_file(arguments["source"]["archive"], archive)
        self._fixup_perms2((self._connection._shell.tmpdir, archive))
        arguments["archive"] = archive
        result = self._execute_module("app_build", module_args=arguments, task_vars=task_vars)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        result.pop("needs_archive", None)
        return result
