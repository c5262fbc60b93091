"""A release under watch: what Nginx logs of its answers, and which of its processes end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.host import watch as app_watch
from slipway.host.watch import (
    WAITING,
    WAITING_BYTES,
    Count,
    Processes,
    Traffic,
    answered_within,
    children,
    digest_of,
    given_up,
    hanging,
    waiting,
)


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
    assert processes.sample() == 0
    first, second, _ = sorted(processes.known)
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while processes.sample() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.sample() == 2
    assert 0 < processes.rate <= 2


def test_nobody_has_no_children() -> None:
    assert children([]) == set()
    assert children([2**22 + 1]) == set()


def test_a_child_is_one_whatever_it_is_called_and_until_it_is_dead(tmp_path: Path) -> None:
    (tmp_path / "a) Z 1").symlink_to(str(shutil.which("sleep")))
    # The second has ended, and the parent, which is another program now, never asks what became of it.
    script = "'./a) Z 1' 60 & echo $!; sleep 0 & echo $!; exec sleep 60"
    parent = subprocess.Popen(["sh", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None
        named, dead = (int(parent.stdout.readline()) for _ in range(2))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not (
            "a) Z 1" in Path(f"/proc/{named}/stat").read_text(encoding="utf-8")
            and Path(f"/proc/{dead}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] == "Z"
        ):
            time.sleep(0.01)
        assert children([parent.pid]) == {named}
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


@pytest.mark.parametrize(
    ("status", "error", "timed", "known", "good"),
    [
        (101, 0, False, False, 0),
        (102, 0, True, True, 1),
        (200, 0, True, True, 1),
        (399, 0, True, True, 1),
        (400, 0, True, True, 0),
        (499, 0, True, True, 0),
        (500, 1, True, False, 0),
        (599, 1, True, False, 0),
        (600, 0, True, False, 0),
    ],
)
def test_an_answer_is_counted_by_its_status(status: int, error: int, timed: bool, known: bool, good: int) -> None:
    count = Count()
    entry = {"status": status, "release": "2", "method": "GET", "path": "/items", "seconds": 0.1234}
    count.add(entry)
    count.add({**entry, "seconds": 0.5})
    assert (count.total, count.errors, count.given_up) == (2, 2 * error, 0)
    assert dict(count.seconds) == ({0.12: 1, 0.5: 1} if timed else {})
    assert count.paths == ({digest_of("GET", "/items"): (2 * good, [0.1234, 0.5])} if known else {})


def test_an_answer_of_nothing_but_a_release_is_counted_and_no_error() -> None:
    count = Count()
    count.add({"release": "2", "seconds": 0.1})
    assert (count.total, count.errors, count.paths) == (1, 0, {digest_of("", ""): (1, [0.0, 0.1])})


@pytest.mark.parametrize(("seconds", "share"), [(1.0, 0.75), (2.0, 0.75), (2.1, 0.5), (9.0, 0.25)])
def test_the_slow_are_those_that_took_as_long_and_those_given_up(seconds: float, share: float) -> None:
    count = Count()
    assert count.slow_share(seconds) == 0.0
    count.total, count.given_up = 4, 1
    count.seconds.update([0.5, 2.0, 3.0])
    assert count.slow_share(seconds) == share


@pytest.mark.parametrize(
    ("entry", "vain"),
    [
        ({"status": 499, "seconds": 2.0}, True),
        ({"status": 499, "seconds": 1.9}, False),
        ({"status": 499, "seconds": None}, False),
        ({"status": 499, "seconds": 9.0, "release": "2"}, False),
        ({"status": 200, "seconds": 9.0}, False),
        ({"seconds": 9.0}, False),
    ],
)
def test_a_client_gave_up_that_had_no_answer_for_a_while(entry: dict[str, Any], vain: bool) -> None:
    assert given_up(entry) is vain


@pytest.mark.parametrize(
    ("upstream", "seconds"),
    [("0.25", 0.25), ("17.8, 0.5", 0.5), ("17.8, 0.5 : 0.75", 0.75), ("17.8 : 0.5", 0.5), ("-", 9.0), (None, 9.0)],
)
def test_who_answered_last_took_as_long_as_is_said_of_it(upstream: str | None, seconds: float) -> None:
    assert answered_within({"upstream_seconds": upstream, "seconds": 9.0}) == seconds


def test_a_path_that_is_no_text_has_a_digest_of_its_bytes() -> None:
    assert digest_of("GET", os.fsdecode(b"/\xff")) == zlib.crc32(b"GET /\xff")


def test_an_error_of_the_release_before_is_not_nginx_s_own(log: Path) -> None:
    traffic = Traffic(log)
    lines(log, (502, "1"), (504, "1"))
    assert (traffic.follow(2, since=900).errors, traffic.now.total) == (0, 0)


@pytest.mark.parametrize(("at", "vain"), [(1004.0, 1), (1003.9, 0)])
def test_who_began_to_wait_before_the_switch_waited_for_another(log: Path, at: float, vain: int) -> None:
    traffic = Traffic(log)
    log.write_text(json.dumps({"at": at, "status": 499, "release": "", "seconds": 4.0}) + "\n", encoding="utf-8")
    assert traffic.follow(2, since=1000.0).given_up == vain


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


# Requests that hang


def note(directory: Path, name: str, *began: float) -> Any:
    """Note requests as a process of a release does, and return the file: the process lives as long as that is open."""
    directory.mkdir(exist_ok=True)
    file = (directory / name).open("w+b", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(b"".join(WAITING.pack(moment, digest_of("GET", "/items")) for moment in (*began, 0.0)))
    return file


def test_of_what_a_process_notes_the_whole_entries_count_and_not_without_end(tmp_path: Path) -> None:
    now = time.monotonic()
    with note(tmp_path / "7.metrics", "waiting.1", now - 5) as file:
        file.write(b"half")
        assert len(waiting(tmp_path, 7, now - 10)) == 1
    with note(tmp_path / "7.metrics", "waiting.1", *[now - 5] * 5000):
        assert len(waiting(tmp_path, 7, now - 10)) == WAITING_BYTES // WAITING.size


def test_the_requests_of_all_living_processes_are_found(tmp_path: Path) -> None:
    now = time.monotonic()
    names = ("7.metrics", "7.1.metrics", "17.metrics", "7x.metrics")
    files = [note(tmp_path / name, "waiting.12", now - 5, now - 20, now + 60) for name in names]
    dead = note(tmp_path / "7.metrics", "waiting.13", now - 5)
    dead.close()
    found = waiting(tmp_path, 7, now - 10)
    assert [path for _, path in found] == [digest_of("GET", "/items")] * 2
    assert all(5 <= waited < 10 for waited, _ in found)
    for file in files:
        file.close()
    assert waiting(tmp_path, 7, now - 10) == []


def test_what_an_app_puts_in_the_way_is_nothing(tmp_path: Path) -> None:
    elsewhere = note(tmp_path / "elsewhere", "waiting.1", time.monotonic() - 5)
    (tmp_path / "7.metrics").mkdir()
    (tmp_path / "7.metrics" / "waiting.1").symlink_to(tmp_path / "elsewhere" / "waiting.1")
    os.mkfifo(tmp_path / "7.metrics" / "waiting.2")
    (tmp_path / "7.metrics" / "waiting.3").mkdir()
    assert waiting(tmp_path, 7, 0.0) == []
    elsewhere.close()


def traffic(log: Path, before: list[tuple[Any, ...]], since: list[tuple[Any, ...]]) -> Traffic:
    """Return what Nginx logged: paths (after a method other than GET), seconds, status, who answered, and upstream seconds."""

    def line(at: float, asked: str, seconds: float, status: int = 200, release: str = "1", upstream: str = "") -> str:
        method, _, path = asked.rpartition(" ")
        told = {"status": status, "release": release, "method": method or "GET", "path": path}
        return json.dumps({"at": at, **told, "seconds": seconds, "upstream_seconds": upstream or f"{seconds}"}) + "\n"

    log.write_text("".join(line(900.0, *entry) for entry in before), encoding="utf-8")
    found = Traffic(log)
    with log.open("a", encoding="utf-8") as file:
        file.write("".join(line(1020.0, *entry) for entry in since))
    found.follow(2, since=1000.0)
    return found


QUICK = [("/", 0.01)] * 50
HEALTHY = [("/healthz", 0.01, 200, "2")] * 10


@pytest.mark.parametrize(
    ("before", "since", "waits", "words"),
    [
        # One is enough where the path is known to be quick, and is answered by the new release never.
        (QUICK, HEALTHY, [(11.0, "/")], "a request has been waiting for 11 s; 49 for the same took 0.0 s at most before"),
        # One that hung before, and was asked again elsewhere, is no reason to think that it may.
        ([*QUICK, ("/", 17.8, 200, "1", "17.8, 0.01")], HEALTHY, [(11.0, "/")], "a request has been waiting for 11 s"),
        # What has another method, or was answered by Nginx alone or with an error, does not tell how long a request may take.
        (QUICK, HEALTHY, [(11.0, "POST /")], ""),
        ([*QUICK, *[("POST /", 0.01, 201)] * 3], HEALTHY, [(11.0, "POST /")], "a request has been waiting for 11 s"),
        ([*QUICK, *[("POST /up", 0.0, 301, "", "-")] * 9], HEALTHY, [(11.0, "POST /up")], ""),
        ([*QUICK, *[("POST /up", 0.0, 413, "", "-")] * 9], HEALTHY, [(11.0, "POST /up")], ""),
        ([*QUICK, *[("/report", 0.01, 401)] * 9, ("/report", 0.01)], HEALTHY, [(11.0, "/report")], ""),
        (QUICK, [*HEALTHY, ("/", 0.01, 200, "2")], [(11.0, "/")], ""),
        (QUICK, HEALTHY, [(9.0, "/")], ""),
        # Five times as long as ever is enough, and less is not.
        ([*QUICK, *[("/report", 2.0)] * 3], HEALTHY, [(10.0, "/report")], "a request has been waiting for 10 s; 3 for"),
        ([*QUICK, *[("/report", 2.1)] * 3], HEALTHY, [(10.0, "/report")], ""),
        ([*QUICK, *[("/report", 2.0)] * 2], HEALTHY, [(10.0, "/report")], ""),
        (QUICK, HEALTHY, [(11.0, "/new")] * 2, ""),
        (QUICK, HEALTHY, [(11.0, "/new")] * 3, "3 requests have waited 10 s or more for an answer"),
        # One slow answer of many is chance, one of a few is not.
        (
            [*[("/", 0.01)] * 19, ("/", 9.0)],
            HEALTHY,
            [(11.0, "/")],
            "a request has been waiting for 11 s; 19 for the same took 0.0 s",
        ),
        ([*[("/", 0.01)] * 18, ("/", 9.0)], HEALTHY, [(11.0, "/")], ""),
        # A path that was slow before may be slow, and who polls for long goes on polling.
        ([*QUICK, *[("/report", 0.01)] * 40, *[("/report", 9.0)] * 2], HEALTHY, [(11.0, "/report")], ""),
        ([*QUICK, *[("/poll", 25.0)] * 50], HEALTHY, [(11.0, "/poll")] * 9, ""),
        ([*QUICK, *[("/poll", 25.0)] * 5], HEALTHY, [(11.0, "/x")] * 9, "9 requests have waited"),
        # Few among many are no reason, nor is anything where nobody knows what is usual.
        (QUICK, [*HEALTHY, *[("/", 0.01, 200, "2")] * 100], [(11.0, "/")] * 5, ""),
        ([("/", 0.01)] * 5, HEALTHY, [(11.0, "/")] * 9, ""),
        # Who has given up has waited, too, but not who left at once or asked the release before.
        (
            QUICK,
            [*HEALTHY, *[("/new", 4.0, 499, "")] * 3],
            [],
            "3 requests have waited 10 s or more for an answer, or were given up",
        ),
        (QUICK, [*HEALTHY, *[("/new", 0.5, 499, "")] * 3], [], ""),
        (QUICK, [*HEALTHY, *[("/new", 25.0, 499, "")] * 3], [], ""),
    ],
)
def test_what_hangs_that_did_not(
    log: Path,
    before: list[tuple[Any, ...]],
    since: list[tuple[Any, ...]],
    waits: list[tuple[float, str]],
    words: str,
) -> None:
    asked = [(waited, path.rpartition(" ")) for waited, path in waits]
    digests = [(waited, digest_of(method or "GET", path)) for waited, (method, _, path) in asked]
    said = hanging(digests, 10.0, traffic(log, before, since))
    assert said.startswith(words) if words else said == ""
