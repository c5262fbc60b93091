#!/usr/bin/python
"""Read what an app, its server and Nginx logged, or what they have logged since."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.app_layout import Layout
from ansible.module_utils.app_log import File, Journal
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_logs
short_description: Read the logs of an app
description:
  - Nothing is changed.
  - Returns C(said), the lines of each log that has any, below its name, and C(positions), where they end.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  name: {type: str, required: true, description: "The app's name."}
  others: {type: list, elements: path, required: true, description: "Further logs, which are Nginx's."}
  lines: {type: int, default: 20, description: "How many of each log are wanted, the last ones."}
  grep: {type: str, default: "", description: "A regular expression that lines must have."}
  masked: {type: str, required: true, description: "What is masked: a regular expression, whose first group stays."}
  positions: {type: dict, default: {}, description: "Where an earlier call ended: what was said since is wanted, all of it."}
  wait: {type: float, default: 0, description: "Seconds to wait before."}
"""

JOURNAL = "the journal"


def main() -> None:
    """Read them."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "others": {"type": "list", "elements": "path", "required": True},
            "lines": {"type": "int", "default": 20},
            "grep": {"type": "str", "default": ""},
            "masked": {"type": "str", "required": True},
            "positions": {"type": "dict", "default": {}},
            "wait": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    wanted: dict[str, Any] = module.params
    try:
        re.compile(wanted["grep"])
    except re.error as error:
        module.fail_json(msg=f"grep must be a regular expression, and {wanted['grep']!r} is none: {error}.")
    time.sleep(wanted["wait"])
    layout = Layout(**wanted["layout"])
    logs = [*sorted(layout.logs.glob("*.log")), *map(Path, wanted["others"])]
    sources: dict[str, File | Journal] = {str(log): File(log) for log in logs}
    sources[JOURNAL] = Journal([f"{wanted['name']}-{number}" for number in layout.numbers()])
    before, after, said = wanted["positions"], {}, []
    for name, source in sources.items():
        if before:
            position: Any = before.get(name) or ("" if name == JOURNAL else [0, 0])
            lines, after[name] = source.since(position, wanted["grep"])
            after[name] = after[name] or position
        else:
            lines, after[name] = source.last(wanted["lines"], wanted["grep"])
        if lines:
            said += [f"== {name}", *(re.sub(wanted["masked"], r"\1********", line) for line in lines)]
    module.exit_json(said=said, positions=after)


if __name__ == "__main__":
    main()
