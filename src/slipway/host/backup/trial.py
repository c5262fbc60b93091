"""The live release, started once more with a socket, a database and a folder of its own, and asked whether it is healthy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import subprocess
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
from slipway.host.health import DEFINITION, HealthCheck
from slipway.host.process import KEPT_BYTES, MOST_BYTES, masked, run, tail
from slipway.host.release.context import Context

# What tells its socket and its container from those of the release that clients use. The app finds it as SLIPWAY_INSTANCE.
INSTANCE = "drill"

# As Supervisor starts it.
UMASK = 0o027

# Seconds for what it started to end, and for PostgreSQL to count a session.
STOP_SECONDS, COUNT_SECONDS = 10, 3.0

# In a namespace of its own what was restored takes the place of the live folder, where links in a build and settings lead.
IN_PLACE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'

# How many sessions a database has had, which PostgreSQL counts since version 14, and how many it has.
SESSIONS = """
SELECT (SELECT to_jsonb(d) ->> 'sessions' FROM pg_stat_database d WHERE datname = {name}),
  (SELECT count(*) FROM pg_stat_activity WHERE datname = {name} AND backend_type = 'client backend');
"""


def with_database(variables: dict[str, Any], settings: Settings, database: str) -> dict[str, Any]:
    """Return the environment of the app with another database wherever the address of the live one is in it."""
    live, other = (f"@/{name}?host={settings.database_directory}" for name in (settings.database, database))
    return {name: value.replace(live, other) if isinstance(value, str) else value for name, value in variables.items()}


def unit(settings: Settings) -> str:
    """Return the unit of systemd that all of its processes are in."""
    return f"slipway-drill-{settings.name}-app.scope"


def end(settings: Settings) -> None:
    """End all that is left of one, as of a drill that was killed: its processes and its container."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
    subprocess.run(["systemctl", "stop", unit(settings)], **quiet)
    engine = configuration.load(settings.name)["engine"]
    if engine:
        label = f"--filter=label=slipway.release={settings.name}-{INSTANCE}"
        for each in subprocess.run([engine, "ps", "--all", "--quiet", label], **quiet).stdout.split():
            subprocess.run([engine, "rm", "--force", each], **quiet)


class Trial:
    """The live release, as it is started once more.

    Args:
        settings: those of the app's backups.
        home: the directory that it has instead of the app's, which only root may change; its folder `shared` is there.
        database: the database that it has instead of the live one; empty for none.
    """

    def __init__(self, settings: Settings, home: Path, database: str) -> None:
        self.settings, self.home, self.database = settings, home, database
        configured = configuration.load(settings.name)
        self.context = Context.of({**configured, "run": {}, "limit": 0.0})
        self.user = pwd.getpwnam(settings.user)
        self.directory = home / "releases" / INSTANCE
        self.sockets = home / "sockets"
        self.health = dict(configured["health"])
        self.memory_mb = 0

    def prepare(self, live: int) -> None:
        """Write the directory of the release as it is started here.

        Raises:
            OSError: when a file cannot be read or written.
            ReleaseError: when it cannot be copied.
        """
        release, shared = self.context.layout.release(live), self.context.layout.home / "shared"
        self.context.keep_secrets_of(live)
        then = self.context.layout.record(live).get("health") or {}
        self.health.update({name: then[name] for name in DEFINITION if name in then})
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
        self.memory_mb = int(runtime.get("memory_mb") or 0)
        if runtime["container"]:
            # The last of two labels of a name counts: this one is not asked for, watched or removed with the live release.
            more = [f"--volume={self.home}/shared:{shared}", f"--label=slipway.release={self.settings.name}-{INSTANCE}"]
            runtime["container"]["options"] = [*runtime["container"]["options"], *more]
        for name, content in {"settings.json": variables, "runtime.json": runtime}.items():
            write(self.directory / name, json.dumps(content), mode=0o640, group=self.user.pw_gid)
        self.sockets.mkdir(mode=0o700)
        os.chown(self.sockets, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def command(self, live: int) -> tuple[list[str], Path]:
        """Return what starts its server, and in which directory."""
        launch = self.context.launch(live)
        if not launch["user"]:  # the engine sees to the rest
            return [launch["through"][0], str(self.directory / "container.py")], launch["directory"]
        limit = [f"--property=MemoryMax={self.memory_mb}M", "--property=MemorySwapMax=0"] if self.memory_mb else []
        shared = (self.context.layout.home / "shared").resolve()
        return [
            *["systemd-run", "--quiet", "--scope", "--collect", f"--unit={unit(self.settings)}"],
            *[f"--property=TimeoutStopSec={STOP_SECONDS}", *limit, "--"],
            *[
                "unshare",
                "--mount",
                "--propagation=private",
                "--",
                "sh",
                "-c",
                IN_PLACE,
                "sh",
                str(self.home / "shared"),
                str(shared),
            ],
            *["setpriv", f"--reuid={self.settings.user}", f"--regid={self.settings.user}", "--init-groups", "--"],
            *[launch["through"][0], str(self.directory / "launch.py")],
        ], launch["directory"]

    @contextlib.contextmanager
    def started(self, live: int, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """Run its server while the block runs.

        Args:
            live: the number of the release.
            output: where it logs to.

        Raises:
            ReleaseError: when it cannot be started.
        """
        command, directory = self.command(live)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "SLIPWAY_INSTANCE": INSTANCE}
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, "umask": UMASK}
        try:
            process = subprocess.Popen(command, cwd=directory, env=environment, start_new_session=True, **options)
        except OSError as error:
            raise ReleaseError(f"{command[0]} cannot be started: {error.strerror}") from error
        try:
            yield process
        finally:
            process.terminate()
            end(self.settings)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

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
        log = os.open(self.home / "output", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(log, "r+b") as output:
            before = self.sessions()
            with self.started(live, output) as process:
                reason = self.unhealthy_reason(live, process, output)
                used = None if reason else self.is_used(before)
            if reason:
                text = os.pread(output.fileno(), MOST_BYTES, 0).decode("utf-8", "replace")
                lines = masked(tail(text, 15), self.context.secrets)
                raise ReleaseError(f"Release {live} is not healthy with what was restored: {reason}.\n{lines}".rstrip())
        return f"release {live} is healthy with it" + (", but did not use the database for that" if used is False else "")

    def unhealthy_reason(self, live: int, process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
        """Wait until it is healthy, and return why it is not; empty if it is. Of a very long log the end is kept."""
        check, socket = HealthCheck.of(self.health), self.sockets / f"{live}.{INSTANCE}.sock"
        seconds = float(self.health["timeout"])
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
            if os.fstat(output.fileno()).st_size > MOST_BYTES - KEPT_BYTES:
                os.ftruncate(output.fileno(), 0)
            time.sleep(0.2)
        return f"after {seconds:g} s (app_health_timeout): {reason}"

    def sessions(self) -> tuple[int | None, int]:
        """Return how many sessions the database has had, None if the server does not count them, and how many it has.

        Raises:
            ReleaseError: when the server is away.
        """
        if not self.database:
            return None, 0
        counted, open_now = ask(self.settings, SESSIONS.format(name=literal(self.database)))[0].split("|")
        return int(counted) if counted else None, int(open_now)

    def is_used(self, before: tuple[int | None, int]) -> bool | None:
        """Say whether the database has had more sessions than `before`, once they are counted; None if nobody knows."""
        deadline = time.monotonic() + COUNT_SECONDS
        while self.database and time.monotonic() < deadline:
            counted, open_now = self.sessions()
            if open_now > before[1] or (counted or 0) > (before[0] or 0):
                return True
            time.sleep(0.2)
        return None if before[0] is None else False
