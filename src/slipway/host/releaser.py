"""Release one app: start a release beside the live one, let it prove itself, switch to it, and stop the old one."""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from slipway.host.build.engine import Engine, repository
from slipway.host.build.times import freshen, renew
from slipway.host.endpoint import NO_ANSWER, Answer, Door, UnixConnection, ask
from slipway.host.errors import ReleaseError
from slipway.host.files import point, remove, room, write
from slipway.host.health import DEFINITION, HealthCheck
from slipway.host.logs import ends
from slipway.host.openapi import breaking_changes
from slipway.host.paths import digest
from slipway.host.process import masked, run, shell, tail
from slipway.host.runtime_files import files_of
from slipway.host.store import Store, version_of
from slipway.host.supervisor import Supervisor
from slipway.host.watch import LEAST_ERRORS, LEAST_SHARE, Processes, Traffic, hanging, waiting

# How long Nginx may go on using a connection to the old release after a switch: both times of its upstream, and some.
CACHED_CONNECTION_SECONDS = 1.5

# An OpenAPI document may be longer than an answer usually is, in bytes.
LONGEST_DOCUMENT = 16 * 2**20

# What answers within so many seconds is quick, and what waits as long may hang.
QUICK_SECONDS, SUSPECT_SECONDS = 2.0, 1.0

# The line of preflight.py that says in a few words what is wrong.
HEADLINE = re.compile(r"^slipway-headline: (.*)$\n?", re.MULTILINE)

# What says that code wanted to write where it lies, and that a database has been migrated further than code knows.
READ_ONLY = (
    r"unable to open database file|attempt to write a readonly database|Read-only file system"
    r"|Permission denied: '(?!/)|Permission denied: '{home}/(?!shared)"
)
UNKNOWN_SCHEMA = re.compile(r"Can't locate revision identified by '([^']+)'")

# A release that is live, or was, without having been taken back: what a rollback may choose by itself.
GOOD = "live"

# How preflight.py ends where the app can be imported, and would all the same not be served as it says.
UNFIT = 3
# The same, where it would serve what is closed.
OPEN = 4


class Releaser:
    """Release one app. The arguments are those of the module app_release."""

    def __init__(self, arguments: dict[str, Any], sleep: Callable[[float], None] = time.sleep) -> None:
        self.arguments = arguments
        self.layout = Store(**arguments["layout"])
        self.supervisor = Supervisor(
            arguments["name"], arguments["program_directory"], arguments["program_suffix"], arguments["stop"]
        )
        self.door = Door(**arguments["door"])
        self.health = arguments["health"]
        self.sleep = sleep
        self.warnings: list[str] = []
        self.back = "rolled back"  # what becomes of a release that is gone back from
        self.deadline = time.monotonic() + (arguments["limit"] or float("inf"))
        self.secrets: list[str] = []
        self.keep_secret(arguments["settings"] or "{}")

    def keep_secret(self, settings: str) -> None:
        """Have the secrets in `settings`, a JSON object, shown nowhere."""
        values = json.loads(settings)
        self.secrets += [values[name] for name in self.arguments["secret_names"] if name in values]

    @property
    def group(self) -> int:
        """The numeric id of the group that may read the settings."""
        return grp.getgrnam(self.arguments["user"]).gr_gid

    @property
    def who(self) -> str:
        """The operator, and where that is."""
        return f"{self.arguments['run']['who']}@{self.arguments['run']['where']}"

    def wanted(self) -> str:
        """Return the digest of all that makes this release what it is."""
        keys = ("settings", "program")
        return digest(self.files(), self.told(0), *(self.arguments[key] for key in keys))

    def files(self) -> dict[str, str]:
        """Return the files of the runtime that a release has, by their paths in its directory."""
        return files_of(self.arguments["runtime"])

    def told(self, number: int) -> dict[str, Any]:
        """Return what release `number` goes by, for the programs that run it."""
        names = ("build", "revision", "user")
        told = {"app": self.arguments["name"], "number": number, **{name: self.arguments[name] for name in names}}
        return {**self.arguments["runtime"], **told, "home": str(self.layout.home), "sockets": str(self.layout.runtime)}

    # What is there

    def ask(self, socket: Path, path: str, timeout: float = 5.0, **options: Any) -> Answer:
        """Ask a release at one of its own sockets.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        return ask(UnixConnection(socket, timeout=timeout), path, self.health["host"], **options)

    @property
    def check(self) -> HealthCheck:
        """What a healthy release answers."""
        return HealthCheck.of(self.health)

    def problem(self, number: int) -> str:
        """Say why release `number` is not healthy, the first of its instances that is not; empty when all are.

        Raises:
            OSError: when one does not answer.
            http.client.HTTPException: when its answer is not HTTP.
        """
        return self.check.problem(self.layout.sockets(number))

    def answers(self, number: int, patience: float = 0.0) -> bool:
        """Say whether release `number` is healthy, giving it `patience` seconds to become so."""
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(*NO_ANSWER):
                if not self.problem(number):
                    return True
            if time.monotonic() >= deadline:
                return False
            self.sleep(0.2)

    def needed(self) -> str | None:
        """Say why a release is needed; None when what is live is what is wanted, and answers."""
        live = self.layout.live()
        if live is None:
            return "nothing was live yet"
        if self.layout.record(live).get("digest") != self.wanted():
            return "the build or its settings changed"
        if live not in self.supervisor.installed():
            return f"Supervisor had no program for release {live}"
        if not self.answers(live, patience=10):
            return f"release {live} did not answer on its socket"
        return None

    def next_number(self) -> int:
        """Return a number that no release ever had."""
        return max([*self.layout.numbers(), *self.supervisor.installed(), self.last_number()], default=0) + 1

    def last_number(self) -> int:
        """Return the highest number that the history names; a number is never given twice."""
        return max((entry["release"] for entry in self.layout.entries()), default=0)

    def log_tail(self, number: int) -> str:
        """Return the last lines that release `number` logged, for the operator; of several instances, what each one did."""
        found = ends(self.layout, self.arguments["name"], number, 30)
        said = "\n".join(f"The end of {place}:\n{text}" for place, text in found)
        return self.advised(said, number) if said else f"It wrote nothing to {self.layout.log(number)}."

    def advised(self, said: str, number: int, cause: str = "") -> str:
        """Return what release `number`, or a command with its code, said of a failure, below what helps where that is known.

        Args:
            said: what was said.
            number: the release.
            cause: what is told of it already.
        """
        shared = self.layout.home / "shared"
        if re.search(READ_ONLY.format(home=re.escape(str(self.layout.home))), f"{cause}\n{said}"):
            return (
                f"The directory of the code is read-only: what the app writes belongs into {shared}, which its releases share. "
                f"For SQLite that may be, in app_env, DATABASE_URL: sqlite:///{shared}/app.db\n{said}"
            )
        unknown = UNKNOWN_SCHEMA.search(f"{cause}\n{said}")
        if unknown:
            return f"{self.migrated_further(number, unknown[1])}\n{said}"
        return said

    def migrated_further(self, number: int, schema: str) -> str:
        """Say why the code of release `number` does not know the schema that the database has, and what can be done.

        Args:
            number: the release.
            schema: the revision that it does not know.
        """
        by = self.migrated_by(schema, number)
        if by is None:
            return f"The database has been migrated to {schema}, which this version does not know: release one that does."
        what = version_of(self.layout.record(by))
        name = f"release {by}{f' ({what})' if what else ''}"
        wanted = str(self.layout.record(number).get("migration") or "").split(", ")[0]
        return (
            f"This version is older than the database, which was migrated to {schema} by {name}. Nothing is migrated back by "
            "itself: release a version that knows this schema (app_version), or migrate back first.\n"
            f"{self.migrating_back(by, wanted)}\nThen run this again."
        )

    def migrated_by(self, schema: str, but: int | None = None) -> int | None:
        """Return the newest release, other than `but`, whose migrations end at a revision of the schema; else what is live."""
        for number in reversed(self.layout.numbers()):
            known = str(self.layout.record(number).get("migration") or "").split(", ")
            if number != but and {schema, schema.split(", ")[0]} & {*known} and (self.layout.release(number) / "build").exists():
                return number
        return self.layout.live()

    def migrating_back(self, number: int, schema: str) -> str:
        """Say how the database is migrated back to `schema`, or to none, with the code of release `number`."""
        command = self.by_hand(number, f"python3 -m alembic downgrade {schema or 'base'}")
        return f"To migrate back, with the code of release {number}, on the host as root:\n{command}"

    def by_hand(self, number: int, command: str) -> str:
        """Return what root types on the host to run `command` with the code and the settings of release `number`."""
        release = self.layout.release(number)
        if (release / "container.py").exists():
            return shlex.join([sys.executable, str(release / "container.py"), "--shell", command])
        python = str(release / "build" / ".venv" / "bin" / "python")
        words = ["runuser", "-u", self.arguments["user"], "--", python, str(release / "launch.py"), "--shell", command]
        return f"cd {shlex.quote(os.path.normpath(release / 'build' / self.arguments['directory']))} && {shlex.join(words)}"

    def tidy(self) -> bool:
        """Clear what an interrupted run left: programs other than the live one, and links that lag behind.

        Returns:
            Whether there was anything.
        """
        live = self.layout.live()
        leftovers = [number for number in self.supervisor.known() if number != live]
        for number in leftovers:
            self.end(number)
        if live is None:
            return bool(leftovers)
        target = f"releases/{live}"
        lagging = not self.layout.current.is_symlink() or os.readlink(self.layout.current) != target
        if lagging:
            point(self.layout.current, target)
        left = self.layout.record(live).get("back_from")  # a way back that was interrupted after its switch
        if left and self.layout.release(left).is_dir():
            self.remember(left, outcome="rolled back", reason=f"rolled back to release {live}")
        unsaid = bool(left) or self.layout.record(live).get("outcome") != GOOD
        if unsaid:
            self.remember(live, outcome=GOOD, back_from=None)
        return bool(leftovers) or lagging or unsaid

    def end(self, number: int) -> None:
        """Stop release `number` and forget its program.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        self.supervisor.drop(number)
        self.container(number, "--remove")
        for socket in self.layout.runtime.glob(f"{number}.*"):  # not every server takes it away
            remove(socket)

    def remember(self, number: int, **facts: Any) -> None:
        """Add `facts` to what is remembered of release `number`, and its outcome to the app's history."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"release": number, "build": self.arguments["build"], **self.layout.record(number), **facts}
        record = {name: value for name, value in record.items() if value is not None}
        record.update(who=self.who, when=stamp)
        if facts.get("outcome") == GOOD:
            record.pop("reason", None)
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        # Not for everyone: who knows all else that went into the digest could try secrets against it.
        write(self.layout.release(number) / "release.json", text, mode=0o640, group=self.group)
        if facts.get("outcome") not in ("started", "prepared", None):
            self.layout.note({key: value for key, value in record.items() if key not in ("digest", "health")})

    # The steps of a release

    def prepare(self, number: int) -> None:
        """Write the directory of release `number`.

        Raises:
            ReleaseError: when the build does not exist.
        """
        if not (self.layout.builds / self.arguments["build"]).is_dir():
            raise ReleaseError(f"There is no build {self.arguments['build']} in {self.layout.builds}.")
        directory = self.layout.release(number)
        directory.mkdir(mode=0o755)
        (directory / "build").symlink_to(f"../../builds/{self.arguments['build']}")
        for name, text in self.files().items():
            (directory / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write(directory / name, text)
        write(directory / "program.conf", self.arguments["program"].replace("@RELEASE@", str(number)))
        told = json.dumps(self.told(number), indent=2, sort_keys=True) + "\n"
        write(directory / "runtime.json", told, mode=0o640, group=self.group)
        write(directory / "settings.json", self.arguments["settings"], mode=0o640, group=self.group)
        write(directory / "door.token", secrets.token_hex(16), mode=0o640, group=self.group)
        facts = {"revision": "revision", "version": "version", "source": "origin", "instances": "instances"}
        known = {name: self.arguments.get(argument, "") for name, argument in facts.items()}
        self.remember(number, outcome="started", digest=self.wanted(), health=self.health, **known)

    def launch(self, number: int) -> dict[str, Any]:
        """Return how a command is run as the app's user, with the code and the settings of release `number`."""
        release = self.layout.release(number)
        if (release / "container.py").exists():  # that runs it as the app's user
            return {"through": [sys.executable, str(release / "container.py"), "--shell"], "directory": release, "user": None}
        return {
            "through": [str(release / "build" / ".venv" / "bin" / "python"), str(release / "launch.py"), "--shell"],
            "directory": (release / "build" / self.arguments["directory"]).resolve(),
            "user": self.arguments["user"],
        }

    def container(self, number: int, task: str) -> str:
        """Have the containers of release `number` do something, where it is run in one, and return what is said about it."""
        program = self.layout.release(number) / "container.py"
        if not program.exists():
            return ""
        try:
            return run([sys.executable, program, task], 60, check=False).stdout
        except ReleaseError as error:
            self.warnings.append(str(error))
            return ""

    @contextlib.contextmanager
    def launching(self, number: int) -> Iterator[dict[str, Any]]:
        """Return what `launch` does. A command that is stopped for taking too long leaves no container behind."""
        try:
            yield self.launch(number)
        except ReleaseError:
            self.container(number, "--remove-tasks")
            raise

    def masters(self, number: int | None) -> list[int]:
        """Return the processes whose children are the workers of release `number`."""
        if number is None:
            return []
        inside = self.container(number, "--pids").split()
        return sorted(int(pid) for pid in inside if pid.isdigit()) or self.supervisor.state(number)[1]

    def preflight(self, number: int) -> None:
        """Import the app as its user, with the settings of release `number`.

        Raises:
            ReleaseError: when it cannot be imported; with the end of its traceback, or the settings that it refuses.
        """
        with self.launching(number) as launch:
            command = [*launch["through"][:-1], "--check"]
            answer = run(command, self.health["timeout"], directory=launch["directory"], check=False, user=launch["user"])
        told = HEADLINE.findall(answer.stdout)
        if told and answer.returncode in (UNFIT, OPEN):  # an app may end with such a code by itself, too
            remedy = ": add that path to nginx_closed_paths, or take root_path out of the app"
            raise ReleaseError(told[-1] + (remedy if answer.returncode == OPEN else ""))
        if answer.returncode:
            said = tail(HEADLINE.sub("", answer.stdout), 30)
            ended = f"It ended with exit code {answer.returncode}" + ("." if said else " and said nothing.")
            cause = told[-1] if told else said if said and "\n" not in said else ended
            said = "\n".join(line for line in said.splitlines() if line != cause)  # once is enough
            raise ReleaseError(f"the app cannot be imported: {cause}\n{self.advised(said, number, cause)}".rstrip())

    def prepared(self, *outcomes: str) -> int | None:
        """Return the release that an earlier step of this run, or of one that was interrupted, prepared; None if none is.

        Only the newest is one: with another after it, what is live would not have the highest number of those that were.

        Args:
            outcomes: what else may have become of it.
        """
        for number in self.layout.numbers()[-1:]:
            record = self.layout.record(number)
            whole = (self.layout.release(number) / "build").exists()
            if record.get("outcome") in ("prepared", *outcomes) and record.get("digest") == self.wanted() and whole:
                return number
        return None

    def try_out(self, agreed: int | None = None) -> int:
        """Prepare the next release and import the app in it, or find it prepared.

        Args:
            agreed: the number that it has on all hosts of the app; None where the host is alone.

        Raises:
            ReleaseError: when the app cannot be imported, or the number is taken; what was live still is.
        """
        number = self.prepared(*(["rolled back"] if agreed else []))
        if number is not None and agreed in (None, number):
            return number
        room(self.layout, self.arguments["room"])
        number = self.next_number()
        if agreed is not None and agreed < number:
            raise ReleaseError(
                f"Release {agreed}, as the hosts of {self.arguments['name']} had agreed to call it, is another one here by now. "
                "Nothing was changed; run it again."
            )
        number = agreed or number
        with self.failing(number, self.layout.live()):
            self.prepare(number)
            self.preflight(number)
            self.remember(number, outcome="prepared", migration=self.schema(number))
        return number

    def schema(self, number: int) -> str:
        """Return the revision of the database's schema that the code of release `number` expects, if it uses Alembic."""
        launch = self.launch(number)
        configured = "test -f alembic.ini || grep -qs '^\\[tool.alembic' pyproject.toml"
        # Only a container has to be started to see that.
        if launch["user"] and run(["/bin/sh", "-c", configured], 60, directory=launch["directory"], check=False).returncode:
            return ""
        command = [*launch["through"], f"{configured} || exit 0; exec python3 -m alembic heads"]
        with contextlib.suppress(ReleaseError), self.launching(number):
            answer = run(command, 60, directory=launch["directory"], check=False, user=launch["user"])
            if answer.returncode == 0:
                return ", ".join(sorted(re.findall(r"^(\S+)(?: \([^)]*\))* \(head\)", answer.stdout, re.MULTILINE)))
        self.warnings.append(
            "The app has an Alembic configuration, but `alembic heads` failed: a rollback cannot know its schema."
        )
        return ""

    def migrate(self, number: int) -> str:
        """Run the migration with the code and the settings of release `number`.

        Returns:
            What it printed.

        Raises:
            ReleaseError: when it fails or takes too long; what was live still is.
        """
        command, timeout = (self.arguments["migrate"][key] for key in ("command", "timeout"))
        with self.failing(number, self.layout.live()):
            try:
                with self.launching(number) as launch:
                    said = shell("the migration (app_migrate_command)", command, timeout, "app_migrate_timeout", **launch)
            except ReleaseError as error:
                unknown = UNKNOWN_SCHEMA.search(str(error))
                raise ReleaseError(f"{self.migrated_further(number, unknown[1])}\n{error}" if unknown else str(error)) from error
            self.remember(number, migrated=True)
        return said

    def hook(self, name: str, number: int, live: int | None, to: int) -> None:
        """Run the hook `name`, where there is one, with the code and the settings of release `number`.

        Raises:
            ReleaseError: when it fails or takes too long.
        """
        command = self.arguments["hooks"].get(name)
        if command:
            told = {"SLIPWAY_HOOK": name, "SLIPWAY_FROM": str(live or ""), "SLIPWAY_TO": str(to)}
            timeout = self.arguments["hook_timeout"]
            with self.launching(number) as launch:
                shell(f"the hook {name} (app_hooks)", command, timeout, "app_hook_timeout", environment=told, **launch)

    def gate(self, number: int) -> None:
        """Wait until the candidate `number` is healthy.

        Raises:
            ReleaseError: when it crashes, or is not healthy in time; with the last lines of its log.
        """
        deadline = time.monotonic() + self.health["timeout"]
        look, first, wrong = time.monotonic() + 0.5, list[int](), 0
        problem, silent = "it does not listen on its socket", True
        while time.monotonic() < deadline:
            try:
                problem, silent = self.problem(number), False
                if not problem:
                    return
                wrong += 1
                if wrong == self.health["attempts"]:
                    raise ReleaseError(
                        f"it was not healthy at the {wrong}. attempt (app_health_attempts): {problem}.\n{self.log_tail(number)}"
                    )
                self.sleep(0.9 if self.health["attempts"] else 0.0)
            except (ConnectionRefusedError, FileNotFoundError):  # as at its beginning
                pass
            except TimeoutError:
                problem, silent = f"it listens on its socket, and has not answered GET {self.health['path']} yet", True
            except (http.client.HTTPException, OSError, ValueError) as error:
                problem = f"it listens on its socket, but gives no answer in HTTP ({str(error) or type(error).__name__})"
            if time.monotonic() > look:
                state, processes = self.supervisor.state(number)
                first = first or processes
                if state in ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN") or processes != first:
                    raise ReleaseError(f"it stopped right after its start ({state}).\n{self.log_tail(number)}")
                look = time.monotonic() + 0.5
            self.sleep(0.1)
        longer = " It may still be starting: if it needs longer, raise app_health_timeout." if silent else ""
        seconds = f"{self.health['timeout']:g} s (app_health_timeout)"
        raise ReleaseError(f"it was not healthy after {seconds}: {problem}.{longer}\n{self.log_tail(number)}")

    def see_front(self, number: int, live: int | None) -> None:
        """See that the candidate answers what is at its root, where the live release has something there, and quickly.

        Raises:
            ReleaseError: when it does not begin to answer in time, nor when it is asked again: the first may warm it up.
        """
        patience = float(self.arguments.get("hang") or 0.0)
        if live is None or not patience:
            return
        begin = time.monotonic()
        try:
            status = self.ask(self.layout.socket(live), "/", QUICK_SECONDS, longest=0).status
        except NO_ANSWER:
            return
        usual = time.monotonic() - begin
        if status == 404 or status >= 500:
            return
        late: TimeoutError | None = None
        for _ in range(2):
            try:
                self.ask(self.layout.socket(number), "/", patience, longest=0)
                return
            except TimeoutError as error:
                late = error
            except NO_ANSWER:
                return
        raise ReleaseError(
            f"it hangs: GET / has no answer after {patience:g} s (app_watch_hang_seconds), twice, and release {live} gives one "
            f"in {usual:.1f} s.\n{self.log_tail(number)}"
        ) from late

    def compare(self, number: int, live: int | None) -> None:
        """Stop a release whose interface would break clients of the live one.

        Raises:
            ReleaseError: when it would; with all that is missing or narrower.
        """
        path = self.arguments["openapi_path"]
        if not path or live is None:
            return
        documents = []
        for release in (live, number):
            try:
                answer = self.ask(self.layout.socket(release), path, longest=LONGEST_DOCUMENT)
                documents.append(answer.json() if answer.status == 200 else None)
            except NO_ANSWER:
                documents.append(None)
        before, after = documents
        if not isinstance(before, dict):
            self.warnings.append(f"Release {live} has no OpenAPI document at {path}, so nothing was compared (app_openapi_gate).")
            return
        if not isinstance(after, dict):
            raise ReleaseError(f"it has no OpenAPI document at {path} (app_openapi_path), and release {live} has one.")
        changes = breaking_changes(before, after)
        if changes:
            listed = "\n".join(f"  - {change}" for change in changes)
            raise ReleaseError(
                f"its interface would break clients of release {live} (app_openapi_gate):\n{listed}\n"
                "To release it all the same: -e app_openapi_gate=false"
            )

    def freshen(self, number: int) -> dict[Path, int]:
        """Give the files of release `number` the times by which clients of what is live see which of them differ.

        Returns:
            Those times of the live release's files that it needs before it is live again.
        """
        if self.image(str(self.layout.record(number).get("build"))):
            return {}  # those in an image stay as they were when it was built
        live = self.layout.live()
        before = self.layout.release(live) / "build" if live is not None else None
        with contextlib.suppress(OSError):  # no reason not to go back
            return freshen(
                self.layout.release(number) / "build",
                before if before is not None and before.is_dir() else None,
                float(self.arguments["run"].get("at") or time.time()),
            )
        return {}

    def switch(self, number: int) -> None:
        """Make release `number` live: from these renames on, each new connection reaches it.

        Nginx finds the sockets of further instances through the link `current`. It asks for as many as there are today: of a
        release that had fewer, some are found twice.
        """
        sockets = self.layout.sockets(number)
        for instance in range(1, self.arguments["instances"]):
            point(self.layout.release(number) / f"{instance}.sock", sockets[instance % len(sockets)])
        point(self.layout.live_socket, sockets[0])
        point(self.layout.current, f"releases/{number}")

    def prove(self, number: int, seconds: float = 10.0) -> None:
        """Ask at the public door until release `number` answers there.

        Raises:
            ReleaseError: when it does not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = self.check.ask_endpoint(self.door)
                if answer.release == str(number):
                    return
                says = f"from release {answer.release}" if answer.release else "which names no release"
                problem = f"status {answer.status}, {says}"
            except NO_ANSWER as error:
                problem = str(error) or type(error).__name__
            self.sleep(0.1)
        raise ReleaseError(f"the public door ({self.door.host}, port {self.door.port}) does not answer from it: {problem}.")

    def watch(self, number: int, switched: float, traffic: Traffic, usual_ends: float, settled: float) -> None:
        """Watch release `number` for a while after the switch.

        Args:
            number: the release.
            switched: when it was made live, in seconds of the monotonic clock.
            traffic: what Nginx logs, with what was usual before the switch.
            usual_ends: how many worker processes of the release before it ended in a second.
            settled: seconds after which nothing reaches the release before it any more; 0 where there was none.

        Raises:
            ReleaseError: when it stops being healthy, its program starts again, more of its processes end than was usual, more of
                its answers are errors than was usual, or requests hang that did not before.
        """
        since, seconds = time.time() - (time.monotonic() - switched), self.arguments["watch"]
        processes, workers = list[int](), Processes([])
        allowed = max(1.0, 2 * usual_ends * seconds)
        bad, proved = 0, False
        hang = float(self.arguments.get("hang") or 0.0) if seconds and settled else 0.0
        while True:
            passed = time.monotonic() - switched
            after = f"in the {passed:.0f} s since the switch (app_watch_seconds)"
            state, now = self.supervisor.state(number)
            if not processes and len(now) == len(self.layout.sockets(number)):
                processes, workers = now, Processes(self.masters(number))
            if (processes and now != processes) or state not in ("RUNNING", "STARTING"):
                raise ReleaseError(f"its program ended {after} ({state}).\n{self.log_tail(number)}")
            if workers.look() > allowed:
                raise ReleaseError(f"{workers.ended} of its worker processes ended {after}.\n{self.log_tail(number)}")
            try:
                problem = self.check.unhealthy(self.check.ask_endpoint(self.door))
            except NO_ANSWER as error:
                problem = str(error) or type(error).__name__
            bad = bad + 1 if problem else 0
            if bad == 3:
                raise ReleaseError(f"it stopped being healthy {after}: {problem}.\n{self.log_tail(number)}")
            count = traffic.follow(number, since)
            if count.errors >= LEAST_ERRORS and count.share > traffic.usual.share + LEAST_SHARE:
                raise ReleaseError(
                    f"{count} were answered with a 5xx status {after}; before it were {traffic.usual}.\n{self.log_tail(number)}"
                )
            hung = self.hung(number, switched, traffic, hang) if hang else ""
            if hung:
                raise ReleaseError(f"it hangs: {hung} (app_watch_hang_seconds).\n{self.log_tail(number)}")
            if not proved and passed >= settled:
                self.prove(number, seconds=5)
                proved = True
            if proved and passed >= seconds and not bad and not self.suspect(number, switched, traffic, hang, passed - seconds):
                return
            self.sleep(0.5 if bad else 1.0)

    def hung(self, number: int, switched: float, traffic: Traffic, hang: float, least: float = 0.0) -> str:
        """Say which requests to release `number` hang, as `hanging` does.

        Args:
            number: the release.
            switched: when it was made live, in seconds of the monotonic clock.
            traffic: what Nginx logs.
            hang: how long one has waited that hangs.
            least: leave out what has waited for less than this.
        """
        waits = waiting(self.layout.runtime, number, switched)
        if least:  # as if all of them were going to
            waits = [(max(waited, hang), path) for waited, path in waits if waited >= least]
        return hanging(waits, hang, traffic)

    def suspect(self, number: int, switched: float, traffic: Traffic, hang: float, late: float) -> bool:
        """Say whether the watch must go on beyond its end: requests that began before that wait, and may turn out to hang.

        Args:
            number: the release.
            switched: when it was made live, in seconds of the monotonic clock.
            traffic: what Nginx logs.
            hang: how long one has waited that hangs; 0 where nobody looks at that.
            late: how long ago the watch was to end, in seconds.
        """
        return hang > 0 and late <= hang and bool(self.hung(number, switched, traffic, hang, late + SUSPECT_SECONDS))

    # Whole releases

    def release(self, agreed: int | None = None) -> int:
        """Release the build.

        Args:
            agreed: the number that the release has on all hosts of the app; None where the host is alone.

        Returns:
            The number of the release that is live now.

        Raises:
            ReleaseError: when the new release failed; the old one is live, and says so.
        """
        number = self.try_out(agreed)
        self.carry_out(number, ("before_switch", "after_switch"))
        return number

    def roll_back(self, target: int, settings: str, agreed: int | None = None) -> int:
        """Go back to release `target`.

        Args:
            target: the release; it is on this host.
            settings: `theirs` for those that it ran with, `current` for today's, which make it a new release of its build.
            agreed: the number that such a new release has on all hosts of the app; None where the host is alone.

        Returns:
            The number of the release that is live now.

        Raises:
            ReleaseError: when that failed; what was live still is.
        """
        live = self.layout.live()
        record = self.layout.record(target)
        for release in {
            target,
            *([] if live is None else [live]),
        }:  # what these print may hold secrets that have been changed since
            with contextlib.suppress(OSError, ValueError):
                self.keep_secret((self.layout.release(release) / "settings.json").read_text(encoding="utf-8"))
        number = target
        if settings == "current":
            if bool(self.image(record["build"])) != bool(self.arguments["runtime"]["container"]):
                raise ReleaseError(
                    f"Release {target} was built for another app_runtime than today's: it can be gone back to with its own "
                    "settings only (app_rollback_settings: theirs)."
                )
            self.arguments.update(build=record["build"], revision=record["revision"], origin=record["source"])
            self.arguments["version"] = record.get("version", "")
            number = self.try_out(agreed)
        else:
            then = record.get("health", {})
            self.health = {**self.health, **{key: then[key] for key in DEFINITION if key in then}}
        try:
            # With the code that is about to go: only that knows how to undo what it did to the database.
            if live is not None:
                self.hook("before_rollback", live, live, number)
        except ReleaseError as error:
            raise ReleaseError(f"Nothing was rolled back: {error}") from error
        self.carry_out(number, ("", "after_rollback"), back=live is not None and target < live)
        return number

    def take_back(self, number: int, before: int | None) -> None:
        """Have again what was live before release `number`, which is not to be after all: another host could not have it.

        Args:
            number: the release that goes; it is live.
            before: the release that was live before it; None where there was none.

        Raises:
            ReleaseError: when that failed; `number` still is live.
        """
        self.back = "taken back"
        if before is not None:
            self.roll_back(before, "theirs")
            return
        self.go_back(None, {})
        self.remember(number, outcome="rolled back", reason="taken back: nothing was live before it")
        self.end(number)

    def in_time(self) -> None:
        """See that whoever runs this still waits for it.

        Raises:
            ReleaseError: when it has been given up on: other hosts of the app go back to what they had.
        """
        if time.monotonic() > self.deadline:
            raise ReleaseError(f"it took longer than the {self.arguments['limit']:.0f} s after which the run gives up on a host.")

    def carry_out(self, number: int, hooks: tuple[str, str], back: bool = False) -> None:
        """Start release `number`, whose directory is there, and make it live.

        Args:
            number: the release.
            hooks: the names of those before and after the switch.
            back: whether the live release is taken back by this.

        Raises:
            ReleaseError: when it failed; what was live still is. When only the hook after the switch did, `number` is live.
        """
        old = self.layout.live()
        with self.failing(number, old):
            before = Processes(self.masters(old))
            again = self.freshen(number)
            self.supervisor.add(number, self.layout.release(number) / "program.conf")
            self.gate(number)
            if hooks[1] != "after_rollback":  # a way back is not to fail for what was good enough then
                self.see_front(number, old)
            self.compare(number, old)
            self.hook(hooks[0], number, old, number)
            before.look()
            traffic = Traffic(Path(self.arguments["access_log"]))
            # So that the same again, after an interruption, ends here, and the next run makes up for the hook.
            owed = {"hook": hooks[1], "from": old} if self.arguments["hooks"].get(hooks[1]) else None
            self.remember(number, back_from=old if back else None, owed=owed)
            try:
                self.in_time()
                self.switch(number)
                switched = time.monotonic()
                self.prove(number)
                self.watch(number, switched, traffic, before.rate, CACHED_CONNECTION_SECONDS if old is not None else 0.0)
                self.in_time()
            except Exception:
                self.go_back(old, again)
                with contextlib.suppress(OSError):  # what is raised already is what to tell
                    self.remember(number, back_from=None, owed=None)
                self.sleep(self.arguments["drain"] if old is not None else 0)
                raise
        if back and old is not None and self.layout.release(old).is_dir():
            self.remember(old, outcome="rolled back", reason=f"{self.back} to release {number}")
        self.remember(number, outcome=GOOD)
        # Not before all that comes through the door reaches this release.
        self.warnings += self.door.findings(self.token(number)) if self.token(number) else []
        self.sleep(max(0.0, switched + self.arguments["drain"] - time.monotonic()) if old is not None else 0)
        for leftover in self.supervisor.installed():
            if leftover != number:
                self.end(leftover)
        self.remember(number, back_from=None)
        self.last_hook(number)

    def last_hook(self, number: int) -> str:
        """Run the hook that release `number`, which is live, still owes: the last step, which may have failed or been cut off.

        Returns:
            The hook's name; empty where there is none to run.

        Raises:
            ReleaseError: when it fails; the next run tries it again.
        """
        owed = self.layout.record(number).get("owed") or {}
        name = str(owed.get("hook", ""))
        if not name:
            return ""
        try:
            self.hook(name, number, owed.get("from"), number)
        except ReleaseError as error:
            what, *said = str(error).split("\n")
            again = "The hook is run again by the next run of playbooks/deploy.yml."
            if name == "after_rollback":  # a deploy would release again what was rolled back
                again = f"Mend the hook, then run it again: playbooks/rollback.yml -e release={number}"
                if self.arguments["number"]:
                    again = f"Where several hosts serve {self.arguments['name']}, nothing runs the hook again: do so by hand."
            raise ReleaseError("\n".join([f"Release {number} is live, but {what}", again, *said])) from error
        self.remember(number, owed=None)
        return name

    def token(self, number: int) -> str:
        """Return what release `number` knows a question of ours by; empty where it was made before there were any."""
        try:
            return (self.layout.release(number) / "door.token").read_text(encoding="ascii")
        except OSError:
            return ""

    def go_back(self, old: int | None, again: Mapping[Path, int]) -> None:
        """Make release `old` live again after a switch that did not hold.

        Args:
            old: the release; None where there was none.
            again: the times of those of its files by which clients see that they differ. No file is read for that now.
        """
        if old is not None:
            with contextlib.suppress(OSError):  # no reason not to go back
                renew(again)
            self.switch(old)
        else:
            remove(self.layout.live_socket)
            remove(self.layout.current)

    @contextlib.contextmanager
    def failing(self, number: int, old: int | None) -> Any:
        """Turn an error into a failure of release `number`: its program is dropped, the reason is noted, `old` is looked at.

        Raises:
            ReleaseError: for any error; says what failed and what serves.
        """
        try:
            yield
        except Exception as error:
            said = str(error) if isinstance(error, (ReleaseError, OSError)) else f"{type(error).__name__}: {error}"
            reason = masked(said, self.secrets)
            with contextlib.suppress(ReleaseError):
                if number != old:
                    self.end(number)
            if self.layout.release(number).is_dir():
                facts = {"outcome": "failed", "reason": reason.splitlines()[0]}
                with contextlib.suppress(OSError):  # on a full disk the reason that is raised below must do
                    if self.layout.record(number).get("outcome") in ("started", "prepared"):
                        self.remember(number, **facts)
                    else:  # one that was good once stays so
                        self.layout.note({"release": number, "who": self.who, **facts})
            if old is None:
                serving = "Nothing was live before."
            elif self.answers(old):
                serving = f"Release {old} serves as before."
            else:
                places = [place for place, _ in ends(self.layout, self.arguments["name"], old, 1)] or [str(self.layout.log(old))]
                serving = f"Release {old}, which was live before, does not answer: see {places[0]}."
            raise ReleaseError(f"Release {number} failed: {reason}\n{serving}") from error

    # Back, and cleaning up

    def target(self, wanted: str, across: bool) -> int:
        """Return the release to go back to.

        Args:
            wanted: its number as the operator gave it; empty for the last good one before the live one.
            across: whether the database's schema may be another one than it was then.

        Raises:
            ReleaseError: when there is none, it is not here any more, or it may not be chosen.
        """
        live = self.layout.live()
        kept = {number: self.layout.record(number) for number in self.layout.numbers()}
        listed = ", ".join(str(number) for number, record in kept.items() if record.get("outcome") == GOOD and number != live)
        there = f"To choose from: {listed}." if listed else "There is none to choose from."
        if live is None:
            raise ReleaseError(f"Nothing of {self.arguments['name']} is live here, so there is nothing to go back from.")
        if wanted:
            if not wanted.isdigit() or int(wanted) not in kept:
                raise ReleaseError(f"There is no release {wanted} of {self.arguments['name']} on this host. {there}")
            number = int(wanted)
            outcome = kept[number].get("outcome")
            if outcome not in (GOOD, "rolled back"):
                said = kept[number].get("reason", "it was never live")
                raise ReleaseError(f"Release {number} of {self.arguments['name']} failed when it was tried: {said}. {there}")
        elif kept.get(live, {}).get("back_from"):
            return live
        else:
            earlier = [number for number, record in kept.items() if number < live and record.get("outcome") == GOOD]
            if not earlier:
                raise ReleaseError(
                    f"There is no good release of {self.arguments['name']} before release {live} on this host. {there}"
                )
            number = max(earlier)
        if not (self.layout.release(number) / "build").exists():
            raise ReleaseError(f"The build of release {number} is gone from this host. {there}")
        schema = self.schema_now(live, kept)
        other = str(kept[number].get("migration") or "")
        if number != live and schema != other and not across:
            raise ReleaseError(
                f"Release {number} was made for another schema of the database: its migrations end at {other or 'none'}, and the "
                f"database was migrated to {schema or 'none'} since. Nothing is migrated back by itself. If its code can work "
                f"with today's schema, or you have migrated back: playbooks/rollback.yml -e release={number} "
                "-e app_rollback_across_migrations=true\n"
                f"{self.migrating_back(self.migrated_by(schema, number) or live, other.split(', ')[0])}"
            )
        return number

    def schema_now(self, live: int, kept: dict[int, dict[str, Any]]) -> str:
        """Return the revision of the schema that the database was brought to last."""
        latest = max([live, *(number for number, record in kept.items() if record.get("migrated") and number > live)])
        return str(kept.get(latest, {}).get("migration") or "")

    def prune(self) -> None:
        """Remove releases beyond those to keep, and the builds, environments and logs that none of the rest uses.

        What is live is never removed, nor what was live before it, whatever failed in between.
        """
        live = self.layout.live()
        keep = self.arguments["keep"]
        others = [number for number in self.layout.numbers() if number != live]
        good = [number for number in others if self.layout.record(number).get("outcome") == GOOD]
        kept = {*others[-keep:], *good[-keep:]} if keep else set(good[-1:])
        kept |= {live} if live is not None else set()
        for number in set(others) - kept:
            remove(self.layout.release(number))
        for log in self.layout.logs.glob("*.log*"):
            number_text = log.name.split(".", 1)[0]
            if number_text.isdigit() and int(number_text) not in kept:
                remove(log)
        for hidden in self.layout.releases.glob(".*"):
            remove(hidden)
        links = [self.layout.release(number) / "build" for number in kept]
        builds = {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()} | {self.arguments["build"]}
        self.prune_images(builds)
        for build in self.layout.builds.iterdir():
            if build.name not in builds:
                remove(build)
        links = [self.layout.builds / build / ".venv" for build in builds]
        venvs = {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()}
        for venv in self.layout.venvs.iterdir():
            if venv.name not in venvs:
                remove(venv)

    def image(self, build: str) -> dict[str, Any]:
        """Return what is remembered of the image of a build; empty where it has none."""
        try:
            record: dict[str, Any] = json.loads((self.layout.builds / build / ".build.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if record.get("image") else {}

    def prune_images(self, builds: set[str]) -> None:
        """Remove the app's images but for those of `builds`."""
        records = [self.image(path.name) for path in self.layout.builds.iterdir()]
        engines = {record["engine"] for record in records if record} | {self.arguments["engine"]}
        name = repository(self.arguments["name"])
        for engine in engines - {""}:
            try:
                for tag in set(Engine(engine).tags(name)) - builds:
                    Engine(engine).call("rmi", f"{name}:{tag}")
            except ReleaseError as error:
                self.warnings.append(f"An image of an earlier release could not be removed. {error}")
