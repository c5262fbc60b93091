"""A repository of restic: opened or made, written to, listed, and read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from slipway.host.backup.answers import has_all_that_stayed, is_absent, messages, summary, text_of
from slipway.host.backup.program import LONG, STOP_SECONDS, InUse, Restic, ending, stop
from slipway.host.backup.settings import STATES
from slipway.host.errors import ReleaseError
from slipway.host.process import tail

# What tells the snapshots of Slipway from others.
MARK = "slipway"

# What opens a repository, also one that others have locked, and writes nothing there.
CONFIG = ("cat", "config", "--no-lock")


class Repository(Restic):
    """The repository of an app."""

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
        code, output, errors = self.call(*CONFIG)
        made = False
        if code:
            errors, absent = messages(errors), is_absent(code, errors)
            if known or not absent:
                gone = " It had the backups of this app: was it moved, or is its disk not mounted?" if known else ""
                raise ReleaseError(f"The backup repository cannot be opened.{gone}\n{errors}")
            if check:
                return "", True
            try:
                self.ask("init")
                made = True
            except ReleaseError:
                if self.call(*CONFIG)[0]:  # another host or app may have made it meanwhile
                    raise
            output = self.ask(*CONFIG)
        found = str(json.loads(output).get("id", ""))
        if known and found != known:
            raise ReleaseError(
                f"backup_repository has another repository ({found[:8]}) than the one with the backups so far ({known[:8]}). "
                f"If that is meant: rm {STATES / self.settings.name}.json, then run site.yml --tags backup."
            )
        return found, made

    def tags(self, **more: str) -> str:
        """Return the tags of a snapshot, as restic takes them."""
        return ",".join([MARK, f"app={self.settings.name}", *(f"{name}={value}" for name, value in more.items() if value)])

    def save(self, paths: Sequence[str], when: float, **tags: str) -> dict[str, Any]:
        """Back up files, and return restic's summary. One that is removed meanwhile is not in it.

        Raises:
            ReleaseError: when it fails, or a file could not be read.
        """

        def attempt() -> dict[str, Any]:
            code, output, errors = self.call(*self._backup(when, tags), *paths, seconds=LONG)
            if code and not has_all_that_stayed(code, errors):
                raise self.failure("backup", code, errors)
            return summary(output)

        return self.patiently(attempt)

    def save_output(self, command: Sequence[str], name: str, when: float, **tags: str) -> dict[str, Any]:
        """Back up what a command prints, without a file of it, and return restic's summary.

        restic sees the end of its input only if the command succeeded, so that half of it is never a snapshot.

        Raises:
            InUse: when others have locked the repository.
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
                if source.returncode == -signal.SIGPIPE:  # restic is ending, and its error is the one that counts
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        saver.wait(STOP_SECONDS)
                if saver.poll() is None:
                    stop(saver)
                    self.unlock()
                    raise ReleaseError(f"{name} cannot be saved: {tail(self.settings.shown(text_of(warnings)), 5)}")
            else:
                end.close()
            code = saver.wait()
            if code:
                raise self.failure("backup", code, text_of(errors))
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
            self.ask("snapshots", "--json", "--no-lock", f"--host={self.settings.host}", f"--tag={self.tags(**tags)}") or "null"
        )
        each = [
            {**one, "labels": dict(tag.partition("=")[::2] for tag in one.get("tags") or [] if "=" in tag)} for one in found or []
        ]
        return sorted(each, key=lambda one: str(one["labels"].get("run")))

    @contextlib.contextmanager
    def reading(self, snapshot: str, name: str, lock: bool = False) -> Iterator[IO[bytes]]:
        """Give the content of a file of a snapshot as a stream.

        Args:
            snapshot: restic's id of it.
            name: the file.
            lock: whether to have others wait with removing data, unless they have begun; for what takes long.

        Raises:
            ReleaseError: when restic fails, after the block.
        """
        with contextlib.ExitStack() as stack:
            for more in ([], ["--no-lock"]) if lock else (["--no-lock"],):
                errors = stack.enter_context(tempfile.TemporaryFile())
                pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
                process = self.start(["dump", snapshot, name, *more], **pipes)
                stack.enter_context(ending(process))
                assert process.stdout is not None
                stream = stack.enter_context(process.stdout)
                if more or has_begun(stream):
                    break
                error = self.failure("dump", process.wait(), text_of(errors))
                if not isinstance(error, InUse):
                    raise error
            yield stream
            stream.close()
            code = process.wait()
            if code:
                raise self.failure("dump", code, text_of(errors))


def has_begun(stream: IO[bytes]) -> bool:
    """Wait until there is something to read, or the end, and say whether there is something. Nothing is read."""
    select.select([stream], [], [])
    return any(fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))
