"""Run commands, and show what they say without what is secret in it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError

# Of what a command prints, this much is kept at least, in bytes, and somewhat more at most: it may print without end.
KEPT_BYTES = 2**20


MOST_BYTES = 8 * 2**20


# What Linux calls two attributes of a process, in prctl(2).
SUBREAPER, NO_NEW_PRIVILEGES = 36, 38


LIBC = ctypes.CDLL(None, use_errno=True)


def run(
    command: Sequence[str | Path],
    timeout: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    check: bool = True,
    user: str | None = None,
    confined: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `command` with its output captured in one stream; of a very long one the end.

    Addresses in what is said of it lose their passwords.

    Args:
        command: the program and its arguments.
        timeout: seconds after which it is killed, together with all that it started.
        environment: variables to add to this process's own.
        directory: where it runs.
        check: whether an exit code other than 0 is an error.
        user: who runs it, with that user's own groups; None for who runs this.
        confined: whether it may gain no rights, as by sudo, and nothing that it started outlives it.

    Raises:
        ReleaseError: when it cannot start, takes too long, or fails and `check` is set; with its last lines.
    """
    arguments = [str(argument) for argument in command]
    shown = without_passwords(" ".join(arguments))
    # A file, not a pipe: a child that outlives the command would keep a pipe open, and this process waiting.
    with contextlib.ExitStack() as stack, tempfile.TemporaryFile() as output:
        # What is written goes to its end also when its beginning has been dropped.
        fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
        dropped = b""
        if confined:
            stack.enter_context(ending_all())
        try:
            if user and pwd.getpwnam(user).pw_uid == os.geteuid():
                user = None  # only root may become another
            process = subprocess.Popen(
                arguments,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                preexec_fn=gain_nothing if confined else None,
            )
        except KeyError as error:
            raise ReleaseError(f"There is no user {user} on this host.") from error
        except OSError as error:
            raise ReleaseError(f"{arguments[0]} cannot be started: {error.strerror}") from error
        code: int | None = None
        deadline = time.monotonic() + timeout
        try:
            while code is None and time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(max(0.0, min(0.2, deadline - time.monotonic())))
                size = os.fstat(output.fileno()).st_size
                if size > MOST_BYTES:
                    dropped = os.pread(output.fileno(), KEPT_BYTES, size - KEPT_BYTES)
                    os.ftruncate(output.fileno(), 0)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = (dropped + output.read(MOST_BYTES)).decode("utf-8", "replace")
    if code is None:
        output_end = without_passwords(tail(text))
        raise ReleaseError(f"{shown}\ntook longer than {timeout:g} s and was stopped.\n{output_end}".rstrip())
    if check and code:
        raise ReleaseError(f"{shown}\nfailed with exit code {code}:\n{without_passwords(tail(text))}")
    return subprocess.CompletedProcess(arguments, code, text, "")


def shell(what: str, command: str, timeout: float, variable: str, **options: Any) -> str:
    """Run a shell command that an operator set, and return what it prints.

    Args:
        what: what it is called in a message.
        command: the command.
        timeout: seconds that it may take.
        variable: the name of the variable that says so.
        options: those of `run`.

    Raises:
        ReleaseError: when it fails or takes too long; with its last lines.
    """
    arguments = [*options.pop("through", ["/bin/sh", "-c"]), command]
    command = without_passwords(command)
    try:
        done = run(arguments, timeout, check=False, **options)
    except ReleaseError as error:
        lines = str(error).split("was stopped.\n", 1)
        if len(lines) == 1 and not str(error).endswith("was stopped."):
            raise
        output_end = lines[1] if len(lines) == 2 else "It printed nothing."
        raise ReleaseError(
            f"{what} took longer than {timeout:g} s ({variable}) and was stopped: {command}\n{output_end}"
        ) from error
    if done.returncode:
        output_end = tail(done.stdout) or "It printed nothing."
        raise ReleaseError(f"{what} failed with exit code {done.returncode}: {command}\n{without_passwords(output_end)}")
    return done.stdout


def gain_nothing() -> None:
    """Have this process, and all that it starts, gain no rights from the programs that it runs (sudo, crontab).

    Raises:
        OSError: when the kernel refuses.
    """
    if prctl(NO_NEW_PRIVILEGES, 1):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def prctl(attribute: int, value: int) -> int:
    """Set an attribute of this process, and return 0, or -1 when the kernel refuses."""
    return int(LIBC.prctl(attribute, *map(ctypes.c_ulong, (value, 0, 0, 0))))


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """End, with the context, all processes that were started in it, those that left their session included."""
    before = children()
    prctl(SUBREAPER, 1)  # who loses its parent becomes a child of this process
    try:
        yield
    finally:
        while left := children() - before:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        prctl(SUBREAPER, 0)


def children() -> set[int]:
    """Return the children of this process."""
    found, own = set(), b"%d" % os.getpid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[1] == own:
                found.add(int(name))
    return found


def without_passwords(text: str) -> str:
    """Return `text` with its addresses as they may be shown: without a user and a password."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


def tail(text: str, lines: int = 30) -> str:
    """Return the last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the `secrets` in it, as they are or as Python and JSON write them.

    Of a secret of several lines each line is one. Fewer than four characters are left alone: they would be everywhere.
    """
    spellings = set()
    for secret in secrets:
        for part in {secret, *secret.splitlines()}:
            spellings |= {
                part,
                part.strip(),
                repr(part)[1:-1],
                json.dumps(part)[1:-1],
                json.dumps(part, ensure_ascii=False)[1:-1],
            }
    for spelling in sorted(spellings, key=len, reverse=True):
        if len(spelling) >= 4:
            text = text.replace(spelling, "********")
    return text
