"""The processes of an app beside its web server."""

from __future__ import annotations

from typing import Any

from slipway.controller.processes import errors, full

DOCUMENTATION = """
name: app_processes
short_description: Complete and check definitions of processes
description:
  - C(app_processes) completes what app_processes, or a Procfile, says of processes with what holds where it says nothing.
  - C(process_errors) lists what is wrong with it.
options:
  _input: {type: dict, required: true, description: "A command, or what is set, by the name of each process."}
  memory_mb: {type: int, description: "For C(app_processes): the memory limit of a process that sets none; 0 for none."}
"""

EXAMPLES = """
complete: "{{ {'worker': 'celery -A shop worker'} | app_processes(0) }}"
wrong: "{{ {'worker': ''} | process_errors }}"
"""

RETURN = """
_value: {type: raw, description: "The definitions by name, or the list of errors."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_processes": full, "process_errors": errors}
