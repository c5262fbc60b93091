"""An archive is downloaded once, and checked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import FILES, archive_of, below, checksum

from slipway.controller.fetch.cache import cache_directory


def test_an_archive_is_downloaded_once_and_checked(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    path = archive_of(tmp_path / "x.tar.gz", below("shop"))
    address, asked = serve(tmp_path, "ann:hunter2")
    address = address.replace("//", "//ann:hunter2@") + "/x.tar.gz?token=s3cr3t"
    wanted = checksum(path)
    with pytest.raises(AnsibleActionFail, match=r"x\.tar\.gz: set app_checksum to the digest of that file"):
        fetch(address)
    with pytest.raises(AnsibleActionFail, match="does not match app_checksum; nothing was unpacked") as error:
        fetch(address, checksum=f"sha256:{'0' * 64}")
    assert f"sha256:{'0' * 64}" in str(error.value)
    assert wanted in str(error.value)
    first = fetch(address, checksum=wanted.upper().replace("SHA256", "sha256"))
    assert first["source"]["origin"] == f"{address.partition('?')[0].replace('ann:hunter2@', '')}"
    number = len(asked)
    assert fetch(address, checksum=wanted) == first
    assert len(asked) == number
    # One that was damaged in the cache is fetched again.
    (cache_directory("downloads") / wanted[7:]).write_bytes(b"x")
    assert fetch(address, checksum=wanted) == first
    for text in (str(first), str(error.value)):
        assert "s3cr3t" not in text
        assert "hunter2" not in text
    assert [path.suffix for path in cache_directory("downloads").iterdir() if path.suffix != ".lock"] == [""]


def test_what_cannot_be_downloaded_is_told(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    address, _ = serve(tmp_path)
    wanted = f"sha256:{'0' * 64}"
    with pytest.raises(AnsibleActionFail, match=r"x\.zip \(app_source\) answered 404"):
        fetch(f"{address}/x.zip", checksum=wanted)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(AnsibleActionFail, match=r"took longer than 0\.2 s \(app_fetch_timeout\)"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip", checksum=wanted, timeout=0.2)
        port = silent.getsockname()[1]
    with pytest.raises(AnsibleActionFail, match=r"cannot be downloaded: .*refused"):
        fetch(f"http://127.0.0.1:{port}/x.zip", checksum=wanted)


def test_a_path_is_checked_where_it_has_a_checksum(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    path = archive_of(tmp_path / "x.zip", FILES)
    assert fetch(path, checksum=checksum(path))
    with pytest.raises(AnsibleActionFail, match="does not match app_checksum"):
        fetch(path, checksum=f"sha256:{'0' * 64}")
    with pytest.raises(AnsibleActionFail, match=r"nowhere\.zip: there is no such file on this machine"):
        fetch(tmp_path / "nowhere.zip")


def test_a_server_that_drips_ends_with_the_time_that_a_download_may_take(
    fetch: Callable[..., dict[str, Any]],
) -> None:
    done = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                if done.wait(0.1):
                    break
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(AnsibleActionFail, match=r"took longer than 0\.5 s \(app_fetch_timeout\)"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x.zip", checksum=f"sha256:{'0' * 64}", timeout=0.5)
        done.set()
    assert time.monotonic() - begin < 5
