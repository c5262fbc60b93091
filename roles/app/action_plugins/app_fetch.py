"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = """
action: app_fetch
short_description: Fetch an app's source on the controller and pack it
description:
  - The packed source is named by its content, so that the same content is sent to a host once, and fetched from git once.
options:
  source: {type: str, required: true, description: A directory on the controller, or a git repository.}
  version: {type: str, description: The branch, tag or commit of a git repository. Its default branch where it is empty.}
  directory: {type: str, description: The folder of the source that holds the app. The source itself where it is empty.}
  requirements: {type: str, required: true, description: The file in that folder that names the app's dependencies.}
  exclude: {type: list, elements: str, description: Names of files and folders that are left out, with wildcards.}
  timeout: {type: float, required: true, description: Seconds that git may take.}
"""

GIT = re.compile(r"^(git\+.+|git@.+|ssh://.+|git://.+|https?://.+|.+\.git/?)$")

# How long a packed source that nobody asks for stays on the controller.
KEEP_SECONDS = 14 * 86400


def is_git(source: str) -> bool:
    """Say whether `source` is a git repository, and not a directory on the controller."""
    return GIT.match(source) is not None


def cache_directory() -> Path:
    """Return the directory in which packed sources and clones are kept, and make it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base, "slipway")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def files_below(root: Path, exclude: list[str]) -> Iterator[Path]:
    """Yield the files and links below `root` in a fixed order, without those whose name fits a pattern of `exclude`."""
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if name not in linked and not any(fnmatch(name, pattern) for pattern in exclude)
        )
        for name in sorted([*names, *linked]):
            if not any(fnmatch(name, pattern) for pattern in exclude):
                yield Path(folder, name)


def pack(root: Path, exclude: list[str], directory: Path) -> tuple[str, Path]:
    """Pack the files below `root` into an archive in `directory` that depends on nothing but their content.

    Returns:
        The digest of paths, contents and executable bits (40 hex digits), and the archive's path.

    Raises:
        AnsibleActionFail: when a link leads out of `root`, or a file is neither a file nor a link.
    """
    digest = hashlib.sha256()
    entries: list[tuple[tarfile.TarInfo, Path | None]] = []
    for path in files_below(root, exclude):
        entry = tarfile.TarInfo(str(path.relative_to(root)))
        if path.is_symlink():
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
            if not path.resolve().is_relative_to(root.resolve()) or os.path.isabs(entry.linkname):
                raise AnsibleActionFail(f"{path} is a link that leads out of {root}: a build could not follow it.")
            body = entry.linkname.encode()
        elif path.is_file():
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            entry.size = path.stat().st_size
            body = hashlib.sha256(path.read_bytes()).digest()
        else:
            raise AnsibleActionFail(f"{path} is neither a file nor a link; add its name to app_exclude.")
        digest.update(b"\0".join([entry.name.encode(), entry.type, str(entry.mode).encode(), body]) + b"\0")
        entries.append((entry, None if path.is_symlink() else path))
    name = digest.hexdigest()[:40]
    archive = directory / f"{name}.tar.gz"
    if not archive.exists():
        partial = directory / f".{name}.{os.getpid()}"
        with tarfile.open(partial, mode="w:gz", compresslevel=3) as tar:
            for entry, file in entries:
                with file.open("rb") if file else contextlib.nullcontext() as content:
                    tar.addfile(entry, content)
        os.replace(partial, archive)
    archive.touch()
    for old in directory.glob("*.tar.gz"):
        if old.stat().st_mtime < time.time() - KEEP_SECONDS:
            old.unlink(missing_ok=True)
    return name, archive


def git(arguments: list[str], timeout: float, directory: Path | None = None) -> str:
    """Run git and return what it prints.

    Raises:
        AnsibleActionFail: when git is missing, takes longer than `timeout` seconds, or fails; addresses lose their password.
    """
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise AnsibleActionFail("app_source is a git repository, and git is not installed on the controller.") from error
    except subprocess.TimeoutExpired as error:
        raise AnsibleActionFail(f"git {arguments[0]} took longer than {timeout:g} s (app_fetch_timeout).") from error
    if done.returncode:
        text = re.sub(r"//[^/@\s]+@", "//", done.stderr.strip())
        raise AnsibleActionFail(f"git {arguments[0]} failed: {text}")
    return done.stdout.strip()


def checkout(repository: str, version: str, timeout: float, target: Path) -> str:
    """Put the files of `repository` at `version` into the new directory `target`.

    Returns:
        The commit's full hash.

    Raises:
        AnsibleActionFail: when there is no such repository or version.
    """
    address = repository.removeprefix("git+")
    clone = cache_directory() / "git" / hashlib.sha256(address.encode()).hexdigest()[:16]
    clone.parent.mkdir(exist_ok=True)
    with open(clone.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (clone / "HEAD").exists():
            git(["init", "--quiet", "--bare", str(clone)], timeout)
        wanted = version or "HEAD"
        if not (re.fullmatch(r"[0-9a-f]{40}", wanted) and _has(clone, wanted)):
            everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slipway/HEAD"]
            git(["fetch", "--quiet", "--prune", "--force", address, *everything], timeout, clone)
        names = ["refs/slipway/HEAD"] if wanted == "HEAD" else [f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted]
        commit = next((_has(clone, name) for name in names if _has(clone, name)), "")
        if not commit:
            address = re.sub(r"//[^/@\s]+@", "//", address)
            raise AnsibleActionFail(f"{address} has no branch, tag or commit {version}: app_version names one.")
        archive = target.with_suffix(".tar")
        git(["archive", "--format=tar", f"--output={archive}", commit], timeout, clone)
    target.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="tar")
    archive.unlink()
    return commit


def _has(clone: Path, name: str) -> str:
    """Return the commit that `name` stands for in `clone`; empty where it stands for none."""
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def lock_digest(file: Path) -> str:
    """Return the digest of a requirements file and of those that it includes (40 hex digits)."""
    digest = hashlib.sha256()
    pending, seen = [file], set()
    while pending:
        path = pending.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        text = path.read_bytes()
        digest.update(text + b"\0")
        for name in re.findall(rb"^\s*(?:-r|-c|--requirement|--constraint)[\s=]+(\S+)", text, re.MULTILINE):
            pending.append(path.parent / name.decode())
    return digest.hexdigest()[:40]


class ActionModule(ActionBase):
    """Fetch and pack the source of one app."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("source", "version", "directory", "requirements", "exclude", "timeout"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the packed source is, what it was made from, and its digests.

        Raises:
            AnsibleActionFail: when the source cannot be had, or lacks what it must hold.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        source = str(arguments["source"])
        exclude = list(arguments.get("exclude") or [])
        with tempfile.TemporaryDirectory() as scratch:
            if is_git(source):
                root = Path(scratch, "source")
                revision = checkout(source, str(arguments.get("version") or ""), float(arguments["timeout"]), root)
            else:
                root, revision = Path(source).expanduser().resolve(), ""
                if not root.is_dir():
                    raise AnsibleActionFail(
                        f"app_source is {source}: there is no such directory on this machine, and it is no git address."
                    )
            directory = str(arguments.get("directory") or ".")
            requirements = root / directory / str(arguments["requirements"])
            if not requirements.is_file():
                found = sorted(path.name for path in requirements.parent.glob("*") if path.suffix in (".txt", ".toml", ".lock"))
                raise AnsibleActionFail(
                    f"The source has no {requirements.relative_to(root)}: app_requirements (now {arguments['requirements']}) and "
                    f"app_directory (now {directory}) name it. There: {', '.join(found) or 'no file of that kind'}."
                )
            digest, archive = pack(root, exclude, cache_directory())
            result["changed"] = False
            result["source"] = {
                "archive": str(archive),
                "digest": digest,
                "lock": lock_digest(requirements),
                "revision": revision or digest[:12],
                "origin": re.sub(r"//[^/@\s]+@", "//", source) if is_git(source) else "directory",
                "directory": directory,
                "requirements": str(arguments["requirements"]),
            }
        return result
