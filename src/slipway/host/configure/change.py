"""The difference between the configuration files that are wanted and those that are there."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.host import files
from slipway.host.errors import ReleaseError


def read(path: str) -> str | None:
    """Return the content of a file; None if there is none."""
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def edited(path: str, edit: Mapping[str, str]) -> str | None:
    r"""Return the content that a file is to have after its lines were replaced; None if there is no such file.

    Args:
        path: the file.
        edit: patterns, each for a whole line, and what such a line becomes, with `\1` for the pattern's first group.

    Raises:
        ReleaseError: when it has no line for one of the patterns.
    """
    text = read(path)
    for pattern, line in edit.items():
        if text is None:
            break
        text, count = re.subn(f"^{pattern}$", line, text, flags=re.MULTILINE)
        if not count:
            desired = re.sub(r"\\\d", "", line)
            raise ReleaseError(f"{path} has no line matching {pattern} to replace with: {desired}")
    return text


def write(path: str, text: str, group: str | None = None) -> None:
    """Write a file so that no reader sees half of it. A missing directory is created.

    Args:
        path: the file.
        text: its content.
        group: whose members alone may read it, besides root; `root` for root alone, None if everybody may.

    Raises:
        OSError: when it cannot be written.
        ReleaseError: when there is no such group.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if group is None:
        files.write(Path(path), text, 0o755 if text.startswith("#!") else 0o644)
        return
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ReleaseError(f"{path} must belong to the group {group}, which this host does not have.") from error
    files.write(Path(path), text, 0o600 if group == "root" else 0o640, number)


class Change:
    """The difference between the files that are wanted and those that are there.

    Args:
        contents: by path, the content of each file that is wanted.
        absent: files that must not exist.
        groups: by path, who may read those that hold secrets.
    """

    def __init__(self, contents: Mapping[str, str], absent: Sequence[str], groups: Mapping[str, str]) -> None:
        self.groups = groups
        desired: dict[str, str | None] = {**contents, **dict.fromkeys(path for path in absent if os.path.lexists(path))}
        self.before = {path: read(path) for path in desired}
        self.links = {path: os.readlink(path) for path in desired if os.path.islink(path)}
        known = {path: os.stat(path) for path in desired if os.path.exists(path)}
        self.closed = {path: one for path, one in known.items() if not one.st_mode & stat.S_IROTH}  # as what holds secrets is
        self.after = {path: text for path, text in desired.items() if text is None or text != self.before[path]}

    def apply(self) -> None:
        """Put the files in place that are wanted."""
        self._put(self.after)

    def revert(self) -> None:
        """Put the files back that were there."""
        self._put({path: self.before[path] for path in self.after if path not in self.closed})
        for path in self.closed.keys() & self.after.keys():
            known = self.closed[path]
            files.write(Path(path), self.before[path] or "", stat.S_IMODE(known.st_mode), known.st_gid)
        for path, target in self.links.items():
            if path in self.after:
                Path(path).unlink(missing_ok=True)
                os.symlink(target, path)

    def _put(self, contents: Mapping[str, str | None]) -> None:
        for path, text in contents.items():
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
        return "(not shown)\n" if text and (path in self.groups or path in self.closed) else text or ""


def newest(paths: Sequence[str]) -> float:
    """Return the time of the latest change of any of the files, links included, in seconds since 1970; 0 if there is none."""
    times = [0.0]
    for path in paths:
        for stat_call in (os.stat, os.lstat):
            with contextlib.suppress(FileNotFoundError):
                times.append(stat_call(path).st_mtime)
    return max(times)
