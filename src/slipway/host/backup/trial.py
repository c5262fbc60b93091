"""The live release, started once more with a socket, a database and a folder of its own, and asked whether it is healthy."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from slipway.host import configuration
from slipway.host.backup.copies import literal
from slipway.host.backup.database import ask
from slipway.host.backup.settings import Settings
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.health import HealthCheck
from slipway.host.process import masked, prctl, run, tail
from slipway.host.release.context import Context

# What tells its socket and its container from those of the release that clients use.
INSTANCE = "drill"

# Of prctl(2): the signal that a process gets when its parent ends.
PARENT_DEATH_SIGNAL = 1

# As Supervisor starts it.
UMASK = 0o027

# Seconds for the server to end, and for PostgreSQL to count a session.
STOP_SECONDS, COUNT_SECONDS = 10.0, 3.0

# How many sessions the app had with a database; those before version 14 count those that are open.
SESSIONS = """
SELECT coalesce((SELECT (to_jsonb(d) ->> 'sessions')::bigint FROM pg_stat_database d WHERE datname = {name}), 0)
  + (SELECT count(*) FROM pg_stat_activity WHERE datname = {name} AND backend_type = 'client backend');
"""


def with_database(variables: dict[str, Any], settings: Settings, database: str) -> dict[str, Any]:
    """Return the environment of the app with another database wherever the address of the live one is in it."""
    live, other = (f"@/{name}?host={settings.database_directory}" for name in (settings.database, database))
    return {name: value.replace(live, other) if isinstance(value, str) else value for name, value in variables.items()}


class Trial:
    """The live release, as it is started once more.

    Args:
        settings: those of the app's backups.
        home: the directory that it has instead of the app's; its folder `shared` is there.
        database: the database that it has instead of the live one; empty for none.
    """

    def __init__(self, settings: Settings, home: Path, database: str) -> None:
        self.settings, self.home, self.database = settings, home, database
        self.configured = configuration.load(settings.name)
        self.context = Context.of({**self.configured, "run": {}, "limit": 0.0})
        self.directory = home / "releases" / INSTANCE
        self.sockets = self.context.layout.runtime / INSTANCE

    def prepare(self, live: int) -> None:
        """Write the directory of the release as it is started here.

        Raises:
            OSError: when a file cannot be read or written.
        """
        release = self.context.layout.release(live)
        self.context.keep_secrets_of(live)
        self.directory.parent.mkdir()
        self.directory.parent.chmod(0o755)
        run(["cp", "--archive", release, self.directory], 60)
        if (release / "build").exists():
            remove(self.directory / "build")  # a link, which leads from there
            (self.directory / "build").symlink_to((release / "build").resolve())
        variables, runtime = (
            json.loads((release / name).read_text(encoding="utf-8")) for name in ("settings.json", "runtime.json")
        )
        if self.database:
            variables = with_database(variables, self.settings, self.database)
        runtime.update(home=str(self.home), sockets=str(self.sockets), workers=1, log_target="files")
        group = pwd.getpwnam(self.settings.user).pw_gid
        for name, content in {"settings.json": variables, "runtime.json": runtime}.items():
            write(self.directory / name, json.dumps(content), mode=0o640, group=group)
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.sockets.mkdir(mode=0o700)
        shutil.chown(self.sockets, self.settings.user, group)

    @contextlib.contextmanager
    def started(self, live: int, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """Run its server while the block runs.

        Args:
            live: the number of the release.
            output: where it logs to.

        Raises:
            ReleaseError: when it cannot be started.
        """
        launch = self.context.launch(live)
        program = self.directory / ("launch.py" if launch["user"] else "container.py")
        user = launch["user"] if launch["user"] and pwd.getpwnam(launch["user"]).pw_uid != os.geteuid() else None
        self.remove_container(live)
        try:
            process = subprocess.Popen(
                [launch["through"][0], str(program)],
                cwd=launch["directory"],
                env={"PATH": os.environ.get("PATH", os.defpath), "SLIPWAY_INSTANCE": INSTANCE},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                umask=UMASK,
                preexec_fn=end_with_parent,
            )
        except OSError as error:
            raise ReleaseError(f"{launch['through'][0]} cannot be started: {error.strerror}") from error
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.remove_container(live)
            shutil.rmtree(self.sockets, ignore_errors=True)

    def remove_container(self, live: int) -> None:
        """Remove its container, if the app runs in containers; one may be left of a drill that was killed."""
        if self.configured["engine"]:
            command = [self.configured["engine"], "rm", "--force", f"{self.settings.name}-{live}-{INSTANCE}"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def run(self) -> str:
        """Start it, wait until it is healthy, stop it, and return what there is to say of it.

        Raises:
            ReleaseError: when it is not healthy in time, or ends; with the last lines that it logged.
            OSError: when a file cannot be read or written.
        """
        live = self.context.layout.live()
        if live is None:
            raise ReleaseError(f"No release of {self.settings.name} is live on this host, which could be started with it.")
        self.prepare(live)
        with (self.home / "output").open("w+b") as output:
            before = self.sessions()
            with self.started(live, output) as process:
                reason = self.unhealthy_reason(live, process)
                used = not reason and self.is_used(before)
            if reason:
                output.seek(0)
                lines = masked(tail(output.read().decode("utf-8", "replace"), 15), self.context.secrets)
                raise ReleaseError(f"Release {live} is not healthy with what was restored: {reason}.\n{lines}".rstrip())
        if not self.database:
            return f"release {live} is healthy with it"
        return f"release {live} is healthy with it" + ("" if used else ", but did not use the database for that")

    def unhealthy_reason(self, live: int, process: subprocess.Popen[bytes]) -> str:
        """Wait until it is healthy, and return why it is not; empty if it is."""
        check, socket = HealthCheck.of(self.configured["health"]), self.sockets / f"{live}.{INSTANCE}.sock"
        seconds = float(self.configured["health"]["timeout"])
        deadline, reason = time.monotonic() + seconds, "it does not listen on its socket"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return f"it ended with exit code {process.returncode}"
            try:
                reason = check.unhealthy(check.ask(socket))
                if not reason:
                    return ""
            except (FileNotFoundError, ConnectionRefusedError):  # as at its beginning
                pass
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
            time.sleep(0.2)
        return f"after {seconds:g} s (app_health_timeout): {reason}"

    def sessions(self) -> int:
        """Return how many sessions the database has had.

        Raises:
            ReleaseError: when the server is away.
        """
        return int(ask(self.settings, SESSIONS.format(name=literal(self.database)))[0]) if self.database else 0

    def is_used(self, before: int) -> bool:
        """Say whether the database has had more sessions than `before`; the server takes a moment to count them."""
        deadline = time.monotonic() + COUNT_SECONDS
        while self.database and time.monotonic() < deadline:
            if self.sessions() > before:
                return True
            time.sleep(0.2)
        return False


def end_with_parent() -> None:
    """Have this process end when the one that started it does, however that ends.

    Raises:
        OSError: when the kernel refuses.
    """
    if prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), f"{sys.executable}: PR_SET_PDEATHSIG")
