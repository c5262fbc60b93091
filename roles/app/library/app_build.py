#!/usr/bin/python
"""Build an app beside what runs: its code, and a virtual environment with exactly what its lock file names."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

from ansible.module_utils.app_layout import Layout, ReleaseError, digest, lock, point, remove, run, settle, write
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_build
short_description: Build an app beside what runs
description:
  - A build is named by what went into it. One that exists is left alone.
  - A virtual environment is named by the lock file and the interpreter, and shared by the builds that agree in both.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  source: {type: dict, required: true, description: "What app_fetch returned."}
  archive: {type: path, description: "The packed source on this host. Without it the module only says whether it is needed."}
  interpreter: {type: path, required: true, description: "The Python that the virtual environment is made from."}
  minimum: {type: str, required: true, description: "The oldest Python that is accepted, as C(3.11)."}
  installer: {type: str, choices: [uv, pip], required: true, description: "What makes the virtual environment."}
  uv: {type: path, required: true, description: "The uv program."}
  cache: {type: path, required: true, description: "Where uv keeps what it downloaded, on the file system of the home."}
  server: {type: list, elements: str, required: true, description: "Requirements of the server, added where the lock lacks them."}
  source_builds: {type: bool, default: false, description: "Whether packages may be built from source, as root."}
  environment: {type: dict, default: {}, description: "Environment for the installer, such as an index or a proxy."}
  who: {type: str, required: true, description: "The operator."}
"""

INSTALL_SECONDS = 900


def python_version(interpreter: str, minimum: str) -> str:
    """Return the full version of `interpreter`, as `3.11.2`.

    Raises:
        ReleaseError: when it does not run, is older than `minimum`, or cannot make virtual environments.
    """
    question = "import platform, venv, ensurepip; print(platform.python_version())"
    remedy = f"Install Python {minimum} or newer on the host and name it in python_interpreter."
    try:
        answer = run([interpreter, "-c", question], timeout=30)
    except ReleaseError as error:
        raise ReleaseError(f"{interpreter} cannot make virtual environments. {remedy}\n{error}") from error
    version = answer.stdout.strip()
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, minimum.split("."))):
        raise ReleaseError(f"{interpreter} is Python {version}; the app needs {minimum} or newer. {remedy}")
    return version


def unpack(archive: Path, directory: Path) -> None:
    """Unpack the source that app_fetch packed into the new `directory`.

    Raises:
        ReleaseError: when the archive is damaged or holds a path that leads outside.
    """
    directory.mkdir()
    links: set[str] = set()
    try:
        with gzip.open(archive) as stream:
            while stream.read(2**20):  # to its end, where the checksum is
                pass
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                inside = os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname))
                name = os.path.normpath(member.name)
                folders = {os.path.normpath(folder) for folder in Path(name).parents}
                if member.issym():
                    links.add(name)
                if (
                    not (member.isfile() or member.isdir() or member.issym())
                    or any(path == ".." or path.startswith(("/", "../")) for path in (name, inside))
                    or folders & links
                ):
                    raise ReleaseError(f"The source holds {member.name}, which leads outside or is no ordinary file.")
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
            if hasattr(tarfile, "fully_trusted_filter"):
                tar.extraction_filter = tarfile.fully_trusted_filter  # checked above
            tar.extractall(directory)
        if not any(directory.iterdir()):
            raise ReleaseError("The packed source cannot be unpacked: there is nothing in it.")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ReleaseError(f"The packed source cannot be unpacked: {error}") from error


def install(venv: Path, requirements: Path, arguments: dict[str, Any]) -> None:
    """Make the virtual environment `venv` with what `requirements` names, and what the server needs besides.

    Raises:
        ReleaseError: when the installer fails; with its last lines.
    """
    python = venv / "bin" / "python"
    hashed = "--hash=" in requirements.read_text(encoding="utf-8")
    environment = {key: str(value) for key, value in arguments["environment"].items()}
    wheels = [] if arguments["source_builds"] else ["--only-binary", ":all:"]
    remove(venv)
    if arguments["installer"] == "uv":
        uv = arguments["uv"]
        environment.update(UV_CACHE_DIR=arguments["cache"], UV_PYTHON_DOWNLOADS="never")
        run([uv, "venv", "--quiet", "--python", arguments["interpreter"], venv], 60, environment)
        pip = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    else:
        run([arguments["interpreter"], "-m", "venv", venv], 120, environment)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    options = [*wheels, *(["--require-hashes"] if hashed else [])]
    run([*pip, *options, "-r", requirements], INSTALL_SECONDS, environment, directory=requirements.parent)
    present = run([python, "-c", "import gunicorn, uvicorn_worker"], 60, check=False)
    if present.returncode:
        run([*pip, *wheels, *arguments["server"]], INSTALL_SECONDS, environment)


def build(layout: Layout, name: str, venv_name: str, arguments: dict[str, Any]) -> None:
    """Make the build `name`, with the virtual environment `venv_name`, from the packed source.

    Raises:
        ReleaseError: when a step fails; nothing that another build or release uses has changed.
    """
    source = arguments["source"]
    partial = layout.builds / f".{name}.partial"
    remove(partial)
    unpack(Path(arguments["archive"]), partial)
    requirements = partial / source["directory"] / source["requirements"]
    if not requirements.is_file():
        raise ReleaseError(f"The source has no {source['directory']}/{source['requirements']} (app_directory, app_requirements).")
    venv = layout.venvs / venv_name
    if not (venv / ".complete").exists():
        install(venv, requirements, arguments)
        write(venv / ".complete", "")
    point(partial / ".venv", os.path.relpath(venv, layout.builds / name))
    run([venv / "bin" / "python", "-m", "compileall", "-q", "-j", "0", partial], 300, check=False)
    record = {**source, "build": name, "venv": venv_name, "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write(partial / ".build.json", f"{record_text(record)}\n")
    remove(layout.builds / name)  # what is left of one that was being removed
    partial.rename(layout.builds / name)
    settle(layout.builds)


def record_text(record: dict[str, Any]) -> str:
    """Return what is remembered of a build as JSON; paths of the controller stay out of it."""
    return json.dumps({key: value for key, value in record.items() if key != "archive"}, indent=2, sort_keys=True)


def main() -> None:
    """Build what is not built yet."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "source": {"type": "dict", "required": True},
            "archive": {"type": "path"},
            "interpreter": {"type": "path", "required": True},
            "minimum": {"type": "str", "required": True},
            "installer": {"type": "str", "choices": ["uv", "pip"], "required": True},
            "uv": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "server": {"type": "list", "elements": "str", "required": True},
            "source_builds": {"type": "bool", "default": False},
            "environment": {"type": "dict", "default": {}},
            "who": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the app must be able to read its build
    arguments = module.params
    layout = Layout(**arguments["layout"])
    source = arguments["source"]
    if module.check_mode and not layout.builds.is_dir():
        module.exit_json(changed=True, build="not yet built", needs_archive=False)
    try:
        version = python_version(arguments["interpreter"], arguments["minimum"])
        venv_name = digest(
            source["lock"],
            version,
            *(arguments[key] for key in ("interpreter", "installer", "server", "source_builds")),
        )
        name = digest(source["digest"], source["directory"], venv_name)
        exists = (layout.builds / name / ".build.json").exists()
        if exists or module.check_mode or not arguments["archive"]:
            module.exit_json(changed=not exists, build=name, needs_archive=not exists)
        with lock(layout, arguments["who"]):
            if not (layout.builds / name / ".build.json").exists():
                build(layout, name, venv_name, arguments)
    except ReleaseError as error:
        module.fail_json(msg=f"The build failed; what was live still is.\n{error}")
    module.exit_json(changed=True, build=name, needs_archive=False)


if __name__ == "__main__":
    main()
