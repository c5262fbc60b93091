"""Have a host build an app, or have what another one built."""

from __future__ import annotations

from slipway.controller.build import BuildAction


class ActionModule(BuildAction):
    """The action under its name."""
