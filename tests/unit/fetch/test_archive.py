"""An archive is unpacked, and refused if it is damaged, too large or leads outside."""

from __future__ import annotations

import base64
import gzip
import random
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import FILES, archive_of, below, names, text_in

from slipway.controller.fetch import archive
from slipway.controller.fetch.error import FetchError


def test_a_file_address_of_an_archive_is_its_path(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    archive = archive_of(tmp_path / "my shop.tar.gz", FILES)
    assert fetch(f"file://{tmp_path}/my%20shop.tar.gz")["source"]["digest"] == fetch(archive)["source"]["digest"]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_an_archive_is_the_folder_that_it_holds(tmp_path: Path, name: str, fetch: Callable[..., dict[str, Any]]) -> None:
    sources = [
        fetch(archive_of(tmp_path / name, files), checksum=sum_)["source"]
        for files, sum_ in ((below("shop-1.4") | {"__MACOSX/x": ""}, ""), (FILES, ""), (below("./other/"), ""))
    ]
    assert names(sources[0]["archive"]) == ["requirements.txt", "run", "app/main.py"]
    assert len({source["digest"] for source in sources}) == 1
    assert (sources[0]["origin"], sources[0]["revision"]) == (name, sources[0]["digest"][:12])
    with tarfile.open(sources[0]["archive"]) as tar:
        assert {member.name: member.mode for member in tar} == {"requirements.txt": 0o644, "app/main.py": 0o644, "run": 0o755}
    assert fetch(tmp_path / name, version="v1.4")["source"]["revision"] == "v1.4"


@pytest.mark.parametrize(
    ("files", "more", "culprit"),
    [
        ({"/proc/evil": ""}, [], "/proc/evil"),
        ({"../evil": ""}, [], "../evil"),
        ({"a/../../evil": ""}, [], "a/../../evil"),
        ({}, [("a/link", tarfile.SYMTYPE, "/etc/passwd")], "a/link"),
        ({}, [("a/link", tarfile.SYMTYPE, "../../evil")], "a/link"),
        ({}, [("hard", tarfile.LNKTYPE, "../evil")], "hard"),
        ({}, [("hard", tarfile.LNKTYPE, "/etc/passwd")], "hard"),
        ({}, [("pipe", tarfile.FIFOTYPE, "")], "pipe"),
        ({}, [("disk", tarfile.BLKTYPE, "")], "disk"),
        ({}, [("tty", tarfile.CHRTYPE, "")], "tty"),
    ],
)
def test_a_member_that_leads_outside_is_named(
    tmp_path: Path,
    files: dict[str, str],
    more: list[tuple[Any, ...]],
    culprit: str,
    fetch: Callable[..., dict[str, Any]],
) -> None:
    path = archive_of(tmp_path / "x.tar.gz", FILES | files, *more)
    with pytest.raises(AnsibleActionFail, match=f"contains {culprit}, which leads outside of it or is not a regular file"):
        fetch(path)
    if not more:
        with pytest.raises(AnsibleActionFail, match=f"contains {culprit}, which leads outside"):
            fetch(archive_of(tmp_path / "x.zip", FILES | files))


def test_links_of_an_archive(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    more = [("shop/copy.py", tarfile.LNKTYPE, "shop/app/main.py"), ("shop/link.py", tarfile.SYMTYPE, "app/main.py")]
    source = fetch(archive_of(tmp_path / "x.tar", below("shop"), *more))["source"]
    assert text_in(source["archive"], "copy.py") == FILES["app/main.py"]
    with tarfile.open(source["archive"]) as tar:
        assert tar.getmember("link.py").linkname == "app/main.py"
    # Through a link nothing is written, even inside, and none leads out of the folder that is left.
    (tmp_path / "victim").mkdir()
    for more in (
        [("app/main.py", tarfile.SYMTYPE, "../run")],
        [("link", tarfile.SYMTYPE, "app"), ("link/x/y", tarfile.DIRTYPE, "")],
    ):
        with pytest.raises(AnsibleActionFail, match="cannot be unpacked"):
            fetch(archive_of(tmp_path / "x.tar", FILES, *more))
    with pytest.raises(AnsibleActionFail, match="up is a link that points outside"):
        fetch(archive_of(tmp_path / "x.tar", below("shop"), ("shop/up", tarfile.SYMTYPE, "..")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for kind in ("empty", "garbage", "cut", "cut head", "zeroed", "page", "nothing")
        for name in ("x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip")
        if (name, kind) != ("x.tar", "zeroed")  # a tar has no checksum of what it holds
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, kind: str, fetch: Callable[..., dict[str, Any]]) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(200_000)).decode()
    whole = archive_of(tmp_path / name, {**FILES, "noise": noise, "main.py": "x"}).read_bytes()
    texts = {
        "empty": b"",
        "garbage": random.Random(2).randbytes(5000),
        "cut": whole[: len(whole) // 2],
        "cut head": whole[:100],
        "zeroed": whole[:100_000] + bytes(2000) + whole[102_000:],
        "page": b"<html>404</html>" * 100,
    }
    if kind == "nothing":
        archive_of(tmp_path / name, {})
    else:
        (tmp_path / name).write_bytes(texts[kind])
    with pytest.raises(AnsibleActionFail, match=rf"^{name} \(app_source\) cannot be unpacked: (it is damaged|it is empty)"):
        fetch(tmp_path / name)


def test_a_tar_that_was_cut_between_two_files_is_refused(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    whole = archive_of(tmp_path / "x.tar", FILES).read_bytes()
    for text in (whole[:2048], whole[:2048] + b"x" * 512):
        (tmp_path / "x.tar").write_bytes(text)
        with pytest.raises(AnsibleActionFail, match="it is truncated"):
            fetch(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, name: str, fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST", 2**21)
    assert fetch(archive_of(tmp_path / name, FILES | {"zeros": "0" * 2**20}))
    for files in (FILES | {"zeros": "0" * 2**21}, FILES | {f"empty{number}": "" for number in range(4100)}):
        with pytest.raises(AnsibleActionFail, match=r"app_source unpacks to more than|cannot be unpacked"):
            fetch(archive_of(tmp_path / name, files))
    if name == "x.tar.gz":
        (tmp_path / name).write_bytes(gzip.compress(bytes(2**22)))
        with pytest.raises(AnsibleActionFail, match="app_source unpacks to more than"):
            fetch(tmp_path / name)


def zip_of(path: Path, name: str, mode: int, text: str) -> Path:
    """Make a zip file of a source and one more member of that mode."""
    archive_of(path, FILES)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, mode << 16
        archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    return path


def test_a_link_in_a_zip_file_stays_one(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    source = fetch(zip_of(tmp_path / "x.zip", "app/link.py", 0o120777, "main.py"))["source"]
    with tarfile.open(source["archive"]) as tar:
        assert tar.getmember("app/link.py").linkname == "main.py"


@pytest.mark.parametrize(
    ("mode", "text"), [(0o120777, "/etc/passwd"), (0o120777, "../../evil"), (0o010644, ""), (0o060644, ""), (0o140644, "")]
)
def test_a_member_of_a_zip_file_that_is_no_file_or_leads_outside_is_named(
    tmp_path: Path, mode: int, text: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(AnsibleActionFail, match=r"^x\.zip contains a/odd, which leads outside of it or is not a regular file"):
        fetch(zip_of(tmp_path / "x.zip", "a/odd", mode, text))


def test_a_zip_file_that_is_encrypted_is_refused(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    path = archive_of(tmp_path / "x.zip", FILES)
    text = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        text[text.index(magic) + place] |= 1
    path.write_bytes(text)
    with pytest.raises(AnsibleActionFail, match=r"cannot be unpacked: .*it is encrypted"):
        fetch(path)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_an_archive_that_unpacks_to_too_much_fills_no_disk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 2**21)
    (tmp_path / "scratch").mkdir()
    path = archive_of(tmp_path / name, {"zeros": "0" * 2**24})
    with pytest.raises(FetchError, match="app_source unpacks to more than"):
        archive.unpack(path, name, tmp_path / "scratch")
    assert sum(file.stat().st_size for file in (tmp_path / "scratch").rglob("*")) < 2**22


def test_a_sparse_file_is_as_large_as_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 2**21)
    with open(tmp_path / "zeros", "wb") as file:
        file.truncate(2**24)
    subprocess.run(["tar", "--sparse", "-cf", "x.tar", "zeros"], cwd=tmp_path, check=True)
    assert (tmp_path / "x.tar").stat().st_size < 2**20
    (tmp_path / "scratch").mkdir()
    with pytest.raises(FetchError, match="app_source unpacks to more than"):
        archive.unpack(tmp_path / "x.tar", "x.tar", tmp_path / "scratch")


@pytest.mark.parametrize(
    "more",
    [
        # Each stays inside by its words; with the other it leads to a file of the machine.
        [("a/b/c/up", tarfile.SYMTYPE, "../../.."), ("app/logo.svg", tarfile.SYMTYPE, "../a/b/c/up/../../secret")],
        [("up", tarfile.SYMTYPE, "app"), ("copy", tarfile.LNKTYPE, "up/../../secret")],
    ],
)
def test_a_chain_of_links_of_an_archive_leads_nowhere(
    tmp_path: Path, more: list[tuple[Any, ...]], fetch: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(AnsibleActionFail, match=r"^x\.tar (contains|\(app_source\) cannot be unpacked)"):
        fetch(archive_of(tmp_path / "x.tar", FILES, *more))


@pytest.mark.parametrize(
    "more",
    [
        [("link", tarfile.SYMTYPE, "app"), ("link", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "app"), ("link/new.py", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "app"), ("nowhere/../link/new.py", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "app"), ("copy.py", tarfile.LNKTYPE, "link/main.py")],
        [("link", tarfile.SYMTYPE, "run"), ("copy", tarfile.LNKTYPE, "link")],
        [("link", tarfile.SYMTYPE, "app"), ("link", tarfile.DIRTYPE, "")],
        [("run", tarfile.SYMTYPE, "app")],
    ],
)
def test_no_member_takes_the_way_of_a_link(
    tmp_path: Path, more: list[tuple[Any, ...]], fetch: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(AnsibleActionFail, match=rf"cannot be unpacked: {more[-1][0]} in it passes through a symbolic link"):
        fetch(archive_of(tmp_path / "x.tar", FILES, *more))


@pytest.mark.parametrize("target", ["nowhere", "nowhere/../a/b/link", "app"])
def test_a_copy_of_what_is_not_there_is_refused(tmp_path: Path, target: str, fetch: Callable[..., dict[str, Any]]) -> None:
    more = [("a/b/link", tarfile.SYMTYPE, "../../run"), ("copy", tarfile.LNKTYPE, target)]
    with pytest.raises(AnsibleActionFail, match=r"x\.tar \(app_source\) cannot be unpacked: copy in it"):
        fetch(archive_of(tmp_path / "x.tar", FILES, *more))
