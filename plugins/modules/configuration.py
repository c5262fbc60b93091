#!/usr/bin/python
"""Put a set of configuration files in place as a whole: tested before it counts, put back when the test fails."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: configuration
short_description: Put a set of configuration files in place as a whole, and the service to work with them
description:
  - Where the test fails with the new files, all of them are put back and what runs is not touched.
  - Whether a reload took effect is seen by the service's workers, since the reload itself reports success either way. Where they
    are older than the files, because an earlier run was interrupted or a reload failed, the service is reloaded again.
options:
  files:
    type: list
    elements: dict
    required: true
    description:
      - Each has C(path), and C(content) or C(edit). Directories are made. What begins with C(#!) can be executed.
      - C(edit) is for a file that is somebody else's, and maps patterns for its lines to what each such line is replaced with,
        C(\1) being what the pattern has in its first group.
      - C(group) is for a file that holds a secret, whose content is in C(secrets). Nobody else may read it, and what it holds is
        not shown.
  secrets: {type: dict, default: {}, description: "What those of C(files) hold that are secret, by path. It is in no log."}
  absent: {type: list, elements: path, default: [], description: "Files that must not exist."}
  directories: {type: list, elements: path, default: [], description: "Directories that must exist."}
  reads: {type: list, elements: path, default: [], description: "Files made by others that the service reads on a reload."}
  test: {type: list, elements: str, default: [], description: "Command that fails when the files are wrong."}
  apply: {type: list, elements: str, default: [], description: "Command to run when the files changed."}
  service: {type: str, description: "Service that must run, now and at boot."}
  workers: {type: str, description: "Title of the service's processes that a reload replaces. Without it nothing is reloaded."}
"""

EXAMPLES = r"""
- name: Configure the site
  configuration:
    files:
      - {path: /etc/nginx/conf.d/shop.conf, content: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"}
    test: [nginx, -t]
    apply: [systemctl, reload, nginx]
"""

RETURN = r"""
diff: {type: list, returned: "when something changed", description: "The files, each before and after."}
"""

# Where a change that is under way is noted, so that its command is not forgotten when the run is interrupted.
PENDING = Path("/var/lib/slipway")
# Nobody but root may open it, for who may open a file may lock it.
LOCK = "/var/lib/slipway/configuration.lock"
LOCK_SECONDS = 300.0
RELOAD_SECONDS = 10.0
SECONDS = 120.0
UNIT_DIRECTORY = "/etc/systemd/system/"


class ConfigurationError(Exception):
    """The new configuration cannot go live; the old one is in place."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with both output streams in one.

    Raises:
        ConfigurationError: when it is not there, or takes longer than two minutes.
    """
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"{' '.join(command)} took longer than {SECONDS:g} s and was stopped") from error


def read(path: str) -> str | None:
    """Return the content of a file; None where there is none."""
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def edited(path: str, edit: Mapping[str, str]) -> str | None:
    r"""Return the content that a file is to have after its lines were replaced; None where there is no such file.

    Args:
        path: the file.
        edit: patterns, each for a whole line, and what such a line becomes, with `\1` for the pattern's first group.

    Raises:
        ConfigurationError: when it has no line for one of the patterns.
    """
    text = read(path)
    for pattern, line in edit.items():
        if text is None:
            break
        text, count = re.subn(f"^{pattern}$", line, text, flags=re.MULTILINE)
        if not count:
            wanted = re.sub(r"\\\d", "", line)
            raise ConfigurationError(f"{path} has no line {pattern}, which is to be: {wanted}")
    return text


def write(path: str, text: str, group: str | None = None) -> None:
    """Write a file so that no reader sees half of it. Its directory is made where it is missing.

    Args:
        path: the file.
        text: what it is to hold.
        group: whose members alone may read it, besides root; None where everybody may.

    Raises:
        OSError: when it cannot be written.
        LookupError: when there is no such group.
    """
    directory = Path(path).parent
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".slipway-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if group is None:
                os.fchmod(file.fileno(), 0o755 if text.startswith("#!") else 0o644)
            else:
                os.fchmod(file.fileno(), 0o640)
                shutil.chown(temporary, group=group)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    settle(directory)


def settle(directory: Path) -> None:
    """Have the file system remember the renames in `directory` across a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock(seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the machine's lock on configuration: two apps on one machine are configured one after the other.

    Args:
        seconds: how long to wait for another process that holds it.

    Raises:
        OSError: when the lock's file is not one of this user alone, or cannot be made.
        ConfigurationError: when the lock is not free in time, with the process that holds it.
    """
    Path(LOCK).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "is not a file of root's alone; remove it, then run this again", LOCK)
        deadline = time.monotonic() + seconds
        while not _taken(handle):
            if time.monotonic() > deadline:
                raise ConfigurationError(_who(file.read(20), seconds))
            time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _taken(handle: int) -> bool:
    """Take the lock of an open file, and say whether that was possible."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who(pid: str, seconds: float) -> str:
    """Say which process holds the lock, as it wrote itself down, and what to do."""
    command = (read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()[:200] if pid.isdigit() else ""
    holder = f"process {pid} ({command or 'which is gone'})" if pid.isdigit() else "another process"
    return (
        f"The configuration of this host is locked by {holder}, and this run waited {seconds:g} s for it. Nothing was changed. "
        f"When that process is done, or ended by you, run this again. See who has the lock: fuser -v {LOCK}"
    )


class Change:
    """The difference between what is wanted and what is there.

    Args:
        files: paths to contents.
        absent: files that must not exist.
        groups: who may read those that hold secrets.
    """

    def __init__(self, files: Mapping[str, str], absent: Sequence[str], groups: Mapping[str, str]) -> None:
        self.groups = groups
        wanted: dict[str, str | None] = {**files, **dict.fromkeys(path for path in absent if os.path.lexists(path))}
        self.before = {path: read(path) for path in wanted}
        self.links = {path: os.readlink(path) for path in wanted if os.path.islink(path)}
        self.after = {path: text for path, text in wanted.items() if text is None or text != self.before[path]}

    def apply(self) -> None:
        """Bring in what is wanted."""
        self._put(self.after)

    def undo(self) -> None:
        """Bring back what was there."""
        self._put({path: self.before[path] for path in self.after})
        for path, target in self.links.items():
            if path in self.after:
                Path(path).unlink(missing_ok=True)
                os.symlink(target, path)

    def _put(self, files: Mapping[str, str | None]) -> None:
        for path, text in files.items():
            if text is None:
                Path(path).unlink(missing_ok=True)
            else:
                write(path, text, self.groups.get(path))

    def diff(self) -> list[dict[str, str]]:
        """Return the change as Ansible shows it."""
        return [
            {
                "before_header": path,
                "after_header": path,
                "before": self._shown(path, self.before[path]),
                "after": self._shown(path, text),
            }
            for path, text in self.after.items()
        ]

    def _shown(self, path: str, text: str | None) -> str:
        return "(not shown)\n" if text and path in self.groups else text or ""


class Service:
    """A service under systemd.

    Args:
        name: what systemd calls it.
        title: title of its worker processes; None when it has none that a reload replaces.
    """

    def __init__(self, name: str, title: str | None) -> None:
        self.name = name
        self.title = title

    def runs(self) -> bool:
        """Say whether it runs."""
        return run("systemctl", "is-active", "--quiet", self.name).returncode == 0

    def starts_at_boot(self) -> bool:
        """Say whether it starts with the machine."""
        return run("systemctl", "is-enabled", "--quiet", self.name).returncode == 0

    def start(self) -> None:
        """Start it, now and at boot.

        Raises:
            ConfigurationError: when it does not start, with what it says about that.
        """
        answer = run("systemctl", "enable", "--now", self.name)
        if answer.returncode:
            status = run("systemctl", "status", "--no-pager", self.name)
            raise ConfigurationError(f"{self.name} does not start:\n{answer.stdout}{status.stdout}")

    def workers(self) -> dict[int, float]:
        """Return the process ids of its workers, with the time at which each was started, in seconds since the epoch.

        Those that only finish their last requests have another title, and are left out.
        """
        master = run("systemctl", "show", "--property=MainPID", "--value", self.name).stdout.strip()
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        found = {}
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit() or master in ("", "0"):
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (directory / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
                title = (directory / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
                if fields[1] == master and title == self.title:
                    found[int(directory.name)] = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return found

    def is_older_than(self, paths: Sequence[str]) -> bool:
        """Say whether its workers were started before the last change of `paths`; one second is forgiven."""
        return self.title is not None and any(started < newest(paths) - 1 for started in self.workers().values())

    def reload(self, seconds: float = RELOAD_SECONDS) -> None:
        """Reload it and see that it took the new configuration.

        Raises:
            ConfigurationError: when it did not within `seconds`, with what it says about that.
        """
        before = set(self.workers())
        answer = run("systemctl", "reload", self.name)
        deadline = time.monotonic() + seconds
        while answer.returncode == 0 and time.monotonic() < deadline:
            now = set(self.workers())
            if now and not now & before:
                return
            time.sleep(0.05)
        log = run("journalctl", "--no-pager", "--lines=5", "--unit", self.name).stdout
        errors = run("tail", "-n", "5", f"/var/log/{self.name}/error.log").stdout
        raise ConfigurationError(f"{self.name} did not take the new configuration:\n{answer.stdout}{log}{errors}")


def newest(paths: Sequence[str]) -> float:
    """Return the time of the latest change of any of the files, links included. Seconds since the epoch."""
    times = [0.0]
    for path in paths:
        for look in (os.stat, os.lstat):
            with contextlib.suppress(FileNotFoundError):
                times.append(look(path).st_mtime)
    return max(times)


def bring_in(change: Change, arguments: Mapping[str, Any], service: Service | None, running: bool, pending: Path) -> None:
    """Write the files, test them, and have the service work with them.

    Raises:
        ConfigurationError: when that fails; the files that were there before are in place again.
    """
    test, apply = arguments["test"], arguments["apply"]
    reloads = running and service is not None and service.title is not None
    tested = False
    if apply:
        pending.parent.mkdir(parents=True, exist_ok=True)
        pending.touch()
    try:
        change.apply()
        _succeed(test)
        tested = True
        if any(path.startswith(UNIT_DIRECTORY) for path in change.after):
            run("systemctl", "daemon-reload")
        _succeed(apply)
        if service is not None:
            service.start()
            if reloads:
                service.reload()
    except (ConfigurationError, OSError, LookupError) as error:
        change.undo()
        pending.unlink(missing_ok=True)
        if any(path.startswith(UNIT_DIRECTORY) for path in change.after):
            run("systemctl", "daemon-reload")
        if tested and reloads and service is not None:
            run("systemctl", "reload", service.name)
        if not tested and test and run(*test).returncode:
            raise ConfigurationError(f"{error}\nIt failed before this change, too: mend the file that is named above.") from error
        raise ConfigurationError(f"{error}\nThe files were put back; what ran goes on.") from error
    pending.unlink(missing_ok=True)


def _succeed(command: Sequence[str]) -> None:
    """Run a command, if there is one, and raise a ConfigurationError when it fails."""
    answer = run(*command) if command else None
    if answer is not None and answer.returncode:
        raise ConfigurationError(f"{' '.join(command)} failed:\n{answer.stdout.strip()}")


def converge(module: AnsibleModule, service: Service | None, groups: Mapping[str, str]) -> None:
    """Compare what is there with what is wanted, make it so unless this is a dry run, and report.

    Args:
        module: the module with its arguments.
        service: the service that reads the files.
        groups: who may read those that hold secrets.

    Raises:
        ConfigurationError: when that fails; the files that were there before are in place again.
        OSError: when a file cannot be read, or a directory cannot be made.
    """
    arguments = module.params
    files = {path: text or "" for path, text in arguments["secrets"].items()}  # what a template leaves empty arrives as none
    for file in arguments["files"]:
        text = edited(file["path"], file["edit"] or {}) if file["content"] is None else file["content"]
        if text is not None and file["path"] not in arguments["secrets"]:
            files[file["path"]] = text
    change = Change(files, arguments["absent"], groups)
    missing = [path for path in arguments["directories"] if not os.path.isdir(path)]
    read = [path for path in [*files, *arguments["reads"]] if not path.startswith(UNIT_DIRECTORY)]
    running = service is not None and service.runs()
    to_do = service is not None and (not running or not service.starts_at_boot() or service.is_older_than(read))
    pending = PENDING / f"pending-{hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:16]}"
    changed = bool(change.after or missing or to_do or pending.exists())
    if changed and not module.check_mode:
        for path in missing:
            os.makedirs(path, mode=0o755)
        bring_in(change, arguments, service, running, pending)
    module.exit_json(changed=changed, diff=change.diff())


def main() -> None:
    """Bring the files to what is wanted, and the service to the files."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "edit": {"type": "dict"},
                    "group": {"type": "str"},
                },
            },
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "absent": {"type": "list", "elements": "path", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "reads": {"type": "list", "elements": "path", "default": []},
            "test": {"type": "list", "elements": "str", "default": []},
            "apply": {"type": "list", "elements": "str", "default": []},
            "service": {"type": "str"},
            "workers": {"type": "str"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # services read these files as users of their own
    arguments = module.params
    service = Service(arguments["service"], arguments["workers"]) if arguments["service"] else None
    groups = {file["path"]: file["group"] for file in arguments["files"] if file["group"]}
    for path in arguments["secrets"].keys() - groups.keys():
        module.fail_json(msg=f"{path} is among the secrets, and has no group among the files: everybody could read it")
    try:
        # A dry run makes nothing, and where there is no directory for the lock nobody has it.
        bare = module.check_mode and not os.path.isdir(os.path.dirname(LOCK))
        with contextlib.nullcontext() if bare else lock():
            converge(module, service, groups)
    except (ConfigurationError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
