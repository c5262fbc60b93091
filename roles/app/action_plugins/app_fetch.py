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
import importlib.util
import io
import lzma
import os
import re
import shlex
import shutil
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

DOCUMENTATION = """
action: app_fetch
short_description: Fetch an app's source on the controller and pack it
description:
  - The packed source is named by its content, so that the same content is sent to a host once, and fetched from git once.
  - A package and a wheel become a source of one requirements file, so that all that comes after is the same.
options:
  source: {type: str, required: true, description: "A directory, git repository, archive, wheel, or package as name==version."}
  version: {type: str, description: "The branch, tag or commit of a git repository. Its default branch where it is empty."}
  checksum: {type: str, description: "The digest of an archive or a wheel, as sha256 and 64 hex digits after a colon."}
  git_key: {type: str, description: "The file of a private key that lets git in by SSH."}
  git_token: {type: str, description: "A token that lets git in by HTTPS."}
  directory: {type: str, description: "The folder of the source that holds the app. The source itself where it is empty."}
  requirements: {type: str, description: "The file in that folder that names the app's dependencies. Found where it is empty."}
  installer: {type: str, description: "What will install them, uv or pip."}
  elsewhere: {type: bool, description: "Whether packages come from another place than a lock file says."}
  wheelhouse: {type: str, description: "A directory of wheels for hosts without a package index."}
  exclude: {type: list, elements: str, description: "Names of files and folders that are left out, with wildcards."}
  timeout: {type: float, required: true, description: "Seconds that git, or a download, may take."}
  image: {type: str, description: "An image to pull instead, whose tag C(version) takes the place of."}
  dockerfiles: {type: list, elements: str, description: "Names of recipes for an image; the first that is there is taken."}
  hooks: {type: dict, description: "Shell commands; C(before_fetch) and C(after_fetch) run here."}
  hook_timeout: {type: float, description: "Seconds that one of them may take."}
"""

ARCHIVE = re.compile(r".+\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip)", re.IGNORECASE)
WHEEL = re.compile(r"(.*/)?[A-Za-z0-9._]+-(?P<version>[A-Za-z0-9._+!]+)(-[A-Za-z0-9._]+){3,4}\.whl")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)")
GIT = re.compile(r"^(git\+.+|git@.+|ssh://.+|git://.+|https?://.+|.+\.git/?)$")

# How long what nobody asks for stays on the controller.
KEEP_SECONDS = 14 * 86400

# An archive that unpacks to more is a mistake, or an attack.
LARGEST = 2 * 2**30

# What stands at the beginning of compressed files, and what reads them.
COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError)

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


def pack(root: Path, exclude: list[str], directory: Path, files: Iterable[Path] | None = None) -> tuple[str, Path]:
    """Pack `files`, or all below `root`, into an archive in `directory` that depends on nothing but their content.

    Returns:
        The digest of paths, contents and executable bits (40 hex digits), and the archive's path.

    Raises:
        AnsibleActionFail: when a link leads out of `root`, or a file is neither a file nor a link.
    """
    digest = hashlib.sha256()
    partial = directory / f".{os.getpid()}.partial"
    try:
        with tarfile.open(partial, mode="w:gz", compresslevel=3) as tar:
            for path in files_below(root, exclude) if files is None else files:
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
    sweep(directory.glob("*.tar.gz"))
    return name, archive


def sweep(files: Iterable[Path]) -> None:
    """Remove those of `files` that nobody asked for in a long time."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
            if file.stat().st_mtime < time.time() - KEEP_SECONDS:
                file.unlink()


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
        for name, value in (extra or {}).items():
            if name.startswith("GIT_CONFIG_VALUE_") and value:  # as GIT_CURL_VERBOSE shows it
                text = text.replace(value, "***").replace(value.rpartition(" ")[2], "***")
        raise AnsibleActionFail(f"git {arguments[0]} failed: {text}")
    return done.stdout.strip()


def checkout(repository: str, version: str, timeout: float, target: Path, key: str = "", token: str = "") -> str:
    """Put the files of `repository` at `version` into the new directory `target`.

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
        if not (clone / "HEAD").exists():
            git(["init", "--quiet", "--bare", str(clone)], timeout)
        wanted = version or "HEAD"
        if not (re.fullmatch(r"[0-9a-f]{40}", wanted) and _has(clone, wanted)):
            everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slipway/HEAD"]
            git(["fetch", "--quiet", "--prune", "--force", "--", address, *everything], timeout, clone, allowed)
        names = ["refs/slipway/HEAD"] if wanted == "HEAD" else [f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted]
        commit = next((_has(clone, name) for name in names if _has(clone, name)), "")
        if not commit:
            raise AnsibleActionFail(f"{shown(address)} has no branch, tag or commit {version}: app_version names one.")
        _export(clone, commit, timeout, target)
    return commit


def checkout_folder(folder: Path, version: str, timeout: float, target: Path) -> str:
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
    _export(top, f"{commit}:{inside}" if inside else commit, timeout, target)
    return commit


def _export(repository: Path, tree: str, timeout: float, target: Path) -> None:
    """Put the files of a commit, or of a folder of one, into the new directory `target`."""
    archive = target.with_suffix(".tar")
    git(["archive", "--format=tar", f"--output={archive}", tree], timeout, repository)
    target.mkdir()
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(target, filter="tar")
        else:
            tar.extractall(target)  # git's own archive of a commit
    archive.unlink()


def _has(repository: Path, name: str, kind: str = "commit") -> str:
    """Return the commit, or other `kind` of object, that `name` stands for in `repository`; empty where it stands for none."""
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
    """

    def __init__(self, root: Path, directory: str, exclude: list[str]) -> None:
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
            `packages` (what else is built from the source: names to folders) and `pins` (requirements made of a lock file).

        Raises:
            AnsibleActionFail: when there is no such file, or it cannot be used.
        """
        file, start = self._named(named) if named else self._found()
        kind = _kind(file.name)
        facts = {"kind": kind, "requirements": os.path.relpath(file, self.folder), "packages": {}, "pins": []}
        if kind == "requirements":
            return {**facts, "lock": lock_digest(file)}
        if kind == "uv.lock":
            return {**facts, "lock": self._digest(file, start), "packages": self._local(file, start)}
        if kind == "pylock" and elsewhere:
            facts["pins"] = pins(toml(file))
        own = self.folder / "pyproject.toml"
        project = toml(own) if self._has(own) else {}
        if kind == "pyproject":
            _usable(project)
        if _is_package(project):
            facts["packages"] = {str(project.get("project", {}).get("name", "")): self.directory}
        return {**facts, "lock": self._digest(file, self.folder)}

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


def _usable(project: dict[str, Any]) -> None:
    """Refuse a pyproject.toml that does not name its dependencies by itself."""
    table = project.get("project")
    if table is None:
        raise AnsibleActionFail("pyproject.toml of the source has no [project] table that names dependencies: add a lock file.")
    if "dependencies" in table.get("dynamic", []):
        raise AnsibleActionFail(
            "pyproject.toml of the source has dynamic dependencies, which only its own code knows: add a lock file."
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
    # Ansible puts a role's module_utils on no path of the controller.
    path = Path(__file__).resolve().parents[1] / "module_utils" / "app_layout.py"
    spec = importlib.util.spec_from_file_location("slipway_app_layout", path)
    assert spec is not None and spec.loader is not None
    layout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layout)
    try:
        told = {"SLIPWAY_HOOK": name}
        layout.shell(f"The hook {name} (app_hooks)", command, timeout, "app_hook_timeout", directory=directory, environment=told)
    except layout.ReleaseError as error:
        raise AnsibleActionFail(str(error)) from error


class ActionModule(ActionBase):
    """Fetch and pack the source of one app."""

    _requires_connection = False
    # fmt: off
    _VALID_ARGS = frozenset((
        "source", "version", "checksum", "git_key", "git_token", "directory", "requirements", "installer", "elsewhere",
        "wheelhouse", "exclude", "timeout", "hooks", "hook_timeout", "image", "dockerfiles",
    ))
    # fmt: on

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the packed source is, what it was made from, and its digests.

        Raises:
            AnsibleActionFail: when the source cannot be had, or lacks what it must hold.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
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
            needs = self._recipe(root / directory) or Dependencies(root, directory, exclude).facts(
                self._text("requirements"), bool(self._task.args.get("elsewhere"))
            )
            if self._text("installer") == "pip" and needs["kind"] not in ("requirements", "dockerfile"):
                raise AnsibleActionFail(
                    f"pip does not install from {needs['requirements']}: set python_installer: uv, or have app_requirements name "
                    "a requirements file."
                )
            digest, archive = pack(root, exclude, cache_directory())
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
            **{"packages": {}, "pins": [], "wheels": {}, "image": image, "origin": image},
            "revision": named[1][:19] if named else "latest",
        }

    def _recipe(self, folder: Path) -> dict[str, Any]:
        """Return what stands for the dependencies of a source with a Dockerfile; nothing where it has none or none is wanted."""
        files = list(self._task.args.get("dockerfiles") or [])
        for name in files:
            if (folder / name).is_file():
                return {"kind": "dockerfile", "requirements": name, "lock": "", "packages": {}, "pins": []}
        if len(files) == 1:
            raise AnsibleActionFail(
                f"The source has no {files[0]} (app_dockerfile) in {self._text('directory')} (app_directory)."
            )
        return {}

    def _text(self, name: str) -> str:
        return str(self._task.args.get(name) or "")

    def _fetch(self, scratch: Path) -> tuple[Path, str, str]:
        """Return the source's directory, its revision where it has one, and what is said of where it comes from."""
        source, version, timeout = self._text("source"), self._text("version"), float(self._task.args["timeout"])
        kind = kind_of(source)
        if kind == "directory":
            return self._directory(scratch)
        if kind in ("package", "wheel") and self._text("directory") not in ("", "."):
            raise AnsibleActionFail(f"app_source is a {kind}, which has no folders: leave app_directory as '.'.")
        self._hook("before_fetch", scratch)
        if kind == "git":
            target = scratch / "source"
            commit = checkout(source, version, timeout, target, self._text("git_key"), self._text("git_token"))
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
            return root, version or (found["version"] if found else ""), origin
        return unpack(file, name, scratch), version, origin

    def _directory(self, scratch: Path) -> tuple[Path, str, str]:
        """Return a directory of this machine, as it is or as it was in one version."""
        source, version = self._text("source"), self._text("version")
        root = Path(source).expanduser().resolve()
        if not root.is_dir():
            raise AnsibleActionFail(
                f"app_source is {source}: there is no such directory on this machine, and it is no git address."
            )
        self._hook("before_fetch", root)
        if not version:
            return root, "", "directory"
        return (
            scratch / "source",
            checkout_folder(root, version, float(self._task.args["timeout"]), scratch / "source"),
            "directory",
        )

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
