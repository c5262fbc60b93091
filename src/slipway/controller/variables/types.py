"""What a value of a variable may be."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS

# What an operator reads where the specification says the word on the left.
TYPE_NAMES = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number such as 1.5",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping of names to values",
}
# What texts and numbers may look like. A number with a leading zero means something else to half of all programs.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LONGEST = 4096
PATH = re.compile(r"/[A-Za-z0-9._@+/-]+")
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(WHOLE.pattern + r"(\.[0-9]{1,9})?")


def type_error(value: Any, spec: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> str | None:
    """Say what `value` must be, where it does not fit the option `spec` of an argument specification.

    Ansible's own check converts what it can, so that a list passes as text; this one takes a value as it stands.
    Text that holds a number or a truth value is taken for one, since `-e` hands over nothing but text.

    Args:
        value: the value.
        spec: the option.
        renamed: old values of the option, and the values that replace them.

    Returns:
        What the value must be, in words; None when it fits.
    """
    kind = spec.get("type", "str")
    expected = TYPE_NAMES.get(kind, kind)
    if value is None:
        return f"{expected}, and it is empty"
    if kind in ("str", "path") and isinstance(value, (bool, int, float, datetime.date)):
        return f"{expected}: put it in quotes"
    fits = {
        "str": lambda: isinstance(value, str),
        "path": lambda: isinstance(value, str),
        "int": lambda: not isinstance(value, bool) and WHOLE.fullmatch(str(value)) is not None,
        "float": lambda: not isinstance(value, bool) and DECIMAL.fullmatch(str(value)) is not None,
        "bool": lambda: (
            (value.lower() if isinstance(value, str) else value) in BOOLEANS if isinstance(value, (str, int)) else False
        ),
        "list": lambda: isinstance(value, list),
        "dict": lambda: isinstance(value, Mapping),
        "raw": lambda: True,
    }
    if not fits[kind]():
        return expected
    if kind == "path" and (not PATH.fullmatch(value) or ".." in value.split("/")):
        return "an absolute path of letters, digits and . _ @ + - /"
    choices = spec.get("choices")
    if choices and value not in choices:
        expected = f"one of {', '.join(map(str, choices))}"
        if renamed and value in renamed:
            return f"{expected} ({value} was renamed {renamed[value]})"
        near = difflib.get_close_matches(str(value), map(str, choices), n=1)
        return expected + (f" (did you mean {near[0]}?)" if near else "")
    if kind == "list" and "elements" in spec:
        for element in value:
            error = type_error(element, {"type": spec["elements"]})
            if error:
                return f"{expected}; each element must be {error}"
    return None


def fits_one_line(value: Any) -> bool:
    """Say whether a text, and each text of a list, is short and free of control characters; other values always are."""
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    return all(len(text) <= LONGEST and not CONTROL.search(text) for text in texts)
