"""Sources of an app, and what serves them."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

EXCLUDE = [".git", ".venv", "__pycache__", "*.pyc", ".env", ".env.*"]


class Repository:
    """A git repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit files, a double underscore in the name standing for a dot, and return the commit."""
        for name, text in files.items():
            (self.path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x", "--allow-empty")
        return self.git("rev-parse", "HEAD")


def names(archive: Any) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def text_in(archive: Any, name: str) -> str:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


class Files(http.server.SimpleHTTPRequestHandler):
    """Files below a directory, for those who show the password, if there is one."""

    password = ""
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.password and self.headers.get("Authorization") != f"Basic {base64.b64encode(self.password.encode()).decode()}":
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


FILES = {"requirements.txt": "fastapi\n", "app/main.py": "app = None\n", "run": "#!/bin/sh\n"}


def archive_of(path: Path, files: dict[str, str], *more: tuple[Any, ...]) -> Path:
    """Make an archive of the format that its name says; `more` are a name, a type and a target, for tar only."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (0o100755 if name.endswith("run") else 0o100644) << 16
                archive.writestr(entry, text)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755 if name.endswith("run") else 0o640
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, kind, target in more:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return path


def below(folder: str, files: dict[str, str] = FILES) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["fastapi"]\n'


BUILT = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'


LOCK = """\
version = 1
requires-python = ">=3.11"
[[package]]
name = "shop"
source = { editable = "." }
dependencies = [{ name = "fastapi", extra = ["all"] }, { name = "core" }]
[[package]]
name = "fastapi"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
[[package.wheels]]
url = "https://files.example.com/fastapi-1.0-py3-none-any.whl"
hash = "sha256:1212121212121212121212121212121212121212121212121212121212121212"
[package.optional-dependencies]
all = [{ name = "extra" }]
rest = [{ name = "other" }]
[[package]]
name = "extra"
source = { directory = "vendor/extra" }
[[package]]
name = "other"
source = { directory = "vendor/other" }
[[package]]
name = "core"
source = { editable = "packages/core" }
[[package]]
name = "docs"
source = { virtual = "docs" }
"""
