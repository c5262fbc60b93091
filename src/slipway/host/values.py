"""The arguments of a step, validated."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from slipway.host.errors import ReleaseError

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def typed(value: object, kind: type) -> Any:
    """Return `value` as one of `kind`: an inventory may write a number or a truth as text.

    Raises:
        ValueError: when it stands for none.
    """
    if kind is bool and not isinstance(value, bool):
        if str(value).lower() not in BOOLEANS:
            raise ValueError
        return BOOLEANS[str(value).lower()]
    if kind in (int, float) and isinstance(value, (str, int, float)):
        return kind(value)
    if kind is str and isinstance(value, (str, int, float)):
        return str(value)
    if not isinstance(value, kind):
        raise ValueError
    return value


def merged(plain: Mapping[str, Any], secret: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a step; a dict that is in both is merged."""
    both = {name: merged(plain[name], value) for name, value in secret.items() if isinstance(plain.get(name), Mapping)}
    return {**plain, **secret, **both}


def arguments(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a step, with defaults for what is not given.

    Args:
        parameters: by name, the type of what must be given, or the default of what need not be.
        given: what was given.

    Raises:
        ReleaseError: when something is missing, unknown, or of another type.
    """
    unknown = sorted(set(given) - set(parameters))
    if unknown:
        raise ReleaseError(f"This step has no argument {', '.join(unknown)}; it has {', '.join(sorted(parameters)) or 'none'}.")
    found: dict[str, Any] = {}
    for name, default in parameters.items():
        required = isinstance(default, type)
        value = given.get(name)
        if value is None:
            if required:
                raise ReleaseError(f"This step needs {name}.")
            found[name] = copy.deepcopy(default)
            continue
        kind = default if required else str if default is None else type(default)
        try:
            found[name] = typed(value, kind)
        except ValueError as error:
            raise ReleaseError(f"{name} must be of the type {kind.__name__}, and {value!r} is not.") from error
    return found
