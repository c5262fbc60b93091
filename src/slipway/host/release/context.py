"""One step of a release of an app on a host: its arguments, and what it works with."""

from __future__ import annotations

import contextlib
import grp
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.host.endpoint import Answer, PublicEndpoint, UnixConnection, ask
from slipway.host.errors import ReleaseError
from slipway.host.health import HealthCheck
from slipway.host.process import run, shell
from slipway.host.state import masters
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor

# Steps that move what only one host of the app may run, with what they say of this host.
MOVES = {"hand_over": "no", "take_over": "yes"}


@dataclass(frozen=True)
class Context:
    """One step of a release of an app on a host. What a part of it wants otherwise, it wants of a copy.

    Attributes:
        arguments: those of the step; its `PARAMETERS` lists them.
        layout: the app's paths, and what is remembered of its releases.
        supervisor: the programs of its releases.
        endpoint: its public endpoint on this host.
        health: what a healthy release answers, and how long one is waited for.
        first: whether what only one host of the app may run belongs on this one in this step.
        deadline: when the run gives up on this host, in seconds of the monotonic clock.
        warnings: further messages for the operator; each part adds to them.
        secrets: what is shown nowhere.
    """

    arguments: dict[str, Any]
    layout: Store
    supervisor: Supervisor
    endpoint: PublicEndpoint
    health: dict[str, Any]
    first: bool
    deadline: float
    warnings: list[str]
    secrets: list[str]

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Context:
        """Return the context of the step with `arguments`, which begins now."""
        layout = Store(**arguments["layout"])
        # A step that moves what only one host may run says by its name where that belongs.
        given, before = MOVES.get(arguments.get("step", ""), arguments.get("first_host") or ""), layout.was_first()
        context = cls(
            arguments=arguments,
            layout=layout,
            supervisor=Supervisor(
                arguments["name"], arguments["program_directory"], arguments["program_suffix"], arguments["stop"]
            ),
            endpoint=PublicEndpoint(**arguments["endpoint"]),
            health=arguments["health"],
            first={"yes": True, "no": False}.get(given, not given and arguments["first"] if before is None else before),
            deadline=time.monotonic() + (arguments["limit"] or float("inf")),
            warnings=[],
            secrets=[],
        )
        context.keep_secret(arguments["settings"] or "{}")
        return context

    def keep_secret(self, settings: str, names: Iterable[str] = ()) -> None:
        """Have the secrets in `settings`, a JSON object, shown nowhere: those of the configuration, and `names`."""
        values = json.loads(settings)
        self.secrets.extend(values[name] for name in {*self.arguments["secret_names"], *names} if name in values)

    def keep_secrets_of(self, number: int) -> None:
        """Have the secrets of release `number` shown nowhere: a later configuration need not name them.

        Raises:
            OSError: when the release is not there.
            ValueError: when one of its files is no JSON.
        """
        release = self.layout.release(number)
        settings, runtime = ((release / name).read_text(encoding="utf-8") for name in ("settings.json", "runtime.json"))
        self.keep_secret(settings, json.loads(runtime).get("secrets", []))

    @property
    def group(self) -> int:
        """The numeric id of the group that may read the settings."""
        return grp.getgrnam(self.arguments["user"]).gr_gid

    @property
    def who(self) -> str:
        """The operator, and where that is."""
        return f"{self.arguments['run']['who']}@{self.arguments['run']['where']}"

    @property
    def check(self) -> HealthCheck:
        """What a healthy release answers."""
        return HealthCheck.of(self.health)

    def ask(self, socket: Path, path: str, timeout: float = 5.0, **options: Any) -> Answer:
        """Ask a release at one of its own sockets.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        return ask(UnixConnection(socket, timeout=timeout), path, self.health["host"], **options)

    def launch(self, number: int) -> dict[str, Any]:
        """Return how a command is run as the app's user, with the code and the settings of release `number`."""
        release = self.layout.release(number)
        if (release / "container.py").exists():  # that runs it as the app's user
            return {"through": [sys.executable, str(release / "container.py"), "--shell"], "directory": release, "user": None}
        # A later configuration, even of a release that failed, may name another one.
        directory = self.layout.record(number).get("directory", self.arguments["directory"])
        return {
            "through": [str(release / "build" / ".venv" / "bin" / "python"), str(release / "launch.py"), "--shell"],
            "directory": (release / "build" / directory).resolve(),
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
        try:
            return masters(self.layout, self.supervisor, number)
        except ReleaseError as error:
            self.warnings.append(str(error))
            return self.supervisor.state(number)[1]

    def hook(self, name: str, number: int, live: int | None, to: int) -> None:
        """Run the hook `name`, where there is one, with the code and the settings of release `number`.

        Raises:
            ReleaseError: when it fails or takes too long.
        """
        command = self.arguments["hooks"].get(name)
        if command:
            variables = {"SLIPWAY_HOOK": name, "SLIPWAY_FROM": str(live or ""), "SLIPWAY_TO": str(to)}
            timeout = self.arguments["hook_timeout"]
            with self.launching(number) as launch:
                shell(f"the hook {name} (app_hooks)", command, timeout, "app_hook_timeout", environment=variables, **launch)

    def token(self, number: int) -> str:
        """Return what release `number` knows a question of ours by; empty where it was made before there were any."""
        try:
            return (self.layout.release(number) / "door.token").read_text(encoding="ascii")
        except OSError:
            return ""
