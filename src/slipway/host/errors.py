"""What may fail on a host, told to an operator."""

from __future__ import annotations


class ReleaseError(Exception):
    """A step failed; its text is for the operator. What was live still is."""
