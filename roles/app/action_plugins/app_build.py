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

    pieces = ("archive", "wheels")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module."""
        result: dict[str, Any] = ActionBase.run(self, tmp, task_vars)
        module = self._task.action
        arguments = {key: value for key, value in self._task.args.items() if key not in ("packed", *self.pieces)}
        along = {} if self._task.check_mode else self.along(arguments["source"])
        result.update(self.step(module, {**arguments, **along}, task_vars))
        needed = [piece for piece in self.pieces if result.pop(f"needs_{piece}", False)]
        if result.get("failed") or "archive" not in needed or self._task.check_mode:
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        for piece in needed:
            arguments[piece] = self._connection._shell.join_path(directory, f"{piece}.tar.gz")
            self._transfer_file(str(self.local(piece, arguments, result)), arguments[piece])
        self._fixup_perms2((directory, *(arguments[piece] for piece in needed)))
        result = self.step(module, arguments, task_vars)
        self._remove_tmp_path(directory)
        for piece in self.pieces:
            result.pop(f"needs_{piece}", None)
        return result

    def along(self, source: dict[str, Any]) -> dict[str, str]:
        """Return what goes along with the question whether it is needed."""
        if not source.get("archive") or source.get("wheels") or Path(source["archive"]).stat().st_size > SMALL:
            return {}
        return {"packed": base64.b64encode(Path(source["archive"]).read_bytes()).decode("ascii")}

    def local(self, piece: str, arguments: dict[str, Any], answer: dict[str, Any]) -> Path:
        """Return the file on the controller that is sent as `piece`."""
        source = arguments["source"]
        return Path(source["archive"] if piece == "archive" else source["wheels"]["archive"])
