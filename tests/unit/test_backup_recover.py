"""A backup that is restored on a host without anything of the app: before its first release, once, and over nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from backups import Place

from slipway.host.backup import copies, folder, in_place, recover, run, settings, step
from slipway.host.errors import ReleaseError
from slipway.host.lock import lock

RUN = {"id": "1 t", "who": "ann", "where": "laptop", "dead": ""}
EMPTY = {"owner": "shop", "encoding": "UTF8", "datcollate": "C", "datctype": "C", "comment": "", "size": 9}


class Server:
    """A database server: which databases it has, with the rows of their tables."""

    def __init__(self) -> None:
        self.databases: dict[str, dict[str, Any]] = {"shop": dict(EMPTY)}
        self.rows: dict[str, dict[str, int]] = {"shop": {}}
        self.loads = 0

    def create(self, known: settings.Settings, new: str, comment: str) -> str:
        self.databases[new], self.rows[new] = {**EMPTY, "comment": comment}, {}
        return new

    def load(self, known: settings.Settings, database: str, stream: Any) -> None:
        assert stream.read().startswith(b"the dump")
        self.rows[database] = {"public.orders": 3, "public.users": 1}
        self.loads += 1

    def replace_empty(self, known: settings.Settings, other: str, comment: str) -> None:
        self.databases["shop"], self.rows["shop"] = {**self.databases.pop(other), "comment": comment}, self.rows.pop(other)
        self.databases["shop_replaced"] = dict(EMPTY)

    def drop_replaced(self, known: settings.Settings) -> None:
        self.databases.pop("shop_replaced", None)

    def is_empty(self, known: settings.Settings, database: str) -> bool:
        return not self.rows[database]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A host that is new, with a backup of the one before in the repository."""
    found = Place(tmp_path, monkeypatch)
    monkeypatch.setattr(recover, "STATES", tmp_path / "states")
    monkeypatch.setattr(recover, "require_space", lambda *sizes: None)
    found.layout.history.write_text('{"release": 7}\n', encoding="ascii")
    run.back_up("shop", "timer")
    found.layout.history.unlink()
    (found.layout.home / "shared" / "uploads" / "photo").unlink()
    (found.layout.home / "shared" / "uploads").rmdir()
    found.layout.live_socket.unlink()
    (tmp_path / "states" / "shop.json").unlink()
    return found


@pytest.fixture
def server(place: Place, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Its database server."""
    found = Server()
    monkeypatch.setattr(copies, "all_databases", lambda known: found.databases)
    for module, name in ((copies, "create"), (copies, "load"), (recover, "replace_empty"), (recover, "drop_replaced")):
        monkeypatch.setattr(module, name, getattr(found, name))
    monkeypatch.setattr(recover, "counts", lambda known, database: found.rows[database])
    monkeypatch.setattr(recover, "is_empty", found.is_empty)
    monkeypatch.setattr(copies, "take_extensions", lambda known, database: None)
    return found


def recovered(place: Place, at: str = "latest", check: bool = False) -> dict[str, Any]:
    """Restore it as the role has the host do it."""
    given = {
        "app": "shop",
        "command": "recover",
        "at": at,
        "only": "",
        "switch": False,
        "run": dict(RUN),
        "home": str(place.layout.home),
    }
    return step.step(given, check)


def test_a_new_host_has_rows_files_and_history_of_the_one_before(place: Place, server: Server) -> None:
    shared = place.layout.home / "shared"
    dry = recovered(place, check=True)
    assert (dry["changed"], list(shared.iterdir()), server.rows["shop"]) == (True, [], {})
    found = recovered(place)
    assert found["changed"]
    assert server.rows["shop"] == {"public.orders": 3, "public.users": 1}
    assert (shared / "restored").exists()
    assert sorted(server.databases) == ["shop"]
    assert place.layout.history.read_text(encoding="ascii") == '{"release": 7}\n'
    assert sorted(path.name for path in place.layout.home.iterdir()) == [".lock", "history.jsonl", "shared"]
    first, second = found["lines"]
    assert "is restored: 4 rows in 2 tables, 1 files, 0 B, the history of its releases." in first
    assert second.startswith("All that was written since ") and second.endswith(" UTC is lost.")


def test_a_second_run_before_the_first_release_restores_nothing_more(place: Place, server: Server) -> None:
    recovered(place)
    (place.layout.home / "shared" / "later").touch()
    assert not recovered(place)["changed"]
    assert (place.layout.home / "shared" / "later").exists()
    assert server.loads == 1


@pytest.mark.parametrize("moment", ["load", "replace_empty", "drop_replaced"])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_was_killed_is_finished_by_the_next_one(
    place: Place, server: Server, monkeypatch: pytest.MonkeyPatch, moment: str, after: bool
) -> None:
    def killed(*arguments: Any) -> None:
        if after:
            getattr(server, moment)(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(copies if moment == "load" else recover, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            recovered(place)
    recovered(place)
    assert server.rows["shop"] == {"public.orders": 3, "public.users": 1}
    assert sorted(server.databases) in (["shop"], ["shop", "shop_restored"])
    assert (place.layout.home / "shared" / "restored").exists()


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_was_killed_at_the_exchange_of_folders_is_finished(
    place: Place, server: Server, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    exchange = folder.exchange

    def killed(one: Path, other: Path) -> None:
        if after:
            exchange(one, other)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "exchange", killed)
        with pytest.raises(KeyboardInterrupt):
            recovered(place)
    recovered(place)
    assert (place.layout.home / "shared" / "restored").exists()
    assert list(place.layout.home.glob("shared.restored-*")) == []


def test_a_shared_folder_behind_a_link_is_filled(place: Place, server: Server) -> None:
    shared, disk = place.layout.home / "shared", place.folder / "disk"
    shared.rename(disk)
    shared.symlink_to(disk)
    recovered(place)
    assert shared.is_symlink()
    assert (disk / "restored").exists()


def live(place: Place, server: Server) -> None:
    place.layout.live_socket.symlink_to(place.layout.runtime / "7.sock")


def tables(place: Place, server: Server) -> None:
    server.rows["shop"] = {"public.orders": 0}


def files(place: Place, server: Server) -> None:
    (place.layout.home / "shared" / "mine").touch()


def empty(place: Place, server: Server) -> None:
    (place.folder / "repository" / "snapshots").write_text("[]", encoding="ascii")


def absent(place: Place, server: Server) -> None:
    (place.folder / "repository").rename(place.folder / "elsewhere")


def own(place: Place, server: Server) -> None:
    """Have only a backup that a first release made which failed: there was no release then."""
    file = place.folder / "repository" / "snapshots"
    found = json.loads(file.read_text(encoding="utf-8"))
    for one in found:
        one["tags"] = [tag for tag in one["tags"] if not tag.startswith("release=")]
    file.write_text(json.dumps(found), encoding="utf-8")


def no_database(place: Place, server: Server) -> None:
    server.databases.clear()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (live, "Release 7 of shop is live .*playbooks/restore.yml -e at=2"),
        (tables, "is not empty"),
        (files, "has files already"),
        (empty, "There is no backup for at=latest"),
        (absent, "There is no backup for at=latest"),
        (no_database, "There is no database shop on this host"),
        (own, "There is no backup for at=latest"),
    ],
)
def test_what_is_there_is_not_touched(place: Place, server: Server, fault: Any, text: str) -> None:
    fault(place, server)
    before = json.dumps([server.rows.get("shop"), sorted(os.listdir(place.layout.home / "shared"))])
    with pytest.raises(ReleaseError, match=text):
        recovered(place)
    assert json.dumps([server.rows.get("shop"), sorted(os.listdir(place.layout.home / "shared"))]) == before
    assert (place.folder / "repository").exists() != (fault is absent)  # none is made


def test_an_app_without_a_database_has_its_files_restored(place: Place) -> None:
    place.configure(database="")
    assert "1 files, 0 B" in recovered(place)["lines"][0]
    assert (place.layout.home / "shared" / "restored").exists()


def test_a_host_that_was_emptied_since_has_it_restored_once_more(place: Place, server: Server) -> None:
    recovered(place)
    server.databases["shop"], server.rows["shop"] = dict(EMPTY), {}
    shared = place.layout.home / "shared"
    shared.rename(place.folder / "former")  # so that it is another one
    shared.mkdir()
    place.layout.history.unlink()
    assert recovered(place)["changed"]
    assert (server.loads, (shared / "restored").exists(), place.layout.history.exists()) == (2, True, True)


def test_a_history_that_is_there_is_kept_after_the_one_that_is_restored(place: Place, server: Server) -> None:
    place.layout.history.write_text('{"release": 1}\n', encoding="ascii")
    recovered(place)
    assert place.layout.history.read_text(encoding="ascii") == '{"release": 7}\n{"release": 1}\n'
    assert not recovered(place)["changed"]


def test_no_release_goes_on_meanwhile(place: Place, server: Server) -> None:
    with lock(place.layout, {**RUN, "id": "2 t"}), pytest.raises(ReleaseError, match="ann on laptop"):
        recovered(place)
    assert server.rows["shop"] == {}


def test_a_folder_takes_the_owner_and_mode_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    live, other = tmp_path / "live", tmp_path / "other"
    live.mkdir(mode=0o710)
    (other / "served").mkdir(parents=True)
    (other / "served").chmod(0o2750)
    in_place.take_modes(other, live, (other / "served").stat().st_gid + 1 if os.getuid() == 0 else os.getgid())
    assert other.stat().st_mode & 0o7777 == 0o710
    if os.getuid() == 0:  # 0 is root's own, which stays
        assert (other / "served").stat().st_mode & 0o7777 == 0o2750
        os.chown(other / "served", -1, 12345)
        (other / "served").chmod(0o2750)
        in_place.take_modes(other, live, 4321)
        found = (other / "served").stat()
        assert (found.st_mode & 0o7777, found.st_gid) == (0o750, 4321)
