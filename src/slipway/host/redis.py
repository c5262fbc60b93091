"""An app's own Redis or Valkey on this host: how it is asked, and how it takes changed settings without a restart."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import write

# What is set for the server of each app, and its unit; and with what the running one was started, which its unit copies there.
SETTINGS = Path("/etc/slipway/redis")
UNITS = Path("/etc/systemd/system")
STARTED = Path("/run/slipway/redis")

# Seconds that an answer may take.
TIMEOUT = 10.0

# The arguments of the step: a type stands for what must be given.
PARAMETERS: dict[str, Any] = {
    # The app's name.
    "app": str,
    # The server's socket.
    "socket": str,
}


class RedisError(ReleaseError):
    """The server does not answer, or refuses a command."""


def unit(app: str) -> str:
    """Return the name of the unit of an app's server."""
    return f"slipway-redis-{app}.service"


@contextlib.contextmanager
def connected(path: str | Path) -> Iterator[BufferedIOBase]:
    """Connect to the server while the block runs.

    Raises:
        RedisError: when it does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            with client.makefile("rwb") as stream:
                yield stream
    except OSError as error:
        raise RedisError(f"Redis does not answer at {path}: {error.strerror or error}") from error


def command(stream: BufferedIOBase, *words: str) -> str:
    """Send a command, and return an answer of one text.

    Raises:
        RedisError: when the server refuses it.
        OSError: when there is no answer.
    """
    parts = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    stream.flush()
    line = stream.readline().decode("utf-8", "replace")
    if line.startswith("-"):
        raise RedisError(line[1:].strip())
    if not line.endswith("\r\n"):
        raise ConnectionError("the connection was closed")
    if line.startswith("$"):
        return stream.read(int(line[1:]) + 2)[:-2].decode("utf-8", "replace")
    return line[1:].strip()


def information(path: str | Path, sections: Sequence[str]) -> dict[str, str]:
    """Return what the server says of itself in those sections of INFO.

    Raises:
        RedisError: when it does not answer, or still reads its data.
    """
    with connected(path) as stream:
        command(stream, "PING")  # which it refuses while it reads them
        texts = [command(stream, "INFO", section) for section in sections]
    pairs = (line.partition(":") for text in texts for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in pairs if name}


def parsed(text: str) -> dict[str, str]:
    """Return the settings in a file of them."""
    pairs = (line.partition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: "" if value == '""' else value for name, _, value in pairs}


def read(path: Path) -> str:
    """Return what a file holds; nothing if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def waiting(app: str) -> list[str]:
    """Return what the running server of an app has not taken: the names of settings, and that of its unit."""
    started = read(STARTED / f"{app}.conf")
    if not started:
        return []
    configured, taken = parsed(read(SETTINGS / f"{app}.conf")), parsed(started)
    found = sorted(name for name in configured.keys() | taken.keys() if configured.get(name) != taken.get(name))
    return found + [unit(app)] * (read(STARTED / unit(app)) != read(UNITS / unit(app)))


def take(app: str, path: str, names: Sequence[str]) -> list[str]:
    """Have the running server take settings, and return the names of those that it took.

    Raises:
        RedisError: when it does not answer.
        OSError: when that cannot be recorded.
    """
    configured = parsed(read(SETTINGS / f"{app}.conf"))
    taken = []
    with connected(path) as stream:
        for name in names:
            if name in configured:
                with contextlib.suppress(RedisError):  # it can only be started with that
                    command(stream, "CONFIG", "SET", name, configured[name])
                    taken.append(name)
    if taken:
        now = {**parsed(read(STARTED / f"{app}.conf")), **{name: configured[name] for name in taken}}
        write(STARTED / f"{app}.conf", "".join(f"{name} {now[name] or chr(34) * 2}\n" for name in sorted(now)))
    return taken


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the running server take what was set since it was started, as far as it can without a restart.

    Returns:
        `changed`, and as `pending` what waits for a restart.

    Raises:
        RedisError: when it does not answer.
        OSError: when what it took cannot be recorded.
    """
    pending = waiting(given["app"])
    taken = take(given["app"], given["socket"], pending) if pending and not check else []
    return {"changed": bool(taken), "pending": [name for name in pending if name not in taken]}
