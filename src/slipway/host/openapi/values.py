"""What is in a document, and how it is told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any

KINDS = ("integer", "number", "string", "boolean", "array", "object", "null")
# What each keyword limits, 1 for a floor or -1 for a ceiling, whether the limit is itself ruled out, and how it is told.
LIMITS = {
    "minimum": ("low", 1, False, "at least {}"),
    "exclusiveMinimum": ("low", 1, True, "more than {}"),
    "maximum": ("high", -1, False, "at most {}"),
    "exclusiveMaximum": ("high", -1, True, "less than {}"),
    "minLength": ("short", 1, False, "at least {} characters"),
    "maxLength": ("long", -1, False, "at most {} characters"),
    "minItems": ("few", 1, False, "at least {} items"),
    "maxItems": ("many", -1, False, "at most {} items"),
    "minProperties": ("narrow", 1, False, "at least {} fields"),
    "maxProperties": ("wide", -1, False, "at most {} fields"),
}
# They say how a value is shown, and rule none out.
FREE_FORMATS = ("password", "binary")
# Nested deeper, or of more alternatives, a schema counts as anything, and no more is told of one: so all ends, and soon.
DEPTH = 40
ALTERNATIVES = 200
FINDINGS = 50
# A schema of one type, without references and combinations; "enum", where there is one, is a set of JSON texts.
Plain = dict[str, Any]
# Where in a schema something was found, and what is said before and after that place.
Finding = tuple[str, str, str]


def bounds(one: Plain) -> dict[str, tuple[float, bool]]:
    """Return how tight the limits of a plain schema are: the greater, the tighter."""
    found: dict[str, tuple[float, bool]] = {"short": (0, False), "few": (0, False), "narrow": (0, False)}
    for keyword, (what, sign, strict, _) in LIMITS.items():
        if number(one.get(keyword)):
            value = sign * one[keyword]
            if one["type"] == "integer":
                value, strict = math.floor(value) + 1 if strict else math.ceil(value), False
            found[what] = max(found.get(what, (-math.inf, False)), (value, strict))
    values = [json.loads(value) for value in one.get("enum", ())]
    if values and one["type"] in ("integer", "number"):
        found.update(low=(min(values), False), high=(-max(values), False))
    elif values and one["type"] == "string":
        found.update(short=(min(map(len, values)), False), long=(-max(map(len, values)), False))
    return found


def described(variants: list[Plain]) -> str:
    """Return plain schemas in words."""
    return " or ".join(dict.fromkeys(map(description, variants))) or "nothing"


def description(one: Plain) -> str:
    """Return a plain schema in words, without its fields and items."""
    if "enum" in one:
        return ("one of " if len(one["enum"]) > 1 else "") + listed(one["enum"])
    kind = one["type"]
    text = {"any": "anything", "null": "null"}.get(kind, f"{'an' if kind[0] in 'aio' else 'a'} {kind}")
    tags = [f"{name} {listed(values)}" for name, values in fixed(one).items() if len(values) == 1]
    if tags:
        text += f" with {' and '.join(tags)}"
    elif kind == "object" and isinstance(one.get("title"), str):
        text += f" ({one['title']})"
    limits = " and ".join(limit[3].format(as_json(one[key])) for key, limit in LIMITS.items() if number(one.get(key)))
    if limits:
        limits = re.sub(r"at least (\S+)[ a-z]* and at most (\S+)", r"\1 to \2", limits)
        text += " of " + re.sub(r"(\S+) to \1(?!\S)", r"\1", limits)
    for key, phrase in (("multipleOf", "in steps of"), ("pattern", "matching"), ("format", "in the format")):
        if one.get(key) is not None:
            text += f" {phrase} {one[key] if isinstance(one[key], str) else as_json(one[key])}"
    return text


def listed(values: Collection[str]) -> str:
    """Return some of the values, in words."""
    shown = sorted(values)[:8]
    return ", ".join(shown) + (f" and {len(values) - len(shown)} more" if len(values) > len(shown) else "")


def follow(document: Any, value: Any) -> dict[str, Any]:
    """Return the object that stands at `value` or where its reference leads; empty where nothing can be understood."""
    for _ in range(DEPTH):
        if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            break
        value = target(document, value["$ref"])
    return mapping(value)


def target(document: Any, reference: str) -> Any:
    """Return what a reference leads to; None where that is nothing in this document."""
    value = document if reference.startswith("#/") else None
    for step in reference.split("/")[1:]:
        value = mapping(value).get(step.replace("~1", "/").replace("~0", "~"))
    return value


def media(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of a body or an answer by media type."""
    return {kind.partition(";")[0].lower(): mapping(each).get("schema") for kind, each in mapping(value.get("content")).items()}


def below(path: str, findings: list[Finding]) -> list[Finding]:
    """Return findings as they are called one level up."""
    return [(path + rest, before, after) for rest, before, after in findings]


def fixed(one: Plain) -> dict[str, set[str]]:
    """Return the values of those fields of an object that may have listed ones only."""
    fields = {name: {as_json(value) for value in choices(field)} for name, field in mapping(one.get("properties")).items()}
    return {name: values for name, values in fields.items() if values}


def choices(schema: Any) -> list[Any]:
    """Return the values that a schema lists."""
    schema = mapping(schema)
    return [schema["const"]] if "const" in schema else sequence(schema.get("enum"))


def required(schema: dict[str, Any]) -> set[str]:
    """Return the names of the fields that an object must have."""
    return {name for name in sequence(schema.get("required")) if isinstance(name, str)}


def kind_of(value: Any) -> str:
    """Return the type of a value, as a schema calls it."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}.get(type(value), "null")


def as_json(value: Any) -> str:
    """Return a value as JSON, the same text for equal numbers."""
    value = int(value) if kind_of(value) == "integer" else value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def number(value: Any) -> bool:
    """Tell whether a value is a number, which true and infinity are not."""
    return kind_of(value) == "integer" or (isinstance(value, float) and math.isfinite(value))


def mapping(value: Any) -> dict[str, Any]:
    """Return a value that is an object; an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a value that is an array; an empty one otherwise."""
    return value if isinstance(value, list) else []
