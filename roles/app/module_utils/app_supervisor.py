"""The programs of one app under Supervisor: one for each release that runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.app_layout import ReleaseError, remove, run, tail, write

# Reads the configuration named on the command line as supervisord would, without starting anything.
PARSE_SECTION = "import sys; from supervisor.options import ServerOptions; ServerOptions().realize(['-n', '-c', sys.argv[1]])"


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
        names = [
            line.split()[0] for line in run(["supervisorctl", "status"], 30, check=False).stdout.splitlines() if line.strip()
        ]
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
