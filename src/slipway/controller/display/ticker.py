"""The last line of a terminal, in which the hosts stand that are late."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from typing import Any

from slipway.controller.display.duration import duration

CLEAR = "\r\x1b[2K"


class Ticker(threading.Thread):
    """Shows which hosts are late in the last line of a terminal, which goes before anything else is written.

    Args:
        display: Ansible's; from now on it takes that line away first.
        patience: seconds after which a task is called long.

    Attributes:
        at_work: hosts, with when their task began, in seconds of the monotonic clock, and its name.
    """

    def __init__(self, display: Any, patience: float) -> None:
        super().__init__(daemon=True)
        self.patience = patience
        self.at_work: dict[str, tuple[float, str]] = {}
        self.over = threading.Event()
        self.shown = False
        write = display.display

        def display_alone(*arguments: Any, **options: Any) -> None:
            self.show("")
            write(*arguments, **options)

        display.display = display_alone

    def show(self, text: str) -> None:
        """Write `text` to the line, or clear it. No lock is held: Ansible forks whenever it likes."""
        if text or self.shown:
            self.shown = bool(text)
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), (CLEAR + text).encode(sys.stdout.encoding, "replace"))

    def run(self) -> None:
        """Show the late hosts once a second."""
        while not self.over.wait(1):
            now = time.monotonic()
            late = {host: begun for host, begun in list(self.at_work.items()) if now - begun[0] >= self.patience}
            text = ""
            if late:
                since, task = min(late.values())
                text = f"{duration(now - since)} at [{task}]: {', '.join(late)}"
            self.show(text[: shutil.get_terminal_size().columns - 1])

    def begin(self, host: str, task: str) -> None:
        """Count the time of a host from now."""
        self.at_work[host] = (time.monotonic(), task)

    def end(self, host: str) -> None:
        """Count it no more."""
        self.at_work.pop(host, None)

    def stop(self) -> None:
        """Clear the line for good."""
        self.over.set()
        self.join(5)
        self.show("")
