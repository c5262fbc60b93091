"""A shared directory that is elsewhere: behind a link, or on a disk of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from backups import Place

from slipway.host.backup import restore, run, settings
from slipway.host.errors import ReleaseError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An app that is backed up."""
    return Place(tmp_path, monkeypatch)


def restored(**more: Any) -> dict[str, Any]:
    """Restore the shared directory of the last backup."""
    who = {"id": "1 t", "who": "ann", "where": "laptop", "dead": ""}
    return restore.restore(restore.Order(settings.load("shop"), "latest", run=who, check=False, **more), "shared")


def behind_a_link(place: Place) -> tuple[Path, Path]:
    """Have the shared directory be elsewhere, and return its path and where it is."""
    shared, disk = place.layout.home / "shared", place.folder / "disk"
    shared.rename(disk)
    shared.symlink_to(disk)
    return shared, disk


def test_a_shared_directory_behind_a_link_is_backed_up_and_restored_beside(place: Place) -> None:
    shared, disk = behind_a_link(place)
    run.back_up("shop", "timer")
    _, files, contents = place.snapshots()
    assert files["paths"] == [str(disk)]
    assert json.loads(contents["data"])["files"]["shared"] == str(disk)
    found = restored(switch=False)
    (other,) = place.layout.home.glob("shared.restored-*")
    assert (other / "restored").exists()
    assert f"To copy it over what is there: cp -a {other}/. {shared}/" in found["lines"]
    assert "switch=true" not in "\n".join(found["lines"])
    assert shared.is_symlink() and (disk / "uploads" / "photo").exists()


def test_a_link_to_a_disk_that_is_away_is_no_app_without_files(place: Place) -> None:
    _, disk = behind_a_link(place)
    disk.rename(place.folder / "away")
    with pytest.raises(ReleaseError, match=r"No such file or directory.*disk"):
        run.back_up("shop", "timer")


@pytest.mark.parametrize("link", [True, False])
def test_what_cannot_be_exchanged_is_not_restored_to_be_switched_to(
    place: Place, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    shared = place.layout.home / "shared"
    if link:
        behind_a_link(place)
    run.back_up("shop", "timer")
    if not link:
        monkeypatch.setattr(os.path, "ismount", lambda path: path == shared)
    with pytest.raises(ReleaseError, match=f"{shared} is (a link|a mount).*without switch=true"):
        restored(switch=True)
    assert not [call for call in place.calls() if call[0] == "restore"]
    assert restored(switch=False)["changed"]
