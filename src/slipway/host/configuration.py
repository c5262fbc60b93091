"""What was set for each app of this host: one file for each, which a run's first step writes and the others read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import write
from slipway.host.values import arguments

# Where the files are. They hold secrets.
DIRECTORY = Path("/etc/slipway/apps")

# What is set for an app: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name. A program is called `<name>-<release>`.
    "name": str,
    # The user that runs the app. Its group may read the settings.
    "user": str,
    # The folder of the build in which the app runs.
    "directory": str,
    # The build to release.
    "build": str,
    # What the state of the source is called, such as a commit.
    "revision": str,
    # What the operator called it, such as a tag.
    "version": "",
    # Where the source came from.
    "origin": str,
    # What the runtime is configured with, besides the facts of the release.
    "runtime": dict,
    # What runs containers, where the release is run in one.
    "engine": "",
    # The environment of the app, as a JSON object.
    "settings": str,
    # Which of the settings are shown nowhere.
    "secret_names": list,
    # The section for Supervisor.
    "program": str,
    # Those of the app's processes beside its web server, by their names.
    "process_programs": {},
    # Where Supervisor looks for sections.
    "program_directory": str,
    # What the names of those files end with.
    "program_suffix": str,
    # `path`, `status`, `body`, `headers`, `host`, `attempts`, and `timeout` in seconds.
    "health": dict,
    # Where the OpenAPI document is that is compared; empty to compare none.
    "openapi_path": str,
    # `host`, `port` and `tls` of the public endpoint on this host.
    "endpoint": dict,
    # Where Nginx logs the app's answers, as JSON.
    "access_log": str,
    # Further logs, which are Nginx's.
    "logs": [],
    # What is masked in logs: a regular expression, whose first group stays.
    "masked": "()",
    # What the doctor looks at besides: `group`, `certificate`, `authority` and `domains`.
    "doctor": {},
    # The `command` of the migration, and its `timeout` in seconds.
    "migrate": dict,
    # Commands by the names of hooks.
    "hooks": dict,
    # Seconds that a hook may take.
    "hook_timeout": float,
    # Folders of the shared directory that Nginx serves, by their names there, and the group of its processes.
    "served": {},
    # What runs at times, by name: `schedule`, `calendars` of systemd, `command`, `hosts` and `timeout` in seconds.
    "jobs": {},
    # Whether this is the first host of the app in the inventory, which runs what only one host may.
    "first": True,
    # How many of the release's programs Nginx hands requests to.
    "instances": 1,
    # Seconds after the switch in which the release is watched.
    "watch": float,
    # Seconds after which a request hangs that has no answer; 0 to look at none.
    "hang": 0.0,
    # Seconds between the switch and the end of the old release, at least.
    "drain": float,
    # Seconds that Supervisor gives a program to stop.
    "stop": float,
    # How many earlier releases stay on the host.
    "keep": int,
    # MiB of free space required on the disk of the app's home.
    "room": float,
    # Whether to roll back to a release made for another schema.
    "across_migrations": False,
    # Whether a rollback runs the release with its original settings, or with the current ones.
    "rollback_settings": "original",
    # Where clients find the app, for the summary at the end of a run.
    "url": "",
}

# What is there once a build was made, and stays what it was when only the rest is set.
BUILT = ("build", "revision", "origin")


class UnknownApp(ReleaseError):
    """This host has no such app."""


def apps() -> list[str]:
    """Return the names of the apps of this host."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def configured(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole configuration.

    Raises:
        ReleaseError: when something is missing, unknown, or of another type.
    """
    return arguments(PARAMETERS, given)


def load(name: str) -> dict[str, Any]:
    """Return the configuration of an app.

    Raises:
        UnknownApp: when there is none.
        ReleaseError: when its file is damaged, or was written by another version.
    """
    file = DIRECTORY / f"{name}.json"
    try:
        return configured(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        there = ", ".join(apps()) or "none"
        raise UnknownApp(f"This host has no app {name}; it has {there}. To deploy one: playbooks/deploy.yml") from error
    except (ValueError, ReleaseError) as error:  # it was cut off, or another version wrote it
        raise ReleaseError(f"{file} is invalid ({error}): playbooks/deploy.yml rewrites it.") from error


def save(configuration: dict[str, Any], check: bool) -> bool:
    """Write the configuration of an app, and say whether it is another one than before.

    Without a build in it, the one that was there before stays.

    Args:
        configuration: a whole one.
        check: whether nothing may change.
    """
    file = DIRECTORY / f"{configuration['name']}.json"
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = {}
    if not configuration["build"]:
        configuration = {**configuration, **{name: before.get(name, "") for name in BUILT}}
    # Where it is in the inventory is remembered with the live release.
    changed: bool = {**configuration, "first": None} != {**before, "first": None}
    if changed and not check:
        _write(file, configuration)
    return changed


def _write(file: Path, configuration: dict[str, Any]) -> None:
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(file, json.dumps(configuration, indent=2, sort_keys=True) + "\n", mode=0o600)
