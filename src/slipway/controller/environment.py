"""What may stand in an app's environment as it was written, and what YAML has made something else of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from slipway.controller.variables.origin import origin_of


def written(value: int) -> str:
    """Return the text of which YAML made a number, such as 0644; empty where nobody knows."""
    origin = origin_of(value)
    with contextlib.suppress(OSError, IndexError, TypeError, AttributeError):
        with open(origin.path, encoding="utf-8") as file:
            line = file.read().splitlines()[origin.line_num - 1]
        found = re.match(r"[-+\w:.]+", line[origin.col_num - 1 :])
        return found[0] if found else ""
    return ""


def kind(value: Any) -> str:
    """Return what a value is, where it can be no value of an environment; empty where it can."""
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, str):
        return ""
    if isinstance(value, int):
        return f"a number that YAML reads as {value}" if written(value) not in ("", str(value)) else ""
    if value is None:
        return "empty"
    if isinstance(value, float):
        return "a number with a point"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a dict" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def unfit(environment: Any) -> str:
    """Say of each value that is no text or whole number what it is and how to write it; its own text may be a secret."""
    if not isinstance(environment, Mapping):
        return ""
    spellings = {"a truth value": '"true", "yes" or what the app reads', "empty": '"" for an empty text'}
    found = [(name, kind(value)) for name, value in environment.items() if kind(value)]
    return "; ".join(f"{name} is {what}: write {name}: {spellings.get(what, 'its text in quotes')}" for name, what in found)
