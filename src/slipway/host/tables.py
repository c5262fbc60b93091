"""A table for people at a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def width(text: str) -> int:
    """Return how many places of a terminal `text` takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def text_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Return the lines of a table, headings first.

    Args:
        rows: names to values; None is shown as nothing.
        columns: names, in order, to the headings of their columns.
    """
    cells = [[str("" if row.get(name) is None else row.get(name)) for name in columns] for row in rows]
    used = [index for index in range(len(columns)) if any(line[index] for line in cells)]
    lines = [list(columns.values()), *cells]
    widths = {index: max(width(line[index]) for line in lines) for index in used}
    return ["  ".join(line[index] + " " * (widths[index] - width(line[index])) for index in used).rstrip() for line in lines]
