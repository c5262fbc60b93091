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

    With `waits_for`, the name of a host, it only says whether the build is needed: that host is building it.
    """

    name = "build"
    payloads: tuple[str, ...] = ("archive", "wheels", "build", "venv")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key not in ("packed", "waits_for", *self.payloads)}
        waits_for, prebuilt = self._task.args.get("waits_for"), arguments.get("prebuilt") or {}
        if prebuilt:
            arguments["prebuilt"] = {payload: packed["digest"] for payload, packed in prebuilt.items()}
        inline_payload = {} if self._task.check_mode or waits_for or prebuilt else self.inline_payload(arguments["source"])
        result.update(self.step(self.name, {**arguments, **inline_payload}, task_vars))
        needed = [payload for payload in self.payloads if result.pop(f"needs_{payload}", False)]
        if result.get("failed") or not needed or self._task.check_mode:
            return result
        if waits_for:
            result.update(waits_for=waits_for, changed=False)
            return result
        self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        for payload in needed:
            arguments[payload] = self._connection._shell.join_path(directory, f"{payload}.tar.gz")
            self._transfer_file(str(self.local(payload, arguments, result)), arguments[payload])
        self._fixup_perms2((directory, *(arguments[payload] for payload in needed)))
        result = self.step(self.name, arguments, task_vars)
        self._remove_tmp_path(directory)
        for payload in self.payloads:
            result.pop(f"needs_{payload}", None)
        return result

    def inline_payload(self, source: dict[str, Any]) -> dict[str, str]:
        """Return what goes along with the question whether it is needed."""
        if not source.get("archive") or source.get("wheels") or Path(source["archive"]).stat().st_size > SMALL:
            return {}
        return {"packed": base64.b64encode(Path(source["archive"]).read_bytes()).decode("ascii")}

    def local(self, payload: str, arguments: dict[str, Any], answer: dict[str, Any]) -> Path:
        """Return the file on the controller that is sent as `payload`."""
        if payload in ("build", "venv"):
            return Path(self._task.args["prebuilt"][payload]["file"])
        source = arguments["source"]
        return Path(source["archive"] if payload == "archive" else source["wheels"]["archive"])
