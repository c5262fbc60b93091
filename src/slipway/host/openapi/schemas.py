"""Whether a schema takes all that another one does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from slipway.host.openapi.values import (
    ALTERNATIVES,
    DEPTH,
    FINDINGS,
    FREE_FORMATS,
    KINDS,
    LIMITS,
    Finding,
    Plain,
    as_json,
    below,
    bounds,
    choices,
    described,
    fixed,
    kind_of,
    listed,
    mapping,
    number,
    required,
    sequence,
    target,
)


class Comparison:
    """Compares what goes one way: in a request, or in an answer.

    What clients send must still be taken, and what they are sent must be what they know. So of the old and the new schema
    one, the inner, may allow nothing that the other, the outer, does not. In a request the old one is the inner.

    Args:
        live: the document of the old schemas.
        candidate: the document of the new ones.
        request: whether clients send it; otherwise they are sent it.
        text: whether values travel as text, as in a query or a form.
    """

    def __init__(self, live: Any, candidate: Any, request: bool, text: bool = False) -> None:
        self.documents = (live, candidate) if request else (candidate, live)
        self.request = request
        self.text = text
        self.known: dict[str, list[Finding]] = {}
        self.targets: dict[tuple[int, str], list[Plain]] = {}
        self.depth = 0

    def lines(self, place: str, old: Any, new: Any) -> Iterable[str]:
        """Yield what breaks from the old schema to the new one, in the words that follow the name of the operation."""
        for path, before, after in self.schemas(old, new) if self.request else self.schemas(new, old):
            path = path.lstrip(".")
            what = f"{place} {before} {path}" if before else f"{path} in {place}" if path else place
            yield f": {what}{after}"

    def schemas(self, inner: Any, outer: Any) -> list[Finding]:
        """Return what the inner schema allows and the outer one does not."""
        key = json.dumps([inner, outer], sort_keys=True)
        if key in self.known or self.depth == DEPTH:
            return self.known.get(key, [])
        self.known[key] = []  # it is being looked at: a recursive schema comes here again, and ends
        self.depth += 1
        mine, outer_variants = self.variants(0, inner), self.variants(1, outer)
        ones, others = self.as_text(mine, outer_variants) if self.text else (mine, outer_variants)
        several = any([one["type"] for one in side].count("object") > 1 for side in (ones, others))
        found = []
        for one in ones:
            if "enum" in one:
                one = {**one, "enum": one["enum"].difference(*(other.get("enum", ()) for other in others))}
            results = []
            for other in others:
                if akin(one, other, several):
                    result = self.plain(one, other)
                    results.append((bool(result), one.get("title") != other.get("title"), len(result), result))
            found += min(results)[-1] if results else [self.change(mine, outer_variants)]
        self.depth -= 1
        # Models that hold each other are met along countless paths: the short ones tell all there is to tell.
        self.known[key] = sorted(set(found), key=lambda finding: (finding[0].count("."), finding))[:FINDINGS]
        return self.known[key]

    def as_text(self, mine: list[Plain], outer_variants: list[Plain]) -> tuple[list[Plain], list[Plain]]:
        """Return variants as they are in text: there null cannot be sent, one value is a list, too, and 5 a string."""
        single = {"type": "array", "minItems": 1, "maxItems": 1}
        lists = [other for other in outer_variants if other["type"] == "array" and fits(single, other)]
        outer_variants = outer_variants + [item for other in lists for item in self.variants(1, other.get("items"))]
        if any(other["type"] == "string" and fits({"type": "string"}, other) for other in outer_variants):
            outer_variants = [*outer_variants, {"type": "number"}, {"type": "boolean"}]
        return [one for one in mine if one["type"] != "null"], outer_variants

    def change(self, mine: list[Plain], outer_variants: list[Plain]) -> Finding:
        """Return a finding that says what all was allowed and what is."""
        if self.request:
            return "", "", f" must be {described(outer_variants)} now (was {described(mine)})"
        return "", "", f" may be {described(mine)} now (was {described(outer_variants)})"

    def plain(self, one: Plain, other: Plain) -> list[Finding]:
        """Return what the plain schema `one` allows and `other`, which is akin to it, does not."""
        found: list[Finding] = []
        if not fits(one, other):
            if "enum" in one and "enum" in other:
                values = listed(one["enum"])
                found.append(("", "", f" cannot be {values} any more" if self.request else f" may be {values} now, which is new"))
            else:
                found.append(self.change([one], [other]))
        elif "enum" in one or one["type"] != other["type"]:
            return found
        if one["type"] == "object":
            found += self.fields(one, other)
        if one["type"] == "array":
            found += self.items(one, other)
        return found

    def fields(self, one: Plain, other: Plain) -> list[Finding]:
        """Return what `one` allows in the fields of an object and `other` does not."""
        mine, outer_variants = mapping(one.get("properties")), mapping(other.get("properties"))
        certain, needed = required(one), required(other)
        # An answer of listed fields holds no others; a request may.
        rest = one.get("additionalProperties", self.request or not mine)
        allowed = other.get("additionalProperties", True)
        found: list[Finding] = []
        for name in sorted({*mine, *outer_variants, *needed}):
            path = f".{name}"
            if self.request:
                if name in needed - certain:
                    found.append((path, "needs", f", which {'was optional' if name in mine else 'is new'}"))
                if name in mine and name not in outer_variants and allowed is False:
                    found.append((path, "takes no field", " any more"))
            elif name not in certain | set(mine):
                found.append((path, "has no field", " any more"))
            elif name in needed - certain:
                found.append((path, "may lack", ", which was always there"))
            if name in mine and (name in outer_variants or isinstance(allowed, dict)):
                found += below(path, self.schemas(mine[name], outer_variants.get(name, allowed)))
            elif name in outer_variants and isinstance(rest, dict) and self.request:
                found += below(path, self.schemas(rest, outer_variants[name]))
        if isinstance(allowed, dict):
            found += below(".*", self.schemas(rest, allowed))
        elif allowed is False and rest is not False and self.request:
            found.append(("", "", " takes no other fields any more"))
        return found

    def items(self, one: Plain, other: Plain) -> list[Finding]:
        """Return what `one` allows in the items of an array and `other` does not."""
        mine, outer_variants = sequence(one.get("prefixItems")), sequence(other.get("prefixItems"))
        most = one["maxItems"] if number(one.get("maxItems")) else math.inf
        found = []
        for place in range(max(len(mine), len(outer_variants)) + 1):
            if place < most:
                inner = mine[place] if place < len(mine) else one.get("items")
                outer = outer_variants[place] if place < len(outer_variants) else other.get("items")
                found += below(f"[{place}]" if place < max(len(mine), len(outer_variants)) else "[]", self.schemas(inner, outer))
        return found

    def variants(self, side: int, schema: Any, depth: int = 0) -> list[Plain]:
        """Return the plain schemas of which each allowed value fits one; `side` is 0 for inner schemas, 1 for outer ones."""
        if schema is False:
            return []
        if not isinstance(schema, dict) or depth > DEPTH:
            return [{"type": "any"}]
        parts = [self.variants(side, part, depth + 1) for part in sequence(schema.get("allOf"))]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            key = side, reference
            if key not in self.targets:
                self.targets[key] = [{"type": "any"}]  # for a reference that leads to itself
                self.targets[key] = self.variants(side, target(self.documents[side], reference), depth + 1)
            parts.append(self.targets[key])
        for keyword in ("anyOf", "oneOf"):
            choice = sequence(schema.get(keyword))
            if choice:
                parts.append([one for part in choice for one in self.variants(side, part, depth + 1)])
        tag = mapping(schema.get("discriminator")).get("propertyName")
        if tag and self.request:
            # Pydantic asks for the tag of a union even where it has a default.
            schema = {**schema, "required": [*required(schema), tag]}
        parts.append(plain(schema))
        if math.prod(map(len, parts)) > ALTERNATIVES:
            return [{"type": "any"}]
        found: list[Plain] = [{"type": "any"}]
        for part in parts:
            found = [both for one in found for other in part for both in merged(one, other)]
        return [*found, {"type": "null"}] if schema.get("nullable") is True else found


def plain(schema: dict[str, Any]) -> list[Plain]:
    """Return the plain schemas of a schema's own keywords, one for each type."""
    rest = {key: value for key, value in schema.items() if key not in ("enum", "const")}
    if rest.get("format") in FREE_FORMATS:
        del rest["format"]
    for keyword, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if rest.get(strict) is True:  # as in 3.0
            rest[strict] = rest.pop(keyword, None)
    patterns = mapping(schema.get("patternProperties"))
    if len(patterns) == 1:  # so Pydantic says dict[<a string with a pattern>, <this>]
        rest.setdefault("additionalProperties", next(iter(patterns.values())))
    given = schema.get("type")
    kinds = [kind for kind in (given if isinstance(given, list) else [given]) if isinstance(kind, str) and kind in KINDS]
    values = [(kind_of(value), as_json(value)) for value in choices(schema)]
    if values:
        found = [kind for kind in KINDS if not kinds or kind in kinds or (kind == "integer" and "number" in kinds)]
        listings = {kind: {value for other, value in values if other == kind} for kind in found}
        return [{**rest, "type": kind, "enum": listing} for kind, listing in listings.items() if listing]
    if given is None:
        kinds = ["object"] if "properties" in rest else ["array"] if "items" in rest or "prefixItems" in rest else []
    return [{**rest, "type": kind} for kind in kinds or ["any"]]


def merged(one: Plain, other: Plain) -> list[Plain]:
    """Return the plain schema of what two plain ones both allow, in a list, which is empty where that is nothing."""
    kinds = {one["type"], other["type"]} - {"any"} or {"any"}
    if kinds == {"integer", "number"}:
        kinds = {"integer"}
    both = {**other, **one, "type": min(kinds)}
    for key in set(one) & set(other):
        if key in LIMITS and number(one[key]) and number(other[key]):
            both[key] = (max if LIMITS[key][1] == 1 else min)(one[key], other[key])
        elif key == "enum":
            both[key] = one[key] & other[key]
        elif key == "required":
            both[key] = sorted(required(one) | required(other))
        elif key == "properties":
            mine, outer_variants = mapping(one[key]), mapping(other[key])
            both[key] = {
                **outer_variants,
                **mine,
                **{name: joined(mine[name], outer_variants[name]) for name in set(mine) & set(outer_variants)},
            }
        elif key == "items":
            both[key] = joined(one[key], other[key])
    return [] if len(kinds) > 1 or both.get("enum") == set() else [both]


def joined(one: Any, other: Any) -> Any:
    """Return the schema of what two schemas both allow; without repeats, for it would grow without end in a recursive one."""
    parts = []
    for schema in (one, other):
        for part in sequence(schema["allOf"]) if isinstance(schema, dict) and set(schema) == {"allOf"} else [schema]:
            if part not in parts:
                parts.append(part)
    return parts[0] if len(parts) == 1 else {"allOf": parts}


def akin(one: Plain, other: Plain, several: bool) -> bool:
    """Tell whether two plain schemas can be compared in detail; of `several` objects, a field with a fixed value tells which."""
    if other["type"] not in (one["type"], "any") and {one["type"], other["type"]} != {"integer", "number"}:
        return False
    mine, outer_variants = fixed(one), fixed(other)
    return not several or all(mine[name] & outer_variants[name] for name in set(mine) & set(outer_variants))


def fits(one: Plain, other: Plain) -> bool:
    """Tell whether all that `one` allows is of the type, the values and the limits of `other`, which is akin to it."""
    if "enum" in other:
        return "enum" in one and one["enum"] <= other["enum"]
    if one["type"] == "number" and other["type"] == "integer":
        return False
    mine = bounds(one)
    if any(tight > mine.get(what, (-math.inf, False)) for what, tight in bounds(other).items()):
        return False
    if "enum" in one:
        return True
    own, step = one.get("multipleOf", 1 if one["type"] == "integer" else None), other.get("multipleOf")
    if number(step) and step and not (number(own) and Fraction(str(own)) % Fraction(str(step)) == 0):
        return False
    return all(other.get(key) in (None, one.get(key)) for key in ("pattern", "format"))
