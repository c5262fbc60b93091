"""Fetch an app's source on the controller and pack it, so that a host needs no git, no key and no token."""

from __future__ import annotations

import base64
import bz2
import contextlib
import fcntl
import functools
import gzip
import hashlib
import http.client
import io
import lzma
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from ansible.errors import AnsibleActionFail
from ansible.module_utils.urls import ConnectionError as UrlError
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase

from slipway.host import interpreter as interpreters
from slipway.host import requirements as requirement_files
from slipway.host.errors import ReleaseError
from slipway.host.process import shell

ARCHIVE = re.compile(r".+\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip)", re.IGNORECASE)
WHEEL = re.compile(r"(.*/)?[A-Za-z0-9._]+-(?P<version>[A-Za-z0-9._+!]+)(-[A-Za-z0-9._]+){3,4}\.whl")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)")
GIT = re.compile(r"^(git\+.+|git@.+|ssh://.+|git://.+|file://.+|https?://.+|.+\.git/?)$")

# How long what nobody asks for stays on the controller, and how much of it.
KEEP_SECONDS = 14 * 86400
KEEP_BYTES = 10 * 2**30
BUSY_SECONDS = 3600

# What a recipe of ours finds beside the source: none of the source's own takes its place.
BESIDE = ".slipway"

# An archive that unpacks to more is a mistake, or an attack.
LARGEST = 2 * 2**30

# What stands at the beginning of compressed files, and what reads them.
COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError)

# Lock files of other tools, and what makes one of use here from them.
OTHER_LOCKS = {
    "poetry.lock": "`uv lock`, or `poetry export --with-hashes --output requirements.txt` (with poetry-plugin-export)",
    "pdm.lock": "`uv lock`, or `pdm export --format requirements --output requirements.txt`",
    "Pipfile.lock": "`pipenv requirements --hash > requirements.txt`",
}

# What other systems put beside the folder that was archived.
LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db"}


# What it is, and where it is kept


def kind_of(source: str) -> str:
    """Say what `source` is: package, wheel, archive, git or directory."""
    place = urlsplit(source).path if is_url(source) else source
    if PACKAGE.fullmatch(source):
        return "package"
    if not is_url(source) and Path(source).expanduser().is_dir():
        return "git" if is_git(source) else "directory"
    if WHEEL.fullmatch(place):
        return "wheel"
    if ARCHIVE.fullmatch(place):
        return "archive"
    return "git" if is_git(source) else "directory"


def on_this_machine(source: str) -> str:
    """Return the path that a file:// address of an archive or a wheel stands for; any other source as it is."""
    path = unquote(urlsplit(source).path) if source.startswith("file://") else ""
    return path if path and (WHEEL.fullmatch(path) or ARCHIVE.fullmatch(path)) else source


def is_url(source: str) -> bool:
    """Say whether `source` is an address of the web."""
    return source.startswith(("http://", "https://"))


def is_git(source: str) -> bool:
    """Say whether `source` is a git repository, and not a directory on the controller."""
    return GIT.match(source) is not None


def shown(address: str) -> str:
    """Return `address` as it may be shown: without a password, and without a query, which may be one."""
    address = re.sub(r"//[^/@\s]+@", "//", address)
    return re.sub(r"[?#].*", "", address) if is_url(address) else address


def cache_directory(*parts: str) -> Path:
    """Return the directory in which packed sources and clones are kept, or one in it, and make it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base, "slipway")
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)  # sources are not for everyone
    directory = Path(directory, *parts)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def alone(what: Path) -> Iterator[None]:
    """Have the file or directory `what` to oneself: hosts are fetched for at the same time."""
    with open(what.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Packing


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


def leads_out(path: Path, root: Path) -> bool:
    """Say whether the link `path` leads out of `root`: by its words, or by the links that it passes through."""
    target = os.readlink(path)
    inside = os.path.normpath(os.path.join(os.path.dirname(os.path.relpath(path, root)), target))
    if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
        return True
    end, top = os.path.realpath(path), os.path.realpath(root)
    return end != top and not end.startswith(f"{top}/")


def check_links(root: Path, exclude: list[str]) -> None:
    """Refuse links that lead out of `root`: a build could not follow them, and what follows them would show what is there.

    Raises:
        AnsibleActionFail: when there is one.
    """
    for path in files_below(root, exclude):
        if path.is_symlink() and leads_out(path, root):
            raise AnsibleActionFail(
                f"{path} is a link that leads out of the source (to {os.readlink(path)}): a build could not follow it. Put what "
                f"it leads to into the source, or add {path.name} to app_exclude."
            )


def pack(
    root: Path,
    exclude: list[str],
    directory: Path,
    files: Iterable[Path] | None = None,
    replaced: Mapping[str, str] | None = None,
) -> tuple[str, Path]:
    """Pack `files`, or all below `root`, into an archive in `directory` that depends on nothing but their content.

    Args:
        root: the source.
        exclude: patterns of names that are left out.
        directory: where the archive goes.
        files: what is packed; None for all.
        replaced: files, from `root`, with the text that is packed in place of theirs.

    Returns:
        The digest of paths, contents and executable bits (40 hex digits), and the archive's path.

    Raises:
        AnsibleActionFail: when a link leads out of `root`, or a file is neither a file nor a link.
    """
    digest = hashlib.sha256()
    partial = directory / f".{os.getpid()}.partial"
    try:
        with tarfile.open(partial, mode="w:gz", compresslevel=3) as tar:
            for path in files_below(root, [*exclude, BESIDE]) if files is None else files:
                entry = tarfile.TarInfo(str(path.relative_to(root)))
                content = b""
                if path.is_symlink():
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
                    if leads_out(path, root):
                        raise AnsibleActionFail(f"{path} is a link that leads out of {root}: add {path.name} to app_exclude.")
                    body = os.fsencode(entry.linkname)
                elif path.is_file():
                    # Read once: what is digested is what is packed, even if somebody saves the file meanwhile.
                    text = (replaced or {}).get(entry.name)
                    content = path.read_bytes() if text is None else text.encode("utf-8", "surrogateescape")
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
    sweep([*directory.glob("*.tar.gz"), *directory.glob(".*.partial")])
    return name, archive


def sweep(files: Iterable[Path]) -> None:
    """Remove those of `files` that nobody asked for in a long time, and the oldest where all are too much."""
    found = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
            found.append((file.stat().st_mtime, file.stat().st_size, file))
    room, now = KEEP_BYTES, time.time()
    for asked, size, file in sorted(found, reverse=True):
        room -= size
        if asked < now - KEEP_SECONDS or (room < 0 and asked < now - BUSY_SECONDS):
            file.unlink(missing_ok=True)


def sweep_clones(directory: Path) -> None:
    """Remove those clones in `directory` that nobody asked for in a long time, unless somebody just does."""
    for clone in directory.glob("*[0-9a-f]"):
        with contextlib.suppress(OSError), open(clone.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if clone.is_dir() and clone.stat().st_mtime < time.time() - KEEP_SECONDS:
                shutil.rmtree(clone)


# Git


def _environment() -> dict[str, str]:
    """Return this process's environment without what git tells a hook of the repository that it runs in."""
    own = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"}
    return {name: value for name, value in os.environ.items() if name not in own}


def access(address: str, key: str, token: str) -> dict[str, str]:
    """Return what git must find in its environment to be let in: a command line and a configuration would show it.

    Args:
        address: that of the repository.
        key: the file of a private key; empty for none.
        token: goes into a header that only the address's own host is sent; empty for none.

    Raises:
        AnsibleActionFail: when the key is not there, or the token would travel in the clear.
    """
    environment: dict[str, str] = {}
    if key:
        file = Path(key).expanduser()
        if not file.is_file():
            raise AnsibleActionFail(f"app_git_key is {key}: there is no such file on this machine.")
        options = ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new")
        environment["GIT_SSH_COMMAND"] = shlex.join(["ssh", "-i", str(file), *(f"-o{option}" for option in options)])
    if token:
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
            raise AnsibleActionFail(f"app_git_token goes to an https address only, and app_source is {shown(address)}.")
        header = f"Authorization: Basic {_basic(address, token)}"
        host = parts.netloc.rpartition("@")[2]
        # No helper may be asked, for it would remember the token.
        settings = {f"http.{parts.scheme}://{host}/.extraHeader": header, "credential.helper": ""}
        first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        for number, (name, value) in enumerate(settings.items(), start=first):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        environment["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return environment


def _basic(address: str, token: str) -> str:
    """Return the credentials of HTTP: the token, for the user that the address names, or the one that GitHub expects."""
    user = unquote(urlsplit(address).username or "x-access-token")
    return base64.b64encode(f"{user}:{token}".encode()).decode("ascii")


def git(arguments: list[str], timeout: float, directory: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Run git, with `extra` in its environment, and return what it prints.

    Raises:
        AnsibleActionFail: when git is missing, takes longer than `timeout` seconds, or fails; addresses lose their password.
    """
    environment = {**_environment(), "GIT_TERMINAL_PROMPT": "0", **(extra or {})}
    try:
        process = subprocess.Popen(
            ["git", "-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise AnsibleActionFail("app_source is a git repository, and git is not installed on the controller.") from error
    try:
        said, trouble = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise AnsibleActionFail(f"git {arguments[0]} took longer than {timeout:g} s (app_fetch_timeout).") from error
    finally:
        if process.poll() is None:  # with all that it has started, for that would go on writing
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        text = re.sub(r"//[^/@\s]+@", "//", trouble.strip())
        for name, value in (extra or {}).items():
            if name.startswith("GIT_CONFIG_VALUE_") and value:  # as GIT_CURL_VERBOSE shows it
                text = text.replace(value, "***").replace(value.rpartition(" ")[2], "***")
        raise AnsibleActionFail(f"git {arguments[0]} failed: {text}")
    return said.strip()


def checkout(
    repository: str,
    version: str,
    timeout: float,
    target: Path,
    key: str = "",
    token: str = "",
    exclude: Iterable[str] = (),
) -> str:
    """Put the files of `repository` at `version` into the new directory `target`, those of its submodules included.

    Returns:
        The commit's full hash.

    Raises:
        AnsibleActionFail: when there is no such repository or version.
    """
    address = repository.removeprefix("git+")
    allowed = access(address, key, token)
    if token:
        address = re.sub(r"//[^/@\s]+@", "//", address)
    clone = cache_directory("git") / hashlib.sha256(address.encode()).hexdigest()[:16]
    with alone(clone):
        wanted = version or "HEAD"
        exact = re.fullmatch(r"[0-9a-f]{40}", wanted) is not None
        if not (exact and _has(clone, wanted)):
            _update(clone, address, timeout, allowed, wanted if exact else "")
        clone.touch()
        names = ["refs/slipway/HEAD"] if wanted == "HEAD" else [f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted]
        commit = next((_has(clone, name) for name in names if _has(clone, name)), "")
        if not commit:
            raise AnsibleActionFail(f"{shown(address)} has no branch, tag or commit {version}: app_version names one.")
        _export(clone, commit, timeout, target)
    for path, wanted, place in submodules(clone, commit, exclude):
        _submodule(path, wanted, place, repository.removeprefix("git+"), timeout, target, (key, token), exclude)
    sweep_clones(clone.parent)
    return commit


# An address of another machine: an URL, or as ssh has it.
REMOTE = re.compile(r"^((https?|ssh|git)://|[^/:]+:(?!//))")

# What git says of a clone that was damaged, such as by a loss of power.
BROKEN = re.compile(
    r"object file .* is empty|loose object|bad object|missing (blob|tree|commit)|not a git repository|corrupt|invalid sha1"
    r"|unable to (read|resolve)|bad (pack|ref)|unresolved deltas|did not send all necessary objects",
    re.IGNORECASE,
)


def _update(clone: Path, address: str, timeout: float, allowed: Mapping[str, str], commit: str) -> None:
    """Fetch all branches and tags of a repository into its clone, which nobody else uses now; anew where that is damaged.

    Raises:
        AnsibleActionFail: when that fails.
    """
    everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slipway/HEAD"]

    def fetch() -> None:
        if not (clone / "HEAD").exists():
            git(["init", "--quiet", "--bare", str(clone)], timeout)
        for left in clone.rglob("*.lock"):  # by a git that was killed
            left.unlink(missing_ok=True)
        git(["fetch", "--quiet", "--prune", "--force", "--", address, *everything], timeout, clone, allowed)
        if commit and not _has(clone, commit):  # on no branch, as a submodule's may be
            with contextlib.suppress(AnsibleActionFail):
                git(["fetch", "--quiet", "--", address, commit], timeout, clone, allowed)

    try:
        fetch()
    except AnsibleActionFail as error:
        if not BROKEN.search(str(error)):
            raise
        shutil.rmtree(clone, ignore_errors=True)
        fetch()


def submodules(repository: Path, tree: str, exclude: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return the submodules of a commit, or of a folder of one: path, commit, and address as .gitmodules has it.

    Args:
        repository: a clone.
        tree: the commit, or `commit:folder`.
        exclude: names that are left out.

    Raises:
        AnsibleActionFail: when .gitmodules has no address for one.
    """
    entries = git(["ls-tree", "-r", "-z", tree], 60, repository).split("\0")
    found = [entry.partition("\t") for entry in entries if entry.startswith("160000 ")]
    wanted = [
        (facts.split()[2], path)
        for facts, _, path in found
        if not any(fnmatch(part, pattern) for part in path.split("/") for pattern in exclude)
    ]
    if not wanted:
        return []
    commit, _, folder = tree.partition(":")
    listed = ""
    if _has(repository, f"{commit}:.gitmodules", "blob"):
        listed = git(["config", "--blob", f"{commit}:.gitmodules", "--null", "--list"], 60, repository)
    facts = dict(entry.partition("\n")[::2] for entry in listed.split("\0") if entry)
    places = {
        value: facts.get(f"{name.removesuffix('.path')}.url", "")
        for name, value in facts.items()
        if name.startswith("submodule.") and name.endswith(".path")
    }
    result = []
    for commit, path in wanted:
        place = places.get(f"{folder}/{path}" if folder else path, "")
        if not place:
            raise AnsibleActionFail(
                f"{path} of the source is a git submodule without an address in .gitmodules: add that, or add "
                f"{os.path.basename(path)} to app_exclude."
            )
        result.append((path, commit, place))
    return result


def _submodule(
    path: str,
    commit: str,
    place: str,
    parent: str,
    timeout: float,
    target: Path,
    credentials: tuple[str, str],
    exclude: Iterable[str],
) -> None:
    """Put the files of a submodule into its folder of `target`.

    Args:
        path: that folder.
        commit: what is wanted of it.
        place: its address, which may be relative to that of its parent.
        parent: the address of the repository that it is a part of.
        timeout: seconds that a command of git may take.
        target: the files of that repository.
        credentials: the key and the token that let git in there; the token goes to no other host.
        exclude: names that are left out.

    Raises:
        AnsibleActionFail: when it cannot be had.
    """
    key, token = credentials
    address = beside(parent, place) if place.startswith(("./", "../")) else place
    try:
        if (REMOTE.match(parent) and not REMOTE.match(address)) or re.match(r"^[A-Za-z0-9]+::", address):
            raise AnsibleActionFail(
                f"{shown(address)} is a place on this machine, which a repository from elsewhere cannot name."
            )
        ours, theirs = urlsplit(address), urlsplit(parent)
        if ours.scheme == theirs.scheme and ours.netloc == theirs.netloc.rpartition("@")[2]:  # let in as its parent is
            address = ours._replace(netloc=theirs.netloc).geturl()
        elif ours.netloc != theirs.netloc:
            token = ""
        checkout(address, commit, timeout, target / path, key, token, exclude)
    except AnsibleActionFail as error:
        raise AnsibleActionFail(
            f"The git submodule {path} of the source cannot be fetched: {error}\n"
            f"Give git access to it, or add {os.path.basename(path)} to app_exclude where the app does not need it."
        ) from None  # Ansible would say all of it twice


def beside(parent: str, place: str) -> str:
    """Return the address that a submodule's relative one stands for."""
    base = parent.rstrip("/")
    while place.startswith(("./", "../")):
        step, _, place = place.partition("/")
        if step == "..":
            cut = max(base.rfind("/"), base.rfind(":") if "://" not in base else -1)
            separator, base = base[cut], base[:cut]
            if separator == ":":
                return f"{base}:{place}"
    return f"{base}/{place}"


def checkout_folder(
    folder: Path, version: str, timeout: float, target: Path, credentials: tuple[str, str] = ("", ""), exclude: Iterable[str] = ()
) -> str:
    """Put the files of `folder`, which lies in a git work tree, at `version` into the new directory `target`.

    Returns:
        The commit's full hash.

    Raises:
        AnsibleActionFail: when it lies in none, or there is no such version, or no such folder in it.
    """
    try:
        top = Path(git(["rev-parse", "--show-toplevel"], timeout, folder))
        inside = git(["rev-parse", "--show-prefix"], timeout, folder).rstrip("/")
    except AnsibleActionFail as error:
        raise AnsibleActionFail(
            f"app_version is {version}, and {folder} (app_source) lies in no git work tree that could be asked for it: leave "
            f"app_version empty to take the directory as it is.\n{error}"
        ) from error
    names = [f"refs/tags/{version}", f"refs/heads/{version}", version]
    commit = next((_has(top, name) for name in names if _has(top, name)), "")
    if not commit:
        raise AnsibleActionFail(f"{top} has no branch, tag or commit {version}: app_version names one.")
    if not _has(top, f"{commit}:{inside}", "tree"):
        raise AnsibleActionFail(f"{version} (app_version) of {top} has no folder {inside} (app_source).")
    tree = f"{commit}:{inside}" if inside else commit
    _export(top, tree, timeout, target)
    for path, wanted, place in submodules(top, tree, exclude):
        if _has(folder / path, wanted) and (folder / path / ".git").exists():
            checkout_folder(folder / path, wanted, timeout, target / path, credentials, exclude)
        else:
            _submodule(path, wanted, place, _origin(top), timeout, target, credentials, exclude)
    return commit


def _origin(top: Path) -> str:
    """Return the address that a work tree was cloned from; its own path where it was made here."""
    try:
        return git(["remote", "get-url", "origin"], 60, top)
    except AnsibleActionFail:
        return str(top)


def check_submodules(root: Path, exclude: Iterable[str]) -> None:
    """Refuse a work tree with a submodule that is not checked out: the app would lack its files.

    Raises:
        AnsibleActionFail: when there is one.
    """
    names = root / ".gitmodules"
    if not names.is_file() or shutil.which("git") is None:
        return
    listed = git(["config", "--file", str(names), "--null", "--list"], 60, root)
    for entry in listed.split("\0"):
        name, _, path = entry.partition("\n")
        if not name.endswith(".path") or any(fnmatch(part, pattern) for part in path.split("/") for pattern in exclude):
            continue
        if not (root / path).is_dir() or not any((root / path).iterdir()):
            raise AnsibleActionFail(
                f"The git submodule {path} of app_source is not checked out: run `git submodule update --init --recursive` "
                f"there, or add {os.path.basename(path)} to app_exclude where the app does not need it."
            )


def _export(repository: Path, tree: str, timeout: float, target: Path) -> None:
    """Put the files of a commit, or of a folder of one, into the new directory `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "files.tar")
        git(["archive", "--format=tar", f"--output={archive}", tree], timeout, repository)
        target.mkdir(exist_ok=True)  # git leaves an empty folder for a submodule
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "tar_filter"):
                tar.extractall(target, filter="tar")
            else:
                tar.extractall(target)  # git's own archive of a commit


def _has(repository: Path, name: str, kind: str = "commit") -> str:
    """Return the commit, or other `kind` of object, that `name` stands for in `repository`; empty where it stands for none."""
    if not repository.is_dir():
        return ""
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", f"{name}^{{{kind}}}" if kind == "commit" else name],
        cwd=repository,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


# Archives and wheels


def obtain(source: str, checksum: str, timeout: float) -> Path:
    """Return the archive or wheel `source` on this machine, downloaded where it is an address, and checked.

    Raises:
        AnsibleActionFail: when it cannot be had, or is another than `checksum` says.
    """
    wanted = checksum.removeprefix("sha256:").lower()
    if is_url(source):
        if not wanted:
            raise AnsibleActionFail(f"app_source is {shown(source)}: set app_checksum to the digest of that file.")
        file = cache_directory("downloads") / wanted
        with alone(file):
            if not (file.is_file() and sha256(file) == wanted):
                _download(source, wanted, timeout, file)
        file.touch()
        sweep(file.parent.iterdir())
        return file
    file = Path(source).expanduser().resolve()
    if not file.is_file():
        raise AnsibleActionFail(f"app_source is {source}: there is no such file on this machine.")
    if wanted:
        _compare(source, sha256(file), wanted)
    return file


def _compare(source: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise AnsibleActionFail(
            f"{shown(source)} is not what app_checksum names; nothing of it was unpacked.\n"
            f"app_checksum: sha256:{wanted}\nthe file:     sha256:{found}"
        )


def _download(address: str, wanted: str, timeout: float, file: Path) -> None:
    """Download `address` to `file`, which has its name only when it is whole and what was wanted."""
    partial = file.with_suffix(".partial")
    end = time.monotonic() + timeout
    try:
        answer = open_url(
            address,
            timeout=min(timeout, 60),
            http_agent="slipway",
            decompress=False,
            force_basic_auth=urlsplit(address).username is not None,
        )
        with answer, open(partial, "wb") as target:
            while part := answer.read1(2**18):
                target.write(part)
                if target.tell() > LARGEST:
                    raise AnsibleActionFail(f"{shown(address)} is larger than {LARGEST >> 30} GiB.")
                if time.monotonic() > end:
                    raise TimeoutError
        _compare(address, sha256(partial), wanted)
        os.replace(partial, file)
    except HTTPError as error:
        raise AnsibleActionFail(f"{shown(address)} (app_source) is answered with {error.code} {error.reason}.") from error
    except TimeoutError as error:
        raise AnsibleActionFail(f"{shown(address)} took longer than {timeout:g} s (app_fetch_timeout).") from error
    except (OSError, ValueError, UrlError, http.client.HTTPException) as error:
        if "timed out" in str(error):
            raise AnsibleActionFail(f"{shown(address)} took longer than {timeout:g} s (app_fetch_timeout).") from error
        raise AnsibleActionFail(f"{shown(address)} (app_source) cannot be downloaded: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


class Member(NamedTuple):
    """What an archive holds: a file, a folder, a link, a copy of another file in it (a hard link), or something else."""

    name: str
    kind: str
    target: str
    executable: bool
    open: Callable[[], Any]


def members(archive: Path, scratch: Path) -> Iterator[Member]:
    """Yield what `archive` holds, whatever its format; raises one of `DAMAGED` where it is not whole."""
    with open(archive, "rb") as file:
        head = file.read(6)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip_members(archive)
        return
    reader = next((reader for magic, reader in COMPRESSIONS.items() if head.startswith(magic)), None)
    plain = archive
    if reader is not None:
        plain = scratch / "archive.tar"
        with reader(archive) as source, open(plain, "wb") as target:
            copy(source, target, LARGEST)
    with tarfile.open(plain, "r:") as tar:
        tests = {"file": "isreg", "folder": "isdir", "link": "issym", "copy": "islnk"}
        for entry in tar:
            kind = next((kind for kind, test in tests.items() if getattr(entry, test)()), "other")
            yield Member(entry.name, kind, entry.linkname, bool(entry.mode & 0o100), functools.partial(tar.extractfile, entry))
    with open(plain, "rb") as file:
        file.seek(tar.offset)
        block = file.read(512)
        # tarfile takes for the end whatever is no entry.
        if any(block) or (len(block) < 512 and reader is None):
            raise EOFError("it ends in the middle")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as source:
        for entry in source.infolist():
            if entry.flag_bits & 1:
                raise NotImplementedError("it is encrypted")
            mode = entry.external_attr >> 16
            kind = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}.get(stat.S_IFMT(mode), "other")
            kind = "folder" if entry.is_dir() else kind
            target = source.read(entry).decode("utf-8", "surrogateescape") if kind == "link" and entry.file_size < 4096 else ""
            yield Member(entry.filename, kind, target, bool(mode & 0o100), functools.partial(source.open, entry))


def copy(source: IO[bytes], target: IO[bytes], room: int) -> int:
    """Copy a stream, and return how much of `room` is left.

    Raises:
        AnsibleActionFail: when it is too long.
    """
    while room >= 0 and (part := source.read(2**18)):
        room -= len(part)
        target.write(part)
    if room < 0:
        raise AnsibleActionFail(f"app_source unpacks to more than {LARGEST >> 30} GiB.")
    return room


def unpack(archive: Path, name: str, scratch: Path) -> Path:
    """Unpack `archive` in `scratch`, and return the folder that is the source: its only one, or all of it.

    Raises:
        AnsibleActionFail: when it is damaged, too large, or holds what leads outside; it is called `name` then.
    """
    root = scratch / "source"
    root.mkdir()
    links: dict[Path, str] = {}
    room = LARGEST
    try:
        for member in members(archive, scratch):
            place = os.path.normpath(member.name)
            start = os.path.dirname(place) if member.kind == "link" else ""
            target = os.path.normpath(os.path.join(start, member.target)) if member.kind in ("link", "copy") else "."
            if member.kind == "other" or any(path == ".." or path.startswith(("/", "../")) for path in (place, target)):
                raise AnsibleActionFail(f"{name} holds {member.name}, which leads outside or is no ordinary file.")
            room -= 512  # as empty files are many, too
            path = root / place
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
            elif member.kind == "link":
                links[path] = member.target
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(root / target, "rb") if member.kind == "copy" else member.open() as source, open(path, "wb") as file:
                    room = copy(source, file, room)
                path.chmod(0o755 if member.executable else 0o644)
        for path, text in links.items():  # last of all, so that nothing was written through one
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(text)
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise AnsibleActionFail(f"{name} (app_source) cannot be unpacked: it is damaged, or no archive ({reason}).") from error
    found = [path for path in root.iterdir() if path.name not in LITTER]
    if not found:
        raise AnsibleActionFail(f"{name} (app_source) cannot be unpacked: there is nothing in it.")
    return found[0] if len(found) == 1 and found[0].is_dir() and not found[0].is_symlink() else root


def stand_in(source: str, requirement: str, scratch: Path, wheel: Path | None = None) -> Path:
    """Return the source that stands for a package or a wheel: a requirements file, and the wheel beside it.

    Raises:
        AnsibleActionFail: when the wheel is damaged.
    """
    root = scratch / "source"
    root.mkdir()
    if wheel is not None:
        try:
            with zipfile.ZipFile(wheel) as file:
                broken = file.testzip()
        except DAMAGED as error:
            raise AnsibleActionFail(f"{shown(source)} (app_source) is damaged, or no wheel ({error}).") from error
        if broken:
            raise AnsibleActionFail(f"{shown(source)} (app_source) is damaged: {broken} in it is not what it should be.")
        name = requirement.removeprefix("./")
        shutil.copyfile(wheel, root / name)
        requirement = f"# sha256:{sha256(wheel)}\n{requirement}"  # two wheels may have one name
    (root / "requirements.txt").write_text(f"{requirement}\n", encoding="utf-8")
    return root


def wheel_demands(wheel: Path, name: str) -> list[dict[str, Any]]:
    """Return what a wheel asks of the interpreter."""
    with zipfile.ZipFile(wheel) as file:
        member = next((each for each in file.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)), None)
        text = file.read(member).decode("utf-8", "replace") if member else ""
    found = re.search(r"^Requires-Python:\s*(\S.*?)\s*$", text.partition("\n\n")[0], re.MULTILINE)
    try:
        return [interpreters.demand(f"{name} (Requires-Python)", found[1], found[1])] if found else []
    except interpreters.Unreadable as error:
        raise AnsibleActionFail(str(error)) from error


# What the app depends on


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


def toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        AnsibleActionFail: when it cannot be read.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AnsibleActionFail(f"{file.name} of the source cannot be read: {error}") from error


class Dependencies:
    """The file of a source that names what the app depends on.

    Args:
        root: the source.
        directory: the folder in it that holds the app.
        exclude: names of files that no host will see.
        allowed: what its files may say of where packages come from.
    """

    def __init__(self, root: Path, directory: str, exclude: list[str], allowed: Any) -> None:
        self.allowed = allowed
        self.root = root
        self.directory = directory
        self.folder = root / directory
        self.exclude = exclude

    def facts(self, named: str, elsewhere: bool) -> dict[str, Any]:
        """Return what a host must know to install them.

        Args:
            named: the file, from the folder; empty for the best that is there.
            elsewhere: whether the packages come from another place than a lock file says.

        Returns:
            `kind`, `requirements` (the file, from the folder), `lock` (a digest of all that decides what is installed),
            `packages` (what else is built from the source: names to folders), `resolve` (whether what these depend on is not
            known before they are built), `pins` (requirements made of a lock file), `hashed` (whether it has hashes), `python`
            (what is asked of the interpreter) and `replaced` (files that are packed with another text).

        Raises:
            AnsibleActionFail: when there is no such file, or it cannot be used.
        """
        file, start = self._named(named) if named else self._found()
        kind = _kind(file.name)
        facts: dict[str, Any] = {"kind": kind, "requirements": os.path.relpath(file, self.folder), "packages": {}, "pins": []}
        try:
            hashed = requirement_files.hashed(file, self.root) if kind == "requirements" else kind in ("uv.lock", "pylock")
            facts.update(resolve=False, replaced={}, hashed=hashed, python=self._demands(file, start))
            files = requirement_files.Requirements(self.root, self.folder, self.allowed, toml)
            if kind == "requirements":
                found = files.read(file)._asdict()
                if self.allowed.installer == "uv":
                    self._settings(files, found["packages"])
                return {**facts, "lock": lock_digest(file), **found}
            if kind == "uv.lock":
                packages = self._local(file, start)
                if elsewhere:  # otherwise the addresses in it count, with a hash for each
                    self._settings(files, packages)
                return {**facts, "lock": self._digest(file, start), "packages": packages}
            if kind == "pylock" and elsewhere:
                facts["pins"] = pins(toml(file))
            own = self.folder / "pyproject.toml"
            project = toml(own) if self._has(own) else {}
            if kind == "pyproject":
                if not named:
                    self._other_lock()
                _usable(project, self._has(self.folder / "poetry.lock"))
                for need in project["project"].get("dependencies", []):
                    files.check(need, "pyproject.toml (dependencies)")
            if _is_package(project):
                facts["packages"] = {str(project.get("project", {}).get("name", "")): self.directory}
            self._settings(files, facts["packages"])
        except (requirement_files.Refused, interpreters.Unreadable) as error:
            raise AnsibleActionFail(str(error)) from error
        return {**facts, "lock": self._digest(file, self.folder)}

    def _demands(self, file: Path, start: Path) -> list[dict[str, Any]]:
        """Return what the source asks of the interpreter: its project, its lock file, and .python-version."""
        found = []
        for place in {start / "pyproject.toml": 0, self.folder / "pyproject.toml": 0}:
            said = toml(place).get("project", {}).get("requires-python") if self._has(place) else None
            if said:
                found.append(interpreters.demand(f"{os.path.relpath(place, self.root)} (requires-python)", str(said), str(said)))
        said = toml(file).get("requires-python") if file.suffix in (".lock", ".toml") and file.name != "pyproject.toml" else None
        if said:
            found.append(interpreters.demand(f"{os.path.relpath(file, self.root)} (requires-python)", str(said), str(said)))
        pinned = interpreters.nearest(self.folder, self.root, ".python-version")
        if pinned is not None and self._has(pinned):
            found += interpreters.pinned(pinned, os.path.relpath(pinned, self.root))
        return found

    def _settings(self, files: Any, packages: Mapping[str, str]) -> None:
        """Refuse settings of uv that are the operator's to make: uv reads those of a folder and of all above it.

        Args:
            files: what judges them.
            packages: what else is built from the source: names to folders.
        """
        folders = {self.folder, *(self.root / folder for folder in packages.values())}
        places = {place for folder in folders for place in (folder, *folder.parents) if place.is_relative_to(self.root)}
        for place in (folder / name for folder in sorted(places) for name in ("pyproject.toml", "uv.toml")):
            if self._has(place):
                tables = toml(place)
                tables = tables.get("tool", {}).get("uv", {}) if place.name == "pyproject.toml" else tables
                files.settings(tables, str(place.relative_to(self.root)))

    def _other_lock(self) -> None:
        """Refuse a project whose versions another tool has locked: what pyproject.toml leaves open would be chosen anew.

        Raises:
            AnsibleActionFail: when there is such a lock; it names the command that makes one of use here.
        """
        for name, command in OTHER_LOCKS.items():
            if self._has(self.folder / name):
                raise AnsibleActionFail(
                    f"The source has {name}, which is not read here: run {command}, and add what it makes to the source; "
                    "or set app_requirements: pyproject.toml to have the newest versions that fit."
                )

    def _has(self, file: Path) -> bool:
        parts = file.relative_to(self.root).parts
        return file.is_file() and not any(fnmatch(part, pattern) for part in parts for pattern in self.exclude)

    def _named(self, named: str) -> tuple[Path, Path]:
        if named == "uv.lock":
            found = next(self._uv_locks(), None)
            if found:
                return found
        file = self.folder / named
        if not self._has(file):
            raise AnsibleActionFail(
                f"The source has no {file.relative_to(self.root)}: app_requirements (now {named}) and "
                f"app_directory (now {self.directory}) name it. There: {self._there()}."
            )
        if named == "uv.lock":
            raise AnsibleActionFail(
                f"uv.lock of the source has no project {self.directory} (app_directory): run `uv lock` again."
            )
        return file, self.folder

    def _found(self) -> tuple[Path, Path]:
        plain = self.folder / "requirements.txt"
        hashed = self._has(plain) and "--hash=" in plain.read_text(encoding="utf-8", errors="replace")
        if not hashed:
            found = next(self._uv_locks(), None)
            if found:
                return found
        for file in (self.folder / "pylock.toml", plain, self.folder / "pyproject.toml"):
            if self._has(plain if hashed else file):
                return (plain if hashed else file), self.folder
        self._other_lock()
        if self._has(self.folder / "setup.py"):
            raise AnsibleActionFail(
                f"The source has a setup.py in {self.directory} (app_directory) and no file that names its dependencies: add a "
                "requirements.txt with the line `.`, which has the package built and asked for them."
            )
        raise AnsibleActionFail(
            f"The source has no requirements.txt, uv.lock, pylock.toml or pyproject.toml in {self.directory} (app_directory); "
            f"app_requirements names another file. There: {self._there()}."
        )

    def _there(self) -> str:
        found = sorted(path.name for path in self.folder.glob("*") if path.suffix in (".txt", ".in", ".toml", ".lock"))
        return ", ".join(found) or "no file of that kind"

    def _uv_locks(self) -> Iterator[tuple[Path, Path]]:
        """Yield each uv.lock from the folder upwards, with the folder of the project in it that the app is."""
        project = None
        for folder in (self.folder, *self.folder.parents):
            if not folder.is_relative_to(self.root):
                return
            if project is None and self._has(folder / "pyproject.toml"):
                project = folder
            if project and self._has(folder / "uv.lock") and _own(toml(folder / "uv.lock"), os.path.relpath(project, folder)):
                yield folder / "uv.lock", project

    def _local(self, file: Path, project: Path) -> dict[str, str]:
        """Return those packages of the source that the project needs, itself included: their names and folders."""
        lock = toml(file)
        found: dict[str, str] = {}
        pending: list[tuple[str, frozenset[str]]] = [(_own(lock, os.path.relpath(project, file.parent)), frozenset())]
        seen = set()
        while pending:
            wanted = pending.pop()
            if wanted in seen:
                continue
            seen.add(wanted)
            for package in (package for package in lock["package"] if package["name"] == wanted[0]):
                source = package.get("source", {})
                place = source.get("editable") or source.get("directory")
                if place:
                    found[wanted[0]] = self._inside(wanted[0], file.parent / place)
                optional = package.get("optional-dependencies", {})
                needs = [*package.get("dependencies", []), *(need for extra in wanted[1] for need in optional.get(extra, []))]
                pending += [(need["name"], frozenset(need.get("extra", []))) for need in needs]
        return found

    def _inside(self, name: str, folder: Path) -> str:
        path = os.path.relpath(os.path.normpath(folder), self.root)
        if path == ".." or path.startswith("../"):
            raise AnsibleActionFail(
                f"uv.lock takes {name} from {folder}, outside the source: make app_source the folder of both."
            )
        requirement_files.check_folder(path, "uv.lock")
        return path

    def _digest(self, file: Path, project: Path) -> str:
        """Return the digest of a lock file and of what says how it is meant (40 hex digits)."""
        digest = hashlib.sha256(os.fsencode(os.path.relpath(project, file.parent)) + b"\0" + file.read_bytes())
        for folder in sorted({project, file.parent}):
            for each in (folder / "pyproject.toml", folder / "uv.toml"):
                digest.update(b"\0" + (each.read_bytes() if self._has(each) else b""))
        return digest.hexdigest()[:40]


def _kind(name: str) -> str:
    if name in ("uv.lock", "pyproject.toml"):
        return name.removesuffix(".toml")
    return "pylock" if re.fullmatch(r"pylock(\.[^.]+)?\.toml", name) else "requirements"


def _own(lock: dict[str, Any], place: str) -> str:
    """Return the name of the package that lies at `place` for a uv.lock; empty where none does."""
    for package in lock.get("package", []):
        source = package.get("source", {})
        if os.path.normpath(source.get("editable") or source.get("virtual") or "/") == place:
            return str(package["name"])
    return ""


def _is_package(project: dict[str, Any]) -> bool:
    """Say whether a pyproject.toml is that of something to install, and not only a list of dependencies."""
    answer = project.get("tool", {}).get("uv", {}).get("package")
    return "build-system" in project if answer is None else bool(answer)


def _usable(project: dict[str, Any], poetry: bool) -> None:
    """Refuse a pyproject.toml that does not name its dependencies by itself."""
    table = project.get("project")
    if table is None:
        remedy = (
            "run `poetry export --with-hashes --output requirements.txt` (with poetry-plugin-export), and add what it makes"
            if poetry or "poetry" in project.get("tool", {})
            else "add a lock file, such as one made by `uv lock`, or a requirements.txt"
        )
        raise AnsibleActionFail(f"pyproject.toml of the source has no [project] table that names dependencies: {remedy}.")
    if "dependencies" in table.get("dynamic", []):
        raise AnsibleActionFail(
            "pyproject.toml of the source has dynamic dependencies, which only its own code knows: add a lock file, such as one "
            "made by `uv lock`, or a requirements.txt with the line `.`, which has the package built and asked for them."
        )


def pins(lock: dict[str, Any]) -> list[str]:
    """Return the requirements, with hashes, that a pylock.toml stands for, whose own addresses lead to one index only.

    Raises:
        AnsibleActionFail: when it has a package that comes from no index.
    """
    lines = []
    for package in lock.get("packages", []):
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if not files or "version" not in package:
            raise AnsibleActionFail(f"{package['name']} in pylock.toml comes from no package index: only its own address has it.")
        marker = f" ; {package['marker']}" if "marker" in package else ""
        hashes = sorted({f" --hash={kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()})
        lines.append(f"{package['name']}=={package['version']}{marker}{''.join(hashes)}")
    return lines


# The action


def run_hook(name: str, command: str, timeout: float, directory: Path) -> None:
    """Run a command of the operator's, as the role's modules do on a host.

    Raises:
        AnsibleActionFail: when it fails or takes too long.
    """
    try:
        told = {"SLIPWAY_HOOK": name}
        shell(f"The hook {name} (app_hooks)", command, timeout, "app_hook_timeout", directory=directory, environment=told)
    except ReleaseError as error:
        raise AnsibleActionFail(str(error)) from error


class FetchAction(ActionBase):
    """Fetch and pack the source of one app."""

    _requires_connection = False
    wheel_demands: list[dict[str, Any]] = []  # noqa: RUF012  each task has a new action
    # fmt: off
    _VALID_ARGS = frozenset((
        "source", "version", "checksum", "git_key", "git_token", "directory", "requirements", "installer", "elsewhere",
        "wheelhouse", "exclude", "timeout", "hooks", "hook_timeout", "image", "dockerfiles", "environment", "source_builds",
        "interpreter", "base", "known",
    ))
    # fmt: on

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the packed source is, what it was made from, and its digests.

        Raises:
            AnsibleActionFail: when the source cannot be had, or lacks what it must hold.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = (self._task.args.get("known") or {}).get("source")
        if known:
            self._demanded(known.get("python", []), task_vars or {})
            result.update(changed=False, source=known)
            return result
        exclude = list(self._task.args.get("exclude") or [])
        directory = self._text("directory") or "."
        if self._text("image"):
            result.update(changed=False, source=self._image())
            return result
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if {"before_fetch", "after_fetch"} & set(
                self._task.args.get("hooks") or {}
            ):  # they may write into one directory for several hosts
                name = hashlib.sha256(self._text("source").encode()).hexdigest()[:16]
                stack.enter_context(alone(cache_directory("hooks") / name))
            root, revision, origin = self._fetch(scratch)
            self._hook("after_fetch", root)
            check_links(root, exclude)
            allowed = requirement_files.Allowed.of(
                self._task.args.get("environment") or {},
                bool(self._task.args.get("source_builds")),
                self._text("installer") or "uv",
            )
            needs = self._recipe(root / directory) or Dependencies(root, directory, exclude, allowed).facts(
                self._text("requirements"), bool(self._task.args.get("elsewhere"))
            )
            needs["python"] = needs.get("python", []) + self.wheel_demands
            needs["asks"] = interpreters.request(needs["python"])
            self._demanded(needs["python"], task_vars or {})
            if self._text("installer") == "pip" and needs["kind"] not in ("requirements", "dockerfile"):
                raise AnsibleActionFail(
                    f"pip does not install from {needs['requirements']}: set python_installer: uv, or have app_requirements name "
                    "a requirements file."
                )
            digest, archive = pack(root, exclude, cache_directory(), replaced=needs.pop("replaced", None))
        result["changed"] = False
        result["source"] = {
            "archive": str(archive),
            "digest": digest,
            "revision": revision or digest[:12],
            "origin": origin,
            "directory": directory,
            **needs,
            "wheels": self._wheels(),
        }
        return result

    def _image(self) -> dict[str, Any]:
        """Return what stands for the source of an image that is pulled."""
        image, version = self._text("image"), self._text("version")
        if version and "@" not in image:
            folders, slash, name = image.rpartition("/")
            image = f"{folders}{slash}{name.partition(':')[0]}:{version}"
        named = re.search(r"[@:]([^/]+)$", image)
        return {
            **{"archive": "", "digest": "", "directory": ".", "kind": "image", "requirements": "", "lock": ""},
            **{
                "packages": {},
                "pins": [],
                "python": [],
                "asks": "",
                "resolve": False,
                "wheels": {},
                "image": image,
                "origin": image,
            },
            "revision": named[1][:19] if named else "latest",
        }

    def _recipe(self, folder: Path) -> dict[str, Any]:
        """Return what stands for the dependencies of a source with a Dockerfile; nothing where it has none or none is wanted."""
        files = list(self._task.args.get("dockerfiles") or [])
        for name in files:
            if (folder / name).is_file():
                return {"kind": "dockerfile", "requirements": name, "lock": "", "packages": {}, "pins": [], "resolve": False}
        if len(files) == 1:
            raise AnsibleActionFail(
                f"The source has no {files[0]} (app_dockerfile) in {self._text('directory')} (app_directory)."
            )
        return {}

    def _demanded(self, demands: list[dict[str, Any]], variables: dict[str, Any]) -> None:
        """Refuse a source that asks for another Python than it would run with, as far as that is known yet.

        Args:
            demands: what it asks for.
            variables: those of the task.

        Raises:
            AnsibleActionFail: when it does; names the host, both Pythons, and what to do.
        """
        if not demands:
            return
        base, interpreter = self._text("base"), self._text("interpreter")
        version = interpreters.of_image(base) if base else self._version(interpreter)
        for each in interpreters.unmet(demands, version) if version else []:
            host = variables.get("inventory_hostname", "the host")
            pin = ", or leave that file out by app_exclude where another will do" if ".python-version" in each["file"] else ""
            if base:
                has, remedy = (
                    f"{base} (app_image_base) has Python {version}",
                    "name an image with such a Python in app_image_base",
                )
            else:
                has = f"{interpreter} there is Python {version}"
                remedy = (
                    "install such a Python there and name it in python_interpreter, or set app_runtime: container, with an "
                    "app_image_base that has it"
                )
            raise AnsibleActionFail(
                f"The app asks for another Python than {host} would run it with: {each['file']} says {each['said']}, and {has}. "
                f"Nothing was built: {remedy}{pin}."
            )

    def _version(self, interpreter: str) -> str:
        """Return the version of the host's `interpreter`; empty where it is not there yet, or none is named."""
        if not interpreter:
            return ""
        answer = self._low_level_execute_command(f"{shlex.quote(interpreter)} -V", executable="/bin/sh")
        found = re.match(r"Python (\d+\.\d+\.\d+\w*)", str(answer.get("stdout", "")))
        return found[1] if found and not answer.get("rc") else ""

    def _source(self) -> str:
        return on_this_machine(self._text("source"))

    def _text(self, name: str) -> str:
        return str(self._task.args.get(name) or "")

    def _fetch(self, scratch: Path) -> tuple[Path, str, str]:
        """Return the source's directory, its revision where it has one, and what is said of where it comes from."""
        source, version, timeout = self._source(), self._text("version"), float(self._task.args["timeout"])
        kind = kind_of(source)
        if kind == "directory":
            return self._directory(scratch)
        if kind in ("package", "wheel") and self._text("directory") not in ("", "."):
            raise AnsibleActionFail(f"app_source is a {kind}, which has no folders: leave app_directory as '.'.")
        self._hook("before_fetch", scratch)
        if kind == "git":
            target = scratch / "source"
            exclude = list(self._task.args.get("exclude") or [])
            commit = checkout(source, version, timeout, target, self._text("git_key"), self._text("git_token"), exclude)
            return target, commit, shown(source)
        if kind == "package":
            found = PACKAGE.fullmatch(source)
            return stand_in(source, source, scratch), version or (found["version"] if found else ""), "package"
        file = obtain(source, self._text("checksum"), timeout)
        name = os.path.basename(unquote(urlsplit(source).path) if is_url(source) else source)
        origin = shown(source) if is_url(source) else name
        if kind == "wheel":
            found = WHEEL.fullmatch(name)
            root = stand_in(source, f"./{name}", scratch, file)
            self.wheel_demands = wheel_demands(file, name)
            return root, version or (found["version"] if found else ""), origin
        return unpack(file, name, scratch), version, origin

    def _directory(self, scratch: Path) -> tuple[Path, str, str]:
        """Return a directory of this machine, as it is or as it was in one version."""
        source, version = self._source(), self._text("version")
        root = Path(source).expanduser().resolve()
        if not root.is_dir():
            raise AnsibleActionFail(
                f"app_source is {source}: there is no such directory on this machine, and it is no git address."
            )
        self._hook("before_fetch", root)
        exclude = list(self._task.args.get("exclude") or [])
        if not version:
            check_submodules(root, exclude)
            return root, "", "directory"
        target, credentials = scratch / "source", (self._text("git_key"), self._text("git_token"))
        commit = checkout_folder(root, version, float(self._task.args["timeout"]), target, credentials, exclude)
        return target, commit, "directory"

    def _hook(self, name: str, directory: Path) -> None:
        """Run one of the operator's commands, where it is set."""
        command = (self._task.args.get("hooks") or {}).get(name)
        if command:
            run_hook(name, str(command), float(self._task.args.get("hook_timeout") or 300), directory)

    def _wheels(self) -> dict[str, str]:
        """Return the packed wheelhouse and its digest; empty where there is none."""
        place = self._text("wheelhouse")
        if not place:
            return {}
        directory = Path(place).expanduser().resolve()
        wheels = sorted(directory.glob("*.whl"))
        if not wheels:
            raise AnsibleActionFail(f"app_wheelhouse is {place}: there are no wheels (*.whl) in it on this machine.")
        digest, archive = pack(directory, [], cache_directory(), wheels)
        return {"archive": str(archive), "digest": digest}
