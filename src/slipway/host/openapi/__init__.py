"""Compare the interface of a release with that of the live one."""

from __future__ import annotations

from slipway.host.openapi.changes import breaking_changes

__all__ = ["breaking_changes"]
