"""The Python that the app runs on: whether it is there, and whether it still gets security fixes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from slipway.host import pythons
from slipway.host.doctor.subject import Subject
from slipway.host.finding import Finding, error, warning
from slipway.host.python_ends import ENDS, SOURCE, ended, series

# Where a distribution has its own Python, which it supports for longer than Python's authors do.
DISTRIBUTION = Path("/usr/bin")


def interpreter(subject: Subject) -> Iterator[Finding]:
    """The Python of the live release."""
    if subject.live is None:
        return
    build = subject.layout.release(subject.live) / "build"
    venv, name = build / ".venv", subject.arguments["name"]
    program = venv / "bin" / "python"
    if program.is_symlink() and not program.exists():
        yield error(
            f"The Python of release {subject.live} is missing",
            f"There is no {os.readlink(program)}. {name} runs until it is restarted.",
            "ansible-playbook playbooks/deploy.yml",
        )
        return
    version = pythons.version_of_build(build)
    month = ended(version, subject.arguments["now"])
    if not month or (program.is_symlink() and home(venv) == DISTRIBUTION):
        return
    others = pythons.users().get(pythons.name_of(venv), set()) - {str(subject.layout.home)}
    shared = f" So do builds in {', '.join(sorted(others))}." if others else ""
    choice = "app_python" if program.is_symlink() else "app_image_base"
    yield warning(
        f"Python {series(version)} is past its end of life",
        f"{name} runs on Python {version}, which has had no security fixes since {month} ({SOURCE}).{shared}",
        f"Set {choice} to a supported version, such as {list(ENDS)[-2]}, then: ansible-playbook playbooks/deploy.yml",
    )


def home(venv: Path) -> Path:
    """Return the directory of the interpreter that an environment was made from."""
    for line in (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            return Path(value.strip())
    return Path()


CHECKS = (interpreter,)
