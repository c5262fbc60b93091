"""Failures on a host, with a message for the operator."""

from __future__ import annotations


class ReleaseError(Exception):
    """A step failed; its text is for the operator. What was live still is."""
