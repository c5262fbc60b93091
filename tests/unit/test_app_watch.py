"""A release under watch: what Nginx logs of its answers, and which of its processes end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils import app_watch
from ansible.module_utils.app_watch import Processes, Traffic, children


def lines(path: Path, *entries: tuple[int, str], at: float = 1000.0) -> None:
    """Log answers: the status of each, and the release that gave it."""
    with open(path, "a", encoding="utf-8") as log:
        for status, release in entries:
            log.write(json.dumps({"at": at, "status": status, "release": release}) + "\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def test_what_was_usual_is_counted_apart(log: Path) -> None:
    lines(log, *[(200, "1")] * 8, (500, "1"), (502, ""))
    traffic = Traffic(log)
    assert (traffic.usual.errors, traffic.usual.total, traffic.usual.share) == (2, 10, 0.2)
    lines(log, (200, "2"), (500, "2"), (500, "1"), (404, "2"))
    count = traffic.follow(2, since=900)
    assert (count.errors, count.total) == (1, 3), "the answers of the old release are not the new one's"
    lines(log, (503, "2"))
    assert str(traffic.follow(2, since=900)) == "2 of 4 requests"


@pytest.mark.parametrize(("status", "at", "errors"), [(502, 1000, 1), (504, 1000, 1), (502, 800, 0), (500, 1000, 0)])
def test_an_error_of_nginx_counts_when_it_came_after_the_switch(log: Path, status: int, at: float, errors: int) -> None:
    traffic = Traffic(log)
    lines(log, (status, ""), at=at)
    assert traffic.follow(2, since=900).errors == errors


def test_a_log_that_is_rotated_is_followed(log: Path) -> None:
    lines(log, *[(200, "1")] * 5)
    traffic = Traffic(log)
    log.rename(log.with_suffix(".1"))
    lines(log, (500, "2"))
    assert traffic.follow(2, since=0).errors == 1
    log.write_text("", encoding="utf-8")
    assert traffic.follow(2, since=0).errors == 1
    lines(log, (501, "2"))
    assert traffic.follow(2, since=0).errors == 2


def test_what_cannot_be_read_is_left_out(log: Path) -> None:
    assert Traffic(log).follow(2, since=0).total == 0
    log.write_text('127.0.0.1 - - "GET / HTTP/1.1" 500\n[1]\n{"status": "-"}\n{"status": 500, "rel', encoding="utf-8")
    traffic = Traffic(log)
    assert traffic.usual.total == 0
    with open(log, "a", encoding="utf-8") as file:
        file.write('ease": "2", "at": 1}\n')
    # A line that was half there is read when it is whole.
    assert traffic.follow(2, since=0).errors == 1


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    """A process with three children."""
    script = "for n in 1 2 3; do sleep 60 & done; echo ready; wait"
    parent = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    yield parent
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate()


def test_children_that_end_are_counted(family: subprocess.Popen[str]) -> None:
    processes = Processes([family.pid])
    assert len(processes.known) == 3
    assert processes.look() == 0
    first, second, _ = sorted(processes.known)
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while processes.look() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.look() == 2
    assert 0 < processes.rate <= 2


def test_nobody_has_no_children() -> None:
    assert children([]) == set()
    assert children([2**22 + 1]) == set()


def test_a_log_that_begins_later_is_followed(log: Path) -> None:
    traffic = Traffic(log)
    assert (traffic.usual.total, traffic.usual.share) == (0, 0.0)
    lines(log, (500, "2"), (200, "2"))
    assert str(traffic.follow(2, since=0)) == "1 of 2 requests"


def test_only_what_was_lately_is_usual(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(log, *[(500, "1")] * 50, *[(200, "1")] * 10)
    # From the middle of a line on, which is then nobody's.
    line = len(log.read_bytes()) // 60
    monkeypatch.setattr(app_watch, "USUAL_BYTES", 10 * line + line // 2)
    traffic = Traffic(log)
    assert (traffic.usual.total, traffic.usual.errors) == (10, 0)
    assert traffic.follow(2, since=0).total == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"status": 502, "at": "2026-11-24T10:00:00Z"}',
        b'{"status": 502, "at": null}',
        b'{"status": 502, "at": [1]}',
        b'{"status": null, "release": "2"}',
        b'{"status": "5xx", "release": "2"}',
        b'{"release": "2"}',
        b'"500"',
        b"null",
        b"500",
        b"\x00\xff",
    ],
)
def test_a_line_of_another_format_is_nobodys(log: Path, line: bytes) -> None:
    lines(log, (200, "1"))
    traffic = Traffic(log)
    with log.open("ab") as file:
        file.write(line + b"\n")
    lines(log, (500, "2"))
    assert str(traffic.follow(2, since=0)) == "1 of 1 requests"
