"""Have an app's image on a host: built there, or built here and sent over."""

from __future__ import annotations

from slipway.controller.image import ImageAction
from slipway.host.build.image import PARAMETERS

DOCUMENTATION = """
action: slipway_image
short_description: Have an app's image on a host
description:
  - It is built there, or here and sent over, or pulled from a registry.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  source: {type: dict, required: true, description: "What slipway_fetch returned."}
  name: {type: str, required: true, description: "The app's name."}
  engine: {type: str, required: true, description: "What builds and runs containers."}
  builder: {type: str, required: true, description: "Where the image is built."}
  recipe: {type: str, description: "The Dockerfile, where the source has none of its own."}
  arguments: {type: dict, description: "Build arguments."}
  static: {type: str, description: "The folder with static files, from the working directory of the image."}
  files: {type: dict, description: "Files by name, which C(recipe) finds in the folder .slipway beside the source."}
  cache: {type: str, required: true, description: "Where the build's user keeps what was downloaded for this app."}
  credentials: {type: dict, description: "C(username) and C(password) for the registry."}
  environment: {type: dict, description: "Environment for the build, such as an index or a proxy."}
  user: {type: str, required: true, description: "The build's user, who has no rights: hooks and C(recipe) run as that."}
  room: {type: float, required: true, description: "MiB that must be free before a build."}
  hooks: {type: dict, description: "Shell commands; C(before_build) and C(after_build) run here."}
  hook_timeout: {type: float, description: "Seconds that one of them may take."}
"""

EXAMPLES = """
- name: Pull the app's image
  slipway_image: "{{ arguments | combine({'source': fetched.source, 'name': 'shop', 'engine': 'podman', 'builder': 'host'}) }}"
"""

RETURN = """
build: {type: str, returned: always, description: "The name of the build."}
"""


class ActionModule(ImageAction):
    """The action under its name."""

    _VALID_ARGS = frozenset(PARAMETERS) - {*ImageAction.payloads, "packed", "run"}
