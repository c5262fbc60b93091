"""Download an archive or a wheel, and check it."""

from __future__ import annotations

import http.client
import os
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import ConnectionError as UrlError
from ansible.module_utils.urls import open_url

from slipway.controller.fetch.archive import LARGEST
from slipway.controller.fetch.cache import cache_directory, locked, sweep
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.kind import is_url, shown
from slipway.host.build.archive import sha256


def obtain(source: str, checksum: str, timeout: float) -> Path:
    """Return the archive or wheel `source` on this machine, downloaded if it is an address, and checked.

    Raises:
        FetchError: when it cannot be had, or is another than `checksum` says.
    """
    expected = checksum.removeprefix("sha256:").lower()
    if is_url(source):
        if not expected:
            raise FetchError(f"app_source is {shown(source)}: set app_checksum to the digest of that file.")
        file = cache_directory("downloads") / expected
        with locked(file):
            if not (file.is_file() and sha256(file) == expected):
                _download(source, expected, timeout, file)
        file.touch()
        sweep(file.parent.iterdir())
        return file
    file = Path(source).expanduser().resolve()
    if not file.is_file():
        raise FetchError(f"app_source is {source}: there is no such file on this machine.")
    if expected:
        _compare(source, sha256(file), expected)
    return file


def _compare(source: str, found: str, expected: str) -> None:
    if found != expected:
        raise FetchError(
            f"{shown(source)} is not what app_checksum names; nothing of it was unpacked.\n"
            f"app_checksum: sha256:{expected}\nthe file:     sha256:{found}"
        )


def _download(address: str, expected: str, timeout: float, file: Path) -> None:
    """Download `address` to `file`, which has its name only when it is whole and what was wanted."""
    partial = file.with_suffix(".partial")
    end = time.monotonic() + timeout
    try:
        answer = open_url(
            address,
            timeout=min(timeout, 60),
            http_agent="slipway",
            decompress=False,
            force_basic_auth=urlsplit(address).username is not None,
        )
        with answer, open(partial, "wb") as target:
            while part := answer.read1(2**18):
                target.write(part)
                if target.tell() > LARGEST:
                    raise FetchError(f"{shown(address)} is larger than {LARGEST >> 30} GiB.")
                if time.monotonic() > end:
                    raise TimeoutError
        _compare(address, sha256(partial), expected)
        os.replace(partial, file)
    except HTTPError as error:
        raise FetchError(f"{shown(address)} (app_source) is answered with {error.code} {error.reason}.") from error
    except (OSError, ValueError, UrlError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or "timed out" in str(error):
            raise FetchError(f"{shown(address)} took longer than {timeout:g} s (app_fetch_timeout).") from error
        raise FetchError(f"{shown(address)} (app_source) cannot be downloaded: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
