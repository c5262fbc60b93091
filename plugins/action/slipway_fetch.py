"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

from slipway.controller.fetch import FetchAction

DOCUMENTATION = """
action: slipway_fetch
short_description: Fetch an app's source on the controller and pack it
description:
  - The packed source is named by its content, so that the same content is sent to a host once, and fetched from git once.
  - A package and a wheel become a source of one requirements file, so that all that comes after is the same.
options:
  source: {type: str, required: true, description: "A directory, git repository, archive, wheel, or package as name==version."}
  version: {type: str, description: "The branch, tag or commit of a git repository. Its default branch where it is empty."}
  checksum: {type: str, description: "The digest of an archive or a wheel, as sha256 and 64 hex digits after a colon."}
  git_key: {type: str, description: "The file of a private key that lets git in by SSH."}
  git_token: {type: str, description: "A token that lets git in by HTTPS."}
  directory: {type: str, description: "The folder of the source that holds the app. The source itself where it is empty."}
  requirements: {type: str, description: "The file in that folder that names the app's dependencies. Found where it is empty."}
  installer: {type: str, description: "What will install them, uv or pip."}
  elsewhere: {type: bool, description: "Whether packages come from another place than a lock file says."}
  environment: {type: dict, description: "Environment for the installer, with the operator's package indexes in it."}
  source_builds: {type: bool, description: "Whether packages may be built from source."}
  interpreter: {type: str, description: "The host's Python, to be asked for its version. Empty where an image has one."}
  base: {type: str, description: "The image that the app's own is made from, where it runs in a container."}
  known: {type: dict, description: "What this returned before in the same run, which is returned again."}
  wheelhouse: {type: str, description: "A directory of wheels for hosts without a package index."}
  exclude: {type: list, elements: str, description: "Names of files and folders that are left out, with wildcards."}
  timeout: {type: float, required: true, description: "Seconds that git, or a download, may take."}
  image: {type: str, description: "An image to pull instead, whose tag C(version) takes the place of."}
  dockerfiles: {type: list, elements: str, description: "Names of recipes for an image; the first that is there is taken."}
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
    Where the packed source is (C(archive), C(digest)), what it was made from (C(revision), C(origin)), and what names its
    dependencies (C(kind), C(requirements)), for C(slipway_build) and C(slipway_image).
"""


class ActionModule(FetchAction):
    """The action under its name."""
