#!/usr/bin/python
"""Install uv in a virtual environment of its own, by its hash."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: python_uv
short_description: Install uv by its hash
description:
  - uv is put into a virtual environment of its own, from the package index. One that is there is left alone.
  - Neither a command line nor a message shows what C(environment) holds.
options:
  interpreter: {type: path, required: true, description: "The Python that the virtual environment is made from."}
  program: {type: path, required: true, description: "Where uv is then, in the folder C(bin) of the virtual environment."}
  version: {type: str, required: true, description: "The version of uv."}
  hashes: {type: list, elements: str, required: true, description: "Digests that its wheel may have, as sha256:..."}
  environment: {type: dict, default: {}, description: "Environment for pip, such as an index or a proxy."}
"""

SECONDS = 600

# What a variable with a secret is called.
SECRET = re.compile(r"password|token|secret|key", re.IGNORECASE)


def main() -> None:
    """Install uv where it is not there."""
    module = AnsibleModule(
        argument_spec={
            "interpreter": {"type": "path", "required": True},
            "program": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "hashes": {"type": "list", "elements": "str", "required": True},
            "environment": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    program = module.params["program"]
    # Of what is not to be logged, only what is, or has, a password is kept out of messages: to mask each 0 would mask all.
    module.no_log_values = {
        str(value)
        for name, value in module.params["environment"].items()
        if SECRET.search(name) or re.search(r"//[^/\s]*@", str(value))
    }
    if os.path.exists(program) or module.check_mode:
        module.exit_json(changed=not os.path.exists(program))
    os.umask(0o022)
    environment = {**os.environ, **{name: str(value) for name, value in module.params["environment"].items()}}
    folder = os.path.dirname(program)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="ascii") as file:
        file.write(" ".join([f"uv=={module.params['version']}", *(f"--hash={digest}" for digest in module.params["hashes"])]))
        file.flush()
        pip = [os.path.join(folder, "pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        pip += ["--only-binary=:all:", "-r", file.name]
        for command in ([module.params["interpreter"], "-m", "venv", os.path.dirname(folder)], pip):
            try:
                done = subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=SECONDS,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                module.fail_json(msg=f"uv cannot be installed: {error}")
            if done.returncode:
                said = re.sub(r"//[^/\s]*@", "//***@", "\n".join(done.stdout.strip().splitlines()[-20:]))
                module.fail_json(
                    msg="uv cannot be installed: see to the host's network, name a mirror in python_index_url or a proxy in "
                    f"python_proxy, or do without it by python_installer: pip.\n{said}"
                )
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
