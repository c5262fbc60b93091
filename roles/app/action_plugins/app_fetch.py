"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

import fcntl
import hashlib
import io
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
  source: {type: str, required: true, description: "A directory on the controller, or a git repository."}
  version: {type: str, description: "The branch, tag or commit of a git repository. Its default branch where it is empty."}
  directory: {type: str, description: "The folder of the source that holds the app. The source itself where it is empty."}
  requirements: {type: str, required: true, description: "The file in that folder that names the app's dependencies."}
  exclude: {type: list, elements: str, description: "Names of files and folders that are left out, with wildcards."}
  timeout: {type: float, required: true, description: "Seconds that git may take."}
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
    directory.chmod(0o700)  # sources are not for everyone
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
    partial = directory / f".{os.getpid()}.partial"
    try:
        with tarfile.open(partial, mode="w:gz", compresslevel=3) as tar:
            for path in files_below(root, exclude):
                entry = tarfile.TarInfo(str(path.relative_to(root)))
                content = b""
                if path.is_symlink():
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
                    inside = os.path.normpath(os.path.join(os.path.dirname(entry.name), entry.linkname))
                    if os.path.isabs(entry.linkname) or inside == ".." or inside.startswith("../"):
                        raise AnsibleActionFail(f"{path} is a link that leads out of {root}: a build could not follow it.")
                    body = os.fsencode(entry.linkname)
                elif path.is_file():
                    # Read once: what is digested is what is packed, even if somebody saves the file meanwhile.
                    content = path.read_bytes()
                    entry.size, entry.mode = len(content), 0o755 if path.stat().st_mode & 0o100 else 0o644
                    body = hashlib.sha256(content).digest()
                else:
                    raise AnsibleActionFail(f"{path} is neither a file nor a link; add its name to app_exclude.")
                digest.update(b"\0".join([os.fsencode(entry.name), entry.type, str(entry.mode).encode(), body]) + b"\0")
                tar.addfile(entry, io.BytesIO(content))
        name = digest.hexdigest()[:40]
        archive = directory / f"{name}.tar.gz"
        os.replace(partial, archive)
    finally:
        partial.unlink(missing_ok=True)
    archive.touch()
    for old in directory.glob("*.tar.gz"):
        if old.stat().st_mtime < time.time() - KEEP_SECONDS:
            old.unlink(missing_ok=True)
    return name, archive


def _environment() -> dict[str, str]:
    """Return this process's environment without what git tells a hook of the repository that it runs in."""
    own = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"}
    return {name: value for name, value in os.environ.items() if name not in own}


def git(arguments: list[str], timeout: float, directory: Path | None = None) -> str:
    """Run git and return what it prints.

    Raises:
        AnsibleActionFail: when git is missing, takes longer than `timeout` seconds, or fails; addresses lose their password.
    """
    environment = {**_environment(), "GIT_TERMINAL_PROMPT": "0"}
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
            git(["fetch", "--quiet", "--prune", "--force", "--", address, *everything], timeout, clone)
        names = ["refs/slipway/HEAD"] if wanted == "HEAD" else [f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted]
        commit = next((_has(clone, name) for name in names if _has(clone, name)), "")
        if not commit:
            address = re.sub(r"//[^/@\s]+@", "//", address)
            raise AnsibleActionFail(f"{address} has no branch, tag or commit {version}: app_version names one.")
        archive = target.with_suffix(".tar")
        git(["archive", "--format=tar", f"--output={archive}", commit], timeout, clone)
    target.mkdir()
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(target, filter="tar")
        else:
            tar.extractall(target)  # git's own archive of a commit
    archive.unlink()
    return commit


def _has(clone: Path, name: str) -> str:
    """Return the commit that `name` stands for in `clone`; empty where it stands for none."""
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"],
        cwd=clone,
        env=_environment(),
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
        for name in re.findall(rb"^\s*(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)([^\s=]\S*)", text, re.MULTILINE):
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
            left_out = any(fnmatch(part, pattern) for part in Path(directory, requirements.name).parts for pattern in exclude)
            if not requirements.is_file() or left_out:
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
