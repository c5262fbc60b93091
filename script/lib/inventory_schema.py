"""Make JSON schemas of the inventory's files from the roles' argument specifications.

They follow draft 7, which the YAML language server supports best, and hold what the specifications hold: names, types, choices,
elements, descriptions. A run checks the rest, such as ranges, before it changes anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
# A template, or a value of Ansible Vault. Each fits every type.
TEMPLATE = r"\{\{|\{%|^\s*\$ANSIBLE_VAULT;"
# Texts that Ansible takes for a number or a truth value.
WHOLE = r"^-?(0|[1-9][0-9]{0,14})$"
DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?$"
TRUTH = r"^([yY]|[yY]es|YES|[nN]|[nN]o|NO|[tT]|[tT]rue|TRUE|[fF]|[fF]alse|FALSE|[oO]n|ON|[oO]ff|OFF|0|1)$"
ABSOLUTE = r"^(?!.*/\.\.(/|$))/[A-Za-z0-9._@+/-]+$"


def value(kind: str, choices: list[Any] | None = None, elements: str | None = None) -> Schema:
    """Return the schema of a value.

    Args:
        kind: its type in an argument specification.
        choices: the values that it may have, if only some.
        elements: the type of the elements of a list.

    Raises:
        KeyError: if there is no such type.
    """
    if choices:
        # Apart from a template, so that an editor offers the choices.
        return {"anyOf": [{"enum": choices}, {"type": "string", "pattern": TEMPLATE}]}
    schemas: dict[str, Schema] = {
        "str": {"type": "string"},
        "path": {"type": "string", "pattern": f"{TEMPLATE}|{ABSOLUTE}"},
        "int": {"type": ["integer", "string"], "pattern": f"{TEMPLATE}|{WHOLE}"},
        "float": {"type": ["number", "string"], "pattern": f"{TEMPLATE}|{DECIMAL}"},
        "bool": {"type": ["boolean", "string"], "pattern": f"{TEMPLATE}|{TRUTH}"},
        "list": {"type": ["array", "string"], "pattern": TEMPLATE},
        "dict": {"type": ["object", "string"], "pattern": TEMPLATE},
        "raw": {"type": ["object", "string"]},  # a text, or a mapping where there are several
    }
    schema = schemas[kind]
    return {**schema, "items": value(elements)} if elements else schema


def option(spec: Mapping[str, Any]) -> Schema:
    """Return the schema of an option of an argument specification, with its description and, if it is fixed, its default."""
    told = spec["description"]
    description = told if isinstance(told, str) else "\n".join(told)
    schema = {
        "description": re.sub(r"\bC\(([^()]*)\)", r"\1", description),
        **value(spec.get("type", "str"), spec.get("choices"), spec.get("elements")),
    }
    if "default" in spec and "{{" not in json.dumps(spec["default"]):
        schema["default"] = spec["default"]
    return schema


def variables(specs: Mapping[str, Mapping[str, Any]]) -> Schema:
    """Return the schema of a file of variables, such as one in host_vars, from the specifications of all roles."""
    options = {name: option(spec) for role in specs.values() for name, spec in role["options"].items()}
    return {
        "$schema": DRAFT,
        "title": "Variables of Slipway",
        "description": "A file in host_vars or group_vars, or the vars of a host or group.",
        "type": ["object", "null"],
        # A name with the prefix of a role must be one of the role's; all other names are people's own.
        "propertyNames": {"anyOf": [{"enum": [*options]}, {"not": {"pattern": rf"^({'|'.join(specs)})_"}}]},
        "properties": options,
    }


def hosts() -> Schema:
    """Return the schema of hosts.yml; that of variables stands in the file beside it."""
    group = {"$ref": "#/definitions/group"}
    return {
        "$schema": DRAFT,
        "title": "Hosts of Slipway",
        "description": "An inventory of Ansible in YAML: groups, with hosts, variables and groups in them.",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "properties": {
            "web": {"description": "Hosts that serve an app.", **all_of(group)},
            "balancer": {"description": "Hosts that distribute requests between those of web.", **all_of(group)},
            "monitoring": {"description": "The host that runs Prometheus.", **all_of(group)},
        },
        "additionalProperties": group,
        "definitions": {
            "group": {
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {
                    "hosts": {
                        "description": "Each host by its name, with variables of its own or without.",
                        "type": ["object", "null"],
                        "additionalProperties": {"$ref": "vars.json"},
                    },
                    "vars": {"description": "Variables of all hosts of the group.", **all_of({"$ref": "vars.json"})},
                    "children": {
                        "description": "Groups within this one.",
                        "type": ["object", "null"],
                        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                        "additionalProperties": group,
                    },
                },
            }
        },
    }


def all_of(reference: Schema) -> Schema:
    """Return a reference that may stand beside a description: draft 7 ignores what is beside a bare one."""
    return {"allOf": [reference]}
