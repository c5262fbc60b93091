"""The doctor's findings that no test host can have: names, clocks, memory, and certificates of all ages."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from certificates import LIFETIMES, certify, renewed_at_the_latest
from rendering import ROOT, load

from slipway.host import python_ends, pythons
from slipway.host.certificate import OVERDUE, read
from slipway.host.doctor import certificate, examine, host, interpreter, release, services
from slipway.host.doctor.subject import Subject


def subject(directory: Path, **changes: Any) -> Subject:
    """Return an app that was never released."""
    arguments: dict[str, Any] = {
        "layout": {"home": str(directory / "shop"), "runtime": str(directory / "run"), "logs": str(directory / "log")},
        "name": "shop",
        "user": "shop",
        "group": "www-data",
        "program_directory": str(directory / "conf.d"),
        "program_suffix": ".conf",
        "services": {},
        "health": {"path": "/healthz", "status": 200, "host": "shop.example.com"},
        "endpoint": {"host": "shop.example.com", "port": 1, "tls": True},
        "certificate": str(directory / "fullchain.pem"),
        "authority": True,
        "domains": ["shop.example.com"],
        "resolved": {},
        "addresses": ["192.0.2.1"],
        "now": time.time(),
        "drift": [],
    }
    return Subject({**arguments, **changes})


def whats(findings: Any) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in findings]


@pytest.mark.parametrize(
    ("resolved", "found"),
    [
        ({"a.example.com": ["192.0.2.1"]}, []),
        ({"a.example.com": ["192.0.2.1", "2001:db8::1"]}, [("warning", "a.example.com points elsewhere")]),
        ({"a.example.com": []}, [("error", "a.example.com has no address")]),
        ({"a.example.com": ["192.0.2.9"]}, [("warning", "a.example.com points elsewhere")]),
    ],
)
def test_names_lead_here(tmp_path: Path, resolved: dict[str, list[str]], found: list[tuple[str, str]]) -> None:
    assert whats(services.names(subject(tmp_path, resolved=resolved))) == found


@pytest.mark.parametrize(("off", "found"), [(0, []), (59, []), (-3600, [("error", "The clock is wrong")])])
def test_the_clock(tmp_path: Path, off: float, found: list[tuple[str, str]]) -> None:
    assert whats(host.clock(subject(tmp_path, now=time.time() + off))) == found


def test_what_cannot_be_looked_at_is_said_and_hides_nothing(tmp_path: Path) -> None:
    found = dict.fromkeys(
        what for _, what in ((each["severity"], each["what"]) for each in examine(subject(tmp_path, drift=["/etc/x"])))
    )
    assert {"Nothing is live", "There is no certificate", "Nothing listens on port 1"} <= set(found)
    assert {"programs could not be checked", "Files differ from what the roles would write"} <= set(found)


def test_who_was_killed_for_want_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "2026-11-24T10:00:00+00:00 host kernel: Out of memory: Killed process 4711 (python)"
    monkeypatch.setattr(host, "output", lambda *words: (0, line if "--dmesg" in words else ""))
    (found,) = (each for each in host.memory(subject(tmp_path)) if "killed" in each.what)
    assert found.evidence == line


def test_updates_that_wait_for_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, found in ((0, []), (1, [("warning", "A reboot is pending")]), (127, [])):
        monkeypatch.setattr(host, "output", lambda *words, code=code: (code, ""))
        assert whats(host.reboot(subject(tmp_path))) == found


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
    monkeypatch.setattr(host, "output", lambda *words: answers[words[0]])
    wanted = [("error", "SELinux denies access to Nginx or the app")] if found else []
    findings = list(host.guards(subject(tmp_path)))
    assert whats(findings) == wanted
    assert [each.evidence for each in findings] == [found] * len(wanted)


@pytest.mark.parametrize("file", ["launch.py", "runtime.json", "settings.json"])
@pytest.mark.parametrize(("changed", "stale"), [(-60, False), (60, True)])
def test_what_runs_with_older_files_than_it_has(tmp_path: Path, changed: float, stale: bool, file: str) -> None:
    directory, started = tmp_path / "shop" / "releases" / "7", 1_800_000_000
    directory.mkdir(parents=True)
    (tmp_path / "shop" / "live.sock").symlink_to(tmp_path / "run" / "7.sock")
    for name in ("launch.py", "runtime.json", "settings.json"):
        (directory / name).touch()
        os.utime(directory / name, (started, started + (changed if name == file else 0)))
    processes = [{"statename": "RUNNING", "start": started}, {"statename": "STOPPED", "start": 0}]
    findings = list(release.stale(subject(tmp_path), {7: processes}))
    assert whats(findings) == [("warning", "Release 7 runs with older files than it has")] * stale
    assert [str(directory / file) in finding.evidence for finding in findings] == [True] * stale


def test_a_certificate_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(tmp_path / "k.pem")]
    names = "subjectAltName=DNS:a.example.com,DNS:www.a.example.com"
    command = ["openssl", "req", "-x509", *options, "-out", str(file), "-days", "30", "-subj", "/CN=a", "-addext", names]
    subprocess.run(command, check=True, capture_output=True)
    facts = read(file.read_text(encoding="ascii"))
    assert facts.names == ["a.example.com", "www.a.example.com"]
    # OpenSSL 1 and 2 write it with spaces.
    assert [name.replace(" ", "") for name in (facts.issuer, facts.subject)] == ["CN=a", "CN=a"]
    assert len(facts.fingerprint) == 95
    assert abs(facts.begin - time.time()) < 60
    assert facts.end - facts.begin == 30 * 86400


def issued(directory: Path, days: float, lifetime: float, issuer: str = "Authority") -> str:
    certify(directory / "fullchain.pem", directory / "privkey.pem", ["shop.example.com"], issuer, days, lifetime)
    return (directory / "fullchain.pem").read_text(encoding="ascii")


@pytest.mark.parametrize("lifetime", LIFETIMES)
@pytest.mark.parametrize(
    ("share", "severity"), [(1, None), (None, None), (0.24, "warning"), (0.11, "warning"), (0.09, "error"), (-0.01, "error")]
)
def test_a_certificate_is_short_by_its_own_lifetime(
    tmp_path: Path, lifetime: float, share: float | None, severity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = renewed_at_the_latest(lifetime) if share is None else share * lifetime
    text = issued(tmp_path, days, lifetime)
    monkeypatch.setattr(certificate, "served", lambda door: read(text))
    assert [finding.severity for finding in certificate.certificate(subject(tmp_path))] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("days", "what"),
    [
        (10.5, "The certificate expires in 10 days"),
        (1.5, "The certificate expires in 35 hours"),
        (0.06, "The certificate expires in 1 hour"),
        (0, "The certificate has expired"),
    ],
)
def test_what_is_left_of_a_certificate_is_told_in_days_or_hours(tmp_path: Path, days: float, what: str) -> None:
    assert [found[1] for found in read(issued(tmp_path, days, 90)).overdue()] == [what]


@pytest.mark.parametrize(
    ("authority", "issuer", "remedy"),
    [
        (True, "Authority", "ansible-playbook site.yml --tags certbot"),
        (False, "Slipway placeholder", "ansible-playbook site.yml --tags nginx"),
        (False, "Authority", "Replace the files of certbot_own_certificate"),
    ],
)
def test_the_remedy_of_a_short_certificate_is_of_its_kind(
    tmp_path: Path, authority: bool, issuer: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = issued(tmp_path, 5, 90, issuer)
    monkeypatch.setattr(certificate, "served", lambda door: read(text))
    (finding,) = certificate.certificate(subject(tmp_path, authority=authority))
    assert finding.remedy.startswith(remedy)


def test_the_alert_and_the_doctor_draw_one_limit() -> None:
    assert load(ROOT / "roles/prometheus/defaults/main.yml")["prometheus_alert_certificate_percent"] == 100 * OVERDUE


@pytest.mark.parametrize(
    ("hook", "command"), [("after_switch", "playbooks/deploy.yml"), ("after_rollback", "playbooks/rollback.yml -e release=3")]
)
def test_a_hook_that_failed_is_found(tmp_path: Path, hook: str, command: str) -> None:
    looked = subject(tmp_path)
    directory = looked.layout.release(3)
    (directory / "build").mkdir(parents=True)
    (directory / "build" / ".build.json").touch()
    (directory / "release.json").write_text(json.dumps({"owed": {"hook": hook, "from": 2}}), encoding="utf-8")
    looked.live = 3
    (found,) = release.releases(looked)
    assert found.what == f"The hook {hook} of release 3 failed or was interrupted"
    assert found.remedy.endswith(f"ansible-playbook {command}")


def on_python(directory: Path, facts: str = "", image: str = "", program: str = "/bin/sh") -> Path:
    """Make an app whose live release runs on a Python; return the home of the app."""
    home = directory / "shop"
    (home / "releases" / "3" / "build" / ".venv" / "bin").mkdir(parents=True)
    (home / "live.sock").symlink_to("/run/shop/3.sock")
    build = home / "releases" / "3" / "build"
    (build / ".build.json").write_text(json.dumps({"python_version": image}), encoding="utf-8")
    if facts:
        (build / ".venv" / "pyvenv.cfg").write_text(facts, encoding="utf-8")
        (build / ".venv" / "bin" / "python").symlink_to(program)
    return home


@pytest.mark.parametrize(
    ("facts", "image", "program", "found"),
    [
        (
            "home = /opt/slipway/python/x/bin\nversion_info = 3.9.2\n",
            "",
            "/bin/sh",
            ("warning", "Python 3.9 is past its end of life"),
        ),
        ("home = /opt/slipway/python/x/bin\nversion_info = 3.14.2\n", "", "/bin/sh", None),
        ("home = /usr/bin\nversion = 3.9.2\n", "", "/bin/sh", None),  # its distribution sees to that
        ("", "3.9.2", "", ("warning", "Python 3.9 is past its end of life")),
        ("", "3.14.1", "", None),
        ("", "", "", None),
        ("home = /usr/bin\nversion = 3.14.2\n", "", "/no/such/python", ("error", "The Python of release 3 is missing")),
    ],
)
def test_the_python_of_the_live_release(
    tmp_path: Path, facts: str, image: str, program: str, found: tuple[str, str] | None
) -> None:
    on_python(tmp_path, facts, image, program)
    assert whats(interpreter.interpreter(subject(tmp_path, now=1800000000.0))) == ([found] if found else [])


def test_an_old_python_is_named_with_its_apps_and_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pythons, "PLACE", tmp_path / "python")
    on_python(tmp_path, "home = x\nversion_info = 3.9.2\n", "", str(tmp_path / "python" / "cpython-3.9.2" / "bin" / "python"))
    (tmp_path / "python" / "cpython-3.9.2" / "bin" / "python").parent.mkdir(parents=True)
    (tmp_path / "python" / "cpython-3.9.2" / "bin" / "python").touch()
    for name in ("shop", "kiosk"):
        with pythons.in_use(tmp_path / name):
            (tmp_path / name / "venvs" / "v1" / "bin").mkdir(parents=True)
            (tmp_path / name / "venvs/v1/bin/python").symlink_to(tmp_path / "python" / "cpython-3.9.2" / "bin" / "python")
    (finding,) = interpreter.interpreter(subject(tmp_path, now=1800000000.0))
    assert "shop runs on Python 3.9.2, which has had no security fixes since 2025-10 (https://" in finding.evidence
    assert f"So do builds in {tmp_path / 'kiosk'}." in finding.evidence
    assert finding.remedy.startswith("Set app_python to a supported version, such as 3.")
    # Not before it ends, and never of one that nobody knows.
    assert list(interpreter.interpreter(subject(tmp_path, now=1700000000.0))) == []
    assert [python_ends.ended(version, 1800000000.0) for version in ("3.9.2t", "3.98.1", "")] == ["2025-10", "", ""]


def test_the_newest_series_has_an_end() -> None:
    series = list(python_ends.ENDS)
    assert series == sorted(series, key=lambda each: int(each.split(".")[1]))
