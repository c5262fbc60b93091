"""Say how far a run is, and at its end what became of each host."""

from __future__ import annotations

from slipway.controller.display import RunCallback

DOCUMENTATION = """
name: slipway
type: aggregate
short_description: How far a run is, and at its end what became of each host
description:
  - Adds to what C(default), or a callback made from it, prints. Beside others, such as C(ansible.posix.json), it prints nothing,
    but to standard error that there is no inventory.
  - Writes the result of each run as JSON to C(result_file), which C(docs/run-json.md) describes.
  - The roles of a play are its steps; one line is printed when the next begins.
  - At a terminal, which hosts are still at work after a while stands in the last line.
  - A table at the end has a line for each host of which there is something to tell. What a role wants in it stands in a result,
    as C(summary); its keys are those of COLUMNS in C(src/slipway/controller/display/summary.py).
requirements: ["C(callbacks_enabled = slipway) in ansible.cfg"]
options:
  patience:
    type: float
    default: 10
    description: Seconds after which a task is called long.
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
