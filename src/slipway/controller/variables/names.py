"""Names of variables: which one an expression names, and which one was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Ansible's own, which share their beginning with the role `inventory`.
MAGIC = {"inventory_dir", "inventory_file", "inventory_hostname", "inventory_hostname_short"}
# How alike two names must be, from 0 to 1, for one to count as the other misspelt.
ALIKE = 0.88


def mentions(expression: Any, names: Iterable[str]) -> bool:
    """Say whether an expression holds one of some names."""
    return not words(expression).isdisjoint(names)


def words(expression: Any) -> set[str]:
    """Return all that may be a name in an expression."""
    return set(re.findall(r"\w+", str(expression)))


def misspelt(names: Iterable[str], prefix: str, declared: Iterable[str]) -> dict[str, str | None]:
    """Find variables that no role declares but that were meant for the role `prefix`.

    Args:
        names: the names of all variables of a host.
        prefix: the role's name.
        declared: the names that the role declares.

    Returns:
        Each such name with the declared name that it resembles most, or None where it resembles none.
    """
    known = sorted(declared)
    found: dict[str, str | None] = {}
    for name in sorted(set(names) - set(known) - MAGIC):
        if name.startswith(f"{prefix}_"):
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.77)
            found[name] = near[0] if near else None
        elif not name.startswith(("ansible_", "_", "inventory_", "group", "hostvars", "playbook_", "role_")):
            near = [each for each in known if _swapped(name.lower(), each)]
            near = near or difflib.get_close_matches(name.lower(), known, n=1, cutoff=ALIKE)
            # python_minimum is no slip of the pen for app_python_minimum.
            if near and not (near[0].endswith(f"_{name}") or name.endswith(f"_{near[0]}")):
                found[name] = near[0]
    return found


def renamed_error(old: str, new: str, value: Any, old_values: Mapping[str, str]) -> str:
    """Return what an operator reads of a variable that has another name now.

    Args:
        old: its name in the inventory.
        new: its name now.
        value: its value, which may have another name, too.
        old_values: old values of the variable, and the values that replace them.
    """
    text = f"{old} was renamed {new}"
    if isinstance(value, str) and value in old_values:
        text += f", and its value {value} was renamed {old_values[value]}: write {new}: {old_values[value]}"
    return f"{text}."


def _swapped(one: str, other: str) -> bool:
    """Say whether two names differ by nothing but two neighbouring letters in each other's place."""
    places = [place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    return (
        len(one) == len(other)
        and len(places) == 2
        and places[1] == places[0] + 1
        and one[places[0]] == other[places[1]]
        and one[places[1]] == other[places[0]]
    )
