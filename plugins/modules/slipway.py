#!/usr/bin/python
"""Take a step on a host by the host's program, which is put there where it is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: slipway
short_description: Take a step on a host by the host's program
description:
  - The program is C(/opt/slipway/<version>/slipway.pyz), and C(slipway) on the path leads to it. What steps there are, and what
    each one does, tells C(slipway step --help) on a host.
  - Where the host has another version of it, the action of the same name sends the one of this project first.
options:
  step: {type: str, required: true, description: "The name of the step."}
  arguments: {type: dict, default: {}, description: "What the step is told."}
  secrets: {type: dict, default: {}, description: "What it is told besides, and is shown nowhere."}
  run: {type: dict, default: {}, description: "The run of Ansible that this is a step of."}
  program: {type: str, required: true, description: "The version of the program."}
  file: {type: path, description: "The program on this host, where the host lacks it."}
"""

EXAMPLES = r"""
- name: Gather the status of the app
  slipway:
    step: status
    arguments: {name: shop}
"""

RETURN = r"""
program_missing: {type: bool, returned: "when the host lacks the program", description: "Whether it is to be sent."}
"""

HOME = "/opt/slipway"
COMMAND = "/usr/local/bin/slipway"
NAME = "slipway.pyz"

# How many versions stay: what runs may still read from an older one.
KEPT = 3


def install(file: str, version: str) -> str:
    """Put the program where it belongs, and return its path.

    Raises:
        OSError: when that cannot be written.
        ValueError: when the file is another version.
    """
    with open(file, "rb") as source:
        content = source.read()
    if hashlib.sha256(content).hexdigest()[: len(version)] != version:
        raise ValueError(f"{file} is not the version {version} of the program: it was damaged on its way.")
    folder = os.path.join(HOME, version)
    path = os.path.join(folder, NAME)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    os.chmod(new, 0o755)
    os.rename(new, path)
    link = f"{COMMAND}.{os.getpid()}"
    os.makedirs(os.path.dirname(COMMAND), exist_ok=True)
    os.symlink(path, link)
    os.rename(link, COMMAND)
    versions = [os.path.join(HOME, name) for name in os.listdir(HOME) if os.path.exists(os.path.join(HOME, name, NAME))]
    for old in sorted(versions, key=os.path.getmtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def merged(plain: dict[str, Any], secret: dict[str, Any]) -> dict[str, Any]:
    """Return all that a step is told; what is a dict in both is one of both."""
    both = {name: merged(plain[name], value) for name, value in secret.items() if isinstance(plain.get(name), dict)}
    return {**plain, **secret, **both}


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
    path = os.path.join(HOME, given["program"], NAME)
    with contextlib.suppress(OSError):
        if os.path.realpath(COMMAND) != path:
            path = ""
    if not os.path.exists(path):
        if not given["file"]:
            module.exit_json(changed=False, program_missing=True)
        try:
            path = given["file"] if module.check_mode else install(given["file"], given["program"])
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"The program cannot be put on this host: {error}")
    told = {"arguments": merged(given["arguments"], given["secrets"]), "run": given["run"]}
    command = [sys.executable, path, "step", given["step"], *(["--check"] if module.check_mode else [])]
    done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, check=False)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        module.fail_json(msg=f"The step {given['step']} ended with exit code {done.returncode}:\n{done.stderr[-4000:]}")
    result["program"] = given["program"]
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
