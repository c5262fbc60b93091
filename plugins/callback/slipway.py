"""Show the progress of a run and, at its end, the result of each host."""

from __future__ import annotations

from slipway.controller.display import RunCallback

DOCUMENTATION = """
name: slipway
type: aggregate
short_description: Show the progress of a run and the result of each host
description:
  - Adds to the output of C(default), or of a callback based on it. Beside others, such as C(ansible.posix.json), it prints only,
    to standard error, that an inventory is missing.
  - Writes the result of each run as JSON to C(result_file), which C(docs/run-json.md) describes.
  - The roles of a play are its steps; a line is printed when the next one begins.
  - At a terminal, the last line shows which hosts are late.
  - The table at the end has a row for each host with something to report. A role adds to it by C(summary) in a result, with
    the keys of COLUMNS in C(src/slipway/controller/display/summary.py).
requirements: ["C(callbacks_enabled = slipway) in ansible.cfg"]
options:
  patience:
    type: float
    default: 10
    description: Seconds after which a host is late.
    env: [{name: SLIPWAY_PATIENCE}]
    ini: [{section: callback_slipway, key: patience}]
  result_file:
    type: str
    default: .slipway/run.json
    description: File for the result of the run, from the project's directory if it is a relative path; empty for none.
    env: [{name: SLIPWAY_RESULT_FILE}]
    ini: [{section: callback_slipway, key: result_file}]
"""


class CallbackModule(RunCallback):
    """The callback under its name."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slipway"
    CALLBACK_NEEDS_ENABLED = True
