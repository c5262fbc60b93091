"""Start a release: take its settings as they are, and become its server.

With --check it becomes a check of the app instead, with --process NAME one of its processes, and with --shell COMMAND a shell,
with the same settings.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import shutil
import sys
from pathlib import Path

from slipway.runtime import journal
from slipway.runtime.release import HERE, Release, read

# Two sets of workers run side by side during a release; together they may take four fifths of the memory.
SHARE_OF_MACHINE, SHARE_OF_LIMIT = 0.4, 0.8

PR_SET_NO_NEW_PRIVS = 38


def workers(release: Release) -> int:
    """Return the number of worker processes: as set, or two for each processor and one more, as far as memory allows."""
    if release.workers:
        return release.workers
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20 * SHARE_OF_MACHINE
    processors = len(os.sched_getaffinity(0))
    if release.memory_mb:  # each release has a limit of its own
        memory = min(memory, release.memory_mb * SHARE_OF_LIMIT)
    if release.container.get("cpus"):
        processors = min(processors, math.ceil(release.container["cpus"]))
    return max(1, min(2 * processors + 1, int(memory / release.worker_memory_mb)))


def environment(release: Release, directory: Path) -> dict[str, str]:
    """Return the environment of the app, with the settings that lie in the directory of its release."""
    if release.container:  # that of the image, and the variables of a hook
        variables = dict(os.environ)
    else:  # nothing of supervisord's own, which is root's
        variables = {name: value for name, value in os.environ.items() if name.startswith("SLIPWAY_")}
        variables["PATH"] = f"{(directory / 'build' / '.venv').resolve()}/bin:/usr/local/bin:/usr/bin:/bin"
    variables.update(
        FASTAPI_ENV="production",
        HOME=f"{release.home}/shared",
        LANG=os.environ.get("LANG", "C.UTF-8"),
        PYTHONUNBUFFERED="1",
        USER=release.user,
    )
    variables.update(json.loads((directory / "settings.json").read_text(encoding="utf-8")))
    variables.update(RELEASE_ID=str(release.number), RELEASE_REVISION=release.revision, WEB_CONCURRENCY=str(workers(release)))
    variables["SLIPWAY_SOCKET"] = f"{place(release)}.sock"
    return variables


def instance() -> str:
    """Return which of several instances this is."""
    return os.environ.get("SLIPWAY_INSTANCE", "0")


def place(release: Release) -> str:
    """Return what the names of an instance's socket and counts begin with: of the first, what those of a single one would."""
    return f"{release.sockets}/{release.number}" + ("" if instance() == "0" else f".{instance()}")


def command(release: Release, directory: Path, arguments: list[str]) -> list[str]:
    """Return what this program becomes: a server whose arguments say which, and of which release, or what `arguments` ask for."""
    # Not where its links lead: what a server starts with it can be told from another release's, too.
    python = sys.executable if release.container else str(directory / "build" / ".venv" / "bin" / "python")
    if arguments[:1] == ["--check"]:
        return [python, str(directory / "preflight.py")]
    if arguments[:1] == ["--process"]:
        return [python, str(directory / "process.py"), arguments[1]]
    if arguments[:1] == ["--shell"]:
        return ["/bin/sh", "-c", arguments[1]]
    name = f"{release.app} release {release.number}" + ("" if instance() == "0" else f" instance {instance()}")
    if release.server == "gunicorn":
        configuration = str(directory / "gunicorn_conf.py")
        return [python, "-m", "gunicorn", "--name", name, "--config", configuration, "slipway.runtime.served:app"]
    return [python, str(directory / f"{release.server}_server.py"), *name.split()]


def count_from_nothing(release: Release) -> str:
    """Make the directory in which the processes of this instance count their requests together, and return it."""
    counts = f"{place(release)}.metrics"
    shutil.rmtree(counts, ignore_errors=True)
    os.makedirs(counts, mode=0o700)
    return counts


def confine(release: Release) -> None:
    """Give up what no app needs: the app inherits it.

    Raises:
        SystemExit: when the kernel refuses to keep it from new privileges.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of its memory would hold its secrets
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Where the machine's memory runs out, the app goes before sshd and Nginx.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if release.container or not release.no_new_privileges:  # a container sees to it itself
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit(f"new privileges cannot be denied to the app: {os.strerror(ctypes.get_errno())} (app_no_new_privileges)")


def main(arguments: list[str]) -> None:
    """Become what `arguments` ask for: the server where there are none."""
    release = read()
    if release.container:
        os.umask(0o027)
    variables = environment(release, HERE)
    becomes = command(release, HERE, arguments)
    if not arguments and "PROMETHEUS_MULTIPROC_DIR" not in variables:
        variables["PROMETHEUS_MULTIPROC_DIR"] = count_from_nothing(release)
    process = arguments[1] if arguments[:1] == ["--process"] else ""
    if (
        release.log_target == "journald" and (process or not arguments) and not release.container
    ):  # there the engine's client does so
        journal.redirect_to_journal(release, process)
    confine(release)
    os.execve(becomes[0], becomes, variables)


if __name__ == "__main__":
    main(sys.argv[1:])
