"""What may fail on a host, told to an operator."""

from __future__ import annotations


class ReleaseError(Exception):
    """A step of a build or release failed; its text is for the operator. What was live still is."""
