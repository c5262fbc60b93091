"""What a source is."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.controller.fetch.kind import is_git, kind_of


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
