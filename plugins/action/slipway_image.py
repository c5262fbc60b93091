"""Have an app's image on a host: built there, or built here and sent over."""

from __future__ import annotations

from slipway.controller.image import ImageAction


class ActionModule(ImageAction):
    """The action under its name."""
