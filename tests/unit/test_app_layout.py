"""Paths, whole writes, the lock, and commands: what all of the app role's Python stands on."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_layout
from ansible.module_utils.app_layout import Layout, ReleaseError, digest, point, remove, run, tail, write


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    for directory in (layout.home, layout.runtime, layout.logs, layout.releases):
        directory.mkdir()
    return layout


def test_live_is_what_the_link_names(layout: Layout) -> None:
    assert layout.live() is None
    layout.live_socket.symlink_to("/run/shop/17.sock")
    assert layout.live() == 17
    layout.live_socket.unlink()
    layout.live_socket.symlink_to("/run/shop/blue.sock")
    assert layout.live() is None


def test_numbers_are_in_the_order_of_numbers(layout: Layout) -> None:
    for name in ("9", "10", "100", ".9.partial", "current", "1.old"):
        (layout.releases / name).mkdir()
    assert layout.numbers() == [9, 10, 100]
    assert Layout("/nowhere", "/nowhere", "/nowhere").numbers() == []


@pytest.mark.parametrize("text", [None, "", '{"release": 1', "\x00"])
def test_a_missing_or_torn_record_is_empty(layout: Layout, text: str | None) -> None:
    layout.release(1).mkdir()
    if text is not None:
        (layout.release(1) / "release.json").write_text(text, encoding="utf-8")
    assert layout.record(1) == {}


def test_a_record_is_read(layout: Layout) -> None:
    layout.release(1).mkdir()
    (layout.release(1) / "release.json").write_text('{"outcome": "live"}', encoding="utf-8")
    assert layout.record(1) == {"outcome": "live"}


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
        f"import os, sys; sys.path.insert(0, {str(Path(app_layout.__file__).parent)!r}); import app_layout, pathlib\n"
        "os.replace = lambda *names: os.kill(os.getpid(), 9)\n"
        f"app_layout.write(pathlib.Path({str(tmp_path / 'file')!r}), 'new')"
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
    point(tmp_path / "link", "file")
    assert steps == ["rename", "directory"]


def test_a_link_is_never_missing_while_it_changes(tmp_path: Path) -> None:
    link = tmp_path / "live.sock"
    point(link, "/run/shop/1.sock")
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
        point(link, f"/run/shop/{number % 2 + 1}.sock")
    done.set()
    reader.join()
    assert seen == {"/run/shop/1.sock", "/run/shop/2.sock"}
    assert [path.name for path in tmp_path.iterdir()] == ["live.sock"]


def test_a_link_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".current.{os.getpid()}").symlink_to("/nowhere")
    point(tmp_path / "current", "releases/2")
    assert os.readlink(tmp_path / "current") == "releases/2"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_only_a_link_is_replaced(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "current")
    with pytest.raises(ReleaseError, match="in the way"):
        point(tmp_path / "current", "releases/2")
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


def test_output_that_is_no_text_is_shown_all_the_same() -> None:
    assert "\ufffd" in run(["printf", r"\377"], 10).stdout


def test_a_command_is_run_by_another_user_with_nothing_of_this_ones(user: str) -> None:
    if os.geteuid() == 0:
        mine = pwd.getpwnam(user)
        answer = run(["sh", "-c", "id -u; id -g; id -G"], 10, user=user)
        assert answer.stdout.split() == [str(mine.pw_uid), str(mine.pw_gid), str(mine.pw_gid)]
    with pytest.raises(ReleaseError, match="nosuchuser"):
        run(["true"], 10, user="nosuchuser")


def test_tail_counts_from_the_end() -> None:
    assert tail("1\n2\n3\n\n\n", 2) == "2\n3"
    assert tail("", 2) == ""
