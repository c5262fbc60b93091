"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

from slipway.controller.fetch import FetchAction

DOCUMENTATION = """
action: slipway_fetch
short_description: Fetch an app's source on the controller and pack it
description:
  - The packed source is named by its content, so that the same content is uploaded once and fetched from git once.
  - A package and a wheel become a source of one requirements file, so that all later steps are the same.
options:
  source: {type: str, required: true, description: "A directory, git repository, archive, wheel, or package as name==version."}
  version: {type: str, description: "Branch, tag or commit of a git repository. Empty for its default branch."}
  checksum: {type: str, description: "The digest of an archive or a wheel, as sha256 and 64 hex digits after a colon."}
  git_key: {type: str, description: "File with the private key for git over SSH."}
  git_token: {type: str, description: "Token for git over HTTPS."}
  directory: {type: str, description: "Directory of the app in the source. Empty for the source itself."}
  module: {type: str, description: "The app as module:attribute. Empty to look for the entrypoint of [tool.fastapi]."}
  processes: {type: dict, description: "Processes of the app that are set. Empty to read a Procfile."}
  requirements: {type: str, description: "File in that directory with the app's dependencies. Empty to detect it."}
  installer: {type: str, description: "Installer that will be used, uv or pip."}
  elsewhere: {type: bool, description: "Whether packages come from another index than the lock file names."}
  environment: {type: dict, description: "Environment for the installer, with the operator's package indexes in it."}
  source_builds: {type: bool, description: "Whether packages may be built from source."}
  interpreter: {type: str, description: "The host's Python, whose version is checked. Empty if an image brings its own."}
  base: {type: str, description: "Base of the app's image, if it runs in a container. C({python}) in it stands for the version."}
  python: {type: str, description: "The version of Python that the app runs on. Empty for one that the source allows."}
  minimum: {type: str, description: "The oldest Python that is accepted, as C(3.11)."}
  uv_version: {type: str, description: "The version of uv on hosts."}
  downloads: {type: str, description: "Where it gets a Python. Empty for its own place."}
  known: {type: dict, description: "Earlier result of this action in the same run, which is returned again."}
  wheelhouse: {type: str, description: "A directory of wheels for hosts without a package index."}
  exclude: {type: list, elements: str, description: "Names of files and directories to leave out, with wildcards."}
  timeout: {type: float, required: true, description: "Seconds that git, or a download, may take."}
  image: {type: str, description: "Image to pull instead; C(version) replaces its tag."}
  dockerfiles: {type: list, elements: str, description: "Names of Dockerfiles; the first that exists is used."}
  hooks: {type: dict, description: "Shell commands; C(before_fetch) and C(after_fetch) run here."}
  hook_timeout: {type: float, description: "Seconds that one of them may take."}
"""

EXAMPLES = """
- name: Fetch a version from git
  slipway_fetch: {source: "https://github.com/example/shop.git", version: v1.4, timeout: 120}
  register: fetched
"""

RETURN = """
source:
  type: dict
  returned: success
  description: >-
    The packed source (C(archive), C(digest)), its origin (C(revision), C(origin)), its C(entrypoint), and its dependencies
    (C(kind), C(requirements)), the Python it runs with (C(interpreter), C(base)), for C(slipway_build) and C(slipway_image).
"""


class ActionModule(FetchAction):
    """The action under its name."""
