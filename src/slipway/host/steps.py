"""Steps of a playbook on a host: JSON in, JSON out."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from slipway.host.errors import ReleaseError
from slipway.host.install import install
from slipway.host.lock import Locked
from slipway.host.values import arguments, merged

# By the name of a step, the module that takes it.
STEPS = {
    "backup": "backup.step",
    "build": "build.step",
    "configuration": "configure.step",
    "doctor": "doctor",
    "haproxy_drain": "haproxy_drain",
    "haproxy_status": "haproxy_status",
    "image": "build.image",
    "jobs": "jobs.report",
    "logs": "read_logs",
    "pack": "build.packing",
    "preflight": "preflight",
    "redis": "redis",
    "release": "release.step",
    "releases": "releases",
    "run": "run",
    "status": "status",
    "tls_order": "tls.order",
    "tls_placeholder": "tls.placeholder",
    "uv": "uv",
}


class Step(Protocol):
    """A module that takes a step."""

    PARAMETERS: dict[str, Any]

    def step(self, given: dict[str, Any], check: bool) -> dict[str, Any]:
        """Take the step, and return its result; with `check`, only report what it would do."""


def run_step(name: str, given: Mapping[str, Any], run: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Take a step.

    Args:
        name: what it is called in `STEPS`.
        given: its arguments.
        run: the run of Ansible that it is a step of, for the lock.
        check: whether nothing may change.

    Returns:
        Its result, as of a module of Ansible: `failed` and `msg` if it failed, and `locked_by` if another run has the app.
    """
    module = cast(Step, importlib.import_module(f"slipway.host.{STEPS[name]}"))
    os.umask(0o022)  # the app must be able to read its build and its release, and Nginx static files
    known = {"run": run} if "run" in module.PARAMETERS else {}
    try:
        return module.step(arguments(module.PARAMETERS, {**given, **known}), check)
    except Locked as error:
        return {"failed": True, "msg": str(error), "locked_by": error.owner}
    except (ReleaseError, OSError) as error:
        return {"failed": True, "msg": str(error)}


def main(name: str, check: bool, places: Sequence[str] | None = None) -> int:
    """Run the step `name` with the arguments on standard input, and print its result.

    Args:
        name: what it is called in `STEPS`.
        check: whether nothing may change.
        places: where this program belongs, and the link to it, if it is to be installed first.

    Returns:
        0, or 1 if it failed.
    """
    if places:
        os.umask(0o022)
        try:
            install(*map(Path, places))
        except (ReleaseError, OSError) as error:
            json.dump({"failed": True, "msg": f"The program cannot be installed on this host: {error}"}, sys.stdout)
            return 1
        os.execv(sys.executable, [sys.executable, places[0], "step", name])
    request = json.load(sys.stdin)
    result = run_step(name, merged(request["arguments"], request.get("secrets") or {}), request.get("run") or {}, check)
    json.dump(result, sys.stdout)
    return 1 if result.get("failed") else 0
