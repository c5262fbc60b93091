"""Have a host build an app, or have what another one built; send it what is not small only when it lacks the build."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from slipway.controller.step import StepAction

# Bytes of a packed source up to which it goes along with the question whether it is needed: that spares four round trips.
SMALL = 2**18


class BuildAction(StepAction):
    """Takes the step that builds; where it needs the source, wheels, or what another host built, sends that and takes it again.

    With `waits`, the name of a host, it only says whether the build is needed: that host is building it.
    """

    name = "build"
    pieces: tuple[str, ...] = ("archive", "wheels", "build", "venv")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key not in ("packed", "waits", *self.pieces)}
        waits, theirs = self._task.args.get("waits"), arguments.get("theirs") or {}
        if theirs:
            arguments["theirs"] = {piece: packed["digest"] for piece, packed in theirs.items()}
        along = {} if self._task.check_mode or waits or theirs else self.along(arguments["source"])
        result.update(self.step(self.name, {**arguments, **along}, task_vars))
        needed = [piece for piece in self.pieces if result.pop(f"needs_{piece}", False)]
        if result.get("failed") or not needed or self._task.check_mode:
            return result
        if waits:
            result.update(waits=waits, changed=False)
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        for piece in needed:
            arguments[piece] = self._connection._shell.join_path(directory, f"{piece}.tar.gz")
            self._transfer_file(str(self.local(piece, arguments, result)), arguments[piece])
        self._fixup_perms2((directory, *(arguments[piece] for piece in needed)))
        result = self.step(self.name, arguments, task_vars)
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
        if piece in ("build", "venv"):
            return Path(self._task.args["theirs"][piece]["file"])
        source = arguments["source"]
        return Path(source["archive"] if piece == "archive" else source["wheels"]["archive"])
