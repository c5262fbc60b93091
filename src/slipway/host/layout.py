"""Where an app's builds and releases lie on a host, and how files there change: whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# The name of a state of a git repository.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

# Of what a command prints, this much is kept at least, in bytes, and somewhat more at most: it may print without end.
KEPT_BYTES = 2**20
MOST_BYTES = 8 * 2**20

# Characters of a digest that stand in a directory's name: 48 bits tell a few dozen builds apart.
DIGEST_LENGTH = 12

# What Linux calls two attributes of a process, in prctl(2).
SUBREAPER, NO_NEW_PRIVILEGES = 36, 38
LIBC = ctypes.CDLL(None, use_errno=True)


class ReleaseError(Exception):
    """A step of a build or release failed; its text is for the operator. What was live still is."""


class Layout:
    """The paths of one app on one host.

    Args:
        home: the app's directory, `/opt/<app>` on a real host.
        runtime: the directory of its sockets, `/run/<app>`.
        logs: the directory of its logs, `/var/log/<app>`.
    """

    def __init__(self, home: str | Path, runtime: str | Path, logs: str | Path) -> None:
        self.home = Path(home)
        self.runtime = Path(runtime)
        self.logs = Path(logs)
        self.builds = self.home / "builds"
        self.venvs = self.home / "venvs"
        self.releases = self.home / "releases"
        self.live_socket = self.home / "live.sock"
        self.current = self.home / "current"
        self.history = self.home / "history.jsonl"

    def release(self, number: int) -> Path:
        """Return the directory of release `number`."""
        return self.releases / str(number)

    def socket(self, number: int, instance: int = 0) -> Path:
        """Return the socket on which an instance of release `number` answers."""
        return self.runtime / (f"{number}.{instance}.sock" if instance else f"{number}.sock")

    def sockets(self, number: int) -> list[Path]:
        """Return the sockets of all instances of release `number`."""
        return [self.socket(number, instance) for instance in range(int(self.record(number).get("instances", 1)))]

    def logs_of(self, number: int) -> list[Path]:
        """Return the logs of release `number`: one, which need not exist, or that of each of its instances."""
        return sorted(self.logs.glob(f"{number}.*log")) or [self.logs / f"{number}.log"]

    def log(self, number: int) -> Path:
        """Return the log of release `number`, or of its first instance."""
        return self.logs_of(number)[0]

    def live(self) -> int | None:
        """Return the number of the live release; None before the first one."""
        try:
            return int(Path(os.readlink(self.live_socket)).stem)
        except (FileNotFoundError, ValueError):
            return None

    def numbers(self) -> list[int]:
        """Return the numbers of the releases that are kept, oldest first."""
        if not self.releases.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.releases.iterdir() if entry.name.isdigit())

    def record(self, number: int) -> dict[str, Any]:
        """Return what is remembered of release `number`; empty where nothing is."""
        try:
            record: dict[str, Any] = json.loads((self.release(number) / "release.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record

    def note(self, entry: dict[str, Any]) -> None:
        """Add an entry to the app's history, which outlives the releases themselves."""
        entry = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}
        with open(self.history, "ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            torn = file.read() not in (b"", b"\n")  # a run was cut off while it wrote
            file.write((b"\n" if torn else b"") + json.dumps(entry, sort_keys=True).encode() + b"\n")

    def entries(self) -> list[dict[str, Any]]:
        """Return what the app's history says of releases, oldest first; what was cut off is left out."""
        try:
            lines = self.history.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entry["release"] = int(entry["release"])
                if "command" not in entry:  # which an operator ran in it
                    found.append(entry)
        return found


def digest(*parts: object) -> str:
    """Return a digest of `parts`, which must be made of what JSON can carry, `DIGEST_LENGTH` hex digits long."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_LENGTH]


def write(path: Path, text: str, mode: int = 0o644, group: int | None = None) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, and a crash leaves one of the two.

    Args:
        path: the file; its directory exists.
        text: the content.
        mode: permission bits.
        group: numeric id of the group that owns the file; None leaves it to the system.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    settle(path.parent)


def point(link: Path, target: str | Path) -> None:
    """Make the symbolic link `link` point at `target` in one step, whether or not it exists.

    Raises:
        ReleaseError: when something other than a symbolic link stands at `link`.
    """
    if link.exists() and not link.is_symlink():
        raise ReleaseError(f"{link} is in the way: it should be a symbolic link. Move it elsewhere, then run again.")
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)
    settle(link.parent)


def on_disk(path: Path) -> None:
    """Have all that was written to the file system of `path` survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        LIBC.syncfs(handle)
    finally:
        os.close(handle)


def settle(directory: Path) -> None:
    """Have the file system remember the renames in `directory` across a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; it need not exist.

    A directory takes a hidden name first: nobody ever finds half of it under its own.
    """
    if path.is_dir() and not path.is_symlink():
        hidden = path if path.name.startswith(".") else path.parent / f".{path.name}.removed"
        if hidden != path:
            remove(hidden)
            path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def run(
    command: Sequence[str | Path],
    timeout: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    check: bool = True,
    user: str | None = None,
    confined: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `command` with its output captured in one stream; of a very long one the end.

    Addresses in what is said of it lose their passwords.

    Args:
        command: the program and its arguments.
        timeout: seconds after which it is killed, together with all that it started.
        environment: variables to add to this process's own.
        directory: where it runs.
        check: whether an exit code other than 0 is an error.
        user: who runs it, with that user's own groups; None for who runs this.
        confined: whether it may gain no rights, as by sudo, and nothing that it started outlives it.

    Raises:
        ReleaseError: when it cannot start, takes too long, or fails and `check` is set; with its last lines.
    """
    words = [str(word) for word in command]
    shown = without_passwords(" ".join(words))
    # A file, not a pipe: a child that outlives the command would keep a pipe open, and this process waiting.
    with contextlib.ExitStack() as stack, tempfile.TemporaryFile() as output:
        # What is written goes to its end also when its beginning has been dropped.
        fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
        dropped = b""
        if confined:
            stack.enter_context(ending_all())
        try:
            if user and pwd.getpwnam(user).pw_uid == os.geteuid():
                user = None  # only root may become another
            process = subprocess.Popen(
                words,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                preexec_fn=gain_nothing if confined else None,
            )
        except KeyError as error:
            raise ReleaseError(f"There is no user {user} on this host.") from error
        except OSError as error:
            raise ReleaseError(f"{words[0]} cannot be started: {error.strerror}") from error
        code: int | None = None
        deadline = time.monotonic() + timeout
        try:
            while code is None and time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(max(0.0, min(0.2, deadline - time.monotonic())))
                size = os.fstat(output.fileno()).st_size
                if size > MOST_BYTES:
                    dropped = os.pread(output.fileno(), KEPT_BYTES, size - KEPT_BYTES)
                    os.ftruncate(output.fileno(), 0)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = (dropped + output.read(MOST_BYTES)).decode("utf-8", "replace")
    if code is None:
        said = without_passwords(tail(text))
        raise ReleaseError(f"{shown}\ntook longer than {timeout:g} s and was stopped.\n{said}".rstrip())
    if check and code:
        raise ReleaseError(f"{shown}\nfailed with exit code {code}:\n{without_passwords(tail(text))}")
    return subprocess.CompletedProcess(words, code, text, "")


def shell(what: str, command: str, timeout: float, variable: str, **options: Any) -> str:
    """Run a shell command that an operator set, and return what it prints.

    Args:
        what: what it is called in a message.
        command: the command.
        timeout: seconds that it may take.
        variable: the name of the variable that says so.
        options: those of `run`.

    Raises:
        ReleaseError: when it fails or takes too long; with its last lines.
    """
    words = [*options.pop("through", ["/bin/sh", "-c"]), command]
    command = without_passwords(command)
    try:
        done = run(words, timeout, check=False, **options)
    except ReleaseError as error:
        lines = str(error).split("was stopped.\n", 1)
        if len(lines) == 1 and not str(error).endswith("was stopped."):
            raise
        said = lines[1] if len(lines) == 2 else "It printed nothing."
        raise ReleaseError(f"{what} took longer than {timeout:g} s ({variable}) and was stopped: {command}\n{said}") from error
    if done.returncode:
        said = tail(done.stdout) or "It printed nothing."
        raise ReleaseError(f"{what} failed with exit code {done.returncode}: {command}\n{without_passwords(said)}")
    return done.stdout


def gain_nothing() -> None:
    """Have this process, and all that it starts, gain no rights from the programs that it runs (sudo, crontab).

    Raises:
        OSError: when the kernel refuses.
    """
    if prctl(NO_NEW_PRIVILEGES, 1):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def prctl(attribute: int, value: int) -> int:
    """Set an attribute of this process, and return 0, or -1 when the kernel refuses."""
    return int(LIBC.prctl(attribute, *map(ctypes.c_ulong, (value, 0, 0, 0))))


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """End, with the context, all processes that were started in it, those that left their session included."""
    before = children()
    prctl(SUBREAPER, 1)  # who loses its parent becomes a child of this process
    try:
        yield
    finally:
        while left := children() - before:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        prctl(SUBREAPER, 0)


def children() -> set[int]:
    """Return the children of this process."""
    found, own = set(), b"%d" % os.getpid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[1] == own:
                found.add(int(name))
    return found


# What a variable with a secret is called.
SECRET = re.compile(r"password|token|secret|key", re.IGNORECASE)


def masks_passwords_only(module: Any, environment: Mapping[str, object]) -> None:
    """Have a module mask, of an `environment` that is not logged, only secrets: to mask each 0 would mask all that it says."""
    plain = {name: str(value) for name, value in environment.items() if not SECRET.search(name)}
    secret = {str(value) for name, value in environment.items() if name not in plain}
    module.no_log_values -= {value for value in plain.values() if without_passwords(value) == value} - secret


def without_passwords(text: str) -> str:
    """Return `text` with its addresses as they may be shown: without a user and a password."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


def room(layout: Layout, needed: float) -> None:
    """See to it that there is room for a build or a release, before either is begun.

    Args:
        layout: the app's paths; its home exists.
        needed: MiB that must be free.

    Raises:
        ReleaseError: when the file system of the app's home is nearly full.
    """
    system = os.statvfs(layout.home)
    free = system.f_bavail * system.f_frsize / 2**20
    if free < needed:
        raise ReleaseError(
            f"The disk that holds {layout.home} is nearly full: {free:.0f} MiB are free, and app_room_mb asks for {needed:.0f}. "
            "Make room, or keep fewer releases (app_keep_releases)."
        )
    if system.f_files and system.f_favail < 20000:
        raise ReleaseError(f"The file system that holds {layout.home} has only {system.f_favail} inodes left. Remove files.")


def version_of(record: Mapping[str, Any]) -> str:
    """Return what people call the state of the source that a release was made from: the tag or branch, and the short commit.

    Args:
        record: what is remembered of the release.
    """
    version, revision = (str(record.get(key) or "") for key in ("version", "revision"))
    if COMMIT.fullmatch(revision):
        short = revision[:7]
        return f"{version} ({short})" if version and not revision.startswith(version) else short
    return revision[:20]


def tail(text: str, lines: int = 30) -> str:
    """Return the last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the `secrets` in it, as they are or as Python and JSON write them.

    Of a secret of several lines each line is one. Fewer than four characters are left alone: they would be everywhere.
    """
    words = set()
    for secret in secrets:
        for part in {secret, *secret.splitlines()}:
            words |= {part, part.strip(), repr(part)[1:-1], json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= 4:
            text = text.replace(word, "********")
    return text
