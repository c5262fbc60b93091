"""Where an app's builds and releases lie on a host, and how files there change: whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# Characters of a digest that stand in a directory's name: 48 bits tell a few dozen builds apart.
DIGEST_LENGTH = 12


class ReleaseError(Exception):
    """A step of a build or release failed; its text is for the operator. What was live still is."""


class Layout:
    """The paths of one app on one host.

    Args:
        home: the app's directory, `/opt/<app>` on a real host.
        runtime: the directory of its sockets, `/run/<app>`.
        logs: the directory of its logs, `/var/log/<app>`.
    """

    def __init__(self, home: str | Path, runtime: str | Path, logs: str | Path) -> None:
        self.home = Path(home)
        self.runtime = Path(runtime)
        self.logs = Path(logs)
        self.builds = self.home / "builds"
        self.venvs = self.home / "venvs"
        self.releases = self.home / "releases"
        self.live_socket = self.home / "live.sock"
        self.current = self.home / "current"
        self.history = self.home / "history.jsonl"

    def release(self, number: int) -> Path:
        """Return the directory of release `number`."""
        return self.releases / str(number)

    def socket(self, number: int) -> Path:
        """Return the socket on which release `number` answers."""
        return self.runtime / f"{number}.sock"

    def log(self, number: int) -> Path:
        """Return the log of release `number`."""
        return self.logs / f"{number}.log"

    def live(self) -> int | None:
        """Return the number of the live release; None before the first one."""
        try:
            return int(Path(os.readlink(self.live_socket)).stem)
        except (FileNotFoundError, ValueError):
            return None

    def numbers(self) -> list[int]:
        """Return the numbers of the releases that are kept, oldest first."""
        if not self.releases.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.releases.iterdir() if entry.name.isdigit())

    def record(self, number: int) -> dict[str, Any]:
        """Return what is remembered of release `number`; empty where nothing is."""
        try:
            record: dict[str, Any] = json.loads((self.release(number) / "release.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record


def digest(*parts: object) -> str:
    """Return a digest of `parts`, which must be made of what JSON can carry, `DIGEST_LENGTH` hex digits long."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_LENGTH]


def write(path: Path, text: str, mode: int = 0o644, group: int | None = None) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, and a crash leaves one of the two.

    Args:
        path: the file; its directory exists.
        text: the content.
        mode: permission bits.
        group: numeric id of the group that owns the file; None leaves it to the system.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    settle(path.parent)


def point(link: Path, target: str | Path) -> None:
    """Make the symbolic link `link` point at `target` in one step, whether or not it exists.

    Raises:
        ReleaseError: when something other than a symbolic link stands at `link`.
    """
    if link.exists() and not link.is_symlink():
        raise ReleaseError(f"{link} is in the way: it should be a symbolic link. Move it elsewhere, then run again.")
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)
    settle(link.parent)


def settle(directory: Path) -> None:
    """Have the file system remember the renames in `directory` across a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; it need not exist.

    A directory takes a hidden name first: nobody ever finds half of it under its own.
    """
    if path.is_dir() and not path.is_symlink():
        hidden = path if path.name.startswith(".") else path.parent / f".{path.name}.removed"
        if hidden != path:
            remove(hidden)
            path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def run(
    command: Sequence[str | Path],
    timeout: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    check: bool = True,
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` with its output captured in one stream.

    Args:
        command: the program and its arguments.
        timeout: seconds after which it is killed.
        environment: variables to add to this process's own.
        directory: where it runs.
        check: whether an exit code other than 0 is an error.
        user: who runs it, with that user's own groups; None for who runs this.

    Raises:
        ReleaseError: when it cannot start, takes too long, or fails and `check` is set; with its last lines.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    except KeyError as error:
        raise ReleaseError(f"There is no user {user} on this host.") from error
    except OSError as error:
        raise ReleaseError(f"{words[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"{' '.join(words)}\ntook longer than {timeout:g} s and was stopped") from error
    if check and done.returncode:
        raise ReleaseError(f"{' '.join(words)}\nfailed with exit code {done.returncode}:\n{tail(done.stdout)}")
    return done


def tail(text: str, lines: int = 30) -> str:
    """Return the last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


@contextlib.contextmanager
def lock(layout: Layout, who: str, patience: float = 3.0) -> Iterator[None]:
    """Hold the app's lock, so that one change at a time is made to it.

    The kernel drops the lock with the process that holds it: that of a dead one needs no cleaning up.

    Args:
        layout: the app's paths; its home exists.
        who: the operator, for the one who has to wait.
        patience: seconds to wait for the lock.

    Raises:
        ReleaseError: when somebody else holds it; says who, and since when.
    """
    handle = os.open(layout.home / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(handle, 0o600)  # who may open it may lock it
    with os.fdopen(handle, "r+", encoding="utf-8") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    _refuse(file.read() or "someone else")
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        file.write(f"{who} since {time.strftime('%H:%M:%S', time.gmtime())} UTC")
        file.flush()
        yield
        file.truncate(0)


def _refuse(holder: str) -> NoReturn:
    raise ReleaseError(f"Another change of this app is under way: {holder}. Nothing was changed; try again when it ended.")
