"""Install uv in a virtual environment of its own, by its hash. One that is there is left alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.process import run, tail, without_passwords

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The Python that the virtual environment is made from.
    "interpreter": str,
    # Where uv is then, in the folder `bin` of the virtual environment.
    "program": str,
    # The version of uv.
    "version": str,
    # Digests that its wheel may have, as `sha256:...`.
    "hashes": list,
    # Environment for pip, such as an index or a proxy.
    "environment": {},
}

SECONDS = 600.0


def install(interpreter: str, program: Path, version: str, hashes: list[str], environment: dict[str, str]) -> None:
    """Install uv.

    Raises:
        ReleaseError: when that fails, with what pip says.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="ascii") as file:
        file.write(" ".join([f"uv=={version}", *(f"--hash={digest}" for digest in hashes)]))
        file.flush()
        venv: list[str | Path] = [interpreter, "-m", "venv", program.parents[1]]
        pip: list[str | Path] = [program.parent / "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (venv, [*pip, "--require-hashes", "--only-binary=:all:", "-r", file.name]):
            try:
                done = run(command, SECONDS, environment, check=False)
            except ReleaseError as error:
                raise ReleaseError(f"uv cannot be installed: {error}") from error
            if done.returncode:
                raise ReleaseError(
                    "uv cannot be installed: check the host's network, set a mirror in python_index_url or a proxy in "
                    f"python_proxy, or do without it by python_installer: pip.\n{without_passwords(tail(done.stdout, 20))}"
                )


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Install uv if it is not there.

    Raises:
        ReleaseError: when that fails, with what pip says.
    """
    program = Path(given["program"])
    missing = not program.exists()
    if missing and not check:
        environment = {name: str(value) for name, value in given["environment"].items()}
        install(given["interpreter"], program, given["version"], given["hashes"], environment)
    return {"changed": missing}
