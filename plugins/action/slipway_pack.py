"""Have a host pack what it built, and bring that here for others."""

from __future__ import annotations

from slipway.controller.pack import PackAction
from slipway.host.build.packing import PARAMETERS

DOCUMENTATION = """
action: slipway_pack
short_description: Pack a build on a host, and fetch it for other hosts
description:
  - The packed files are in a directory that is removed at the end of this run of Ansible.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  build: {type: str, required: true, description: "The name of the build."}
  venv: {type: bool, required: true, description: "Whether its virtual environment is packed, too."}
"""

EXAMPLES = """
- name: Pack the build for other hosts
  slipway_pack:
    layout: {home: /opt/shop, runtime: /run/shop, logs: /var/log/shop}
    build: 33613584d06b
    venv: true
  register: packed
"""

RETURN = """
files:
  type: dict
  returned: success
  description: C(build) and, if it was asked for, C(venv), each with its C(file) here and its C(digest).
"""


class ActionModule(PackAction):
    """The action under its name."""

    _VALID_ARGS = frozenset(PARAMETERS) - {"folder", "run"}
