"""Jobs: scheduled with a release, run with the live one, and what is known of them afterwards."""

# Fixtures are imported, and taken as arguments.
# ruff: noqa: F811

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rendering
from prometheus_client import CollectorRegistry
from systemd import Systemd
from test_app_doctor import subject
from test_app_release import ANN, Host, clock, host  # noqa: F401
from test_metrics import never_released, samples
from test_operator import Answer, launched, slipway  # noqa: F401

from slipway.controller.jobs import normalized
from slipway.host import configuration, read_logs
from slipway.host.doctor import jobs as doctor
from slipway.host.errors import ReleaseError
from slipway.host.exporter import State
from slipway.host.jobs import by_hand, command, definition, report, runner, units
from slipway.host.jobs.definition import Run, in_use, last_run, log_of, remember, using
from slipway.host.process import children
from slipway.host.release.context import Context
from slipway.host.release.jobs import warn_of_missing_commands

SERVICE, TIMER = "slipway-job-shop-cleanup.service", "slipway-job-shop-cleanup.timer"
BOTH = [SERVICE, TIMER]

# Before the fixture `launched` puts another one in its place, with which no release is made.
LAUNCH = Context.launch


def jobs(shell: str = "true", **changes: Any) -> dict[str, Any]:
    """Return the jobs of an app, one."""
    return normalized({"cleanup": {"schedule": "0 3 * * *", "command": shell, **changes}})


@pytest.fixture(autouse=True)
def ending() -> Iterator[None]:
    """Have this process end at SIGTERM again, which a job that it ran changed."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def systemd(short: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A systemd, whose tools come first."""
    found = Systemd(short)
    monkeypatch.setattr(units, "DIRECTORY", found.units)
    monkeypatch.setattr(units, "STAMPS", found.stamps)
    return found


@pytest.fixture
def deploy(host: Host, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | None]:
    """Release an app on a host as its playbook does: with its configuration in its file."""
    monkeypatch.setattr(configuration, "DIRECTORY", host.layout.home / "etc")

    def run(mode: str = "200", **changes: Any) -> int | None:
        known = {name: value for name, value in host.arguments(mode, **changes).items() if name in configuration.PARAMETERS}
        configuration.save(configuration.configured(known), check=False)
        with monkeypatch.context() as patch:
            patch.setattr(Context, "launch", LAUNCH)
            return host.run(mode, **changes)

    return run


def records(host: Host, name: str = "cleanup") -> list[dict[str, Any]]:
    """Return what a job logged."""
    return [json.loads(line) for line in log_of(host.layout, name).read_text(encoding="utf-8").splitlines()]


def test_a_release_schedules_its_jobs_and_a_second_run_changes_nothing(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    assert deploy(jobs=jobs(timeout_seconds=90)) == 1
    assert systemd.names() == BOTH
    assert systemd.asked() == ["daemon-reload", f"enable --now {TIMER}"]
    service, timer = systemd.text(SERVICE), systemd.text(TIMER)
    assert "\nExecStart=/usr/local/bin/slipway job shop cleanup\n" in service and "\nTimeoutStartSec=90\n" in service
    assert "\nOnCalendar=*-*-* 03:00:00\n" in timer and "\nPersistent=true\n" in timer
    assert "true" not in service.replace("Persistent=true", "")  # what is run is read from the live release
    assert (host.layout.release(1) / "jobs.json").stat().st_mode & 0o777 == 0o640
    assert deploy(jobs=jobs(timeout_seconds=90)) is None
    assert systemd.asked() == []


def test_a_job_that_was_missed_starts_after_what_it_may_need() -> None:
    (job,) = (definition.Job(name=name, **job) for name, job in jobs().items())
    unit = units.texts("shop", job, 0)[SERVICE].partition("\n[Service]\n")[0].splitlines()
    assert "Wants=network-online.target" in unit
    after = {name for line in unit if line.startswith("After=") for name in line.partition("=")[2].split()}
    databases = {"postgresql.service", "redis-server.service", "redis.service", "valkey.service"}
    others = {"docker.service", "podman.service", "supervisor.service", "supervisord.service"}
    assert {"network-online.target", *databases, *others} <= after


def test_an_app_without_jobs_asks_systemd_nothing(host: Host, deploy: Callable[..., int | None], systemd: Systemd) -> None:
    assert deploy() == 1
    assert not (systemd.place / "asked").exists()
    assert not (host.layout.release(1) / "jobs.json").exists()


def test_another_schedule_is_a_release_and_counts_from_now_on(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    deploy(jobs=jobs())
    stamp = systemd.stamps / f"stamp-{TIMER}"
    os.utime(stamp, (1, 1))  # it last elapsed long ago
    systemd.asked()
    assert deploy(jobs=jobs(schedule="0 5 13 * fri")) == 2
    assert systemd.asked() == [f"stop {TIMER}", "daemon-reload", f"enable --now {TIMER}"]
    assert "\nOnCalendar=*-*-13 05:00:00\nOnCalendar=Fri *-*-* 05:00:00\n" in systemd.text(TIMER)
    assert time.time() - stamp.stat().st_mtime < 60


def test_another_command_leaves_the_timer_alone(deploy: Callable[..., int | None], systemd: Systemd) -> None:
    deploy(jobs=jobs())
    systemd.asked()
    assert deploy(jobs=jobs("false")) == 2
    assert systemd.asked() == []


def test_a_job_goes_with_its_setting_and_comes_back_with_a_rollback(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd, run_step: Callable[..., dict[str, Any]]
) -> None:
    deploy(jobs=jobs())
    systemd.asked()
    assert deploy(jobs={}) == 2
    assert systemd.names() == []
    assert systemd.asked() == [f"disable --now {TIMER}", "daemon-reload", f"reset-failed {SERVICE} {TIMER}"]
    assert not (systemd.stamps / f"stamp-{TIMER}").exists()  # else it would make up for the time in between
    assert run_step("release", app="shop", step="rollback", run=ANN)["release"] == 1
    assert systemd.names() == BOTH


def test_a_release_that_fails_leaves_the_jobs_as_they_were(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    deploy(jobs=jobs())
    before = systemd.text(TIMER)
    with pytest.raises(ReleaseError):
        deploy("crash", jobs=jobs(schedule="hourly"))
    host.is_served_by(1)
    assert systemd.text(TIMER) == before


def test_what_an_interrupted_run_left_is_made_up_for(deploy: Callable[..., int | None], systemd: Systemd) -> None:
    deploy(jobs=jobs())
    for name in BOTH:
        (systemd.units / name).unlink()
    systemd.asked()
    assert deploy(jobs=jobs()) is None
    assert (systemd.names(), systemd.asked()) == (BOTH, ["daemon-reload", f"enable --now {TIMER}"])
    systemd.set_state(TIMER, "inactive")
    assert deploy(jobs=jobs()) is None
    assert systemd.asked() == ["daemon-reload", f"enable --now {TIMER}"]


def test_a_timer_that_cannot_be_started_fails_the_run_and_the_next_one_tries_again(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    (systemd.place / "refused").touch()
    with pytest.raises(ReleaseError, match="Release 1 is live, but its jobs could not be scheduled"):
        deploy(jobs=jobs())
    host.is_served_by(1)
    (systemd.place / "refused").unlink()
    assert deploy(jobs=jobs()) is None
    assert systemd.asked()[-1] == f"enable --now {TIMER}"


def test_a_job_that_runs_keeps_its_service_until_it_has_ended(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    deploy(jobs=jobs())
    systemd.set_state(SERVICE, "activating")
    deploy(jobs={})
    assert systemd.names() == [SERVICE]
    systemd.set_state(SERVICE, "inactive")
    assert not units.apply(host.layout, "shop", 2, True)  # no change that an operator made
    assert systemd.names() == []


def be_no_longer_first(host: Host) -> None:
    """Have the host be another than the first one of the app."""
    file = host.layout.release(host.layout.live() or 0) / "release.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "first": False}), encoding="utf-8")


def test_only_the_first_host_has_what_one_host_may_run(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd, run_step: Callable[..., dict[str, Any]]
) -> None:
    both = normalized({name: {"schedule": "daily", "command": "true", "hosts": name} for name in ("first", "all")})
    deploy(jobs=both, first_host="no")
    everywhere = ["slipway-job-shop-all.service", "slipway-job-shop-all.timer"]
    assert systemd.names() == everywhere
    # A host before it has gone. No release is needed, so that `plan` is the only step.
    told = {"app": "shop", "run": ANN, "configuration": configuration.load("shop") | {"first": True}}
    found = run_step("release", step="plan", **told)
    assert (found["reason"], found["changed"], found["first"], found["runs_once"]) == (None, False, True, False)
    assert systemd.names() == everywhere
    given = {**told, "step": "take_over", "first_host": "no"}  # as the plan has it until then
    assert run_step("release", check=True, **given)["changed"]
    assert systemd.names() == everywhere
    assert run_step("release", **given)["changed"]
    assert len(systemd.names()) == 4
    assert not run_step("release", **given)["changed"]
    assert not run_step("release", check=True, **given)["changed"]
    # On a host alone, it is no step by itself.
    assert run_step("release", check=True, step="activate", first_host="leave", **told)["changed"]
    assert run_step("release", step="activate", first_host="leave", **told)["changed"]
    assert systemd.names() == everywhere
    assert run_step("release", step="activate", first_host="yes", **told)["changed"]
    assert len(systemd.names()) == 4
    assert not run_step("release", step="activate", first_host="yes", **told)["changed"]


def test_jobs_that_cannot_be_scheduled_on_the_next_host_are_left_on_none(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd, run_step: Callable[..., dict[str, Any]]
) -> None:
    deploy(jobs=normalized({"cleanup": {"schedule": "daily", "command": "true"}}), first_host="no")
    assert systemd.names() == []
    (systemd.place / "refused").write_text("enable", encoding="ascii")
    result = run_step("release", app="shop", step="take_over", run=ANN)
    assert "jobs could not be scheduled" in result["msg"]
    assert systemd.names() == []
    assert host.layout.was_first() is False


@pytest.mark.parametrize(
    ("inventory", "expected"),
    [({"a": "shop", "b": "shop"}, "a"), ({"a": "kiosk", "b": "shop"}, "b"), ({"a": "kiosk", "b": None}, "b")],
)
def test_the_first_host_is_that_of_the_inventory_whichever_hosts_a_run_is_for(
    inventory: dict[str, str | None], expected: str
) -> None:
    found = rendering.Host({"app_name": "shop"}, name="b")
    found.variables["groups"] = {"web": ["a", "b"]}
    found.variables["hostvars"] = {
        name: {"inventory_hostname": name, **({"app_name": app} if app else {})} for name, app in inventory.items()
    }
    found.variables["__app_names_by_host"] = {"b": "shop"}
    assert found["__app_first_host"] == expected


@pytest.mark.parametrize(
    ("first", "runs_once", "skipped", "expected"),
    [
        (
            "b",
            None,
            ["a"],
            "cleanup may run twice until then: b is the first host of shop now, and another one may have been before.",
        ),
        (
            "b",
            False,
            ["a"],
            "cleanup may run twice until then: b is the first host of shop now, and another one may have been before.",
        ),
        ("b", True, ["a"], ""),
        ("b", False, [], ""),
        ("a", True, ["a"], "cleanup no longer runs here: a is the first host of shop now, and runs it from its own next run on."),
        ("a", False, ["a"], ""),
        ("a", None, ["a"], ""),
    ],
)
def test_a_run_that_leaves_hosts_out_says_what_becomes_of_what_runs_once(
    first: str, runs_once: bool | None, skipped: list[str], expected: str
) -> None:
    jobs = {"cleanup": {"schedule": "daily", "command": "true"}, "all": {"schedule": "daily", "command": "true", "hosts": "all"}}
    found = rendering.Host({"app_name": "shop", "app_jobs": jobs}, name="b")
    found.variables.update(
        {
            "__app_first_host": first,
            "__app_skipped_hosts": skipped,
            "__app_fleet": ["b"],
            "__app_release": {"runs_once": runs_once},
        }
    )
    assert found["__app_once_note"] == expected


def test_what_systemd_rejects_ends_the_release_before_it_is_live(
    host: Host, deploy: Callable[..., int | None], systemd: Systemd
) -> None:
    deploy()
    for schedule in ("2020-01-01 03:00", "*-02-30 03:00"):
        with pytest.raises(ReleaseError, match="the job cleanup of app_jobs has a schedule that systemd rejects"):
            deploy(jobs=jobs(schedule=schedule))
    host.is_served_by(1)
    (systemd.units / TIMER).write_text(f"[Unit]\n{units.OWNER}shop-cleanup\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"which is another app's\. Rename the job\."):
        deploy(jobs=jobs())
    host.is_served_by(1)
    assert systemd.asked() == []


def test_the_memory_limit_is_the_releases(host: Host, systemd: Systemd, deploy: Callable[..., int | None]) -> None:
    runtime = host.arguments()["runtime"]
    deploy(jobs=jobs(), runtime={**runtime, "memory_mb": 256})
    assert "\nMemoryMax=256M\nMemorySwapMax=0\n" in systemd.text(SERVICE)


def test_a_release_that_a_job_uses_is_not_pruned(host: Host, deploy: Callable[..., int | None]) -> None:
    deploy(keep=1, jobs=jobs())
    with using(host.layout, 1):
        assert in_use(host.layout, 1)
        for number in (2, 3, 4):
            host.build(f"b{number}", venv=f"v{number}")
            deploy(keep=1, jobs=jobs(), build=f"b{number}")
        assert host.layout.numbers() == [1, 3, 4]
        assert {path.name for path in host.layout.builds.iterdir()} == {"b1", "b3", "b4"}
        assert {path.name for path in host.layout.venvs.iterdir()} == {"v1", "v3", "v4"}
    assert not in_use(host.layout, 1)
    log_of(host.layout, "cleanup").touch()
    (host.layout.logs / "job-cleanup.log.1").touch()
    host.build("b5")
    deploy(keep=1, build="b5")
    assert host.layout.numbers() == [4, 5]
    assert log_of(host.layout, "cleanup").exists()  # release 4, which can be rolled back to, has that job
    host.build("b6")
    deploy(keep=1, build="b6")
    assert list(host.layout.logs.glob("job-*")) == []


def test_a_command_that_is_not_there_is_warned_of(
    host: Host, deploy: Callable[..., int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = host.context(jobs=jobs("celerybeat --once"))
    host.run(jobs=jobs("celerybeat --once"))
    warn_of_missing_commands(context, 1)
    assert context.warnings == ["The job cleanup would fail: celerybeat is not in release 1 (app_jobs: celerybeat --once)."]


@pytest.mark.parametrize(
    ("shell", "missing"),
    [
        ("python -m shop.cleanup", ""),
        ("python -m shop.clean", "shop.clean"),
        ("python -m other.clean", ""),
        ("MODE=fast exec tool --all", ""),
        ("nosuch", "nosuch"),
        ("./script.sh", "./script.sh"),
        ("./shop/run.sh", ""),
        ("/bin/sh -c 'nosuch'", ""),
        ("cd shop && nosuch", ""),
        ("$TOOL", ""),
        ("'unfinished", ""),
    ],
)
def test_what_a_command_needs_is_looked_for_in_its_release(shell: str, missing: str, tmp_path: Path) -> None:
    package = tmp_path / "build" / "backend" / "shop"
    package.mkdir(parents=True)
    (tmp_path / "build" / ".venv" / "bin").mkdir(parents=True)
    (package / "cleanup.py").touch()
    for file in (
        tmp_path / "build" / ".venv" / "bin" / "tool",
        tmp_path / "build" / ".venv" / "bin" / "python",
        package / "run.sh",
    ):
        file.touch(mode=0o755)
    assert command.missing_program(tmp_path, "backend", shell) == missing
    (tmp_path / "container.py").touch()
    assert command.missing_program(tmp_path, "backend", shell) == ""


@pytest.fixture
def released(
    slipway: Callable[..., Answer], launched: None, systemd: Systemd, host: Host, deploy: Callable[..., int | None]
) -> Callable[[str], int]:
    """Release an app with a job that has a command; return the number of the release."""

    def release(shell: str, **changes: Any) -> int:
        number = deploy(jobs=jobs(shell), settings='{"KEY": "open-sesame"}', **changes)
        assert number is not None
        return number

    return release


def ended(result: str) -> dict[str, str]:
    """Return what systemd says of a service that has ended."""
    return {"SERVICE_RESULT": result}


def test_a_job_runs_in_the_live_release_and_all_that_it_prints_is_logged(host: Host, released: Callable[[str], int]) -> None:
    script = """echo "$1 key open-sesame ?token=abc"; echo '{"message": "own", "level": "DEBUG"}' >&2; echo '{broken'; exit 3"""
    number = released(script)
    assert runner.run_job("shop", "cleanup") == 3
    run = last_run(host.layout, "cleanup")
    assert (run.release, run.code, run.end, run.result) == (number, 3, 0, "")
    assert runner.end_job("shop", "cleanup", ended("exit-code")) == 0
    run = last_run(host.layout, "cleanup")
    assert (run.result, run.code, run.success) == ("failed", 3, 0) and run.end >= run.start
    found = records(host)
    assert [record["message"] for record in found] == [
        "The job cleanup begins.",
        " key ******** ?token=********",
        "own",
        "{broken",
        f"The job cleanup ended after {run.end - run.start:.1f} s: failed, exit code 3.",
    ]
    assert {(record["job"], record["run"], record["release"]) for record in found} == {("cleanup", run.run, str(number))}
    assert [record["level"] for record in found] == ["INFO", "INFO", "DEBUG", "INFO", "ERROR"]
    assert (found[-1]["result"], found[-1]["code"]) == ("failed", 3)


def test_a_job_goes_by_its_release_whatever_a_later_one_that_failed_was_to_be(
    host: Host, deploy: Callable[..., int | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = host.layout.builds / "b1" / "clean.sh"
    script.write_text("#!/bin/sh\necho old-sesame in $(pwd -P)\n", encoding="utf-8")
    script.chmod(0o755)
    runtime = host.arguments()["runtime"]
    old: dict[str, Any] = {"directory": ".", "settings": '{"OLD": "old-sesame"}', "secret_names": ["OLD"]}
    deploy(jobs=jobs("./clean.sh"), runtime={**runtime, "secrets": ["OLD"]}, **old)
    new: dict[str, Any] = {"directory": "x", "settings": '{"NEW": "new-sesame"}', "secret_names": ["NEW"]}
    configuration.save({**configuration.load("shop"), **new}, check=False)

    def launch(context: Context, number: int) -> dict[str, Any]:
        return {**LAUNCH(context, number), "through": ["/bin/sh", "-c"], "user": None}

    monkeypatch.setattr(Context, "launch", launch)
    assert runner.run_job("shop", "cleanup") == 0
    runner.end_job("shop", "cleanup", ended("success"))
    messages = [record["message"] for record in records(host)]
    assert messages[1] == f"******** in {host.layout.builds.resolve()}/b1"
    assert list(doctor.jobs(subject(tmp_path, layout=configuration.load("shop")["layout"]))) == []


def test_a_job_knows_its_name_and_its_run(host: Host, released: Callable[[str], int]) -> None:
    released("echo $SLIPWAY_JOB $SLIPWAY_RUN")
    assert runner.run_job("shop", "cleanup") == 0
    assert records(host)[1]["message"] == f"cleanup {last_run(host.layout, 'cleanup').run}"


def test_what_a_command_leaves_behind_does_not_keep_a_job_from_its_end(
    host: Host, released: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "REST_SECONDS", 0.2)
    released("sleep 3 & echo done")
    begin = time.monotonic()
    assert runner.run_job("shop", "cleanup") == 0
    assert time.monotonic() - begin < 2.5
    assert "done" in [record["message"] for record in records(host)]


def test_a_job_logs_as_its_release_does(host: Host, released: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    runtime = host.arguments()["runtime"]
    released("echo hello", runtime={**runtime, "log_format": "text"})
    runner.run_job("shop", "cleanup")
    run = last_run(host.layout, "cleanup").run
    assert log_of(host.layout, "cleanup").read_text(encoding="utf-8").splitlines()[1].endswith(f" INFO job cleanup {run}: hello")
    log_of(host.layout, "cleanup").unlink()
    released("echo hello", runtime={**runtime, "log_target": "journald"})
    capsys.readouterr()
    runner.run_job("shop", "cleanup")
    assert json.loads(capsys.readouterr().out.splitlines()[1])["message"] == "hello"  # which systemd hands to the journal
    assert not log_of(host.layout, "cleanup").exists()


def test_a_job_that_the_live_release_has_no_more_is_left_out(
    host: Host, released: Callable[[str], int], deploy: Callable[..., int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    released("true")
    deploy(jobs={})
    assert runner.run_job("shop", "cleanup") == 0
    assert "Release 4 of shop has no job cleanup, so nothing was run." in capsys.readouterr().out
    assert runner.end_job("shop", "cleanup", ended("success")) == 0
    assert last_run(host.layout, "cleanup") == Run()


@pytest.mark.parametrize(
    ("service", "before", "code", "expected"),
    [
        ("success", "", 0, "ok"),
        ("exit-code", "", 1, "failed"),
        ("timeout", "stopped", None, "timeout"),
        ("exit-code", "stopped", -15, "stopped"),
        ("exit-code", "", -9, "killed"),
        ("signal", "", None, "killed"),
        ("oom-kill", "", None, "out of memory"),
        ("watchdog", "", None, "watchdog"),
    ],
)
def test_what_ended_a_job_is_remembered(
    service: str, before: str, code: int | None, expected: str, host: Host, released: Callable[[str], int]
) -> None:
    number = released("true")
    remember(host.layout, "cleanup", Run("r1", number, time.time() - 5, result=before, code=code, success=7.0))
    runner.end_job("shop", "cleanup", ended(service))
    run = last_run(host.layout, "cleanup")
    assert run.result == expected and 5 <= run.end - run.start < 60
    assert run.success == (run.end if expected == "ok" else 7.0)
    assert records(host)[-1]["result"] == expected
    runner.end_job("shop", "cleanup", ended("exit-code"))  # the next time it did not even begin
    assert last_run(host.layout, "cleanup").result == "not started"


def test_a_job_that_is_stopped_still_logs_its_last_words(host: Host, released: Callable[[str], int]) -> None:
    released("trap 'echo last words; exit 4' TERM; echo ready; for i in $(seq 200); do sleep 0.05; done")
    before = children()

    def stop() -> None:
        log = log_of(host.layout, "cleanup")
        while not log.exists() or '"message": "ready"' not in log.read_text(encoding="utf-8"):
            time.sleep(0.02)
        for pid in (*(children() - before), os.getpid()):  # as systemd does with all of a service
            os.kill(pid, signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert runner.run_job("shop", "cleanup") == 4
    stopping.join()
    assert records(host)[-1]["message"] == "last words"
    assert last_run(host.layout, "cleanup").result == "stopped"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Thread]]:
    """Have the service of a job run it as systemd does; what ran it is in the list."""
    runs: list[threading.Thread] = []

    def run() -> None:
        code = runner.run_job("shop", "cleanup")
        runner.end_job("shop", "cleanup", ended("exit-code" if code else "success"))

    def start(*words: str) -> None:
        runs.append(threading.Thread(target=run))
        runs[-1].start()

    monkeypatch.setattr(runner.signal, "signal", lambda *words: None)  # which only the first thread may
    monkeypatch.setattr(by_hand, "systemctl", start)
    monkeypatch.setattr(by_hand, "is_running", lambda unit: bool(runs) and runs[-1].is_alive())
    monkeypatch.setattr(by_hand, "PAUSE_SECONDS", 0.05)
    yield runs
    for each in runs:
        each.join()


def test_an_operator_runs_a_job_now_and_follows_it(
    host: Host, released: Callable[[str], int], slipway: Callable[..., Answer], service: list[threading.Thread]
) -> None:
    number = released("echo one; sleep 0.3; echo two open-sesame; exit 6")
    code, output, _ = slipway("run", "shop", "--job", "cleanup")
    lines = output.splitlines()
    assert code == 6
    assert [line.rpartition(": ")[2] for line in lines[1:3]] == ["one", "two ********"]
    assert lines[-1].endswith("failed, exit code 6.")
    entry = host.history()[-1]
    assert (entry["command"], entry["code"], entry["release"]) == ("job cleanup", 6, number)
    assert slipway("run", "--job=cleanup", "shop")[0] == 6


def test_a_job_that_runs_already_is_followed_and_not_started_again(
    host: Host, released: Callable[[str], int], slipway: Callable[..., Answer], service: list[threading.Thread]
) -> None:
    released("sleep 0.5; echo over")
    by_hand.systemctl("start")
    while not last_run(host.layout, "cleanup").run:
        time.sleep(0.02)
    code, output, _ = slipway("run", "shop", "--job", "cleanup")
    assert (code, len(service)) == (0, 1)
    assert output.startswith("The job cleanup runs already: it began at ") and ": over\n" in output


def test_who_follows_a_run_gets_its_result_when_the_next_one_has_begun(host: Host, released: Callable[[str], int]) -> None:
    released("exit 5")
    assert runner.run_job("shop", "cleanup") == 5
    runner.end_job("shop", "cleanup", ended("exit-code"))
    first = last_run(host.layout, "cleanup")
    assert runner.run_job("shop", "cleanup") == 5
    second = last_run(host.layout, "cleanup")
    assert second.result_of(second.run) is None  # it runs
    assert second.result_of(first.run) == {"run": first.run, "result": "failed", "code": 5}
    assert second.result_of("another") == {"result": "unknown", "code": None}


def test_what_cannot_be_run_now_is_named(
    host: Host,
    released: Callable[[str], int],
    slipway: Callable[..., Answer],
    service: list[threading.Thread],
    run_step: Callable[..., dict[str, Any]],
) -> None:
    released("true")
    assert slipway("run", "shop", "--job", "clean")[::2] == (1, "Release 3 of shop has no job clean; it has cleanup.\n")
    be_no_longer_first(host)
    assert "runs on its first host alone (hosts: first), and this is another one" in slipway("run", "shop", "--job", "cleanup")[2]
    assert slipway("run", "shop", "--job", "cleanup", "--", "id")[0] == 2
    code, _, error = slipway("job", "shop", "cleanup")
    assert (code, error) == (1, "This is for systemd. To run the job now: slipway run shop --job cleanup\n")
    assert service == []


def test_a_playbook_runs_a_job_too(
    released: Callable[[str], int], run_step: Callable[..., dict[str, Any]], service: list[threading.Thread]
) -> None:
    released("echo one; exit 2")
    given: dict[str, Any] = {"app": "shop", "command": "", "job": "cleanup", "timeout": 10, "run": ANN}
    assert run_step("run", check=True, **given)["lines"] == [] and service == []
    result = run_step("run", **given)
    assert result["code"] == 2 and any(line.endswith(": one") for line in result["lines"])


def test_jobs_are_listed_with_their_last_result_and_next_time(
    host: Host,
    released: Callable[[str], int],
    slipway: Callable[..., Answer],
    systemd: Systemd,
    run_step: Callable[..., dict[str, Any]],
) -> None:
    released("exit 3")
    assert slipway("jobs", "shop")[1].splitlines()[0].split() == ["JOB", "SCHEDULE", "HOSTS", "LAST", "RESULT", "NEXT"]
    assert json.loads(slipway("status", "shop", "--json")[1])[0]["jobs_summary"] == "1 ok"
    runner.run_job("shop", "cleanup")
    systemd.set_state(SERVICE, "activating")
    (row,) = json.loads(slipway("jobs", "shop", "--json")[1])
    assert (row["result"], row["next"], row["scheduled"]) == ("running", 1800000000, True)
    systemd.set_state(SERVICE, "failed")
    (row,) = report.rows(host.layout, "shop")
    assert row["result"] == "interrupted"  # as by a loss of power: nothing wrote down its end
    runner.end_job("shop", "cleanup", ended("exit-code"))
    table = slipway("jobs", "shop")[1].splitlines()
    assert "failed, exit code 3" in table[1] and "0 3 * * *" in table[1]
    assert "1 of 1 failed: cleanup" in slipway("status", "shop")[1]
    result = run_step("jobs", layout=configuration.load("shop")["layout"], name="shop")
    assert result["table"] == table
    be_no_longer_first(host)
    assert "first, not this one" in slipway("jobs", "shop")[1]
    assert json.loads(slipway("status", "shop", "--json")[1])[0]["jobs_summary"] == ""


def test_jobs_are_measured(host: Host, released: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "gatherers", lambda state: [])  # the stand-in for Supervisor does not know as much
    released("exit 3")
    settings = {**never_released(tmp_path), "layout": configuration.load("shop")["layout"]}

    def measured() -> dict[str, float]:
        registry = CollectorRegistry()
        State(settings, registry)
        return {name: value for name, value in samples(registry).items() if name.startswith("slipway_job_")}

    name = '{name="cleanup"}'
    assert measured() == {
        f"slipway_job_failed{name}": 0,
        f"slipway_job_running{name}": 0,
        f"slipway_job_next_timestamp_seconds{name}": 1800000000,
    }
    remember(host.layout, "cleanup", Run("r", 3, 100.0, 104.0, "timeout", None, 50.0))
    assert measured() == {
        f"slipway_job_failed{name}": 1,
        f"slipway_job_running{name}": 0,
        f"slipway_job_next_timestamp_seconds{name}": 1800000000,
        f"slipway_job_last_duration_seconds{name}": 4,
        f"slipway_job_last_success_timestamp_seconds{name}": 50,
    }


def test_the_doctor_finds_jobs_that_failed_or_will_not_run(
    host: Host, released: Callable[[str], int], systemd: Systemd, tmp_path: Path
) -> None:
    number = released("nosuch --all")
    examined = {"layout": configuration.load("shop")["layout"]}
    (lacking,) = doctor.jobs(subject(tmp_path, **examined))
    assert (lacking.severity, lacking.what) == ("error", "The live release lacks the command of the job cleanup")
    assert lacking.evidence == f"nosuch is not in release {number}: nosuch --all"
    number = released("echo that is why; exit 3")
    assert list(doctor.jobs(subject(tmp_path, **examined))) == []
    runner.run_job("shop", "cleanup")
    runner.end_job("shop", "cleanup", ended("exit-code"))
    (failed,) = doctor.jobs(subject(tmp_path, **examined))
    assert (failed.severity, failed.what) == ("warning", "The job cleanup failed")
    assert f"failed, exit code 3, in release {number}" in failed.evidence and "that is why" in failed.evidence
    assert failed.remedy == "Fix it, then: slipway run shop --job cleanup"
    remember(host.layout, "cleanup", Run())
    systemd.set_state(TIMER, "inactive")
    (idle,) = doctor.jobs(subject(tmp_path, **examined))
    assert idle.what == "The job cleanup will not run: its timer is not active"
    be_no_longer_first(host)
    (surplus,) = doctor.jobs(subject(tmp_path, **examined))
    assert (surplus.severity, surplus.evidence) == ("warning", TIMER)


def test_the_logs_of_jobs_are_among_those_of_their_app(
    host: Host, released: Callable[[str], int], slipway: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    released("echo hello")
    runner.run_job("shop", "cleanup")
    configuration.save({**configuration.load("shop"), "masked": "(token=)[a-z]+"}, check=False)
    assert "hello" in slipway("logs", "shop", "--grep", last_run(host.layout, "cleanup").run)[1]
    asked: list[list[str]] = []
    journal = read_logs.Journal

    def empty(programs: list[str]) -> Any:
        asked.append(programs)
        return journal([])

    monkeypatch.setattr(read_logs, "Journal", empty)
    slipway("logs", "shop")
    assert asked[0][-1] == definition.identifier("shop", "cleanup")
