"""Paths, whole writes, the history, and commands: what all of the app role's Python stands on."""

from __future__ import annotations

import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from slipway.host import process as app_process
from slipway.host import store as app_store
from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink, remove, require_free_space, write
from slipway.host.paths import digest
from slipway.host.process import masked, run, shell, tail
from slipway.host.store import Store


@pytest.fixture
def layout(tmp_path: Path) -> Store:
    layout = Store(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    for directory in (layout.home, layout.runtime, layout.logs, layout.releases):
        directory.mkdir()
    return layout


def test_live_is_what_the_link_names(layout: Store) -> None:
    assert layout.live() is None
    layout.live_socket.symlink_to("/run/shop/17.sock")
    assert layout.live() == 17
    layout.live_socket.unlink()
    layout.live_socket.symlink_to("/run/shop/blue.sock")
    assert layout.live() is None


def test_numbers_are_in_the_order_of_numbers(layout: Store) -> None:
    for name in ("9", "10", "100", ".9.partial", "current", "1.old"):
        (layout.releases / name).mkdir()
    assert layout.numbers() == [9, 10, 100]
    assert Store("/nowhere", "/nowhere", "/nowhere").numbers() == []


@pytest.mark.parametrize("text", [None, "", '{"release": 1', "\x00"])
def test_a_missing_or_torn_record_is_empty(layout: Store, text: str | None) -> None:
    layout.release(1).mkdir()
    if text is not None:
        (layout.release(1) / "release.json").write_text(text, encoding="utf-8")
    assert layout.record(1) == {}


def test_a_record_is_read(layout: Store) -> None:
    layout.release(1).mkdir()
    (layout.release(1) / "release.json").write_text('{"outcome": "live"}', encoding="utf-8")
    assert layout.record(1) == {"outcome": "live"}


def test_the_history_is_what_was_noted(layout: Store) -> None:
    assert layout.entries() == []
    layout.note({"release": 1, "outcome": "live"})
    layout.note({"release": 2, "outcome": "failed", "when": "yesterday", "reason": "ü\n"})
    first, second = layout.entries()
    assert (first["release"], first["outcome"]) == (1, "live")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["when"])
    assert second == {"release": 2, "outcome": "failed", "when": "yesterday", "reason": "ü\n"}


@pytest.mark.parametrize(
    "torn", [b'{"release": 2, "outc', b"\xff\x00", b"[]\n7\nnull\n", b'{"release": "x"}\n{"outcome": "live"}\n']
)
def test_what_was_cut_off_in_the_history_is_left_out(layout: Store, torn: bytes) -> None:
    layout.note({"release": 1})
    with layout.history.open("ab") as history:
        history.write(torn)
    layout.note({"release": 3})
    assert [entry["release"] for entry in layout.entries()] == [1, 3]


def test_a_digest_is_the_same_for_the_same_only() -> None:
    # A fixed value: another one would build and release every app again.
    assert digest("a", {"x": 1, "y": [True, None]}) == "ea09d4ccadec"
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})
    different: list[tuple[Any, ...]] = [("1",), (1,), (), ("1", ""), (["1", ""],), ("1\n",), ("ü",), ("\udcfc",)]
    assert len({digest(*parts) for parts in different}) == len(different)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
def test_written_files_have_their_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    os.umask(0o077)
    write(tmp_path / "file", "text\r\nü\udcff\n", mode=mode)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "file").read_bytes() == b"text\r\n\xc3\xbc\xff\n"


def test_a_written_file_belongs_to_the_group(tmp_path: Path, user: str) -> None:
    group = pwd.getpwnam(user).pw_gid
    write(tmp_path / "file", "text", mode=0o640, group=group)
    assert (tmp_path / "file").stat().st_gid == group


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "file", "x" * 100_000 + "\ud800")
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.is_file()} == {"file": "old"}


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    texts = ["a" * 200_000, "b" * 300_000]
    write(tmp_path / "file", texts[0])
    torn: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            text = (tmp_path / "file").read_text(encoding="utf-8")
            if text not in texts:
                torn.append(len(text))

    reader = threading.Thread(target=watch)
    reader.start()
    for turn in range(30):
        write(tmp_path / "file", texts[turn % 2])
    done.set()
    reader.join()
    assert torn == []


def test_a_process_killed_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "file", "old")
    code = (
        "import os, pathlib; from slipway.host import files\n"
        "os.replace = lambda *names: os.kill(os.getpid(), 9)\n"
        f"files.write(pathlib.Path({str(tmp_path / 'file')!r}), 'new')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise a loss of power could leave an empty file under it.
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(handle: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def noting_replace(source: Any, target: Any) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write(tmp_path / "file", "text")
    assert steps == ["file", "rename", "directory"]
    steps.clear()
    atomic_symlink(tmp_path / "link", "file")
    assert steps == ["rename", "directory"]


def test_a_link_is_never_missing_while_it_changes(tmp_path: Path) -> None:
    link = tmp_path / "live.sock"
    atomic_symlink(link, "/run/shop/1.sock")
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(os.readlink(link))
            except OSError as error:
                seen.add(type(error).__name__)

    reader = threading.Thread(target=watch)
    reader.start()
    for number in range(300):
        atomic_symlink(link, f"/run/shop/{number % 2 + 1}.sock")
    done.set()
    reader.join()
    assert seen == {"/run/shop/1.sock", "/run/shop/2.sock"}
    assert [path.name for path in tmp_path.iterdir()] == ["live.sock"]


def test_a_link_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".current.{os.getpid()}").symlink_to("/nowhere")
    atomic_symlink(tmp_path / "current", "releases/2")
    assert os.readlink(tmp_path / "current") == "releases/2"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_only_a_link_is_replaced(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "current")
    with pytest.raises(ReleaseError, match="is not a symbolic link"):
        atomic_symlink(tmp_path / "current", "releases/2")
    assert not (tmp_path / "current").is_symlink()


def test_remove_takes_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "file").touch()
    (tmp_path / "link").symlink_to(directory)
    remove(tmp_path / "link")
    assert (directory / "file").exists()
    remove(directory / "file")
    (directory / "folder").mkdir()
    remove(directory)
    remove(directory)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_run_returns_both_streams_in_order_and_adds_to_the_environment(tmp_path: Path) -> None:
    done = run(["sh", "-c", "echo one; echo two >&2; echo $WORD $HOME; pwd"], 10, {"WORD": "three"}, tmp_path)
    assert done.stdout.splitlines() == ["one", "two", f"three {os.environ['HOME']}", str(tmp_path)]


def test_run_gives_no_input(fed: None) -> None:
    assert run(["cat"], 10).stdout == ""


def test_a_command_that_fails_shows_its_end() -> None:
    with pytest.raises(ReleaseError) as error:
        run(["sh", "-c", "seq 100; exit 3"], 10)
    lines = str(error.value).splitlines()
    assert "exit code 3" in lines[1]
    assert lines[2:] == [str(number) for number in range(71, 101)]
    assert run(["sh", "-c", "exit 3"], 10, check=False).returncode == 3


def test_a_command_that_does_not_start_is_named() -> None:
    with pytest.raises(ReleaseError, match=r"/no/such/program.*No such file"):
        run(["/no/such/program"], 10)


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    before = time.monotonic()
    with pytest.raises(ReleaseError, match=r"longer than 0\.2 s"):
        run(
            [sys.executable, "-c", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"],
            0.2,
            None,
            tmp_path,
        )
    assert time.monotonic() - before < 10
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def is_gone(pid: int) -> bool:
    """Say whether a process ends within a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"):
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_command_that_takes_too_long_is_stopped_with_all_that_it_started() -> None:
    with pytest.raises(ReleaseError, match=r"longer than 0\.3 s") as error:
        run(["sh", "-c", "sleep 60 & echo $!; (sleep 60 & echo $!); echo $$; wait"], 0.3)
    pids = [int(line) for line in str(error.value).splitlines() if line.isdigit()]
    assert len(pids) == 3
    assert [pid for pid in pids if not is_gone(pid)] == []


def test_what_a_command_leaves_running_is_not_waited_for() -> None:
    before = time.monotonic()
    pid = int(run(["sh", "-c", "sleep 60 & echo $!"], 30).stdout)
    os.kill(pid, signal.SIGKILL)
    assert time.monotonic() - before < 10


def test_a_command_is_killed_when_this_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if not started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "60"], 60)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo one; echo two >&2; exit 3", "the hook x failed with exit code 3: {command}\none\ntwo"),
        ("exit 3", "the hook x failed with exit code 3: {command}\nIt printed nothing."),
        ("echo begun; sleep 60", "the hook x took longer than 0.3 s (x_timeout) and was stopped: {command}\nbegun"),
        ("sleep 60", "the hook x took longer than 0.3 s (x_timeout) and was stopped: {command}\nIt printed nothing."),
    ],
)
def test_a_command_of_the_operator_fails_in_words(command: str, words: str) -> None:
    with pytest.raises(ReleaseError) as error:
        shell("the hook x", command, 0.3 if "sleep" in command else 10, "x_timeout")
    assert str(error.value) == words.format(command=command)


def test_a_command_of_the_operator_is_the_shells() -> None:
    assert shell("x", "echo $WORD | tr a-z A-Z && pwd", 10, "x", environment={"WORD": "up"}, directory=Path("/")) == "UP\n/\n"
    assert shell("x", "ignored", 10, "x", through=["echo", "through"]) == "through ignored\n"
    with pytest.raises(ReleaseError, match=r"/no/such cannot be started"):
        shell("x", "true", 10, "x", through=["/no/such"])


def test_output_that_is_no_text_is_shown_all_the_same() -> None:
    assert "\ufffd" in run(["printf", r"\377"], 10).stdout


def test_a_command_is_run_by_another_user_with_nothing_of_this_ones(user: str, lacking: Callable[[str], NoReturn]) -> None:
    if os.geteuid() != 0:
        lacking("there is no other user to become")
    mine = pwd.getpwnam(user)
    answer = run(["sh", "-c", "id -u; id -g; id -G"], 10, user=user)
    assert answer.stdout.split() == [str(mine.pw_uid), str(mine.pw_gid), str(mine.pw_gid)]


def test_a_user_that_is_not_there_runs_nothing() -> None:
    with pytest.raises(ReleaseError, match="nosuchuser"):
        run(["true"], 10, user="nosuchuser")


def test_tail_counts_from_the_end() -> None:
    assert tail("1\n2\n3\n\n\n", 2) == "2\n3"
    assert tail("", 2) == ""


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["hunter2"], "a hunter2 b hunter2", "a ******** b ********"),
        # As JSON and Python write it.
        (['say "x" \\ ü'], r'"say \"x\" \\ \u00fc"', '"********"'),
        (['say "x" \\ ü'], r"""'say "x" \\ ü'""", "'********'"),
        (["line one\nline two\n"], "> line two\n> line one", "> ********\n> ********"),
        (["line one\nline two\n"], r'{"KEY": "line one\nline two\n"}', '{"KEY": "********"}'),
        (["  padded  "], "=padded=", "=********="),
        # The longest first, or its rest would show.
        (["pass", "password-long"], "password-long", "********"),
        # They would be everywhere.
        (["", "abc", "1"], "1 abc", "1 abc"),
        ([], "text", "text"),
    ],
)
def test_secrets_are_masked(secrets: list[str], text: str, shown: str) -> None:
    assert masked(text, secrets) == shown


def test_a_disk_without_room_is_told_with_what_is_free(layout: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(blocks: int, inodes: int, all_inodes: int = 10**6) -> None:
        found = SimpleNamespace(f_bavail=blocks, f_frsize=2**20, f_files=all_inodes, f_favail=inodes)
        monkeypatch.setattr(os, "statvfs", lambda path: found)

    disk(500, 20000)
    require_free_space(layout, 500)
    disk(499, 20000)
    with pytest.raises(
        ReleaseError, match=r"nearly full: 499 MiB are free, and app_min_free_disk_mb requires 500\. .*\(app_keep_releases\)"
    ):
        require_free_space(layout, 500)
    disk(500, 19999)
    with pytest.raises(ReleaseError, match="only 19999 inodes left"):
        require_free_space(layout, 500)
    # A file system that has no fixed number of them says 0 of 0.
    disk(500, 0, 0)
    require_free_space(layout, 500)


def test_of_what_is_printed_without_end_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_process, "MOST_BYTES", 2**20)
    monkeypatch.setattr(app_process, "KEPT_BYTES", 2**14)
    sizes: list[int] = []
    shorten = os.ftruncate

    def noting(file: int, length: int) -> None:
        sizes.append(os.fstat(file).st_size)
        shorten(file, length)

    monkeypatch.setattr(os, "ftruncate", noting)
    command = "for turn in 1 2 3 4 5; do head -c 3000000 /dev/zero | tr '\\0' x; sleep 0.3; done; echo; echo the end"
    text = run(["/bin/sh", "-c", command], 60).stdout
    assert len(sizes) >= 3
    assert max(sizes) < 10 * 2**20, "nothing is left behind of what was dropped"
    assert text.endswith("x\nthe end\n")
    assert len(text) <= 2**20 + 2**14
    assert "\0" not in text


@pytest.mark.parametrize(
    ("version", "revision", "shown"),
    [
        ("v1.4", "a1b2c3d" + "0" * 33, "v1.4 (a1b2c3d)"),
        ("main", "a1b2c3d" + "0" * 33, "main (a1b2c3d)"),
        ("", "a1b2c3d" + "0" * 33, "a1b2c3d"),
        ("a1b2c3d", "a1b2c3d" + "0" * 33, "a1b2c3d"),
        ("v1.4", "v1.4", "v1.4"),
        ("", "0237606adeda", "0237606adeda"),
        ("2.0", "2.0", "2.0"),
    ],
)
def test_a_release_is_called_what_people_call_its_source(version: str, revision: str, shown: str) -> None:
    assert app_store.version_of({"version": version, "revision": revision}) == shown
    assert app_store.version_of({}) == ""
