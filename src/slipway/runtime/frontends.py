"""Front ends that an app serves: folders of built files, of which Nginx may serve by itself what everyone may have."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

# What follows it in a line are folders by the paths that they are served below.
LINE = "slipway-frontend:"

# The value of app_frontend by which those of `app.frontend()` are taken.
AUTO = "auto"


def frontends(app: Any) -> dict[str, str]:
    """Return the folders that `app.frontend()` serves to everyone, by their paths without a slash at the end.

    Those with dependencies are left out: they may ask for a password. FastAPI has no public list of them.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(AttributeError, TypeError):
        for each in app.router._iter_low_priority_routes():
            # Of a router that the app includes, it is what came of the inclusion.
            group, prefix = getattr(each, "original_route", each), getattr(each, "frontend_prefix", "")
            for route in [] if each.dependencies else getattr(group, "routes", []):
                path = prefix if route.path == "/" else f"{prefix}{route.path}"
                found.setdefault(path.rstrip("/"), os.path.realpath(route.app.directory))
    return found


def chosen(app: Any, setting: str) -> dict[str, str]:
    """Return the folders of which Nginx is to serve something, by their paths, and print them for the step that asks.

    Args:
        app: the app.
        setting: app_frontend.

    Raises:
        ValueError: when there is no such folder, or the app serves another one there.
    """
    found = frontends(app)
    if setting not in ("", AUTO):
        folder = os.path.realpath(setting)
        if not os.path.isdir(folder):
            raise ValueError(
                f"there is no folder {setting} (app_frontend): have it in the source, or let a hook make it, such as after_build "
                "(app_hooks)"
            )
        if found.get("", folder) != folder:
            raise ValueError(f"the app serves {found['']} as its front end, and app_frontend is {setting}: set it to auto")
        found = {"": folder}
    elif not setting:
        found = {}
    if found:
        print(f"{LINE} {json.dumps(found)}")
    return found
