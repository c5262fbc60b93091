"""Jobs on a real host: by their timers and by hand, through releases and rollbacks, and to their ends, good and bad."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molecule.conftest import SECRET, Host, polling, within
from molecule.release import program
from molecule.release.conftest import deploy, serves
from molecule.release.test_operator import slipway

SNAPSHOT = "twin.test"
SERVICE, TIMER = "slipway-job-shop-cleanup.service", "slipway-job-shop-cleanup.timer"
SHARED = "/opt/shop/shared"

# A command of which nobody runs a second one before the first has ended.
ALONE = "echo begin >>$HOME/turns; while [ ! -e $HOME/end ]; do sleep 0.1; done; echo end >>$HOME/turns"


def job(command: str, schedule: str = "yearly", **options: Any) -> dict[str, Any]:
    """Return the jobs of an app, one. The host is not the first of its app."""
    return {"cleanup": {"schedule": schedule, "command": command, "hosts": "all", **options}}


def release(host: Host, jobs: dict[str, Any], **variables: Any) -> int:
    """Release an app with jobs, quickly, and return the number of the release."""
    run = program.deploy(host, app_jobs=jobs, app_watch_seconds=0, app_watch_hang_seconds=0, **variables)
    assert run.code == 0, run.output[-3000:]
    return serves(host)


def status(host: Host) -> dict[str, Any]:
    """Return how the job is."""
    (found,) = json.loads(slipway(host, "jobs shop --json")[1])
    return dict(found)


def ended_well(host: Host, number: int) -> dict[str, Any]:
    """Wait until the job has ended well in release `number`, and return how it is then."""
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(status(host))
        return (found["release"], found["result"]) == (number, "ok")

    within(60, has_ended, pause=0.2)
    return found


def records(host: Host) -> list[dict[str, Any]]:
    """Return what the job logged."""
    return [json.loads(line) for line in host.run("cat /var/log/shop/job-cleanup.log").splitlines()]


def units(host: Host) -> list[str]:
    """Return the units of the app's jobs that systemd knows."""
    listed = host.run("systemctl list-unit-files --no-legend --no-pager 'slipway-job-*'", check=False)
    return [line.split()[0] for line in listed.splitlines()]


def test_a_job_runs_by_its_timer_with_the_live_releases_code_settings_and_user(
    host: Host, changed: Callable[[str], Path]
) -> None:
    command = """python -c 'import main, os; print(main.NAME, os.environ["GREETING"], os.environ["KEY_OF_IT"])'; id -un; pwd"""
    for name in ("one", "two"):
        number = release(
            host,
            job(command, "*-*-* *:*:0/10"),
            app_source=str(changed(f"NAME = '{name}'")),
            app_env={"GREETING": name},
            app_secrets={"KEY_OF_IT": f"{SECRET}-job"},
        )
        row = ended_well(host, number)
        run = row["run"]
        found = [record for record in records(host) if record["run"] == run]
        directory = host.run("realpath /opt/shop/current/build").strip()
        printed = [record["message"] for record in found]
        assert printed[1:4] == [f"{name} {name} ********", "shop", directory]
        assert {(record["job"], record["release"]) for record in found} == {("cleanup", str(number))}
        assert found[-1]["result"] == "ok"
    assert row["scheduled"] and row["next"] > row["start"]
    assert run in slipway(host, f"logs shop --grep {run}")[1]
    assert SECRET not in host.run("cat /var/log/shop/*; journalctl --no-pager --unit 'slipway-job-*'; cat /opt/shop/jobs/*")


def test_a_job_runs_now_and_its_exit_code_is_that_of_the_command(host: Host) -> None:
    release(host, job("echo hello; exit 7"))
    code, output = slipway(host, "run shop --job cleanup")
    assert code == 7 and ": hello\n" in output and output.endswith("failed, exit code 7.")
    assert (status(host)["result"], status(host)["code"]) == ("failed", 7)
    findings = json.loads(slipway(host, "doctor shop --json")[1])
    assert "The job cleanup failed" in [finding["what"] for finding in findings]
    run = deploy(host, playbook="playbooks/run.yml", job="cleanup")
    assert run.code != 0 and "ended with exit code 7" in run.output, run.output[-2000:]
    run = deploy(host, playbook="playbooks/jobs.yml")
    assert run.code == 0 and "failed, exit code 7" in run.output and run.changed == {host.name: 0}, run.output[-2000:]
    run = deploy(host, playbook="playbooks/status.yml")
    assert run.code == 0 and "1 of 1 failed: cleanup" in run.output, run.output[-2000:]


def test_a_change_of_jobs_alone_drops_nothing_and_a_second_run_changes_nothing(host: Host) -> None:
    release(host, job("true"))
    before = status(host)["run"]
    with polling(host, "/items/1") as failures:
        wanted: dict[str, Any] = {"app_jobs": job("true", "0 3 13 * fri"), "app_watch_seconds": 0}
        run = deploy(host, **wanted)
        assert (run.code, run.changed) == (0, {host.name: 1}), run.output[-3000:]
        for arguments in ((), ("--check",)):
            run = deploy(host, *arguments, **wanted)
            assert (run.code, run.changed) == (0, {host.name: 0}), run.output[-3000:]
    assert failures == []
    calendars = host.run(f"systemctl show --property=TimersCalendar {TIMER}")
    assert "*-*-13 03:00:00" in calendars and "Fri *-*-* 03:00:00" in calendars
    assert status(host)["run"] == before  # another schedule makes up for nothing


def test_a_run_for_one_host_knows_that_another_one_is_the_first_of_its_app(host: Host) -> None:
    first = job("true", hosts="first")
    run = deploy(host, app_jobs=first, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    assert units(host) == []
    assert "first, not this one" in slipway(host, "jobs shop")[1]
    code, output = slipway(host, "run shop --job cleanup")
    assert code == 1 and "runs on its first host alone" in output
    release(host, first, groups={"web": [host.name]})  # the one before it has gone
    assert units(host) == [SERVICE, TIMER]


def test_a_job_goes_with_its_setting_and_a_rollback_brings_it_back(host: Host) -> None:
    release(host, job("true", "daily"))
    release(host, {})
    assert units(host) == [] and host.run("ls /var/lib/systemd/timers", check=False).count("cleanup") == 0
    assert slipway(host, "run shop --job cleanup")[0] == 1
    run = program.rollback(host)
    assert run.code == 0, run.output[-3000:]
    assert units(host) == [SERVICE, TIMER]
    assert host.run(f"systemctl is-active {TIMER}; systemctl is-enabled {TIMER}").split() == ["active", "enabled"]
    assert "daily" in slipway(host, "jobs shop")[1]
    assert program.rollback(host, release=host.live() + 1).code == 0
    assert units(host) == []


def test_a_job_outlives_two_releases_and_keeps_its_own(host: Host, changed: Callable[[str], Path]) -> None:
    host.run(f"rm -f {SHARED}/end")
    command = (
        "echo begun; while [ ! -e $HOME/end ]; do sleep 0.2; done; sleep 1; python -c 'import main; print(main.NAME)'; exit 3"
    )
    old = release(host, job(command), app_source=str(changed("NAME = 'old'")), app_keep_releases=1)
    build = host.run(f"readlink -f /opt/shop/releases/{old}/build").strip()
    begin = subprocess.Popen(
        ["podman", "exec", host.container, "slipway", "run", "shop", "--job", "cleanup"], stdout=subprocess.PIPE
    )
    within(20, lambda: "begun" in [record["message"] for record in records(host)], pause=0.2)
    for name in ("new", "newer", "newest"):
        live = release(host, job(command), app_source=str(changed(f"NAME = '{name}'")), app_keep_releases=1)
    release(host, {}, app_source=str(changed("NAME = 'none'")), app_keep_releases=1)  # and without it
    assert host.run(f"systemctl is-active {SERVICE}", check=False).strip() == "activating"
    assert host.run(f"ls -d {build} /opt/shop/releases/{old}").split() == [build, f"/opt/shop/releases/{old}"]
    assert str(live - 1) not in host.run("ls /opt/shop/releases").split()
    host.run(f"touch {SHARED}/end")
    output, _ = begin.communicate(timeout=60)
    assert begin.returncode == 3 and b": old\n" in output
    assert [record["message"] for record in records(host)][-2] == "old"
    assert (records(host)[-1]["result"], records(host)[-1]["release"]) == ("failed", str(old))
    release(host, {}, app_source=str(changed("NAME = 'last'")), app_keep_releases=1)
    assert units(host) == []
    assert str(old) not in host.run("ls /opt/shop/releases").split()


def test_a_job_never_runs_twice_at_once(host: Host) -> None:
    host.run(f"rm -f {SHARED}/end {SHARED}/turns")
    release(host, job(ALONE, "*-*-* *:*:*"))
    within(20, lambda: host.run(f"cat {SHARED}/turns", check=False) == "begin\n", pause=0.2)
    by_hand = subprocess.Popen(
        ["podman", "exec", host.container, "slipway", "run", "shop", "--job", "cleanup"], stdout=subprocess.PIPE, text=True
    )
    assert by_hand.stdout is not None
    assert by_hand.stdout.readline().startswith("The job cleanup runs already: it began at ")
    begun = status(host)["start"]
    within(20, lambda: float(host.run("date +%s")) > begun + 4, pause=0.5)  # its timer was due several times
    assert host.run(f"cat {SHARED}/turns") == "begin\n"
    host.run(f"touch {SHARED}/end")
    assert by_hand.wait(30) == 0
    within(20, lambda: host.run(f"wc -l <{SHARED}/turns").strip() >= "4", pause=0.2)
    release(host, job(ALONE))
    turns = host.run(f"cat {SHARED}/turns").split()
    assert turns == ["begin", "end"] * (len(turns) // 2)


def test_a_job_that_takes_too_long_is_stopped_and_one_that_does_not_stop_is_killed(host: Host) -> None:
    release(host, job("echo begun; sleep 300", timeout_seconds=2))
    code, output = slipway(host, "run shop --job cleanup")
    assert code == 124 and output.endswith(": timeout.")
    assert status(host)["result"] == "timeout" and 2 <= status(host)["seconds"] < 20
    assert host.pids("[s]leep 300") == []
    release(host, job("trap '' TERM; while :; do sleep 1; done", timeout_seconds=2))
    code, _ = slipway(host, "run shop --job cleanup")
    assert code == 124 and status(host)["result"] == "timeout" and 30 <= status(host)["seconds"] < 60
    assert serves(host)


def test_a_job_that_an_operator_stops_says_so(host: Host) -> None:
    release(host, job("echo begun; sleep 300"))
    host.run(f"systemctl start --no-block {SERVICE}")
    within(20, lambda: status(host)["result"] == "running", pause=0.2)
    within(20, lambda: records(host)[-1]["message"] == "begun", pause=0.2)
    host.run(f"systemctl stop {SERVICE}")
    assert status(host)["result"] == "stopped"


def test_a_time_that_was_missed_is_made_up_for(host: Host) -> None:
    release(host, job("true", "daily"))
    before = status(host)["run"]
    # As after a start of the host, when it was off at midnight.
    host.run(f"systemctl stop {TIMER} && touch -d '3 days ago' /var/lib/systemd/timers/stamp-{TIMER} && systemctl start {TIMER}")
    within(20, lambda: status(host)["run"] != before and status(host)["result"] == "ok", pause=0.2)


def test_a_job_logs_to_the_journal_if_its_app_does(host: Host) -> None:
    release(host, job("echo hello"), app_log_target="journald")
    code, output = slipway(host, "run shop --job cleanup")
    assert code == 0 and ": hello\n" in output
    run = status(host)["run"]
    lines = [
        json.loads(line) for line in host.run("journalctl -qo cat --identifier shop-job-cleanup").splitlines() if run in line
    ]
    assert [line["message"] for line in lines][1:2] == ["hello"]
    assert "hello" in slipway(host, f"logs shop --grep {run}")[1]


def test_what_cannot_be_scheduled_is_refused_before_the_switch(host: Host) -> None:
    before = serves(host)
    run = program.deploy(host, app_jobs=job("true", "2020-01-01 03:00"))
    assert run.code != 0
    assert "the job cleanup of app_jobs has a schedule that systemd rejects: 2020-01-01 03:00" in run.output
    run = program.deploy(host, app_jobs=job("nosuch --all"), app_watch_seconds=0)
    assert run.code == 0 and "The job cleanup would fail: nosuch is not in release" in run.output
    assert serves(host) > before
    findings = json.loads(slipway(host, "doctor shop --json")[1])
    assert "The live release lacks the command of the job cleanup" in [finding["what"] for finding in findings]
