"""restic as a process: what it is run with, how long it is waited for, and what its failures mean.

Its address and its secrets are in its environment alone, which only root can read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from slipway.host.backup.answers import is_locked, messages, text_of
from slipway.host.backup.settings import Settings
from slipway.host.errors import ReleaseError

CACHE = "/var/cache/slipway/restic"

# Seconds for what only reads or writes a few files; for what may read or write all of them; and from SIGINT to SIGKILL.
SHORT, LONG, STOP_SECONDS = 600.0, 6 * 3600.0, 10.0

# Seconds to wait for others to unlock a repository, and between two attempts. After half an hour, a lock of a host that died is
# one that `restic unlock` removes.
PATIENCE_SECONDS, PAUSE_SECONDS = 2100.0, 10.0

T = TypeVar("T")


class InUse(ReleaseError):
    """Another process is at work on it, and may have ended in a moment."""


class Restic:
    """restic, run for the repository of an app.

    Args:
        settings: those of the app's backups.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def environment(self) -> dict[str, str]:
        """The environment of restic."""
        known = {name: value for name, value in os.environ.items() if not name.startswith("RESTIC_")}
        secret = {"RESTIC_REPOSITORY": self.settings.repository, "RESTIC_PASSWORD": self.settings.password}
        more = {"RESTIC_CACHE_DIR": CACHE, "RESTIC_PROGRESS_FPS": "0.01", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        return {**known, **more, **{name: str(value) for name, value in self.settings.environment.items()}, **secret}

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start restic.

        Raises:
            ReleaseError: when it is not installed.
        """
        try:
            return subprocess.Popen(["restic", *arguments], env=self.environment, **options)
        except OSError as error:
            raise ReleaseError(f"restic cannot be started: {error.strerror}. To install it: site.yml --tags backup") from error

    def call(self, *arguments: str, seconds: float = SHORT) -> tuple[int, str, str]:
        """Run restic, and return its exit code, its output and its errors, as they may be shown."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = self.start(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            with ending(process):
                try:
                    code = process.wait(seconds)
                except subprocess.TimeoutExpired:
                    return 1, "", f"restic {arguments[0]} took longer than {seconds:g} s and was stopped."
            return code, text_of(output), self.settings.shown(text_of(errors))

    def ask(self, *arguments: str, seconds: float = SHORT) -> str:
        """Run restic, once others have unlocked the repository, and return its output.

        Raises:
            ReleaseError: when it fails, with its last errors.
        """
        return self.patiently(lambda: self._ask(*arguments, seconds=seconds))

    def read(self, *arguments: str) -> str:
        """Run restic to read much, and return its output. If others have locked the repository, it goes without a lock.

        Raises:
            ReleaseError: when it fails, with its last errors.
        """
        try:
            return self._ask(*arguments, seconds=LONG)
        except InUse:
            return self._ask(*arguments, "--no-lock", seconds=LONG)

    def _ask(self, *arguments: str, seconds: float) -> str:
        code, output, errors = self.call(*arguments, seconds=seconds)
        if code:
            raise self.failure(arguments[0], code, errors)
        return output

    def failure(self, command: str, code: int, errors: str) -> ReleaseError:
        """Return the error that says how restic failed: an InUse one if somebody else has locked the repository."""
        kind = InUse if is_locked(code, errors) else ReleaseError
        text = self.settings.shown(messages(errors)) or "it printed nothing"
        return kind(f"restic {command} failed with exit code {code}: {text}")

    def patiently(self, action: Callable[[], T]) -> T:
        """Return what an action does, which is tried again while it is InUse.

        Raises:
            ReleaseError: when it fails.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return action()
            except InUse:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)
            self.unlock()  # of what has died

    def unlock(self) -> None:
        """Remove the locks of processes that are gone; those of others stay."""
        self.call("unlock")


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process with the block, if it still runs."""
    try:
        yield
    finally:
        if process.poll() is None:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, so that it may unlock the repository, and kill it if it goes on."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
