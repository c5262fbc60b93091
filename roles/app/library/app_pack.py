#!/usr/bin/python
"""Pack a build, and its virtual environment, for other hosts."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ansible.module_utils.app_layout import Layout
from ansible.module_utils.app_lock import LEASE_SECONDS, Busy, lock
from ansible.module_utils.app_source import sha256
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_pack
short_description: Pack a build for other hosts
description:
  - What is packed is as app_build left it, but for the mark that it is complete, which each host makes for itself.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  build: {type: str, required: true, description: "The name of the build."}
  venv: {type: bool, required: true, description: "Whether its virtual environment is packed, too."}
  folder: {type: path, required: true, description: "Where the packed files go."}
  run: {type: dict, required: true, description: "The run of Ansible that this is a step of."}
"""


def pack(directory: Path, file: Path) -> str:
    """Pack a directory into the new `file`, and return the digest of that."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if member.name == "./.complete":
            return None
        if member.islnk():  # files that are one file to the file system need not be so elsewhere
            member.type, member.linkname = tarfile.REGTYPE, ""
            member.size = (directory / member.name).stat().st_size
        return member

    # Little is won by packing harder what two machines of one data centre send each other.
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(directory, ".", filter=plain)
    file.chmod(0o644)  # its directory is the login user's alone
    return sha256(file)


def main() -> None:
    """Pack the build."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "build": {"type": "str", "required": True},
            "venv": {"type": "bool", "required": True},
            "folder": {"type": "path", "required": True},
            "run": {"type": "dict", "required": True},
        },
    )
    layout, folder = Layout(**module.params["layout"]), Path(module.params["folder"])
    build = layout.builds / module.params["build"]
    digests = {}
    try:
        with lock(layout, module.params["run"], lease=LEASE_SECONDS):
            digests["build"] = pack(build, folder / "build.tar.gz")
            if module.params["venv"]:
                digests["venv"] = pack((build / ".venv").resolve(), folder / "venv.tar.gz")
    except Busy as error:
        module.fail_json(msg=str(error), holder=error.holder)
    except OSError as error:
        module.fail_json(msg=f"The build {build} cannot be packed for the other hosts: {error}")
    module.exit_json(changed=False, digests=digests)


if __name__ == "__main__":
    main()
