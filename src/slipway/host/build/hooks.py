"""The operator's own commands in a build."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from slipway.host.build.builder import Builder
from slipway.host.build.links import validate_links
from slipway.host.process import shell


def hook(name: str, partial: Path, arguments: dict[str, Any], path: str = "") -> None:
    """Run one of the operator's commands as the build's user in a build that is not finished, where it is set.

    Args:
        name: which one.
        partial: the build, which that user may write to meanwhile.
        arguments: those of the step.
        path: a directory that goes before all others in PATH; empty for none.

    Raises:
        ReleaseError: when it fails or takes too long, or leaves a link that leads out of the build.
    """
    command = arguments["hooks"].get(name)
    if not command:
        return
    builder = Builder(arguments["user"], arguments["cache"])
    environment = {key: str(value) for key, value in arguments["environment"].items()}
    environment["PATH"] = ":".join(filter(None, [path, os.environ.get("PATH", "/usr/bin:/bin")]))
    with builder.having(partial) as own:
        shell(
            f"The hook {name} (app_hooks)",
            command,
            arguments["hook_timeout"],
            "app_hook_timeout",
            environment={**environment, **own, "SLIPWAY_HOOK": name},
            directory=partial / arguments["source"]["directory"],
            user=builder.user,
            confined=True,
        )
    validate_links(partial, venv=Path(path).parent if path else None)


def hooks_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the commands that take part in a build."""
    return {name: arguments["hooks"][name] for name in ("before_build", "after_build") if arguments["hooks"].get(name)}
