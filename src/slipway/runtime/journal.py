"""The journal as where a release logs."""

from __future__ import annotations

import os
import socket

from slipway.runtime.release import Release

# What systemd connects the output of a service to: sd_journal_stream_fd(3).
PLACE = "/run/systemd/journal/stdout"


def redirect_to_journal(release: Release, process: str = "", place: str = PLACE) -> None:
    """Have all that this process prints go to the journal, and what it becomes, too. Where there is none it goes where it did.

    Args:
        release: the release that it belongs to.
        process: which of the app's processes it is; empty for the web server.
        place: the journal's socket.
    """
    # Name, unit, priority where a line has none, whether a line may have one such as <3>, and where else it goes.
    name = f"{release.app}-{release.number}" + (f".{process}" if process else "")
    header = f"{name}\n\n6\n1\n0\n0\n0\n"
    journal = socket.socket(socket.AF_UNIX)
    try:
        journal.connect(place)
        journal.sendall(header.encode())
    except OSError as error:
        print(f"The journal cannot be reached at {place}: {error.strerror}. The log goes to this file.", flush=True)
        return
    for output in (1, 2):
        os.dup2(journal.fileno(), output)
    journal.close()
