"""Run one of an app's processes beside its web server: hand its output to the log, and signals to it.

launch.py becomes this with the name of the process, and has set its environment and given up its privileges.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import IO

from slipway.runtime.log import own
from slipway.runtime.release import Release, read

# What the command is sent when Supervisor, or an operator, sends it to this process.
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# A longer line is logged in parts.
LINE_BYTES = 64 * 1024

# Seconds in which the rest of the output is read once the command has ended: what it started in the background may go on.
REST_SECONDS = 2.0

PR_SET_PDEATHSIG = 1

PUNCTUATION = "();<>|&"


def is_single(command: str) -> bool:
    """Say whether a command is a single one, which can replace the shell that reads it."""
    words = shlex.shlex(command, posix=True, punctuation_chars=PUNCTUATION)
    words.commenters, words.whitespace = "", " \t"
    try:
        found = list(words)
    except ValueError:  # quotes that do not end: the shell says so
        return False
    first = found[0] if found else ""
    return "=" not in first and first != "exec" and not any({*word} <= {*PUNCTUATION, "\n", "`"} or "`" in word for word in found)


def wait_for_the_only(release: Release, name: str, log: logging.Logger) -> list[int]:
    """Wait until no other one runs of a process that must run once on a host.

    The lock belongs to the command, too: one that outlives this process keeps the next from starting.

    Returns:
        The handle of the lock.
    """
    handle = os.open(f"{release.sockets}/{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waits until the %s of another release has ended", name)
        fcntl.flock(handle, fcntl.LOCK_EX)
    return [handle]


def end_with_parent() -> None:
    """Have the kernel stop this process when its parent is killed: another one is started in its place."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def hand_on(output: IO[bytes], log: logging.Logger) -> None:
    """Log each line of an output until it ends."""
    while line := output.readline(LINE_BYTES):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text:
            log.info("%s", text)


def run(release: Release, name: str) -> int:
    """Run a process of a release until it ends.

    Returns:
        Its exit code; 128 and the number of the signal if one ended it, as a shell does.
    """
    # Until there is a command to hand it to. The first process of a container would not end by itself.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parent = os.getppid()
    if not release.container:  # whose engine looks after it
        end_with_parent()
        if os.getppid() == 1:  # Supervisor was killed before
            return 128 + signal.SIGTERM
    definition = release.processes[name]
    log = own(name, release)
    log.setLevel(logging.INFO)
    locks = wait_for_the_only(release, name, log) if definition["hosts"] == "first" else []
    command = definition["command"]
    single = is_single(command)
    child = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}" if single else command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=locks,
        preexec_fn=end_with_parent,
    )
    asked = list[int]()

    def kill(number: int, frame: FrameType | None) -> None:
        """End all that is left: Supervisor may be gone, or reach the engine's client alone."""
        os.killpg(0, signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)  # the first process of a container is not killed from within

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and number not in asked:
            signal.alarm(definition["stop_seconds"])
        elif number == signal.SIGTERM and os.getppid() != parent:  # many give up their task at the second one
            return
        asked.append(number)
        if single:
            child.send_signal(number)
        else:  # all that the shell has started, and the shell: not this process again
            signal.signal(number, signal.SIG_IGN)
            os.killpg(0, number)

    signal.signal(signal.SIGALRM, kill)
    for number in FORWARDED:
        signal.signal(number, forward)
    assert child.stdout is not None
    reader = threading.Thread(target=hand_on, args=(child.stdout, log), daemon=True)
    reader.start()
    code = child.wait()
    # A shell ends at once when it is asked to, and what it has started may not.
    reader.join(None if asked and not single else REST_SECONDS)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(read(), sys.argv[1]))
