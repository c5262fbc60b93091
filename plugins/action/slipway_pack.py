"""Have a host pack what it built, and bring that here for others."""

from __future__ import annotations

from slipway.controller.pack import PackAction


class ActionModule(PackAction):
    """The action under its name."""
