#!/usr/bin/python
"""Take a step on a host by the host's program, which is put there where it is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: slipway
short_description: Run a step with the program on a host
description:
  - The program is C(/opt/slipway/<version>/slipway.pyz). C(slipway step --help) on a host lists the steps.
  - If the host has another version, the action of the same name sends this project's first.
options:
  step: {type: str, required: true, description: "The name of the step."}
  arguments: {type: dict, default: {}, description: "Parameters of the step."}
  secrets: {type: dict, default: {}, description: "Parameters that are never shown."}
  run: {type: dict, default: {}, description: "Identity of this run of Ansible, for the deploy lock."}
  program: {type: str, required: true, description: "Version of the program."}
  file: {type: path, description: "Path of the uploaded program, if the host lacks it."}
"""

EXAMPLES = r"""
- name: Gather the status of the app
  slipway:
    step: status
    program: 0123456789ab
    arguments: {name: shop}
"""

RETURN = r"""
program_missing: {type: bool, returned: "if the host lacks the program", description: "Whether it must be uploaded first."}
"""

HOME = "/opt/slipway"
COMMAND = "/usr/local/bin/slipway"


def main() -> None:
    """Take the step."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True},
            "arguments": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "run": {"type": "dict", "default": {}},
            "program": {"type": "str", "required": True},
            "file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    path = os.path.join(HOME, given["program"], "slipway.pyz")
    options = ["--check"] if module.check_mode else []
    if not os.path.exists(path) or os.path.realpath(COMMAND) != path:
        if not given["file"]:
            module.exit_json(changed=False, program_missing=True)
        options = options or ["--install", path, COMMAND]
        path = given["file"]
    request = json.dumps({name: given[name] for name in ("arguments", "secrets", "run")})
    command = [sys.executable, path, "step", given["step"], *options]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    try:
        result = {**json.loads(done.stdout), "program": given["program"]}
    except ValueError:
        module.fail_json(msg=f"The step {given['step']} ended with exit code {done.returncode}:\n{done.stderr[-4000:]}")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
