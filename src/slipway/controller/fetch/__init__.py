"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

from slipway.controller.fetch.action import FetchAction

__all__ = ["FetchAction"]
