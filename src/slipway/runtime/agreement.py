"""What a release's own processes and the program on the host agree on. Times are in seconds."""

from __future__ import annotations

# Where a release answers what only it can know, to whoever knows its token.
QUESTIONS_PATH = "/.slipway/door"

# An event stream there sends its second event this long after the first.
SECOND_EVENT_SECONDS = 1.5

# How long Nginx may go on using a connection to the old release after a switch: both times of its upstream, and some.
CACHED_CONNECTION_SECONDS = 1.5


def repository(app: str) -> str:
    """Return the name of an app's images; the tag is the name of a build."""
    return f"localhost/slipway-{app}"
