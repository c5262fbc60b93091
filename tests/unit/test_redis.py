"""How a host asks an app's Redis: over a real socket, with a server that answers as the real one does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.host import redis
from slipway.host.doctor import redis as doctor

LIMIT = 100 * 2**20
INFO = {
    "used_memory": "1000",
    "maxmemory": str(LIMIT),
    "maxmemory_policy": "noeviction",
    "aof_last_write_status": "ok",
}


class Server:
    """A server at a socket: what it was sent, and what it answers.

    Args:
        path: its socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: list[list[str]] = []
        self.refused: dict[str, str] = {}
        self.info = dict(INFO)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        """Answer one connection after the other, until one sends nothing."""
        while True:
            client, _ = self.listener.accept()
            with client, client.makefile("rwb") as stream:
                first = True
                while line := stream.readline():
                    words = []
                    for _ in range(int(line[1:])):
                        size = int(stream.readline()[1:])
                        words.append(stream.read(size + 2)[:-2].decode())
                    self.commands.append(words)
                    stream.write(self.answer(words).encode())
                    stream.flush()
                    first = False
                if first:
                    return

    def answer(self, words: list[str]) -> str:
        """Return an answer as it goes over the wire."""
        for start, refusal in self.refused.items():
            if " ".join(words).startswith(start):
                return f"-{refusal}\r\n"
        if words[0] == "INFO":
            text = f"# {words[1]}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in self.info.items())
            return f"${len(text)}\r\n{text}\r\n"
        return "+PONG\r\n" if words[0] == "PING" else "+OK\r\n"

    def close(self) -> None:
        """Have it end."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
        self.thread.join()
        self.listener.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "shop").mkdir()
    found = Server(tmp_path / "shop" / "redis.sock")
    yield found
    found.close()


Files = Callable[..., None]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Write what is set for the app's server and its unit, and with what it was started."""
    for name in ("SETTINGS", "UNITS", "STARTED"):
        monkeypatch.setattr(redis, name, tmp_path / name)
        (tmp_path / name).mkdir()

    def write(wanted: str, started: str | None, units: tuple[str, str] = ("one", "one")) -> None:
        (tmp_path / "SETTINGS" / "shop.conf").write_text(f"# by settings\n{wanted}", encoding="ascii")
        (tmp_path / "UNITS" / redis.unit("shop")).write_text(units[0], encoding="ascii")
        if started is not None:
            (tmp_path / "STARTED" / "shop.conf").write_text(f"# before\n{started}", encoding="ascii")
            (tmp_path / "STARTED" / redis.unit("shop")).write_text(units[1], encoding="ascii")

    return write


def taken(server: Server, check: bool = False) -> dict[str, Any]:
    """Take the step."""
    return redis.step({"app": "shop", "socket": str(server.path)}, check)


def test_a_server_that_has_taken_all_is_not_asked(server: Server, files: Files) -> None:
    files('port 0\nsave ""\n', 'save ""\nport 0\n')
    assert taken(server) == {"changed": False, "pending": []}
    assert server.commands == []


def test_what_changed_is_taken_at_once_and_only_once(server: Server, files: Files) -> None:
    files('maxmemory 20mb\nsave ""\nport 0\n', "maxmemory 10mb\nsave 60 1\nport 0\n")
    assert taken(server) == {"changed": True, "pending": []}
    assert server.commands == [["CONFIG", "SET", "maxmemory", "20mb"], ["CONFIG", "SET", "save", ""]]
    assert taken(server) == {"changed": False, "pending": []}
    assert len(server.commands) == 2


def test_what_only_a_start_changes_waits(server: Server, files: Files) -> None:
    server.refused = {"CONFIG SET databases": "ERR CONFIG SET failed - can't set immutable config"}
    files("databases 3\nmaxmemory 20mb\n", "databases 2\nmaxmemory 10mb\ntimeout 9\n", ("new", "old"))
    pending = ["databases", "timeout", "slipway-redis-shop.service"]
    assert taken(server) == {"changed": True, "pending": pending}
    assert taken(server) == {"changed": False, "pending": pending}
    assert redis.waiting("shop") == pending


def test_a_dry_run_asks_nothing(server: Server, files: Files) -> None:
    files("maxmemory 20mb\n", "maxmemory 10mb\n")
    assert taken(server, check=True) == {"changed": False, "pending": ["maxmemory"]}
    assert server.commands == []


def test_a_host_without_a_server_has_nothing_to_take(tmp_path: Path, files: Files) -> None:
    files("maxmemory 20mb\n", None)
    assert redis.step({"app": "shop", "socket": str(tmp_path / "none")}, True) == {"changed": False, "pending": []}


def test_a_server_that_is_down_fails_the_step(tmp_path: Path, files: Files) -> None:
    files("maxmemory 20mb\n", "maxmemory 10mb\n")
    with pytest.raises(redis.RedisError, match=r"does not answer at .*: No such file or directory"):
        redis.step({"app": "shop", "socket": str(tmp_path / "none")}, False)


def test_a_server_that_hangs_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "socket"))
        hanging.listen()
        with pytest.raises(redis.RedisError, match="timed out"):
            redis.information(tmp_path / "socket", ["memory"])


def whats(path: object, monkeypatch: pytest.MonkeyPatch, enabled: int = 0) -> list[tuple[str, str]]:
    """Return what the doctor finds of the server at a socket."""
    monkeypatch.setattr(doctor, "output", lambda *command: (enabled, "the server's last words"))
    subject: Any = SimpleNamespace(arguments={"name": "shop", "redis": str(path)})
    return [(each.severity, each.what) for each in doctor.redis(subject)]


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({}, []),
        ({"used_memory": LIMIT * 89 // 100}, []),
        ({"used_memory": LIMIT * 91 // 100}, [("warning", "Redis is near its memory limit")]),
        ({"used_memory": LIMIT - 1000}, [("error", "Redis is at its memory limit")]),
        ({"used_memory": LIMIT + 1}, [("error", "Redis is at its memory limit")]),
        # Which is where a cache always is.
        ({"used_memory": LIMIT, "maxmemory_policy": "allkeys-lru"}, []),
        ({"used_memory": LIMIT, "maxmemory": 0}, []),
        ({"aof_last_write_status": "err"}, [("error", "Redis cannot write its data to the disk")]),
    ],
)
def test_the_doctor_finds_a_server_that_stores_nothing_more(
    server: Server, files: Files, monkeypatch: pytest.MonkeyPatch, info: dict[str, object], found: list[tuple[str, str]]
) -> None:
    files("port 0\n", "port 0\n")
    server.info |= {name: str(value) for name, value in info.items()}
    assert whats(server.path, monkeypatch) == found


def test_the_doctor_finds_what_waits_and_what_a_reboot_ends(
    server: Server, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files("databases 3\n", "databases 2\n")
    found = [("warning", "Redis will not start after a reboot"), ("warning", "Redis waits for a restart")]
    assert whats(server.path, monkeypatch, enabled=1) == found


def test_the_doctor_tells_a_server_that_reads_its_data_from_one_that_is_down(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refused = {"PING": "LOADING Redis is loading the dataset in memory"}
    assert whats(server.path, monkeypatch) == [("warning", "Redis is still reading its data")]
    assert whats(tmp_path / "shop" / "none", monkeypatch) == [("error", "Redis is down")]
    assert whats("", monkeypatch) == []
