"""The programs of one app under Supervisor: the web server of each release that runs, and its processes beside that."""

from __future__ import annotations

import configparser
import http.client
import re
import shutil
import tempfile
import xmlrpc.client
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from slipway.host.endpoint import UnixConnection
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.process import run, tail

# Where distributions keep Supervisor's own configuration.
CONFIGURATIONS = (Path("/etc/supervisor/supervisord.conf"), Path("/etc/supervisord.conf"))

# Reads the configuration named on the command line as supervisord would, without starting anything.
PARSE_SECTION = "import sys; from supervisor.options import ServerOptions; ServerOptions().realize(['-n', '-c', sys.argv[1]])"

# Seconds in which Supervisor answers what does not wait for a program.
ANSWER_SECONDS = 30

# States of a program, the one that tells most about several processes first.
STATES = ("FATAL", "BACKOFF", "EXITED", "UNKNOWN", "STOPPED", "STOPPING", "STARTING", "RUNNING")


class Program(NamedTuple):
    """A process of a release, as Supervisor knows it; its instances are one program.

    Attributes:
        name: what Supervisor calls it.
        release: the release.
        process: what the app calls it.
        states: the state of each instance; none where it has only a section.
        pids: their process ids.
        starts: when they were started, in seconds since 1970.
    """

    name: str
    release: int
    process: str
    states: list[str]
    pids: list[int]
    starts: list[float]

    @property
    def state(self) -> str:
        """The state of the instance that is worst off; of those that were told to end, STOPPING until the last of them has."""
        if "STOPPING" in self.states and not {*self.states} & {"BACKOFF", "STARTING", "RUNNING"}:
            return "STOPPING"
        return min(self.states, key=STATES.index, default="UNKNOWN")

    @property
    def ended(self) -> bool:
        """Whether none of it runs, nor will."""
        return not {*self.states} & {"BACKOFF", "STOPPING", "STARTING", "RUNNING"}


class Transport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket.

    Args:
        path: the socket.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self.path = path
        self.timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return a new connection to `host`, an address that may hold credentials."""
        _, self._extra_headers, _ = self.get_host_info(host)
        return UnixConnection(self.path, self.timeout)


def control() -> tuple[Path, str]:
    """Return the socket at which Supervisor listens for its own tools, and the address that they call there.

    Raises:
        ReleaseError: when its configuration names none.
    """
    settings = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    read = settings.read(CONFIGURATIONS, encoding="utf-8")
    socket, name, password = (settings.get("unix_http_server", key, fallback="") for key in ("file", "username", "password"))
    if not socket:
        places = " or ".join(read or map(str, CONFIGURATIONS))
        raise ReleaseError(f"Supervisor listens on no Unix socket: {places} has no file= in [unix_http_server].")
    credentials = f"{quote(name, safe='')}:{quote(password, safe='')}@" if name else ""
    return Path(socket), f"http://{credentials}localhost/RPC2"


class Supervisor:
    """The programs of one app under Supervisor.

    Args:
        name: the app's name.
        directory: where Supervisor looks for sections.
        suffix: what the names of those files end with.
        stop_seconds: how long a program may take to stop.
    """

    def __init__(self, name: str, directory: str | Path, suffix: str, stop_seconds: float) -> None:
        self.name = name
        self.directory = Path(directory)
        self.suffix = suffix
        self.stop_seconds = stop_seconds

    def program(self, number: int) -> str:
        """Return the name of the program that is the web server of release `number`."""
        return f"{self.name}-{number}"

    def section(self, number: int) -> Path:
        """Return the file that holds the section of release `number`."""
        return self.directory / f"{self.program(number)}{self.suffix}"

    def installed(self) -> list[int]:
        """Return the releases that have a section."""
        numbers = (
            path.name[len(self.name) + 1 : -len(self.suffix)] for path in self.directory.glob(f"{self.name}-*{self.suffix}")
        )
        return sorted(int(number) for number in numbers if number.isdigit())

    def programs(self) -> list[Program]:
        """Return the processes of all releases, those that only have a section included.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        names = {path.name[: -len(self.suffix)]: list[dict[str, Any]]() for path in self.directory.glob(f"*{self.suffix}")}
        for process in self.call("getAllProcessInfo"):
            names.setdefault(process["group"], []).append(process)
        found = []
        for name, known in sorted(names.items()):
            match = re.fullmatch(rf"{re.escape(self.name)}-(\d+)\.([a-z][a-z0-9_-]*)(\.c\d+)?", name)
            if match:
                states, pids = [each["statename"] for each in known], [each["pid"] for each in known if each["pid"]]
                found.append(Program(name, int(match[1]), match[2], states, sorted(pids), [each["start"] for each in known]))
        return found

    def install(self, program: str, text: str, source: Path) -> None:
        """Have Supervisor run a program, and change nothing else.

        Args:
            program: what Supervisor calls it.
            text: its section.
            source: where that comes from, for the operator.

        Raises:
            ReleaseError: when Supervisor refuses the section; it is then not installed.
        """
        self.check(text, source)
        section = self.directory / f"{program}{self.suffix}"
        write(section, text)
        try:
            self.call("reloadConfig")  # reads all sections, and changes no program
            self.call("addProcessGroup", program)
        except ReleaseError as error:
            remove(section)
            raise ReleaseError(f"Supervisor rejected the program {program}: {error}") from error

    def end(self, program: str, seconds: float = 0.0) -> None:
        """Have a program stop, and not start again after a reboot; Supervisor kills it when its time is over.

        Args:
            program: what Supervisor calls it.
            seconds: how long it may take where that is waited for; 0 to wait for nothing.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        remove(self.directory / f"{program}{self.suffix}")
        self.call("stopProcessGroup", program, bool(seconds), seconds=seconds + 60)

    def forget(self, program: Program) -> None:
        """Forget a program that has ended, or that has only a section.

        Raises:
            ReleaseError: when Supervisor does not answer, or it runs.
        """
        remove(self.directory / f"{program.name}{self.suffix}")
        if program.states:
            self.call("removeProcessGroup", program.name)

    def check(self, text: str, source: Path) -> None:
        """Have Supervisor's own parser read a section, since a bad one would keep Supervisor from starting.

        Args:
            text: the section.
            source: where that comes from, for the operator.

        Raises:
            ReleaseError: when it refuses the section.
        """
        program = Path(shutil.which("supervisord") or "/usr/bin/supervisord")
        interpreter = program.open(encoding="utf-8").readline().removeprefix("#!").split()
        with tempfile.TemporaryDirectory() as directory:
            section, configuration = Path(directory, "section.conf"), Path(directory, "supervisord.conf")
            section.write_text(text, encoding="utf-8")
            configuration.write_text(f"[supervisord]\n[include]\nfiles = {section}\n", encoding="utf-8")
            answer = run([*interpreter, "-c", PARSE_SECTION, configuration], 30, directory=Path(directory), check=False)
        if answer.returncode:
            raise ReleaseError(f"Supervisor rejects the program's section {source}:\n{tail(answer.stdout, 5)}")

    def call(self, method: str, *arguments: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """Have Supervisor do something: http://supervisord.org/api.html lists what.

        Raises:
            ReleaseError: when it does not answer within so many seconds, or refuses.
        """
        path, address = control()
        proxy = xmlrpc.client.ServerProxy(address, transport=Transport(path, seconds))
        try:
            with proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as error:
            raise ReleaseError(f"Supervisor rejects {method}: {error.faultString}") from error
        except (OSError, xmlrpc.client.Error, http.client.HTTPException) as error:
            raise ReleaseError(f"Supervisor does not answer at {path}: {getattr(error, 'strerror', '') or error}") from error

    def processes(self) -> dict[int, list[dict[str, Any]]]:
        """Return what Supervisor says of the instances of the app's web server, by release.

        Raises:
            ReleaseError: when it does not answer.
        """
        found: dict[int, list[dict[str, Any]]] = {}
        for process in self.call("getAllProcessInfo"):
            name, _, number = process["group"].rpartition("-")
            if name == self.name and number.isdigit():
                found.setdefault(int(number), []).append(process)
        return found

    def known(self) -> list[int]:
        """Return the releases that have a section or, after an interruption, still run without one.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        return sorted({*self.installed(), *self.processes()})

    def add(self, number: int, section: Path) -> None:
        """Have Supervisor run release `number` as the file `section` says, and change nothing else.

        Raises:
            ReleaseError: when Supervisor refuses the section; it is then not installed.
        """
        self.install(self.program(number), section.read_text(encoding="utf-8"), section)

    def drop(self, number: int) -> None:
        """Stop release `number` gracefully and forget its program.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        remove(self.section(number))
        if number in self.processes():
            self.call("stopProcessGroup", self.program(number), seconds=self.stop_seconds + 60)
            self.call("removeProcessGroup", self.program(number))

    def state(self, number: int) -> tuple[str, list[int]]:
        """Return what Supervisor reports for release `number`: a state such as RUNNING, and the ids of its processes.

        Of several instances, the one that is worst off tells the state. It is UNKNOWN where Supervisor has no such program, or
        does not answer.
        """
        try:
            processes = self.processes().get(number, [])
        except ReleaseError:
            processes = []
        if not processes:
            return "UNKNOWN", []
        worst = min(processes, key=lambda process: STATES.index(process["statename"]))
        return worst["statename"], sorted(process["pid"] for process in processes if process["pid"])
