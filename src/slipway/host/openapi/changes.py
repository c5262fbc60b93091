"""What clients of one OpenAPI document would miss in another, told in lines for an operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from slipway.host.openapi.schemas import Comparison
from slipway.host.openapi.values import follow, mapping, media, sequence

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")


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
        types = [" or ".join(sorted({" and ".join(sorted(each)) or "nothing" for each in side})) for side in (after, before)]
        yield f" needs {types[0]} now (needed {types[1]})"


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
