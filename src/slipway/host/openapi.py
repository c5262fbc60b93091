"""What clients of one OpenAPI document would miss in another, told in lines for an operator."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
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


def breaking_changes(live: dict[str, Any], candidate: dict[str, Any]) -> list[str]:
    """Tell how clients of the live release would break if the candidate took over.

    Args:
        live: the OpenAPI document that clients were written for, of version 3.0 or 3.1.
        candidate: the one that is to replace it.

    Returns:
        One line for each change that breaks, sorted; empty where none does. What cannot be understood counts as anything.
    """
    found = set()
    successors = operations(candidate)
    for key, old in operations(live).items():
        if key in successors:
            for changes in (parameter_changes, body_changes, answer_changes, credential_changes):
                found |= {old["name"] + change for change in changes(live, candidate, old, successors[key])}
        else:
            found.add(f"{old['name']} is gone")
    return sorted(found)


def operations(document: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of a document, with names and parameters, by method and by path without names in braces."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path, value in mapping(mapping(document).get("paths")).items():
        item = follow(document, value)
        for method in METHODS:
            if method in item:
                operation = follow(document, item[method])
                parameters: dict[tuple[str, str], dict[str, Any]] = {}
                for entry in (*sequence(item.get("parameters")), *sequence(operation.get("parameters"))):
                    parameter = follow(document, entry)
                    where, name = str(parameter.get("in")), str(parameter.get("name"))
                    if where == "path":  # its place tells which it is
                        name = str(path.partition(f"{{{name}}}")[0].count("{"))
                    parameters[where, name.lower() if where == "header" else name] = parameter
                key = method, re.sub(r"\{[^}]*\}", "{}", path)
                found.setdefault(key, {**operation, "name": f"{method.upper()} {path}", "parameters": parameters})
    return found


def parameter_changes(live: Any, candidate: Any, old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Yield what is asked of the parameters of an operation that was not."""
    for (where, name), after in new["parameters"].items():
        before = old["parameters"].get((where, name), {})
        place = f"the {where if where in ('header', 'cookie') else 'parameter'} {before.get('name', after.get('name'))}"
        if before:
            yield from Comparison(live, candidate, True, text=True).lines(place, before.get("schema"), after.get("schema"))
        if where != "path" and after.get("required") is True and before.get("required") is not True:
            yield f" needs {place}, which {'was optional' if before else 'is new'}"


def body_changes(live: Any, candidate: Any, old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Yield what is asked of the body of an operation's request that was not."""
    before, after = follow(live, old.get("requestBody")), follow(candidate, new.get("requestBody"))
    if after.get("required") is True and before.get("required") is not True:
        yield f" needs a body, which {'was optional' if before else 'is new'}"
    taken = media(after)
    for kind, schema in media(before).items() if taken else ():
        match = kind if kind in taken else next((other for other in taken if fnmatchcase(kind, other)), None)
        if match is None:
            yield f" takes no {kind} any more"
        else:
            yield from Comparison(live, candidate, True, text="form" in kind).lines("the body", schema, taken[match])


def answer_changes(live: Any, candidate: Any, old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Yield what the answers to an operation's requests held and do not, or hold and did not."""
    answers = mapping(new.get("responses"))
    for status, answer in mapping(old.get("responses")).items():
        if not status.startswith("2"):
            continue
        if status not in answers:
            yield f" does not answer {status} any more"
            continue
        given = media(follow(candidate, answers[status]))
        for kind, schema in media(follow(live, answer)).items():
            match = kind if kind in given else next((other for other in given if fnmatchcase(other, kind)), None)
            if match is None:
                yield f": the answer {status} is not {kind} any more"
            else:
                yield from Comparison(live, candidate, False).lines(f"the answer {status}", schema, given[match])


def credential_changes(live: Any, candidate: Any, old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Yield what a client must show to be let in and did not."""
    before, after = credentials(live, old), credentials(candidate, new)
    if not all(any(needed <= shown for needed in after) for shown in before):
        words = [" or ".join(sorted({" and ".join(sorted(each)) or "nothing" for each in side})) for side in (after, before)]
        yield f" needs {words[0]} now (needed {words[1]})"


def credentials(document: Any, operation: dict[str, Any]) -> list[set[str]]:
    """Return what may be shown to be let in: alternatives, each the set of all that it takes, in words."""
    schemes = mapping(mapping(mapping(document).get("components")).get("securitySchemes"))
    found = []
    for entry in sequence(operation.get("security", mapping(document).get("security"))):
        needed = set()
        for name in mapping(entry):
            scheme = follow(document, schemes.get(name))
            if scheme.get("type") == "apiKey":
                needed.add(f"the {scheme.get('in')} {scheme.get('name')}")
            elif scheme.get("type") in ("oauth2", "openIdConnect"):
                needed.add("bearer authentication")
            else:
                needed.add(f"{scheme.get('scheme', name)} authentication".lower())
        found.append(needed)
    return found or [set()]


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
        mine, theirs = self.variants(0, inner), self.variants(1, outer)
        ones, others = self.as_text(mine, theirs) if self.text else (mine, theirs)
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
            found += min(results)[-1] if results else [self.change(mine, theirs)]
        self.depth -= 1
        # Models that hold each other are met along countless paths: the short ones tell all there is to tell.
        self.known[key] = sorted(set(found), key=lambda finding: (finding[0].count("."), finding))[:FINDINGS]
        return self.known[key]

    def as_text(self, mine: list[Plain], theirs: list[Plain]) -> tuple[list[Plain], list[Plain]]:
        """Return variants as they are in text: there null cannot be sent, one value is a list, too, and 5 a string."""
        single = {"type": "array", "minItems": 1, "maxItems": 1}
        lists = [other for other in theirs if other["type"] == "array" and fits(single, other)]
        theirs = theirs + [item for other in lists for item in self.variants(1, other.get("items"))]
        if any(other["type"] == "string" and fits({"type": "string"}, other) for other in theirs):
            theirs = [*theirs, {"type": "number"}, {"type": "boolean"}]
        return [one for one in mine if one["type"] != "null"], theirs

    def change(self, mine: list[Plain], theirs: list[Plain]) -> Finding:
        """Return a finding that says what all was allowed and what is."""
        if self.request:
            return "", "", f" must be {described(theirs)} now (was {described(mine)})"
        return "", "", f" may be {described(mine)} now (was {described(theirs)})"

    def plain(self, one: Plain, other: Plain) -> list[Finding]:
        """Return what the plain schema `one` allows and `other`, which is akin to it, does not."""
        found: list[Finding] = []
        if not fits(one, other):
            if "enum" in one and "enum" in other:
                words = listed(one["enum"])
                found.append(("", "", f" cannot be {words} any more" if self.request else f" may be {words} now, which is new"))
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
        mine, theirs = mapping(one.get("properties")), mapping(other.get("properties"))
        certain, needed = required(one), required(other)
        # An answer of listed fields holds no others; a request may.
        rest = one.get("additionalProperties", self.request or not mine)
        allowed = other.get("additionalProperties", True)
        found: list[Finding] = []
        for name in sorted({*mine, *theirs, *needed}):
            path = f".{name}"
            if self.request:
                if name in needed - certain:
                    found.append((path, "needs", f", which {'was optional' if name in mine else 'is new'}"))
                if name in mine and name not in theirs and allowed is False:
                    found.append((path, "takes no field", " any more"))
            elif name not in certain | set(mine):
                found.append((path, "has no field", " any more"))
            elif name in needed - certain:
                found.append((path, "may lack", ", which was always there"))
            if name in mine and (name in theirs or isinstance(allowed, dict)):
                found += below(path, self.schemas(mine[name], theirs.get(name, allowed)))
            elif name in theirs and isinstance(rest, dict) and self.request:
                found += below(path, self.schemas(rest, theirs[name]))
        if isinstance(allowed, dict):
            found += below(".*", self.schemas(rest, allowed))
        elif allowed is False and rest is not False and self.request:
            found.append(("", "", " takes no other fields any more"))
        return found

    def items(self, one: Plain, other: Plain) -> list[Finding]:
        """Return what `one` allows in the items of an array and `other` does not."""
        mine, theirs = sequence(one.get("prefixItems")), sequence(other.get("prefixItems"))
        most = one["maxItems"] if number(one.get("maxItems")) else math.inf
        found = []
        for place in range(max(len(mine), len(theirs)) + 1):
            if place < most:
                inner = mine[place] if place < len(mine) else one.get("items")
                outer = theirs[place] if place < len(theirs) else other.get("items")
                found += below(f"[{place}]" if place < max(len(mine), len(theirs)) else "[]", self.schemas(inner, outer))
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
            mine, theirs = mapping(one[key]), mapping(other[key])
            both[key] = {**theirs, **mine, **{name: joined(mine[name], theirs[name]) for name in set(mine) & set(theirs)}}
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
    mine, theirs = fixed(one), fixed(other)
    return not several or all(mine[name] & theirs[name] for name in set(mine) & set(theirs))


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
    return " or ".join(dict.fromkeys(map(words_of, variants))) or "nothing"


def words_of(one: Plain) -> str:
    """Return a plain schema in words, without its fields and items."""
    if "enum" in one:
        return ("one of " if len(one["enum"]) > 1 else "") + listed(one["enum"])
    kind = one["type"]
    words = {"any": "anything", "null": "null"}.get(kind, f"{'an' if kind[0] in 'aio' else 'a'} {kind}")
    tags = [f"{name} {listed(values)}" for name, values in fixed(one).items() if len(values) == 1]
    if tags:
        words += f" with {' and '.join(tags)}"
    elif kind == "object" and isinstance(one.get("title"), str):
        words += f" ({one['title']})"
    limits = " and ".join(limit[3].format(as_json(one[key])) for key, limit in LIMITS.items() if number(one.get(key)))
    if limits:
        limits = re.sub(r"at least (\S+)[ a-z]* and at most (\S+)", r"\1 to \2", limits)
        words += " of " + re.sub(r"(\S+) to \1(?!\S)", r"\1", limits)
    for key, phrase in (("multipleOf", "in steps of"), ("pattern", "matching"), ("format", "in the format")):
        if one.get(key) is not None:
            words += f" {phrase} {one[key] if isinstance(one[key], str) else as_json(one[key])}"
    return words


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
