"""Hooks: the operator's own commands around fetching."""

from __future__ import annotations

from pathlib import Path

from slipway.host.process import shell


def run_hook(name: str, command: str, timeout: float, directory: Path) -> None:
    """Run a command of the operator's, as builds do on a host.

    Args:
        name: the hook.
        command: what the shell runs; nothing if it is empty.
        timeout: seconds that it may take.
        directory: where it runs.

    Raises:
        ReleaseError: when it fails or takes too long.
    """
    if command:
        variables = {"SLIPWAY_HOOK": name}
        shell(f"The hook {name} (app_hooks)", command, timeout, "app_hook_timeout", directory=directory, environment=variables)
