"""Tell apart what a step may show and what it may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from slipway.host.process import without_passwords

# Arguments of a step that are never shown.
SECRET = {"settings", "credentials", "packed", "secrets"}

# What a variable of an environment, or a header, with a secret is called.
SECRET_NAME = re.compile(r"password|token|secret|key|authorization|cookie", re.IGNORECASE)


def split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of the `arguments` may be shown, and what may not.

    Of an environment, and of the headers of a health check, only secrets are among the latter, and addresses with a password:
    whatever is not shown is masked in all that a step says, and to mask each 0 would mask all of it.
    """
    plain = {name: value for name, value in arguments.items() if name not in SECRET}
    secret: dict[str, Any] = {name: value for name, value in arguments.items() if name in SECRET and value}
    if isinstance(plain.get("configuration"), Mapping):
        plain["configuration"], hidden = split(plain["configuration"])
        if hidden:
            secret["configuration"] = hidden
    if is_secret("downloads", plain.get("downloads")):
        secret["downloads"] = plain.pop("downloads")
    if isinstance(plain.get("environment"), Mapping):
        plain["environment"], hidden = parted(plain["environment"])
        if hidden:
            secret["environment"] = hidden
    health = plain.get("health")
    if isinstance(health, Mapping) and isinstance(health.get("headers"), Mapping):
        shown, hidden = parted(health["headers"])
        plain["health"] = {**health, "headers": shown}
        if hidden:
            secret["health"] = {"headers": hidden}
    return plain, secret


def parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of `values` may be shown, by its name, and what may not."""
    hidden = {name: value for name, value in values.items() if is_secret(name, value)}
    return {name: value for name, value in values.items() if name not in hidden}, hidden


def is_secret(name: str, value: object) -> bool:
    """Say whether a variable of an environment, or a header, is not to be shown."""
    return bool(SECRET_NAME.search(name)) or without_passwords(str(value)) != str(value)
