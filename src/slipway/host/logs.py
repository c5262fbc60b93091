"""What an app, its server and Nginx logged: in files, with the older ones that those were rotated to, and in the journal."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.process import tail
from slipway.host.store import Store

# How long a line may be, on average, for as many as are asked for to be found at the end of a log.
LINE_BYTES = 4096

# How much of a log's end is read where a few lines of it are wanted.
END_BYTES = 256 * 1024

CURSOR = "-- cursor: "

# Where a reader of a file is: its inode, and how far it was read.
Position = list[int]


def readable(text: str) -> str:
    """Return `text` with each line that is a record in JSON unfolded: when and what, and its traceback below it."""
    return "\n".join(map(unfolded, text.split("\n")))


def unfolded(line: str) -> str:
    """Return a line that is a record in JSON for people to read, and any other as it is."""
    try:
        record = json.loads(line) if line.startswith("{") else None
    except ValueError:
        record = None
    if not isinstance(record, dict) or "message" not in record:
        return line
    head = [str(record[key]) for key in ("time", "level", "logger", "request_id") if record.get(key)]
    below = [str(record[key]) for key in ("exception", "stack") if record.get(key)]
    return "\n".join([f"{' '.join(head)}: {record['message']}", *below])


def ends(layout: Store, name: str, number: int, lines: int, process: str = "") -> list[tuple[str, str]]:
    """Return the last lines that release `number` of the app `name` logged, for people to read.

    Args:
        layout: where its logs are.
        name: the app's name.
        number: the release.
        lines: how many lines are wanted.
        process: the process that logged them; empty for the web server.

    Returns:
        Where they are and what they say, for each file that has any, and for the journal.
    """
    logs = layout.process_logs(number, process) if process else layout.logs_of(number)
    texts = {str(log): b"".join(content(log, END_BYTES)).decode("utf-8", "replace") for log in logs}
    program = f"{name}-{number}" + (f".{process}" if process else "")
    texts[f"journalctl --identifier={program}"] = "\n".join(Journal([program]).last(500, "")[0])
    found = []
    for place, raw in texts.items():
        text = readable(raw)
        if "raise HaltServer" in text:  # what Gunicorn says of its own end comes last and hides what the app said
            text = text[: text.rfind("Traceback (most recent call last)", 0, text.index("raise HaltServer"))]
        if text.strip():
            found.append((place, tail(text, max(5, lines // max(1, len(logs))))))
    return found


class File:
    """A log in a file, and what it was rotated to.

    Args:
        path: where it is written to now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def parts(self) -> list[Path]:
        """Return its files, the one that was begun first before all others."""
        found = self.path.parent.glob(f"{self.path.name}?*")
        older = [part for part in found if re.fullmatch(r"[.-]\d+(\.gz)?", part.name.removeprefix(self.path.name))]
        return sorted(older, key=changed) + ([self.path] if self.path.exists() else [])

    def last(self, count: int, pattern: str) -> tuple[list[str], Position]:
        """Return the last `count` lines that have `pattern`, and where they end.

        Without a pattern only the end is read, which may begin in the file before.
        """
        search, position = re.compile(pattern.encode()).search, self.end()
        parts, enough = self.parts(), 0
        if not pattern:
            enough = count * LINE_BYTES
            parts = parts[-1:] if self.path.exists() and self.path.stat().st_size > enough else parts[-2:]
        # Supervisor rotates by size: a line may begin in one file and end in the next.
        chunks = (chunk for part in parts for chunk in content(part, enough))
        return texts(deque((line for line in whole_lines(chunks) if search(line)), maxlen=count)), position

    def end(self) -> Position:
        """Return where the last whole line ends."""
        try:
            with self.path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - 64 * LINE_BYTES)
                file.seek(start)
                return [os.fstat(file.fileno()).st_ino, start + file.read().rfind(b"\n") + 1]
        except OSError:
            return [0, 0]

    def since(self, position: Position, pattern: str) -> tuple[list[str], Position]:
        """Return the whole lines after `position` that have `pattern`, also of files it was rotated to, and where they end."""
        search = re.compile(pattern.encode()).search
        inode, offset = position
        parts = [part for part in self.parts() if part.suffix != ".gz"]
        begun = [number for number, part in enumerate(parts) if part.stat().st_ino == inode and part.stat().st_size >= offset]
        if begun:
            parts = parts[begun[0] :]
        else:  # it was not there, or began anew
            parts, offset = [part for part in parts if part == self.path], 0
        data = b""
        for part in parts:
            with part.open("rb") as file:
                file.seek(offset)
                new = file.read()
                if b"\n" in new:
                    position = [os.fstat(file.fileno()).st_ino, offset + new.rfind(b"\n") + 1]
            data, offset = data + new, 0
        return texts(line for line in data.split(b"\n")[:-1] if search(line)), position


class Journal:
    """What programs said to the journal.

    Args:
        programs: their names.
    """

    def __init__(self, programs: list[str]) -> None:
        self.programs = programs

    def last(self, count: int, pattern: str) -> tuple[list[str], str]:
        """Return the last `count` lines that have `pattern`, and where they end."""
        return self._read(count, pattern, "all" if pattern else str(count))

    def since(self, position: str, pattern: str) -> tuple[list[str], str]:
        """Return the lines after `position` that have `pattern`, and where they end."""
        return self._read(None, pattern, "all", *([f"--after-cursor={position}"] if position else []))

    def _read(self, count: int | None, pattern: str, lines: str, *options: str) -> tuple[list[str], str]:
        if not self.programs:
            return [], ""
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--all", "--show-cursor", f"--lines={lines}", *options]
        command += [f"--identifier={program}" for program in self.programs]
        search, cursor = re.compile(pattern).search, ""
        found: deque[str] = deque(maxlen=count)
        try:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                for raw in process.stdout:
                    line = raw.decode("utf-8", "replace").rstrip("\n")
                    if line.startswith(CURSOR):
                        cursor = line.removeprefix(CURSOR)
                    elif search(line):
                        found.append(line)
        except OSError:  # a host without a journal
            return [], ""
        return list(found), cursor


def changed(part: Path) -> float:
    """Return when a file was written to last; 0 where it is gone by now."""
    try:
        return part.stat().st_mtime
    except OSError:
        return 0.0


def content(part: Path, last: int) -> Iterator[bytes]:
    """Return what a file holds, in chunks; with `last` the lines in so many bytes at its end alone. Nothing where it is gone."""
    try:
        with gzip.open(part) if part.suffix == ".gz" else part.open("rb") as file:
            if last and part.suffix != ".gz" and part.stat().st_size > last:
                file.seek(-last, os.SEEK_END)
                file.readline()
            while chunk := file.read(2**20):
                yield chunk
    except (OSError, EOFError):
        return


def whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the lines of chunks that follow each other."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def texts(lines: Any) -> list[str]:
    """Return lines as text."""
    return [line.decode("utf-8", "replace") for line in lines]
