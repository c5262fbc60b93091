"""The arguments that all steps which build share, be it a virtual environment or an image."""

from __future__ import annotations

from typing import Any

# A type stands for what must be given, and anything else is the default.
SHARED: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # What slipway_fetch returned.
    "source": dict,
    # The packed source on this host. Without it the step only says whether it is needed.
    "archive": "",
    # The packed source itself, in Base64, where it is small.
    "packed": "",
    # Where the build's user keeps what was downloaded for this app.
    "cache": str,
    # Paths in the app's directory that lie in its shared directory, with their names there; an empty one is the path.
    "shared": {},
    # Environment for the build, such as an index or a proxy.
    "environment": {},
    # The build's user, who has no rights. All code of others in a build runs as that.
    "user": str,
    # MiB that must be free before a build.
    "room": float,
    # Shell commands; `before_build` and `after_build` run here.
    "hooks": {},
    # Seconds that one of them may take.
    "hook_timeout": 300.0,
    # The run of Ansible that this is a step of.
    "run": dict,
}
