"""Where a variable is set, and whether it is a role's own default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slipway.controller.variables.names import mentions


def follows(raw: Any, names: Iterable[str]) -> bool:
    """Say whether `raw` is a default that is made from the variables `names`, whose own faults are told where they are."""
    return isinstance(raw, (str, Mapping)) and "{{" in str(raw) and in_a_role(raw) and mentions(raw, names)


def where(name: str, value: Any, variables: Mapping[str, Any]) -> str:
    """Name the file, and where it is known the line, in which an operator changes the variable `name`."""
    origin = origin_of(value)
    if origin is not None and origin.path and not in_a_role(value):
        line = f":{origin.line_num}" if origin.line_num else ""
        return f"{os.path.relpath(origin.path)}{line}"
    if origin is not None and origin.description:
        return str(origin.description)
    inventory = Path(variables.get("inventory_dir") or ".")
    host = variables["inventory_hostname"]
    places = [f"host_vars/{host}", *(f"group_vars/{group}" for group in (*variables.get("group_names", ()), "all"))]
    for place in places:
        for file in (*inventory.glob(f"{place}.y*ml"), *inventory.glob(f"{place}/*")):
            for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                if re.match(rf"\s*{re.escape(name)}\s*:", text):
                    return f"{os.path.relpath(file)}:{number}"
    return f"{os.path.relpath(inventory / 'host_vars' / f'{host}.yml')}"


def origin_of(value: Any) -> Any:
    """Return what ansible-core remembers of where a value was written; None where it does not."""
    try:
        from ansible._internal._datatag._tags import Origin  # not public: a later core may move it
    except ImportError:
        return None
    return Origin.get_tag(value)


def in_a_role(value: Any) -> bool:
    """Say whether a value is a role's own default."""
    origin = origin_of(value)
    return origin is not None and re.search(r"/roles/[^/]+/(defaults|vars)/", origin.path or "") is not None
