"""Releases on a disk, with the files of the runtime as the releaser puts them there."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rendering import ROOT, Host

from slipway.host.runtime_files import files_of
from slipway.runtime.release import Release

RUNTIME = ROOT / "src" / "slipway" / "runtime"


def text(name: str) -> str:
    """Return a file of the runtime."""
    return (RUNTIME / name).read_text(encoding="utf-8")


def told(host: Host, **changes: Any) -> Release:
    """Return what release 7 of a host goes by, with some changes."""
    known = {"app": host["app_name"], "number": 7, "revision": "abc", "build": "b1", "user": host["app_user"]}
    layout = host["__app_layout"]
    return Release(**{**host["__app_runtime"], **known, "home": layout["home"], "sockets": layout["runtime"], **changes})


def write(directory: Path, release: Release, settings: dict[str, str] | None = None) -> None:
    """Write a release into a directory, which need not be there."""
    for name, content in files_of(release._asdict()).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    (directory / "runtime.json").write_text(json.dumps(release._asdict()), encoding="utf-8")
    (directory / "settings.json").write_text(json.dumps(settings or {}), encoding="utf-8")
    (directory / "door.token").write_text("token", encoding="ascii")


@contextlib.contextmanager
def journal(directory: Path) -> Iterator[list[str]]:
    """A journal; what is said to it is in the list afterwards, each program's own."""
    (directory / "journal").mkdir()
    said: list[str] = []
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "journal" / "stdout"))
        listener.listen()

        def read(connection: socket.socket) -> None:
            with connection, connection.makefile(encoding="utf-8") as stream:
                said.append(stream.read())

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=read, args=(listener.accept()[0],), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield said
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(10)
