"""Check a host before anything on it is changed, and gather what packages it has."""

from __future__ import annotations

from typing import Any

from slipway.host import account, packages

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's name, empty for a host without an app.
    "app": "",
    # The user that runs it.
    "user": "",
}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Fail if the app would take something over, and return the host's packages as a fact.

    Returns:
        `ansible_facts`, with the names of the installed packages as `slipway_packages`.

    Raises:
        ReleaseError: when an account or a directory of the app's name is another's.
    """
    if given["app"]:
        account.check(given["app"], given["user"])
    return {"changed": False, "ansible_facts": {"slipway_packages": packages.installed()}}
