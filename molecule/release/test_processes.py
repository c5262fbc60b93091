"""Processes beside the web server through releases: queues keep their jobs, schedulers run once, and requests are answered."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SHOP, Host, polling, within
from molecule.release import program
from molecule.release.conftest import deploy, flat

SNAPSHOT = "release.test"  # the first host of its app in the inventory: what runs once runs here

# Tasks say that they have begun and that they have ended: one that was done twice, or not to its end, is seen.
TASKS = """
import os, time
from celery import Celery

app = Celery("tasks", broker="redis://127.0.0.1:6379/0")
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1)
HOME = os.environ["HOME"]

def note(what):
    with open(f"{HOME}/tasks", "a") as file:
        file.write(f"{what} {os.environ['RELEASE_ID']}\\n")

@app.task
def count(number):
    note(f"count {number}")
    time.sleep(0.1)

@app.task
def long(seconds):
    note("long begins")
    time.sleep(seconds)
    note("long ends")
"""
# arq promises that a job is done at least once: what it is at when it is told to end is begun again by another worker.
REPORTS = """
import asyncio, os
from arq import create_pool
from arq.connections import RedisSettings

SETTINGS = RedisSettings()

async def report(context, number):
    await asyncio.sleep(0.2)
    with open(f"{os.environ['HOME']}/reports", "a") as file:
        file.write(f"report {number} {os.environ['RELEASE_ID']}\\n")

async def order(count):
    pool = await create_pool(SETTINGS)
    for number in range(count):
        await pool.enqueue_job("report", number)

class Worker:
    functions = [report]
    redis_settings = SETTINGS
    max_jobs = 2
    keep_result = 0
"""
SCHEDULER = """
import os, signal, sys, time

def note(what):
    with open(f"{os.environ['HOME']}/schedule", "a") as file:
        file.write(f"{what} {os.environ['RELEASE_ID']}\\n")

def stop(number, frame):
    time.sleep(0.5)  # so that two at once would be seen
    note("ends")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
note("begins")
print("the scheduler knows", os.environ["TOKEN"], flush=True)
while True:
    time.sleep(0.1)
"""
PROCESSES: dict[str, Any] = {
    "worker": {"command": "celery -A tasks worker --concurrency=2 --loglevel=warning", "instances": 2, "stop_seconds": 180},
    "reports": "arq reports.Worker",
    "scheduler": {"command": "python scheduler.py", "hosts": "first", "stop_seconds": 10},
}
SECRET = "4711-not-to-be-read"


@pytest.fixture
def queue(host: Host, tmp_path: Path) -> Path:
    """The app with its tasks and a scheduler, on a host with Redis."""
    source = tmp_path / "shop"
    source.mkdir()
    for file in SHOP.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    (source / "requirements.txt").write_text("fastapi==0.165.0\ncelery[redis]>=5.6\narq>=0.28\n", encoding="utf-8")
    (source / "tasks.py").write_text(TASKS, encoding="utf-8")
    (source / "reports.py").write_text(REPORTS, encoding="utf-8")
    (source / "scheduler.py").write_text(SCHEDULER, encoding="utf-8")
    return source


def wanted(source: Path, **more: Any) -> dict[str, Any]:
    """Return what the app is released with."""
    settings = {"app_processes": PROCESSES, "app_secrets": {"TOKEN": SECRET}, "app_watch_seconds": 2}
    return {"app_source": str(source), **settings, **more}


def running(host: Host) -> list[str]:
    """Return what Supervisor runs, by groups."""
    lines = host.run("supervisorctl status", check=False).splitlines()
    return sorted({line.split()[0].partition(":")[0] for line in lines if line.split()[1] == "RUNNING"})


def noted(host: Host, name: str) -> list[str]:
    """Return what tasks or schedulers have noted."""
    return host.run(f"cat /opt/shop/shared/{name} 2>/dev/null", check=False).splitlines()


def test_five_releases_and_rollbacks_with_a_full_queue(host: Host, queue: Path) -> None:
    run = deploy(host, **wanted(queue, app_packages=["redis-server"]))
    assert run.code == 0, run.output[-3000:]
    first = host.live()
    programs = [f"shop-{first}{name}" for name in ("", ".reports", ".scheduler", ".worker")]
    assert running(host) == programs
    # 5,000 jobs, and one that lasts longer than two releases take.
    send = "from tasks import count, long; long.delay(90); [count.delay(number) for number in range(5000)]"
    host.run(f"slipway run shop -- python -c '{send}'")
    host.run("slipway run shop -- python -c 'import asyncio, reports; asyncio.run(reports.order(1000))'")
    with polling(host, "/items/1") as failures:
        for number in range(5):
            run = program.deploy(host, **wanted(queue, app_env={"GREETING": f"release {number}"}))
            assert run.code == 0, run.output[-3000:]
            assert host.live() == first + 1 + number
        for number in range(5):
            run = program.rollback(host)
            assert run.code == 0, run.output[-3000:]
            assert host.live() == first + 4 - number
    assert failures == []
    within(120, lambda: len([line for line in noted(host, "tasks") if line.startswith("count")]) >= 5000)
    within(120, lambda: any(line.startswith("long ends") for line in noted(host, "tasks")))
    tasks = noted(host, "tasks")
    counts = Counter(line.split()[1] for line in tasks if line.startswith("count"))
    assert {*counts} == {str(number) for number in range(5000)}
    # What Celery promises here is at least once: a job that ends as its worker is told to may be done again.
    assert sum(counts.values()) - 5000 <= 10, [each for each in counts.most_common() if each[1] > 1]
    assert [line for line in tasks if line.startswith("long")] == [f"long begins {first}", f"long ends {first}"]
    assert {line.split()[2] for line in tasks if line.startswith("count")} > {str(first)}
    within(120, lambda: len({line.split()[1] for line in noted(host, "reports")}) == 1000)
    assert {line.split()[2] for line in noted(host, "reports")} > {str(first)}
    # Never two at once, and each ended in its own time.
    schedule = [line.split()[0] for line in noted(host, "schedule")]
    assert schedule == [*["begins", "ends"] * 10, "begins"]
    within(60, lambda: running(host) == programs)
    # The same again changes nothing, and what has ended is forgotten.
    program.deploy(host, **wanted(queue, app_packages=["redis-server"]))
    again = deploy(host, **wanted(queue, app_packages=["redis-server"]))
    assert (again.code, sum(again.changed.values())) == (0, 0), again.output[-3000:]
    assert all(" STOPPED " not in line for line in host.run("supervisorctl status", check=False).splitlines())


def test_what_processes_print_is_logged_without_secrets_and_they_are_seen(host: Host, queue: Path) -> None:
    run = program.deploy(host, **wanted(queue))
    assert run.code == 0, run.output[-3000:]
    live = host.live()
    lines = [json.loads(line) for line in host.run(f"cat /var/log/shop/{live}.scheduler.log").splitlines()]
    assert {"message": "the scheduler knows ********", "logger": "scheduler", "release": str(live)}.items() <= lines[0].items()
    assert SECRET not in host.run("slipway logs shop --lines 500")
    (row,) = json.loads(host.run("slipway status shop --json"))
    assert row["health"] == "ok"
    assert row["processes_summary"] == "reports 1/1, scheduler 1/1, worker 2/2"
    user = host.run(f"ps -o user= -p $(supervisorctl pid shop-{live}.scheduler:shop-{live}.scheduler)").split()
    assert user == ["shop"]
    assert "scheduler" in host.run("slipway logs shop")


def test_a_process_that_fails_takes_its_release_back(host: Host, queue: Path) -> None:
    live, before = host.live(), running(host)
    cases: list[tuple[str, dict[str, Any], str]] = [
        (
            "at once",
            {"worker": "python -c 'raise SystemExit(\"no such queue\")'"},
            "its process worker (app_processes) ended right after",
        ),
        ("in the watch", {"worker": "sleep 7"}, "its process worker ended in the"),
        (
            "what runs once",
            {"scheduler": {"command": "false", "hosts": "first"}},
            "its process scheduler (app_processes) ended right",
        ),
    ]
    for kind, more, words in cases:
        with polling(host, "/items/1") as failures:
            run = program.deploy(host, **wanted(queue, app_processes={**PROCESSES, **more}, app_watch_seconds=10))
        assert run.code != 0, kind
        assert words in flat(run), kind
        assert f"Release {live} still serves" in flat(run), kind
        assert failures == [], kind
        within(60, lambda: running(host) == before)
    assert "no such queue" in host.run("cat /var/log/shop/*.worker*.log")


def test_a_killed_supervisor_leaves_no_second_scheduler(host: Host) -> None:
    live = host.live()
    host.run("kill -9 $(cat /run/supervisord.pid)", check=False)
    within(60, lambda: f"shop-{live}.scheduler" in running(host))
    within(30, lambda: host.run("pgrep -fc '[s]cheduler.py'", check=False).strip() in ("1", "2"))
    assert host.run("pgrep -f 'python.* scheduler.py$' | wc -l").strip() == "1"
    within(60, lambda: json.loads(host.run("slipway status shop --json", check=False) or "[{}]")[0].get("health") == "ok")


def test_processes_go_with_their_setting_and_the_doctor_repairs(host: Host, queue: Path) -> None:
    live = host.live()
    host.run(f"supervisorctl stop shop-{live}.worker:*")
    assert "The process worker is STOPPED" in host.run("slipway doctor shop", check=False)
    run = program.deploy(host, **wanted(queue))
    assert run.code == 0, run.output[-3000:]
    assert host.live() > live
    assert "worker 2/2" in host.run("slipway status shop")
    run = program.deploy(host, **wanted(queue, app_processes={}))
    assert run.code == 0, run.output[-3000:]
    within(60, lambda: running(host) == [f"shop-{host.live()}"])
