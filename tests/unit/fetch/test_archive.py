"""An archive is unpacked, and refused if it is damaged, too large or leads outside."""

from __future__ import annotations

import base64
import gzip
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import FILES, archive_of, below, names, text_in

from slipway.controller.fetch import archive


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
    with pytest.raises(AnsibleActionFail, match=f"holds {culprit}, which leads outside or is no ordinary file"):
        fetch(path)
    if not more:
        with pytest.raises(AnsibleActionFail, match=f"holds {culprit}, which leads outside"):
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
    with pytest.raises(AnsibleActionFail, match="up is a link that leads out"):
        fetch(archive_of(tmp_path / "x.tar", below("shop"), ("shop/up", tarfile.SYMTYPE, "..")))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "cut head", "zeroed", "page", "nothing"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, kind: str, fetch: Callable[..., dict[str, Any]]) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(200_000)).decode()
    whole = archive_of(tmp_path / name, {**FILES, "noise": noise, "main.py": "x"}).read_bytes()
    if (name, kind) == ("x.tar", "zeroed"):
        return  # a tar has no checksum of what it holds
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
    with pytest.raises(AnsibleActionFail, match=rf"^{name} \(app_source\) cannot be unpacked: (it is damaged|there is nothing)"):
        fetch(tmp_path / name)


def test_a_tar_that_was_cut_between_two_files_is_refused(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    whole = archive_of(tmp_path / "x.tar", FILES).read_bytes()
    for text in (whole[:2048], whole[:2048] + b"x" * 512):
        (tmp_path / "x.tar").write_bytes(text)
        with pytest.raises(AnsibleActionFail, match="it ends in the middle"):
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
