"""The socket of a release: taken over without a gap, and left to whoever takes it over."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable


def listen() -> socket.socket:
    """Return a socket that listens at the release's path; until now whoever had the path has gone on serving."""
    path = os.environ["SLIPWAY_SOCKET"]
    own = f"{path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(own)
    os.chmod(own, 0o666)  # the directory keeps all but Nginx out
    listener.listen(2048)
    os.rename(own, path)
    return listener


def inode(path: str) -> int:
    """Return what tells the file at a path from another that takes its place; 0 while there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def exit_when_replaced(leave: Callable[[], None] = lambda: os._exit(0)) -> None:
    """Have this process leave when its parent is gone, and whoever came after that serves.

    Until then it goes on serving. A regular stop of a master would remove the socket, which is the other's by now. The server
    listens already when this is called.
    """
    path = os.environ["SLIPWAY_SOCKET"]
    parent, own = os.getppid(), inode(path)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        while inode(path) == own:
            time.sleep(0.1)
        leave()

    threading.Thread(target=watch, name="leave-when-replaced", daemon=True).start()
