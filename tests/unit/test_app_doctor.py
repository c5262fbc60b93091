"""The doctor's findings that no test host can have: names, clocks, memory, and certificates of all ages."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import app_doctor
import pytest
from app_doctor import Doctor, facts_of


def doctor(directory: Path, **changes: Any) -> Doctor:
    """Return a doctor for an app that was never released."""
    arguments: dict[str, Any] = {
        "layout": {"home": str(directory / "shop"), "runtime": str(directory / "run"), "logs": str(directory / "log")},
        "name": "shop",
        "user": "shop",
        "group": "www-data",
        "program_directory": str(directory / "conf.d"),
        "program_suffix": ".conf",
        "services": {},
        "health": {"path": "/healthz", "status": 200, "host": "shop.example.com"},
        "door": {"host": "shop.example.com", "port": 1, "tls": True},
        "certificate": str(directory / "fullchain.pem"),
        "authority": True,
        "domains": ["shop.example.com"],
        "resolved": {},
        "addresses": ["192.0.2.1"],
        "now": time.time(),
        "drift": [],
    }
    return Doctor({**arguments, **changes})


def whats(findings: Any) -> list[tuple[str, str]]:
    return [(finding["severity"], finding["what"]) for finding in findings]


@pytest.mark.parametrize(
    ("resolved", "found"),
    [
        ({"a.example.com": ["192.0.2.1"]}, []),
        ({"a.example.com": ["192.0.2.1", "2001:db8::1"]}, [("warning", "a.example.com leads elsewhere")]),
        ({"a.example.com": []}, [("error", "a.example.com has no address")]),
        ({"a.example.com": ["192.0.2.9"]}, [("warning", "a.example.com leads elsewhere")]),
    ],
)
def test_names_lead_here(tmp_path: Path, resolved: dict[str, list[str]], found: list[tuple[str, str]]) -> None:
    assert whats(doctor(tmp_path, resolved=resolved).names()) == found


@pytest.mark.parametrize(("off", "found"), [(0, []), (59, []), (-3600, [("error", "The clock is wrong")])])
def test_the_clock(tmp_path: Path, off: float, found: list[tuple[str, str]]) -> None:
    assert whats(doctor(tmp_path, now=time.time() + off).clock()) == found


def test_what_cannot_be_looked_at_is_said_and_hides_nothing(tmp_path: Path) -> None:
    found = dict.fromkeys(what for _, what in whats(doctor(tmp_path, drift=["/etc/x"]).findings()))
    assert {"Nothing is live", "There is no certificate", "Nobody listens on port 1"} <= set(found)
    assert {"programs could not be looked at", "Files are not what the roles would write"} <= set(found)


def test_who_was_killed_for_want_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "2026-11-24T10:00:00+00:00 host kernel: Out of memory: Killed process 4711 (python)"
    monkeypatch.setattr(app_doctor, "say", lambda *words: (0, line if "--dmesg" in words else ""))
    (found,) = (each for each in doctor(tmp_path).memory() if "killed" in each["what"])
    assert found["evidence"] == line


def test_updates_that_wait_for_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, found in ((0, []), (1, [("warning", "Updates wait for a reboot")]), (127, [])):
        monkeypatch.setattr(app_doctor, "say", lambda *words, code=code: (code, ""))
        assert whats(doctor(tmp_path).reboot()) == found


DENIED = 'type=AVC msg=audit(1.2:3): avc:  denied  { connectto } for  pid=7 comm="nginx" path="/x.sock"'


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"getenforce": (0, "Enforcing"), "ausearch": (0, DENIED)}, DENIED),
        ({"getenforce": (0, "Enforcing"), "ausearch": (127, "not found"), "journalctl": (0, f"x\n{DENIED}\ny")}, DENIED),
        ({"getenforce": (0, "Enforcing"), "ausearch": (0, DENIED.replace("nginx", "cupsd"))}, ""),
        ({"getenforce": (0, "Enforcing"), "ausearch": (1, "<no matches>")}, ""),
        ({"getenforce": (0, "Permissive"), "ausearch": (0, DENIED)}, ""),
        ({"getenforce": (127, "not found")}, ""),
    ],
)
def test_what_selinux_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str]], found: str
) -> None:
    monkeypatch.setattr(app_doctor, "say", lambda *words: answers[words[0]])
    wanted = [("error", "SELinux refuses something to Nginx or the app")] if found else []
    findings = list(doctor(tmp_path).guards())
    assert whats(findings) == wanted
    assert [each["evidence"] for each in findings] == [found] * len(wanted)


@pytest.mark.parametrize(("changed", "stale"), [(-60, False), (60, True)])
def test_what_runs_with_older_files_than_it_has(tmp_path: Path, changed: float, stale: bool) -> None:
    release, started = tmp_path / "shop" / "releases" / "7", 1_800_000_000
    release.mkdir(parents=True)
    (tmp_path / "shop" / "live.sock").symlink_to(tmp_path / "run" / "7.sock")
    for name in ("launch.py", "settings.json"):
        (release / name).touch()
        os.utime(release / name, (started, started + (changed if name == "settings.json" else 0)))
    processes = [{"statename": "RUNNING", "start": started}, {"statename": "STOPPED", "start": 0}]
    findings = list(doctor(tmp_path).stale({7: processes}))
    assert whats(findings) == ([("warning", "Release 7 runs with older files than it has")] if stale else [])
    assert not stale or str(release / "settings.json") in findings[0]["evidence"]


def test_a_certificate_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(tmp_path / "k.pem")]
    names = "subjectAltName=DNS:a.example.com,DNS:www.a.example.com"
    command = ["openssl", "req", "-x509", *options, "-out", str(file), "-days", "30", "-subj", "/CN=a", "-addext", names]
    subprocess.run(command, check=True, capture_output=True)
    facts = facts_of(file.read_text(encoding="ascii"))
    assert facts["names"] == ["a.example.com", "www.a.example.com"]
    assert facts["issuer"] == facts["subject"] == "CN = a" or facts["subject"] == "CN=a"
    assert len(facts["fingerprint"]) == 95
    assert facts["end"] > time.time()
