"""Build an app on a host, or install what another host built."""

from __future__ import annotations

from slipway.controller.build import BuildAction
from slipway.host.build.step import PARAMETERS

DOCUMENTATION = """
action: slipway_build
short_description: Build an app on a host, or install what another host built
description:
  - The source, wheels, or what another host built is sent only where it is needed.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  source: {type: dict, required: true, description: "What slipway_fetch returned."}
  prebuilt: {type: dict, description: "Digests of the C(build) and C(venv) of another host, which are installed instead."}
  interpreter: {type: str, required: true, description: "The host's own Python, used unless the source asks uv for another one."}
  downloads: {type: str, description: "Where uv gets that. Empty for its own place."}
  minimum: {type: str, required: true, description: "The oldest Python that is accepted, as C(3.11)."}
  installer: {type: str, required: true, description: "What makes the virtual environment."}
  uv: {type: str, required: true, description: "The uv program."}
  cache: {type: str, required: true, description: "Where the build's user keeps what was downloaded for this app."}
  server: {type: list, required: true, description: "Requirements of the server, added where the lock lacks them."}
  server_lock: {type: str, description: "The same with hashes, and all that they need, for locks that have hashes."}
  server_modules: {type: list, required: true, description: "Modules by which one sees whether it runs here."}
  extra: {type: list, description: "Requirements beside those of the source."}
  source_builds: {type: bool, description: "Whether packages may be built from source."}
  environment: {type: dict, description: "Environment for the installer, such as an index or a proxy."}
  user: {type: str, required: true, description: "The build's user, who has no rights. All code in a build runs as that."}
  room: {type: float, required: true, description: "MiB that must be free before a build."}
  shared: {type: dict, description: "Paths in the app's directory that lie in its shared directory, with their names there."}
  hooks: {type: dict, description: "Shell commands; C(before_build) and C(after_build) run here."}
  hook_timeout: {type: float, description: "Seconds that one of them may take."}
  waits_for: {type: str, description: "The host that is building it for this one, which then only says whether it needs that."}
"""

EXAMPLES = """
- name: Build the app
  slipway_build:
    layout: {home: /opt/shop, runtime: /run/shop, logs: /var/log/shop}
    source: "{{ fetched.source }}"
    interpreter: /usr/bin/python3
    minimum: "3.11"
    installer: uv
    uv: /opt/uv/bin/uv
    cache: /opt/uv/cache/shop
    server: [gunicorn, uvicorn-worker]
    server_modules: [gunicorn, uvicorn_worker]
    user: _build-shop
    room: 500
  register: built
"""

RETURN = """
build: {type: str, returned: always, description: "The name of the build."}
waits_for: {type: str, returned: "when another host builds it", description: "That host."}
"""


class ActionModule(BuildAction):
    """The action under its name."""

    _VALID_ARGS = frozenset(PARAMETERS) - {*BuildAction.payloads, "packed", "run"} | {"waits_for"}
