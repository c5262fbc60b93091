"""The app as its module has it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def load(name: str) -> Any:
    """Import an app, and call what makes it where that needs no argument.

    Args:
        name: its module and its name there, such as `app.main:app`, or `app.main:create_app()` for what makes it.

    Raises:
        Exception: whatever the app raises.
        SystemExit: when it ends itself.
    """
    module, attribute = name.removesuffix("()").split(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    makes = name.endswith("()") or (inspect.isroutine(found) and not needs_arguments(found))
    return found() if makes else found


def needs_arguments(function: Any) -> bool:
    """Say whether a function cannot be called without arguments, or takes any number of them, as an app does."""
    parameters = inspect.signature(function).parameters.values()
    return any(each.default is each.empty and each.kind < each.KEYWORD_ONLY for each in parameters)
