"""Stand-ins for what a backup runs: restic with a repository in files, and PostgreSQL's programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.host import configuration
from slipway.host.backup import copies, program, restic, run, settings
from slipway.host.backup import folder as shared
from slipway.host.store import Store

PASSWORD, KEY = "canary-of-the-password", "canary-of-the-key"

# It keeps its snapshots as a list in a file, notes how it was called, and fails as the file `fail` says: command, code, message.
RESTIC = r"""
import json, os, pathlib, sys
place, arguments = pathlib.Path(os.environ["RESTIC_REPOSITORY"]), sys.argv[1:]
calls = pathlib.Path(os.environ["STANDINS"])
with open(calls / "calls", "a") as file:
    file.write(json.dumps(arguments) + "\n")
assert os.environ["RESTIC_PASSWORD"] == "canary-of-the-password"
command = arguments[0]
fail = json.loads((calls / "fail").read_text()) if (calls / "fail").exists() else {}
def end(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)
if command in fail:
    end(*fail[command])
if "beaten" in fail and command == "init":  # by another host
    place.mkdir()
    (place / "config").write_text(json.dumps({"id": "theirs"}))
    (place / "snapshots").write_text("[]")
    end(1, "Fatal: create repository failed: config file already exists")
if command == "init":
    place.mkdir(parents=True)
    (place / "config").write_text(json.dumps({"id": place.name * 4}))
    (place / "snapshots").write_text("[]")
    sys.exit()
if not (place / "config").exists():
    end(10, '{"message_type": "exit_error", "code": 10, "message": "Fatal: repository does not exist"}')
if (calls / "locked").exists() and command not in ("cat", "init", "unlock") and "--no-lock" not in arguments:
    left = json.loads((calls / "locked").read_text())
    if left[0]:
        (calls / "locked").write_text(json.dumps([left[0] - 1, *left[1:]]))
        end(*left[1:])
found = json.loads((place / "snapshots").read_text())
options = dict(each.lstrip("-").partition("=")[::2] for each in arguments if each.startswith("--"))
wanted = set(options.get("tag", "").split(",")) - {""}
mine = [one for one in found if one["host"] == options.get("host", one["host"]) and wanted <= set(one["tags"])]
plain = [each for each in arguments[1:] if not each.startswith("--")]
if command == "cat":
    print((place / "config").read_text())
elif command == "backup":
    data = sys.stdin.buffer.read().decode("latin-1") if "stdin" in options else ""
    name = plain.pop(0) if "stdin" in options else ""
    number = "%08x" % (int(found[-1]["id"], 16) + 1 if found else 1)
    found.append({"id": number, "host": options["host"], "time": options["time"], "tags": sorted(wanted), "name": name,
                  "data": data, "paths": plain})
    (place / "snapshots").write_text(json.dumps(found))
    print(json.dumps({"message_type": "status"}))
    print(json.dumps({"message_type": "summary", "snapshot_id": number, "total_bytes_processed": len(data), "data_added": 7}))
    for what in ("incomplete", "files"):
        if what in fail and ("stdin" not in options or what == "incomplete"):
            end(*fail[what])
elif command == "snapshots":
    print(json.dumps(mine))
elif command == "dump":
    (one,) = [one for one in found if one["id"] == plain[0] and "/" + one["name"] == plain[1]]
    sys.stdout.write(one["data"])
elif command == "forget":
    gone = set(plain) or set(fail.get("old", []))
    (place / "snapshots").write_text(json.dumps([one for one in found if one["id"] not in gone]))
elif command == "restore":
    target = pathlib.Path(options["target"] + options["include"])
    if target.suffix == ".jsonl":
        target.parent.mkdir(parents=True)
        target.write_text('{"release": 7}\n')
        sys.exit()
    target.mkdir(parents=True)
    (target / "restored").write_text("x")
"""
SETPRIV = "import os, sys\nos.execvp(sys.argv[5], sys.argv[5:])"
# Its answers are in files: rows of tables, and the revision of the schema. It notes what it was asked, and when the dump was.
PSQL = r"""
import os, pathlib, sys
answers = pathlib.Path(os.environ["STANDINS"])
for line in sys.stdin:
    with open(answers / "statements", "a") as file:
        file.write(line)
    if line.startswith("\\echo "):
        print(line[6:], end="", flush=True)
    elif "pg_export_snapshot" in line:
        print("0001-1", flush=True)
    elif "SELECT json_build_array(%L" in line:
        print((answers / "rows").read_text(), end="", flush=True)
    elif "SELECT version_num" in line:
        print((answers / "schema").read_text(), end="", flush=True)
"""
PG_DUMP = r"""
import json, os, pathlib, sys
answers = pathlib.Path(os.environ["STANDINS"])
assert "--snapshot=0001-1" in sys.argv
with open(answers / "calls", "a") as file:
    file.write(json.dumps(["pg_dump", *sys.argv[1:]]) + "\n")
with open(answers / "statements", "a") as file:
    file.write(f"pg_dump with {os.environ['PGOPTIONS']}\n")
sys.stdout.write("the dump" * 20000)
sys.stdout.flush()
if (answers / "broken").exists():
    print((answers / "broken").read_text() or "the disk is on fire", file=sys.stderr)
    sys.exit(1)
"""


def without_pauses(patch: pytest.MonkeyPatch, pause: Callable[[float], object]) -> None:
    """Have something else done where it is waited for others."""
    patch.setattr(program, "time", SimpleNamespace(**{**vars(time), "sleep": pause}))


class Place:
    """An app on a host of stand-ins, which is backed up.

    Args:
        folder: where everything is.
        patch: what leads the program there.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.layout = Store(folder / "opt", folder / "run", folder / "log")
        programs = folder / "bin"
        for path in (programs, folder / "etc", self.layout.home / "shared" / "uploads", self.layout.runtime):
            path.mkdir(parents=True)
        for name, text in {"restic": RESTIC, "setpriv": SETPRIV, "psql": PSQL, "pg_dump": PG_DUMP}.items():
            (programs / name).write_text(f"#!{sys.executable} -IS\n{text.strip()}\n", encoding="utf-8")
            (programs / name).chmod(0o755)
        self.answer("rows", '["public.orders", 3]\n["public.users", 1]\n')
        self.answer("schema", "abc1\n")
        (self.layout.home / "shared" / "uploads" / "photo").write_text("bytes", encoding="ascii")
        self.layout.live_socket.symlink_to(self.layout.runtime / "7.sock")
        patch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        patch.setenv("STANDINS", str(folder))
        patch.setattr(settings, "DIRECTORY", folder / "etc")
        for module in (settings, run, restic, shared, copies):
            patch.setattr(module, "STATES", folder / "states")
        self.configured: dict[str, Any] = {"migrate": {"command": "alembic upgrade head"}, "engine": ""}
        self.paths = {"home": str(self.layout.home), "runtime": str(self.layout.runtime), "logs": str(self.layout.logs)}
        self.configured["layout"] = self.paths
        patch.setattr(configuration, "load", lambda name: dict(self.configured))
        self.configure()

    def configure(self, **more: Any) -> None:
        """Write the settings of the backups as the role does."""
        known = {
            **{"name": "shop", "host": "api.example.com", "repository": str(self.folder / "repository"), "password": PASSWORD},
            **{"environment": {"AWS_SECRET_ACCESS_KEY": KEY}, "keep": {"daily": 7, "weekly": 0, "monthly": 6}},
            **{"max_age_hours": 30, "database": "shop", "user": "root", "database_directory": "/run/postgresql"},
        }
        (self.folder / "etc" / "shop.json").write_text(json.dumps({**known, **more}), encoding="utf-8")

    def answer(self, name: str, text: str) -> None:
        """Have a stand-in answer something from now on."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def fail(self, **failures: Any) -> None:
        """Have restic fail from now on: for each command a code and a message; none to have it work."""
        self.answer("fail", json.dumps(failures))

    def calls(self) -> list[list[str]]:
        """Return how the programs were called."""
        return [json.loads(line) for line in (self.folder / "calls").read_text(encoding="utf-8").splitlines()]

    def statements(self) -> list[str]:
        """Return the lines that PostgreSQL was asked, with its dump where that was made."""
        return (self.folder / "statements").read_text(encoding="utf-8").splitlines()

    def snapshots(self, name: str = "repository") -> list[dict[str, Any]]:
        """Return the snapshots of a repository, each with its tags by name."""
        found = json.loads((self.folder / name / "snapshots").read_text(encoding="utf-8"))
        return [{**one, "labels": dict(tag.partition("=")[::2] for tag in one["tags"])} for one in found]
