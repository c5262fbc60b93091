"""Build an app beside what runs: its code, and a virtual environment with exactly what its lock file names."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import on_disk, point, remove, room, settle, write
from slipway.host.lock import LEASE_SECONDS, Busy, lock
from slipway.host.paths import Layout, digest
from slipway.host.pins import conflict, options
from slipway.host.process import run
from slipway.host.requirements import Allowed, Refused, Requirements, hashed
from slipway.host.source import Builder, hook, hooks_of, look_over, outward, sha256, unpack

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # What app_fetch returned.
    "source": dict,
    # The packed source on this host. Without it the module only says whether it is needed.
    "archive": "",
    # The packed source itself, in Base64, where it is small.
    "packed": "",
    # The packed wheelhouse on this host, where the environment is made and there is one.
    "wheels": "",
    # Digests of the `build` and `venv` of another host, which are had instead.
    "theirs": {},
    # The build that another host packed, on this host.
    "build": "",
    # The virtual environment that another host packed, on this host, where it lacks one.
    "venv": "",
    # The Python that the virtual environment is made from.
    "interpreter": str,
    # The oldest Python that is accepted, as `3.11`.
    "minimum": str,
    # What makes the virtual environment.
    "installer": str,
    # The uv program.
    "uv": str,
    # Where the build's user keeps what was downloaded for this app.
    "cache": str,
    # Requirements of the server, added where the lock lacks them.
    "server": list,
    # The same with hashes, and all that they need, for locks that have hashes.
    "server_lock": "",
    # Modules by which one sees whether it runs here.
    "server_modules": list,
    # Requirements beside those of the source.
    "extra": [],
    # Whether packages may be built from source.
    "source_builds": False,
    # Environment for the installer, such as an index or a proxy.
    "environment": {},
    # The build's user, who has no rights. All code in a build runs as that.
    "user": str,
    # MiB that must be free before a build.
    "room": float,
    # Shell commands; `before_build` and `after_build` run here.
    "hooks": {},
    # Seconds that one of them may take.
    "hook_timeout": 300.0,
    # The run of Ansible that this is a step of.
    "run": dict,
}

INSTALL_SECONDS = 900

# What an installer says, and what to do about it. The first that fits is told.
ADVICE = (
    (
        r"hash mismatch|do not match the hashes|trailing contents after the end-of-central|ZIP file contains",
        "A package is not the one that the lock file names: its digest is another. Find out why before you lock anew.",
    ),
    (
        r"--require-hashes mode|require-hashes.*must have|must have their versions pinned",
        "Some requirements have hashes and some have none: make the file anew with hashes for all, such as with "
        "`uv pip compile --generate-hashes`.",
    ),
    (
        r"error sending request|failed to fetch|connection refused|dns error|connecttimeout|timed out|newconnectionerror"
        r"|name resolution|network is unreachable|proxyerror|could not connect|certificate verify|invalid peer certificate",
        "The package index does not answer this host: see to its network, name a mirror in python_index_url or a proxy in "
        "python_proxy, or bring the wheels along in app_wheelhouse.",
    ),
    (
        r"no usable wheels|no wheels with a matching|no wheel|has no wheels|building source distributions|marked as `?--no-build"
        r"|no-binary|no-build|no binary distribution",
        "A package has no wheel for this host. Pin a version that has one, bring one along in app_wheelhouse, or set "
        "app_source_builds: true to have it built here.",
    ),
    (
        r"current Python version \([\d.\w]+\) does not satisfy|requires a different Python|requires-python",
        "A package needs another Python than this host's: name one that fits in python_interpreter, pin a version that runs on "
        "this one, or set app_runtime: container.",
    ),
    (
        r"no matching distribution|no solution found|not found in the package registry|was not found in the provided",
        "The requirements cannot be met: a package is not there in the version that is asked for, or has no wheel for this host "
        "(app_source_builds: true has it built here).",
    ),
)


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


class Installer:
    """What fills a virtual environment: uv or pip. All that it starts runs as the build's user.

    Args:
        venv: the environment.
        root: the source.
        work: a directory for what is needed meanwhile. Only `theirs` in it belongs to the build's user: root would
            write through links that it finds.
        arguments: those of the module.
        own: what the processes of the build's user find in their environment.
    """

    def __init__(self, venv: Path, root: Path, work: Path, arguments: dict[str, Any], own: dict[str, str]) -> None:
        self.venv = venv
        self.root = root
        self.work = work
        self.arguments = arguments
        self.source = arguments["source"]
        self.uv = arguments["uv"] if arguments["installer"] == "uv" else None
        self.python = venv / "bin" / "python"
        self.folder = root / self.source["directory"]
        self.environment = {**{key: str(value) for key, value in arguments["environment"].items()}, **own}
        self.theirs = work / "theirs"
        self.environment["TMPDIR"] = str(self.theirs)
        self.place = ["--no-index", "--find-links", str(work / "wheels")] if self.source.get("wheels") else []
        if self.uv:
            # What is linked to the cache could be changed there.
            self.environment.update(UV_PYTHON_DOWNLOADS="never", UV_LINK_MODE="copy")
        # Not as the controller saw it, for a hook may have written the file.
        file = self.folder / self.source["requirements"]
        self.hashed = hashed(file, root) if self.kind == "requirements" else self.kind in ("uv.lock", "pylock")

    @property
    def kind(self) -> str:
        """What kind of file names what the app depends on."""
        return str(self.source.get("kind", "requirements"))

    def make(self) -> None:
        """Make the environment, empty."""
        interpreter = self.arguments["interpreter"]
        if self.uv:
            self._run([self.uv, "venv", "--quiet", "--allow-existing", "--python", interpreter, self.venv], 60)
        else:
            self._run([interpreter, "-m", "venv", self.venv], 120)

    def dependencies(self) -> None:
        """Install what the app's own file names, and app_extra_requirements.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        requirements, extra = self.folder / self.source["requirements"], self._extra()
        # The addresses in a lock file are those of one index. For another one, its contents become requirements.
        elsewhere = bool(self.place) or "UV_DEFAULT_INDEX" in self.environment
        if self.kind == "uv.lock" and not elsewhere:
            self._sync()
        elif self.kind == "uv.lock":
            requirements = self.theirs / "exported.txt"
            options = ["--quiet", "--frozen", "--no-dev", "--no-emit-local", "--no-annotate", "--no-header"]
            self._install([self.uv, "export", *options, "--python", self.arguments["interpreter"], "--output-file", requirements])
            self.install(["--require-hashes", "-r", requirements, *extra])
            return
        elif self.kind == "pylock" and not self.source.get("pins"):
            self.install(["-r", requirements])
        else:
            if self.source.get("pins"):
                requirements = self.work / "pins.txt"
                requirements.write_text("\n".join(self.source["pins"]) + "\n", encoding="utf-8")
            self.install([*(["--require-hashes"] if self.hashed else []), "-r", requirements, *extra])
            return
        if extra:
            self.install(["--no-deps", "--require-hashes", *extra])

    def _extra(self) -> list[Any]:
        """Return the options for app_extra_requirements.

        Raises:
            ReleaseError: when they would be built from source, or have no hashes beside others that do.
        """
        extra = self.arguments["extra"]
        if not extra:
            return []
        bare = [line for line in extra if "--hash=" not in line] if self.hashed else []
        if bare:
            raise ReleaseError(
                f"{bare[0]} in app_extra_requirements has no hash, and {self.source['requirements']} has one for each package: "
                "write name==version --hash=sha256:..., with all that it needs besides, or have the app's own lock bring it."
            )
        file = self.work / "app_extra_requirements"
        file.write_text("".join(f"{line}\n" for line in extra), encoding="utf-8")
        allowed = Allowed.of(self.environment, self.arguments["source_builds"], self.arguments["installer"])
        try:
            Requirements(self.work, self.work, allowed, lambda path: {}).read(file)
        except Refused as error:
            raise ReleaseError(str(error)) from error
        return ["-r", file]

    def _sync(self) -> None:
        """Have uv install what a uv.lock names, but for what is in the source itself."""
        options = ["--quiet", "--frozen", "--no-dev", "--no-editable", "--inexact", "--no-install-local", "--compile-bytecode"]
        options += [] if self.arguments["source_builds"] else ["--no-build"]
        self.environment["UV_PROJECT_ENVIRONMENT"] = str(self.venv)
        self._install([self.uv, "sync", *options, "--python", self.arguments["interpreter"]])

    def install(self, what: list[Any]) -> None:
        """Install requirements.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        if self.uv:
            pip = [self.uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", self.python]
            pip += ["--no-editable"] if self.arguments["source_builds"] else []
        else:
            pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        wheels = [] if self.arguments["source_builds"] else ["--only-binary", ":all:"]
        place = [] if "--no-index" in what else self.place  # which uv takes only once
        self._install([*pip, *place, *wheels, *what])

    def packages(self) -> None:
        """Install those packages that are in the source.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        packages = self.source.get("packages") or {}
        if not packages:
            return
        copy, made = self.theirs / "source", self.theirs / "dist"
        self._run(["cp", "-R", "--no-dereference", self.root, copy], 300)  # which its build may write to
        options = ["--wheel", "--no-progress", "--out-dir", made, "--python", self.python, *self.place]
        for name, folder in sorted(packages.items()):
            try:
                self._run([self.uv, "build", *options, copy / folder], directory=copy / folder)
            except ReleaseError as error:
                raise ReleaseError(
                    f"{name or 'The app'} cannot be built as a package, which its pyproject.toml says it is; "
                    f"`package = false` in its [tool.uv] leaves that out.\n{error}"
                ) from error
        alone = [] if self.source.get("resolve") else ["--no-deps"]
        self.install([*alone, *sorted(made.glob("*.whl"))])

    def server(self) -> None:
        """Install the server where the app does not bring it, in versions that go with the app's own.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        server, lock = self.arguments["server"], self.arguments["server_lock"] if self.hashed else None
        try:
            wanted = options(self.work, self.venv, server, lock)
        except ValueError as error:
            raise ReleaseError(str(error)) from error
        check = [self.uv, "pip", "check", "--python", self.python] if self.uv else [self.python, "-m", "pip", "check"]
        try:
            self.install(wanted)
            found = self._run(check, check=False).stdout if "--require-hashes" in wanted else ""
        except ReleaseError as error:
            said = conflict(str(error), self.venv, server, lock)
            raise ReleaseError(f"{said}\n{error}" if said else str(error)) from error
        said = conflict(found, self.venv, server, lock) if found else ""
        if said:
            raise ReleaseError(f"{said}\n{found}")

    def prune(self) -> None:
        """Have uv drop from its cache what is of no further use."""
        if self.uv:
            with contextlib.suppress(ReleaseError):  # no reason to do without the build
                self._run([self.uv, "cache", "prune", "--quiet"], check=False)

    def _run(
        self, command: list[Any], seconds: float = INSTALL_SECONDS, directory: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        user, where = self.arguments["user"], directory or self.folder
        return run(command, seconds, self.environment, where, check=check, user=user, confined=True)

    def _install(self, command: list[Any]) -> None:
        try:
            self._run(command)
        except ReleaseError as error:
            text = re.sub(r"\s+", " ", str(error).partition("\n")[2])
            advice = next((advice for pattern, advice in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
            raise ReleaseError(f"{advice}\n{error}".lstrip()) from error


def install(venv: Path, root: Path, arguments: dict[str, Any]) -> None:
    """Make the virtual environment `venv` with what the source in `root` needs, and what the server needs besides.

    Raises:
        ReleaseError: when the installer fails; with its last lines.
    """
    work = venv.with_name(f".{venv.name}.work")
    for directory in (venv, work):
        remove(directory)
        directory.mkdir()
    try:
        if arguments["source"].get("wheels"):
            if not arguments.get("wheels"):
                raise ReleaseError(
                    "The wheels of app_wheelhouse were not sent, since nobody needed them a moment ago. Run again."
                )
            unpack(Path(arguments["wheels"]), work / "wheels")
        (work / "theirs").mkdir()
        builder = Builder(arguments["user"], arguments["cache"])
        with builder.having(venv, work / "theirs") as own:
            installer = Installer(venv, root, work, arguments, own)
            installer.make()
            installer.dependencies()
            installer.packages()
            installer.server()
            remove(venv / ".complete")  # which a package could bring, and which would soon be root's
            installer.prune()
        builder.limit()
        look_over_venv(venv)
    except BaseException:
        remove(venv)
        raise
    finally:
        remove(work)


def look_over_venv(venv: Path) -> None:
    """See that no link in an environment leads out of it, but to the interpreter.

    Raises:
        ReleaseError: when one does.
    """
    found = outward(venv, r"bin/[^/]+")
    if found:
        raise ReleaseError(f"{found} in the virtual environment is a link that leads out of it: a package must have made that.")


def build(layout: Layout, name: str, venv_name: str, arguments: dict[str, Any]) -> None:
    """Make the build `name`, with the virtual environment `venv_name`, from the packed source.

    Raises:
        ReleaseError: when a step fails; nothing that another build or release uses has changed.
    """
    source = arguments["source"]
    partial = layout.builds / f".{name}.partial"
    remove(partial)
    unpack(Path(arguments["archive"]), partial)
    if not (partial / source["directory"] / source["requirements"]).is_file():
        raise ReleaseError(f"The source has no {source['directory']}/{source['requirements']} (app_directory, app_requirements).")
    hook("before_build", partial, arguments)
    venv = layout.venvs / venv_name
    if not is_complete(venv):
        install(venv, partial, arguments)
        complete(venv)
    link = os.path.relpath(venv, layout.builds / name)
    point(partial / ".venv", link)
    hook("after_build", partial, arguments, str(venv / "bin"))
    compile_code(partial, venv, arguments)
    record = {**source, "build": name, "venv": venv_name, "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    finish(layout, partial, name, link, f"{record_text(record)}\n")


def complete(venv: Path) -> None:
    """Mark an environment as complete, which it then is on the disk, too."""
    on_disk(venv)
    write(venv / ".complete", "")


def is_complete(venv: Path) -> bool:
    """Say whether an environment was marked as complete, and not by code that was installed into it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = (venv / ".complete").lstat()
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return False


def finish(layout: Layout, partial: Path, name: str, link: str, record: str = "") -> None:
    """Have the build `name` where builds are looked for, and on the disk.

    Args:
        layout: the app's paths.
        partial: the build.
        name: its name.
        link: what its link to the environment leads to.
        record: what is remembered of it; empty where it is there.

    Raises:
        ReleaseError: when a link in it leads out of it.
    """
    point(partial / ".venv", link)  # nobody else writes here any more
    look_over(partial)
    on_disk(partial)
    if record:
        write(partial / ".build.json", record)
    remove(layout.builds / name)  # what is left of one that was being removed
    partial.rename(layout.builds / name)
    settle(layout.builds)


def adopt(layout: Layout, name: str, venv_name: str, arguments: dict[str, Any]) -> None:
    """Have the build `name`, with the virtual environment `venv_name`, as another host made them.

    Raises:
        ReleaseError: when they were damaged on their way or do not run here; what another build or release uses has not changed.
    """
    venv, partial = layout.venvs / venv_name, layout.builds / f".{name}.partial"
    builder = Builder(arguments["user"], arguments["cache"])
    if not is_complete(venv):
        remove(venv)
        unpack_theirs("venv", venv, arguments)
        look_over_venv(venv)
        command: list[str | Path] = [venv / "bin" / "python", "-I", "-c", f"import {', '.join(arguments['server_modules'])}"]
        try:
            with builder.environment() as own:
                run(command, 60, own, venv, user=builder.user, confined=True)
        except ReleaseError as error:
            raise ReleaseError(
                f"The other host's environment does not run here: set app_builder: each for this host.\n{error}"
            ) from error
        complete(venv)
    remove(partial)
    unpack_theirs("build", partial, arguments)
    finish(layout, partial, name, os.path.relpath(venv, layout.builds / name))


def unpack_theirs(piece: str, directory: Path, arguments: dict[str, Any]) -> None:
    """Unpack what another host packed into the new `directory`.

    Raises:
        ReleaseError: when it is not here, or not what was packed.
    """
    if not arguments[piece]:
        raise ReleaseError(f"The other host's {piece} was not sent, since nobody needed it a moment ago. Run again.")
    if sha256(Path(arguments[piece])) != arguments["theirs"][piece]:
        raise ReleaseError(f"The other host's {piece} was damaged on its way here. Run again.")
    unpack(Path(arguments[piece]), directory, links_out=True)


def twin(layout: Layout, name: str) -> str:
    """Return a digest of all in which two hosts agree where one can use the build `name` of the other."""
    return digest(name, str(layout.home), os.uname().machine, platform.libc_ver())


def compile_code(partial: Path, venv: Path, arguments: dict[str, Any]) -> None:
    """Compile the app's modules, which its user could not do later."""
    builder = Builder(arguments["user"], arguments["cache"])
    command: list[str | Path] = [venv / "bin" / "python", "-I", "-m", "compileall", "-q", "-j", "0", partial]
    with builder.having(partial) as own:
        run(command, 300, own, partial, check=False, user=builder.user, confined=True)


def names(arguments: dict[str, Any], version: str) -> tuple[str, str]:
    """Return the names of the virtual environment and of the build: digests of all that decides what is in them.

    Args:
        arguments: those of the module.
        version: that of the interpreter.
    """
    source, hooks = arguments["source"], hooks_of(arguments)
    more = {}
    if source.get("kind", "requirements") != "requirements":
        more["kind"] = source["kind"]
    if source.get("wheels"):
        more["wheels"] = source["wheels"]["digest"]
    if "before_build" in hooks:  # it could write the lock file
        more["hook"] = hooks["before_build"]
    if arguments["server_lock"]:
        more["server_lock"] = digest(arguments["server_lock"])
    if arguments["extra"]:
        more["extra"] = arguments["extra"]
    if source.get("packages"):
        more["source"] = [source["digest"], source["directory"], source["packages"]]
    keys = ("interpreter", "installer", "server", "source_builds")
    venv = digest(source["lock"], version, *(arguments[key] for key in keys), *([more] if more else []))
    return venv, digest(source["digest"], source["directory"], venv, *([hooks] if hooks else []))


def record_text(record: dict[str, Any]) -> str:
    """Return what is remembered of a build as JSON; paths of the controller stay out of it."""
    kept = {key: value for key, value in record.items() if key not in ("archive", "pins")}
    if record.get("wheels"):
        kept["wheels"] = record["wheels"]["digest"]
    return json.dumps(kept, indent=2, sort_keys=True)


@contextlib.contextmanager
def packed(given: dict[str, Any]) -> Iterator[None]:
    """Have the source that came along as `packed` in a file, which `archive` names while the context lasts."""
    with contextlib.ExitStack() as stack:
        if given["packed"]:
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".tar.gz"))
            file.write(base64.b64decode(given["packed"]))
            file.flush()
            given["archive"] = file.name
        yield


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Build what is not built yet, or say what is needed for it.

    Raises:
        ReleaseError: when the build fails; what was live still is.
        Busy: when another run has the app.
    """
    with packed(given):
        try:
            return have(Layout(**given["layout"]), given, check)
        except Busy:
            raise
        except ReleaseError as error:
            raise ReleaseError(f"The build failed; what was live still is.\n{error}") from error


def have(layout: Layout, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the build, or say what is needed for it.

    Args:
        layout: the app's paths.
        arguments: what the step is told.
        check: whether nothing may change.

    Raises:
        ReleaseError: when it cannot be had.
        Busy: when another run has the app.
    """
    source, theirs = arguments["source"], bool(arguments["theirs"])
    needs: dict[str, Any] = {f"needs_{piece}": False for piece in ("archive", "wheels", "build", "venv")}
    if check and not layout.builds.is_dir():
        return {"changed": True, "build": "not yet built", **needs}
    venv_name, name = names(arguments, python_version(arguments["interpreter"], arguments["minimum"]))
    exists = (layout.builds / name / ".build.json").exists()
    if not exists and not check:
        room(layout, arguments["room"])
    needs.update(twin=twin(layout, name), lacks_venv=not is_complete(layout.venvs / venv_name))
    if exists or check or not arguments["build" if theirs else "archive"]:
        needs.update(needs_archive=not exists and not theirs, needs_build=not exists and theirs)
        if not exists and not check:
            with lock(layout, arguments["run"], lease=LEASE_SECONDS):
                pass  # nothing is sent to a host that another run has
        if not exists and needs["lacks_venv"]:
            needs.update(needs_wheels=bool(source.get("wheels")) and not theirs, needs_venv=theirs)
        return {"changed": not exists, "build": name, **needs}
    with lock(layout, arguments["run"], lease=LEASE_SECONDS):
        if not (layout.builds / name / ".build.json").exists():
            (adopt if theirs else build)(layout, name, venv_name, arguments)
    return {"changed": True, "build": name, **needs}
