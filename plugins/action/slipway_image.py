"""Have an app's image on a host: built there, or built here and sent over."""

from __future__ import annotations

from slipway.controller.image import ImageAction
from slipway.host.build.image import PARAMETERS

DOCUMENTATION = """
action: slipway_image
short_description: Build or pull an app's image on a host
description:
  - It is built on the host, or on the controller and uploaded, or pulled from a registry.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  source: {type: dict, required: true, description: "What slipway_fetch returned."}
  name: {type: str, required: true, description: "The app's name."}
  engine: {type: str, required: true, description: "Program that builds and runs containers."}
  builder: {type: str, required: true, description: "Where the image is built."}
  recipe: {type: str, description: "The Dockerfile, if the source has none of its own."}
  arguments: {type: dict, description: "Build arguments."}
  static: {type: str, description: "Directory of static files, relative to the image's working directory."}
  files: {type: dict, description: "Files by name, which C(recipe) finds in the directory .slipway beside the source."}
  cache: {type: str, required: true, description: "Download cache of the build's user for this app."}
  credentials: {type: dict, description: "C(username) and C(password) for the registry."}
  environment: {type: dict, description: "Environment for the build, such as an index or a proxy."}
  user: {type: str, required: true, description: "Unprivileged user that runs hooks and C(recipe)."}
  room: {type: float, required: true, description: "MiB that must be free before a build."}
  shared: {type: dict, description: "Paths in the app's directory that lie in its shared directory, with their names there."}
  hooks: {type: dict, description: "Shell commands; C(before_build) and C(after_build) run here."}
  hook_timeout: {type: float, description: "Seconds that one of them may take."}
"""

EXAMPLES = """
- name: Build the app's image on the host
  slipway_image:
    layout: {home: /opt/shop, runtime: /run/shop, logs: /var/log/shop}
    source: "{{ fetched.source }}"
    name: shop
    engine: podman
    builder: host
    cache: /opt/uv/cache/shop
    user: _build-shop
    room: 500
  register: built
"""

RETURN = """
build: {type: str, returned: always, description: "The name of the build."}
"""


class ActionModule(ImageAction):
    """The action under its name."""

    _VALID_ARGS = frozenset(PARAMETERS) - {*ImageAction.payloads, "packed", "run"}
