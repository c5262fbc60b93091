"""Several hosts of one app serve one release: all of them the new one, or all the old one, whatever fails on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import INVENTORY, ROOT, Host, Run, play, podman, within
from molecule.fleet.conftest import FLEET, NAMES, loaded, start_again
from molecule.release.conftest import flat, programs, serves

FIRST, SECOND, THIRD = FLEET

# A canary is measured for so long here.
CANARY: dict[str, Any] = {"app_canary_hosts": 1, "app_canary_seconds": 8}

USUAL = ["--limit=fleet", "--extra-vars=app_watch_seconds=1"]


def deploy(*arguments: str, playbook: str = "playbooks/deploy.yml", **variables: object) -> Run:
    """Run a playbook on the fleet, with variables on top of the inventory."""
    return play(*USUAL, f"--extra-vars={json.dumps(variables)}", *arguments, playbook=playbook)


def rollback(*arguments: str, **variables: object) -> Run:
    """Go back on all hosts."""
    return deploy(*arguments, playbook="playbooks/rollback.yml", **variables)


def uniform() -> int:
    """Return the release that all hosts serve, each of them that alone."""
    (number,) = {serves(host) for host in FLEET}
    return number


def greetings() -> set[str | None]:
    return {host.ask("/items/1").json()["greeting"] for host in FLEET}


def pause(host: Host) -> None:
    """Have a host stand still. A busy one is not frozen at the first try."""
    within(30, lambda: subprocess.run(["podman", "pause", host.name], capture_output=True, check=False).returncode == 0)


class Running:
    """A run of ansible-playbook that something happens to."""

    def __init__(self, **variables: object) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MOLECULE_", "ANSIBLE_"))}
        command = ["ansible-playbook", "playbooks/deploy.yml", f"--inventory={INVENTORY}", *USUAL]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*command, f"--extra-vars={json.dumps(variables)}"],
            cwd=ROOT,
            env={**environment, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)

    def reaches(self, text: str) -> None:
        """Wait until `text` was printed. A task's name is printed with its first result, an included file before."""
        within(300, lambda: any(text in line for line in list(self.lines)) or self.process.poll() is not None)

    def ends(self) -> Run:
        """Wait for its end."""
        code = self.process.wait(300)
        self.reader.join(30)
        return Run(code, "".join(self.lines))

    def kill(self) -> None:
        """Have its controller die."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(autouse=True, scope="module")
def good() -> None:
    """Begin with all hosts as the inventory has them. Each test leaves them with one release."""
    run = deploy()
    assert run.code == 0, run.output[-3000:]
    uniform()


def test_a_good_release_is_one_on_all_hosts_and_is_taken_back_as_one(changed: Callable[[str], Path]) -> None:
    before = uniform()
    with loaded():
        run = deploy(app_source=str(changed("# good")), app_env={"GREETING": "good"})
        assert run.code == 0, run.output[-3000:]
        assert uniform() > before
        assert greetings() == {"good"}
        again = deploy(app_source=str(changed("# good")), app_env={"GREETING": "good"})
        assert (again.code, again.changed) == (0, dict.fromkeys(NAMES, 0)), again.output[-3000:]
        back = rollback()
        assert back.code == 0, back.output[-3000:]
        assert uniform() == before


def test_what_breaks_on_the_second_host_is_taken_back_on_the_first(changed: Callable[[str], Path]) -> None:
    before = uniform()
    with loaded():
        broken = f"import socket\nif socket.gethostname() == {SECOND.name!r} and 'RELEASE_ID' in os.environ:"
        broken += "\n    @app.get('/healthz', include_in_schema=False)\n    async def ill(): raise RuntimeError('ill')"
        broken += "\n    app.router.routes.insert(0, app.router.routes.pop())"
        run = deploy(app_source=str(changed(broken)))
        assert run.code != 0
        assert uniform() == before
    said = flat(run)
    assert f"of shop failed on {SECOND.name}: " in said
    assert f"Now serving: {', '.join(f'{name} {before}' for name in NAMES)}." in said
    assert re.search(rf"{FIRST.name} .* {before}, reverted from \d+ ", said)


def test_a_canary_that_is_as_good_is_promoted(changed: Callable[[str], Path]) -> None:
    before = uniform()
    with loaded():
        run = deploy(app_source=str(changed("# as good")), **CANARY)
        assert run.code == 0, run.output[-3000:]
        assert uniform() > before
    said = flat(run)
    assert "promoted: 5xx 0.0% (others 0.0%), p95 " in said
    assert re.search(rf"{FIRST.name} +canary +{uniform()} ", said)
    assert re.search(rf"{SECOND.name} +other +{before} ", said)


# So evenly that the host's own watch, which wants one in twenty, never sees enough, and too many for good.
ILL = """
ITEMS = iter(range(1, 10**9))
@app.middleware("http")
async def ill(request, call_next):
    if request.url.path.startswith("/items/") and next(ITEMS) % 25 == 0:
        return StreamingResponse(iter(["ill"]), status_code=500)
    return await call_next(request)
"""
SLOW = """
@app.middleware("http")
async def slowly(request, call_next):
    if request.url.path.startswith("/items/") and int(request.url.path.split("/")[2]) % 4 == 0:
        await asyncio.sleep(1)
    return await call_next(request)
"""


@pytest.mark.parametrize(("code", "why"), [(ILL, "of its responses are 5xx"), (SLOW, "its p95 is")], ids=["ill", "slow"])
def test_a_canary_that_is_worse_is_taken_back(changed: Callable[[str], Path], code: str, why: str) -> None:
    before = uniform()
    with loaded(expected=r"GET /items/\d+: 500") as load:
        run = deploy(app_source=str(changed(code)), **{**CANARY, "app_canary_seconds": 12})
        assert run.code != 0
        assert uniform() == before
    said = flat(run)
    assert f"failed on {FIRST.name}: reverted: " in said
    assert why in said
    assert re.search(rf"{FIRST.name} .* {before}, reverted from \d+ ", said)
    tried, served = (load.result["releases"][str(number)] for number in (max(map(int, load.result["releases"])), before))
    assert 0 < tried < served, "more than one host had it"


def test_a_host_that_stands_still_for_some_seconds_divides_nothing(changed: Callable[[str], Path]) -> None:
    with loaded():
        run = Running(app_source=str(changed("# paused")), app_watch_seconds=4)
        run.reaches(f"step.yml for {SECOND.name}\n")
        # Its candidate has started: what is asked of the host from now on is under way, and nothing new for some seconds.
        within(60, lambda: len(programs(SECOND)) == 2)
        pause(SECOND)
        time.sleep(6)
        podman("unpause", SECOND.name)
        ended = run.ends()
        assert ended.code == 0, ended.output[-3000:]
        uniform()


def test_a_host_that_dies_takes_the_others_back_and_is_one_with_them_after_the_next_run(changed: Callable[[str], Path]) -> None:
    before = uniform()
    source, address = str(changed("# killed")), SECOND.address
    # What was in flight there fails, and nothing else.
    with loaded(allowed=8):
        run = Running(app_source=source, app_watch_seconds=4)
        run.reaches(f"step.yml for {SECOND.name}\n")
        time.sleep(1)
        podman("kill", SECOND.name)
        try:
            ended = run.ends()
            assert ended.code != 0
            assert [serves(host) for host in (FIRST, THIRD)] == [before, before], ended.output[-9000:]
            assert f"{SECOND.name} is unreachable; it last served {before}" in flat(ended)
        finally:
            start_again(SECOND, address)
        within(60, SECOND.healthy)
    with loaded():
        again = deploy(app_source=source)
        assert again.code == 0, again.output[-3000:]
        assert uniform() > before


@pytest.mark.parametrize("then", ["finish", "undo"])
def test_a_run_that_is_killed_in_the_middle_is_finished_or_undone(changed: Callable[[str], Path], then: str) -> None:
    before = uniform()
    source = str(changed(f"# {then}"))
    with loaded():
        run = Running(app_source=source, app_watch_seconds=4)
        run.reaches(f"step.yml for {SECOND.name}\n")
        time.sleep(0.5)
        run.kill()
        halfway = FIRST.live()
        assert halfway > before
        assert THIRD.live() == before
        ended = deploy(app_source=source) if then == "finish" else rollback()
        assert ended.code == 0, ended.output[-3000:]
        assert uniform() == (halfway if then == "finish" else before)


def test_a_host_that_is_not_there_refuses_the_release_unless_it_may_be_left_out(changed: Callable[[str], Path]) -> None:
    before = uniform()
    source = str(changed("# without one"))
    pause(THIRD)
    try:
        run = deploy(app_source=source)
        assert run.code != 0
        assert f"{THIRD.name} cannot be reached or has failed" in flat(run)
        assert "-e app_allow_missing_hosts=true" in flat(run)
        assert [serves(host) for host in (FIRST, SECOND)] == [before, before]
        run = deploy(app_source=source, app_allow_missing_hosts=True)
        both = {serves(host) for host in (FIRST, SECOND)}
        assert (len(both), both & {before}) == (1, set())
        # Hosts of other scenarios have an app of that name, too.
        assert re.search(rf"Left out of this run, with the release that they had: ([a-z.]+, )*{THIRD.name}[,.]", flat(run))
    finally:
        podman("unpause", THIRD.name)
    run = deploy(app_source=source)
    assert run.code == 0, run.output[-3000:]
    assert {uniform()} == both
