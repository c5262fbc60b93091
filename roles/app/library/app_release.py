#!/usr/bin/python
"""Release a build: start it beside the live release, let it prove itself, switch to it, and stop the old one."""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.app_layout import Layout, ReleaseError, digest, lock, point, remove, run, tail, write
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_release
short_description: Release a build of an app without dropping a request
description:
  - A release is a build plus its settings. Where the live one is made of the same and answers, nothing happens.
  - The new release starts on a socket of its own. Only when it is healthy does one rename make it live; only when the public
    door answers from it is the old one drained and stopped. Until then every failure ends with the old one serving.
  - What a run that was interrupted left behind is cleared first.
  - In C(files) and C(program), C(@RELEASE@) stands for the number of the release and C(@REVISION@) for what it was built from.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  name: {type: str, required: true, description: "The app's name. A program is called C(<name>-<release>)."}
  user: {type: str, required: true, description: "The user that runs the app. Its group may read the settings."}
  directory: {type: str, required: true, description: "The folder of the build in which the app runs."}
  build: {type: str, required: true, description: "The build to release."}
  revision: {type: str, required: true, description: "What the operator calls the state of the source, such as a commit."}
  origin: {type: str, required: true, description: "Where the source came from."}
  files: {type: dict, required: true, description: "Files of the release, name to content."}
  settings: {type: str, required: true, description: "The environment of the app, as a JSON object."}
  program: {type: str, required: true, description: "The section for Supervisor."}
  program_directory: {type: path, required: true, description: "Where Supervisor looks for sections."}
  program_suffix: {type: str, required: true, description: "What the names of those files end with."}
  health: {type: dict, required: true, description: "C(path), C(status), C(host) and C(timeout) in seconds."}
  door: {type: dict, required: true, description: "C(host), C(port) and C(tls) of the public door on this host."}
  drain: {type: float, required: true, description: "Seconds between the switch and the end of the old release."}
  stop: {type: float, required: true, description: "Seconds that Supervisor gives a program to stop."}
  keep: {type: int, required: true, description: "How many earlier releases stay on the host."}
  who: {type: str, required: true, description: "The operator."}
"""

# How long Nginx may go on using a connection to the old release after a switch: keepalive_time of its upstream, and some.
CACHED_CONNECTION_SECONDS = 3.5

# Reads the configuration named on the command line as supervisord would, without starting anything.
PARSE_SECTION = "import sys; from supervisor.options import ServerOptions; ServerOptions().realize(['-n', '-c', sys.argv[1]])"


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket.

        Raises:
            OSError: when nobody listens there.
        """
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(connection: http.client.HTTPConnection, path: str, host: str) -> tuple[int, str | None]:
    """Send one GET request.

    Returns:
        The status, and the number of the release that answered where it says so.

    Raises:
        OSError: when there is no answer.
        http.client.HTTPException: when the answer is not HTTP.
    """
    with contextlib.closing(connection):
        # With a cookie the answer does not come from Nginx's cache.
        headers = {"Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1", "Cookie": "slipway=probe"}
        try:
            connection.request("GET", path, headers={**headers, "Connection": "close"})
        except UnicodeError as error:
            raise OSError(f"GET {path} for {host} cannot be sent: {error}") from error
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("X-Release")


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
        """Return the name of the program that runs release `number`."""
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

    def check(self, section: Path) -> None:
        """Have Supervisor's own parser read the file `section`, since a bad one would keep Supervisor from starting.

        Raises:
            ReleaseError: when it refuses the section.
        """
        program = Path(shutil.which("supervisord") or "/usr/bin/supervisord")
        interpreter = program.open(encoding="utf-8").readline().removeprefix("#!").split()
        with tempfile.TemporaryDirectory() as directory:
            configuration = Path(directory, "supervisord.conf")
            configuration.write_text(f"[supervisord]\n[include]\nfiles = {section}\n", encoding="utf-8")
            answer = run([*interpreter, "-c", PARSE_SECTION, configuration], 30, directory=Path(directory), check=False)
        if answer.returncode:
            raise ReleaseError(f"Supervisor would refuse the program's section {section}:\n{tail(answer.stdout, 5)}")

    def known(self) -> list[int]:
        """Return the releases that have a section or, after an interruption, still run without one."""
        names = [line.split()[0] for line in run(["supervisorctl", "status"], 30, check=False).stdout.splitlines() if line.strip()]
        prefix = f"{self.name}-"
        numbers = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        return sorted({*self.installed(), *(int(number) for number in numbers if number.isdigit())})

    def add(self, number: int, section: Path) -> None:
        """Have Supervisor run release `number` as the file `section` says, and change nothing else.

        Raises:
            ReleaseError: when Supervisor refuses the section; it is then not installed.
        """
        self.check(section)
        write(self.section(number), section.read_text(encoding="utf-8"))
        answer = run(["supervisorctl", "update", self.program(number)], 60, check=False)
        if answer.returncode or "ERROR" in answer.stdout:
            remove(self.section(number))
            raise ReleaseError(f"Supervisor refused the program {self.program(number)}:\n{tail(answer.stdout)}")

    def drop(self, number: int) -> None:
        """Stop release `number` gracefully and forget its program.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        remove(self.section(number))
        answer = run(["supervisorctl", "update", self.program(number)], self.stop_seconds + 60, check=False)
        if answer.returncode and "no such group" not in answer.stdout:
            raise ReleaseError(f"Supervisor does not let go of {self.program(number)}:\n{tail(answer.stdout)}")

    def state(self, number: int) -> tuple[str, str]:
        """Return what Supervisor reports for release `number`: a state such as RUNNING, and its process id if it has one.

        The state is UNKNOWN where Supervisor has no such program.
        """
        answer = run(["supervisorctl", "status", self.program(number)], 30, check=False)
        words = answer.stdout.replace(",", " ").split()
        if len(words) < 2 or not words[0].endswith(self.program(number)):
            return "UNKNOWN", ""
        return words[1], words[words.index("pid") + 1] if "pid" in words else ""


class Releaser:
    """Release one app. The arguments are those of the module."""

    def __init__(self, arguments: dict[str, Any], sleep: Callable[[float], None] = time.sleep) -> None:
        self.arguments = arguments
        self.layout = Layout(**arguments["layout"])
        self.supervisor = Supervisor(
            arguments["name"], arguments["program_directory"], arguments["program_suffix"], arguments["stop"]
        )
        self.health = arguments["health"]
        self.sleep = sleep

    @property
    def group(self) -> int:
        """The numeric id of the group that may read the settings."""
        return grp.getgrnam(self.arguments["user"]).gr_gid

    def wanted(self) -> str:
        """Return the digest of all that makes this release what it is."""
        keys = ("build", "revision", "files", "settings", "program")
        return digest(*(self.arguments[key] for key in keys))

    def answers(self, number: int, patience: float = 0.0) -> bool:
        """Say whether release `number` is healthy, giving it `patience` seconds to become so."""
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = UnixConnection(self.layout.socket(number), timeout=5)
                if ask(connection, self.health["path"], self.health["host"])[0] == self.health["status"]:
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

    def tidy(self) -> bool:
        """Clear what an interrupted run left: programs other than the live one, and links that lag behind.

        Returns:
            Whether there was anything.
        """
        live = self.layout.live()
        leftovers = [number for number in self.supervisor.known() if number != live]
        for number in leftovers:
            self.supervisor.drop(number)
        if live is None:
            return bool(leftovers)
        target = f"releases/{live}"
        lagging = not self.layout.current.is_symlink() or os.readlink(self.layout.current) != target
        if lagging:
            point(self.layout.current, target)
        unsaid = self.layout.record(live).get("outcome") == "started"
        if unsaid:
            self.remember(live, outcome="live")
        return bool(leftovers) or lagging or unsaid

    def prepare(self, number: int) -> Path:
        """Write the directory of release `number`.

        Returns:
            The file in it that holds the section for Supervisor.

        Raises:
            ReleaseError: when the build does not exist.
        """
        if not (self.layout.builds / self.arguments["build"]).is_dir():
            raise ReleaseError(f"There is no build {self.arguments['build']} in {self.layout.builds}.")
        directory = self.layout.release(number)
        directory.mkdir(mode=0o755)
        (directory / "build").symlink_to(f"../../builds/{self.arguments['build']}")
        tokens = {"@RELEASE@": str(number), "@REVISION@": self.arguments["revision"]}
        for name, text in {**self.arguments["files"], "program.conf": self.arguments["program"]}.items():
            for token, value in tokens.items():
                text = text.replace(token, value)
            write(directory / name, text)
        write(directory / "settings.json", self.arguments["settings"], mode=0o640, group=self.group)
        origin, revision = self.arguments["origin"], self.arguments["revision"]
        self.remember(number, outcome="started", digest=self.wanted(), revision=revision, source=origin)
        return directory / "program.conf"

    def preflight(self, number: int) -> None:
        """Import the app as its user, with the settings of release `number`.

        Raises:
            ReleaseError: when it cannot be imported; with the end of its traceback, or the settings that it refuses.
        """
        release = self.layout.release(number)
        command = [release / "build" / ".venv" / "bin" / "python", release / "launch.py", "--check"]
        directory = (release / "build" / self.arguments["directory"]).resolve()
        answer = run(command, self.health["timeout"], directory=directory, check=False, user=self.arguments["user"])
        if answer.returncode:
            raise ReleaseError(f"the app cannot be imported.\n{tail(answer.stdout, 20)}")

    def remember(self, number: int, **facts: Any) -> None:
        """Add `facts` to what is remembered of release `number`, and its outcome to the app's history."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"release": number, "build": self.arguments["build"], **self.layout.record(number), **facts}
        record.update(who=self.arguments["who"], when=stamp)
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        # Not for everyone: who knows all else that went into the digest could try secrets against it.
        write(self.layout.release(number) / "release.json", text, mode=0o640, group=self.group)
        if facts.get("outcome") != "started":
            record.pop("digest", None)
            with open(self.layout.history, "ab+") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                torn = file.read() not in (b"", b"\n")  # a run was cut off while it wrote
                file.write((b"\n" if torn else b"") + json.dumps(record, sort_keys=True).encode() + b"\n")

    def gate(self, number: int) -> None:
        """Wait until the candidate `number` is healthy.

        Raises:
            ReleaseError: when it crashes, or is not healthy in time; with the last lines of its log.
        """
        path, host, status = (self.health[key] for key in ("path", "host", "status"))
        deadline = time.monotonic() + self.health["timeout"]
        look, first = 0.0, ""
        problem = "it does not listen on its socket"
        while time.monotonic() < deadline:
            try:
                answer, _ = ask(UnixConnection(self.layout.socket(number), timeout=5), path, host)
                if answer == status:
                    return
                problem = f"GET {path} answers {answer}, not {status}"
                if 300 <= answer < 400:
                    problem += ": a redirect is not healthy; set app_health_path to a path that answers itself"
                elif answer == 404:
                    problem += ": set app_health_path to a path that the app has"
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > look:
                state, process = self.supervisor.state(number)
                first = first or process
                if state in ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN") or process != first:
                    raise ReleaseError(f"it stopped right after its start ({state}).\n{self.log_tail(number)}")
                look = time.monotonic() + 0.5
            self.sleep(0.1)
        raise ReleaseError(
            f"it was not healthy after {self.health['timeout']:g} s (app_health_timeout): {problem}.\n{self.log_tail(number)}"
        )

    def log_tail(self, number: int) -> str:
        """Return the last lines that release `number` logged, for the operator."""
        log = self.layout.log(number)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if "raise HaltServer" in text:  # what Gunicorn says of its own end comes last and hides what the app said
            text = text[: text.rfind("Traceback (most recent call last)", 0, text.index("raise HaltServer"))]
        return f"The end of {log}:\n{tail(text)}" if text.strip() else f"It wrote nothing to {log}."

    def switch(self, number: int) -> None:
        """Make release `number` live: from this rename on, each new connection reaches it."""
        point(self.layout.live_socket, self.layout.socket(number))
        point(self.layout.current, f"releases/{number}")

    def at_the_door(self) -> tuple[int, str | None]:
        """Ask at the public door, as a client would.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        door = self.arguments["door"]
        if not door["tls"]:
            connection = http.client.HTTPConnection("127.0.0.1", door["port"], timeout=5)
            return ask(connection, self.health["path"], door["host"])
        context = ssl._create_unverified_context()  # whether the certificate is good is certbot's question, not ours
        raw = socket.create_connection(("127.0.0.1", door["port"]), timeout=5)
        connection = http.client.HTTPSConnection(door["host"], timeout=5)
        connection.sock = context.wrap_socket(raw, server_hostname=door["host"])
        return ask(connection, self.health["path"], door["host"])

    def prove(self, number: int, seconds: float = 10.0) -> None:
        """Ask at the public door until release `number` answers there.

        Raises:
            ReleaseError: when it does not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                status, release = self.at_the_door()
                if release == str(number):
                    return
                problem = f"status {status}, " + (f"from release {release}" if release else "which names no release")
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            self.sleep(0.1)
        door = self.arguments["door"]
        raise ReleaseError(f"the public door ({door['host']}, port {door['port']}) does not answer from it: {problem}.")

    def release(self) -> int:
        """Release the build.

        Returns:
            The number of the release that is live now.

        Raises:
            ReleaseError: when the new release failed; the old one is live, and says so.
        """
        old = self.layout.live()
        known = [*self.layout.numbers(), *self.supervisor.known(), self.last_number()]
        number = max(known, default=0) + 1
        try:
            section = self.prepare(number)
            self.preflight(number)
            self.supervisor.add(number, section)
            self.gate(number)
            try:
                self.switch(number)
                self.prove(number)
                switched = time.monotonic()
                self.sleep(CACHED_CONNECTION_SECONDS if old is not None else 0)
                self.prove(number, seconds=5)
            except (ReleaseError, OSError):
                self.go_back(old)
                self.sleep(self.arguments["drain"] if old is not None else 0)
                raise
        except (ReleaseError, OSError) as error:
            with contextlib.suppress(ReleaseError):
                self.supervisor.drop(number)
            if self.layout.release(number).is_dir():
                with contextlib.suppress(OSError):  # on a full disk the reason that is raised below must do
                    self.remember(number, outcome="failed", reason=str(error).splitlines()[0])
            if old is None:
                serving = "Nothing was live before."
            elif self.answers(old):
                serving = f"Release {old} serves as before."
            else:
                serving = f"Release {old}, which was live before, does not answer: see {self.layout.log(old)}."
            raise ReleaseError(f"Release {number} failed: {error}\n{serving}") from error
        self.remember(number, outcome="live")
        self.sleep(max(0.0, switched + self.arguments["drain"] - time.monotonic()) if old is not None else 0)
        for leftover in self.supervisor.installed():
            if leftover != number:
                self.supervisor.drop(leftover)
        return number

    def go_back(self, old: int | None) -> None:
        """Make release `old` live again after a switch that did not hold."""
        if old is not None:
            self.switch(old)
        else:
            remove(self.layout.live_socket)
            remove(self.layout.current)

    def last_number(self) -> int:
        """Return the highest number that the history names; a number is never given twice."""
        try:
            lines = self.layout.history.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return 0
        numbers = [0]
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                numbers.append(int(json.loads(line)["release"]))
        return max(numbers)

    def prune(self) -> None:
        """Remove releases beyond those to keep, and the builds, environments and logs that none of the rest uses.

        What is live is never removed, nor what was live before it, whatever failed in between.
        """
        live = self.layout.live()
        others = [number for number in self.layout.numbers() if number != live]
        good = [number for number in others if self.layout.record(number).get("outcome") == "live"]
        kept = set(others[-self.arguments["keep"] :] if self.arguments["keep"] else [])
        kept |= {*good[-1:], *([live] if live is not None else [])}
        for number in set(others) - kept:
            remove(self.layout.release(number))
        for log in self.layout.logs.glob("*.log*"):
            number_text = log.name.split(".", 1)[0]
            if number_text.isdigit() and int(number_text) not in kept:
                remove(log)
        for hidden in self.layout.releases.glob(".*"):
            remove(hidden)
        builds = {str(self.layout.record(number).get("build")) for number in kept} | {self.arguments["build"]}
        for build in self.layout.builds.iterdir():
            if build.name not in builds:
                remove(build)
        links = [self.layout.builds / build / ".venv" for build in builds]
        venvs = {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()}
        for venv in self.layout.venvs.iterdir():
            if venv.name not in venvs:
                remove(venv)


def main() -> None:
    """Release what is wanted and not live yet."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "directory": {"type": "str", "required": True},
            "build": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "origin": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
            "settings": {"type": "str", "required": True, "no_log": True},
            "program": {"type": "str", "required": True},
            "program_directory": {"type": "path", "required": True},
            "program_suffix": {"type": "str", "required": True},
            "health": {"type": "dict", "required": True},
            "door": {"type": "dict", "required": True},
            "drain": {"type": "float", "required": True},
            "stop": {"type": "float", "required": True},
            "keep": {"type": "int", "required": True},
            "who": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the app must be able to read its release
    releaser = Releaser(module.params)
    before = releaser.layout.live()
    if module.check_mode:
        reason = releaser.needed()
        module.exit_json(changed=reason is not None, release=before, reason=reason)
    number, changed, reason = before, False, None
    try:
        with lock(releaser.layout, module.params["who"]):
            changed = releaser.tidy()
            reason = releaser.needed()
            if reason is not None:
                number, changed = releaser.release(), True
                releaser.prune()
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        release=number,
        reason=reason,
        record={key: value for key, value in releaser.layout.record(number).items() if key != "digest"} if number else {},
        diff={"before": f"release {before}\n", "after": f"release {number}\n"} if changed else {},
    )


if __name__ == "__main__":
    main()
