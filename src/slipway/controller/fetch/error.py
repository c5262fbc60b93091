"""What is raised when a source cannot be fetched, or is of no use to a host."""

from __future__ import annotations


class FetchError(Exception):
    """The source cannot be had, or lacks what it must hold; the text names the variable, or the file, and the remedy."""
