"""What a source is."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.controller.fetch.kind import is_download, is_git, kind_of, may_be_fetched


@pytest.mark.parametrize(
    "source",
    [
        "https://github.com/a/b",
        "http://host/x",
        "git@github.com:a/b",
        "ssh://git@host:22/a/b",
        "git://host/x",
        "git+file:///srv/x",
        "file:///srv/x",
        "/srv/x.git",
        "x.git/",
    ],
)
def test_what_is_a_git_repository(source: str) -> None:
    assert is_git(source)


@pytest.mark.parametrize("source", ["/srv/x", "../app", "~/app", ".", "/srv/x.git/app", "git", "/srv/https/x", "/srv/my.github"])
def test_what_is_a_directory(source: str) -> None:
    assert not is_git(source)


def test_what_a_source_is(tmp_path: Path) -> None:
    (tmp_path / "app.zip").mkdir()
    kinds = {
        "directory": [str(tmp_path / "app.zip"), "/srv/app", "shop>=1.4", "shop == 1.4"],
        "git": ["https://host/a/b", "https://host/shop.zip.git", "git+https://host/shop.tar.gz#x"],
        "archive": ["/srv/shop.tar", "https://host/v1.tar.gz?token=x", "shop.tgz", "x.tar.bz2", "x.tar.xz", "x.ZIP"],
        "wheel": ["/srv/shop-1.4-py3-none-any.whl", "https://host/shop-1.4-1-cp312-cp312-linux_x86_64.whl#x"],
        "package": ["shop==1.4", "shop[pg,x]==1.4rc1", "Shop.x-y==1!2.0+local"],
    }
    assert {source: kind_of(source) for sources in kinds.values() for source in sources} == {
        source: kind for kind, sources in kinds.items() for source in sources
    }


def test_what_is_said_to_lie_on_this_machine_must_be_there(tmp_path: Path) -> None:
    for name in ("shop.tar.gz", "a b.zip", "shop-1.4-py3-none-any.whl", "notes.txt"):
        (tmp_path / name).touch()
    good = [".", str(tmp_path), "shop.git", "shop==1.4", "https://host/shop", "https://host/shop.zip", "file:///srv/shop.git"]
    good += [f"{tmp_path}/shop.tar.gz", f"file://{tmp_path}/a%20b.zip", f"{tmp_path}/shop-1.4-py3-none-any.whl"]
    bad = [
        "",
        "nowhere",
        "nowhere.tar.gz",
        "shop-1.4-py3-none-any.whl",
        "file:///nowhere.zip",
        f"{tmp_path}/notes.txt",
        "x" * 2**20,
    ]
    bad += ["shop>=1.4", "-x.git", "--upload-pack=touch /tmp/x;x.git", "--x.tar.gz", "/srv/a\0b"]
    assert [source for source in good if not may_be_fetched(source)] == []
    assert [source for source in bad if may_be_fetched(source)] == []


@pytest.mark.parametrize(
    ("source", "download"),
    [
        ("https://host/shop.zip", True),
        ("http://host/shop-1.4-py3-none-any.whl?x=1", True),
        ("https://host/shop.git", False),
        ("/srv/shop.zip", False),
        ("shop==1.4", False),
    ],
)
def test_what_is_a_download(source: str, download: bool) -> None:
    assert is_download(source) is download
