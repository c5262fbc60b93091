"""A repository of restic. Its address and its secrets are in the environment of restic alone, which only root can read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from slipway.host.backup.settings import STATES, Settings
from slipway.host.errors import ReleaseError
from slipway.host.process import tail

CACHE = "/var/cache/slipway/restic"

# Seconds for what only reads or writes a few files; for what may read or write all of them; and from SIGINT to SIGKILL.
SHORT, LONG, STOP_SECONDS = 600.0, 6 * 3600.0, 10.0

# What restic ends with if there is no repository: since 0.17, and how earlier ones say it.
ABSENT_CODE, ABSENT = 10, re.compile(r"Is there a repository at the following location|does not exist")

# What tells the snapshots of Slipway from others.
MARK = "slipway"


class Repository:
    """The repository of an app.

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
        """Run restic, and return its exit code, its output and its last errors, as they may be shown."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = self.start(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            with ending(process):
                try:
                    code = process.wait(seconds)
                except subprocess.TimeoutExpired:
                    return 1, "", f"restic {arguments[0]} took longer than {seconds:g} s and was stopped."
            return code, text_of(output), self.settings.shown(messages(text_of(errors)))

    def ask(self, *arguments: str, seconds: float = SHORT) -> str:
        """Run restic, and return its output.

        Raises:
            ReleaseError: when it fails, with its last errors.
        """
        code, output, errors = self.call(*arguments, seconds=seconds)
        if code:
            raise ReleaseError(f"restic {arguments[0]} failed with exit code {code}: {errors or 'it printed nothing'}")
        return output

    def open(self, known: str, check: bool = False) -> tuple[str, bool]:
        """Open the repository, or make it if there is none and never was.

        Args:
            known: restic's id of the repository that has the backups; empty before the first.
            check: whether nothing may change.

        Returns:
            Its id, empty in a dry run that would make it, and whether it was made.

        Raises:
            ReleaseError: when it cannot be opened or made, is gone, or is another one.
        """
        code, output, errors = self.call("cat", "config")
        made = False
        if code:
            if known or not (code == ABSENT_CODE or ABSENT.search(errors)):
                gone = " It had the backups of this app: was it moved, or is its disk not mounted?" if known else ""
                raise ReleaseError(f"The backup repository cannot be opened.{gone}\n{errors}")
            if check:
                return "", True
            self.ask("init")
            output, made = self.ask("cat", "config"), True
        found = str(json.loads(output).get("id", ""))
        if known and found != known:
            raise ReleaseError(
                f"backup_repository has another repository ({found[:8]}) than the one with the backups so far ({known[:8]}). "
                f"If that is meant: rm {STATES / self.settings.name}.json, then run site.yml --tags backup."
            )
        return found, made

    def unlock(self) -> None:
        """Remove the locks of processes that are gone; those of others stay."""
        self.call("unlock")

    def tags(self, **more: str) -> str:
        """Return the tags of a snapshot, as restic takes them."""
        return ",".join([MARK, f"app={self.settings.name}", *(f"{name}={value}" for name, value in more.items() if value)])

    def save(self, paths: Sequence[str], when: float, **tags: str) -> dict[str, Any]:
        """Back up files, and return restic's summary.

        Raises:
            ReleaseError: when it fails, or a file could not be read.
        """
        return summary(self.ask(*self._backup(when, tags), *paths, seconds=LONG))

    def save_output(self, command: Sequence[str], name: str, when: float, **tags: str) -> dict[str, Any]:
        """Back up what a command prints, without a file of it, and return restic's summary.

        restic sees the end of its input only if the command succeeded, so that half of it is never a snapshot.

        Raises:
            ReleaseError: when the command or restic fails.
        """
        arguments = [*self._backup(when, tags), "--stdin", "--stdin-filename", name]
        read, write = os.pipe()
        with contextlib.ExitStack() as stack:
            output, errors, warnings = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            end = stack.enter_context(os.fdopen(write, "wb"))
            with os.fdopen(read, "rb") as begin:
                saver = self.start(arguments, stdin=begin, stdout=output, stderr=errors)
                stack.enter_context(ending(saver))
                source = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=end, stderr=warnings)
                stack.enter_context(ending(source))
            if source.wait():
                if saver.poll() is None:
                    stop(saver)
                    self.unlock()
                    raise ReleaseError(f"{name} cannot be saved: {tail(self.settings.shown(text_of(warnings)), 5)}")
            else:
                end.close()
            code = saver.wait()
            if code:
                raise ReleaseError(
                    f"restic backup failed with exit code {code}: {self.settings.shown(messages(text_of(errors)))}"
                )
            return summary(text_of(output))

    def _backup(self, when: float, tags: dict[str, str]) -> list[str]:
        """Return the arguments for a snapshot. All of one backup have the same time, so that they are kept equally long."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
        return ["backup", "--json", f"--host={self.settings.host}", f"--time={stamp}", f"--tag={self.tags(**tags)}"]

    def snapshots(self, **tags: str) -> list[dict[str, Any]]:
        """Return the snapshots of this app on this host with some tags, oldest first, each with its tags in `labels`.

        Raises:
            ReleaseError: when the repository cannot be read.
        """
        found = json.loads(
            self.ask("snapshots", "--json", f"--host={self.settings.host}", f"--tag={self.tags(**tags)}") or "null"
        )
        each = [
            {**one, "labels": dict(tag.partition("=")[::2] for tag in one.get("tags") or [] if "=" in tag)} for one in found or []
        ]
        return sorted(each, key=lambda one: str(one["labels"].get("run")))

    @contextlib.contextmanager
    def reading(self, snapshot: str, name: str) -> Iterator[IO[bytes]]:
        """Give the content of a file of a snapshot as a stream.

        Raises:
            ReleaseError: when restic fails, after the block.
        """
        with tempfile.TemporaryFile() as errors:
            process = self.start(["dump", snapshot, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            with ending(process):
                with process.stdout as stream:
                    yield stream
                code = process.wait()
            if code:
                raise ReleaseError(f"restic dump failed with exit code {code}: {self.settings.shown(messages(text_of(errors)))}")


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


def text_of(file: IO[bytes]) -> str:
    """Return what was written to a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def messages(text: str) -> str:
    """Return the last lines that restic wrote to its errors, which may be JSON."""
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(line)
            line = str(found.get("message") or (found.get("error") or {}).get("message") or line)
        lines.append(line)
    return tail("\n".join(line for line in lines if line.strip()), 5)


def summary(text: str) -> dict[str, Any]:
    """Return the summary that `restic backup --json` ends with.

    Raises:
        ReleaseError: when there is none.
    """
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(line)
            if found.get("message_type") == "summary" and found.get("snapshot_id"):
                return found
    raise ReleaseError("restic reported no snapshot.")
