"""Tell apart what a step may show and what it may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from slipway.host.process import without_passwords

# Of what a step is told, what is never shown.
SECRET = {"settings", "credentials", "packed"}

# What a variable of an environment with a secret is called.
SECRET_NAME = re.compile(r"password|token|secret|key", re.IGNORECASE)


def split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of the `arguments` may be shown, and what may not.

    Of an environment only secrets are among the latter, and addresses with a password: whatever is not shown is masked in all
    that a step says, and to mask each 0 would mask all of it.
    """
    plain = {name: value for name, value in arguments.items() if name not in SECRET}
    secret: dict[str, Any] = {name: value for name, value in arguments.items() if name in SECRET and value}
    if isinstance(plain.get("configuration"), Mapping):
        plain["configuration"], hidden = split(plain["configuration"])
        if hidden:
            secret["configuration"] = hidden
    environment = plain.get("environment")
    if isinstance(environment, Mapping):
        hidden = {name: value for name, value in environment.items() if is_secret(name, value)}
        plain["environment"] = {name: value for name, value in environment.items() if name not in hidden}
        if hidden:
            secret["environment"] = hidden
    return plain, secret


def is_secret(name: str, value: object) -> bool:
    """Say whether a variable of an environment is not to be shown."""
    return bool(SECRET_NAME.search(name)) or without_passwords(str(value)) != str(value)
