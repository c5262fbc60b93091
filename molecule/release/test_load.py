"""Releases and rollbacks under a steady load drop no request, do nothing twice, and cut nothing off that is under way."""

from __future__ import annotations

import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from molecule.conftest import Answer, Host, within
from molecule.release import program
from molecule.release.conftest import Load, deploy, rollback, serves

SNAPSHOT = "twin.test"


def releases_and_rollbacks_under_load(host: Host, changed: Callable[[str], Path], rounds: int, least_requests: int) -> None:
    """Release and roll back in turn, then release once more, under a load of at least so many requests.

    The first round is by playbooks, as a user's are, the others by what those tell the host.
    """
    host.run("rm -f /opt/shop/shared/ledger")
    processes = host.run("ps -eo comm= | sort | uniq -c")
    first = serves(host)
    with Load(host) as load:
        for number in range(rounds):
            release, back = (program.deploy, program.rollback) if number else (deploy, rollback)
            run = release(host, app_source=str(changed(f"# {number}")), app_env={"GREETING": f"Release {number}"})
            assert run.code == 0, run.output[-3000:]
            assert "warning" not in run.output.lower(), "the public door was found wanting"
            newest = host.live()
            run = back(host)
            assert run.code == 0, run.output[-3000:]
            assert host.live() == first
        run = program.deploy(host, app_source=str(changed("# last")))
        assert run.code == 0, run.output[-3000:]
        # What ten releases do not need is asked for at the last one, so that the figures speak of enough requests.
        while len(host.run("cat /opt/shop/shared/ledger").split()) < least_requests / 2:
            time.sleep(1)
    result = load.result
    print({key: value for key, value in result.items() if key != "posted"})
    assert result["failures"] == []
    assert result["requests"] >= least_requests
    done = Counter(host.run("cat /opt/shop/shared/ledger").split())
    assert [order for order, times in done.items() if times > 1] == []
    assert set(done) == set(result["posted"])
    assert result["last"] == str(host.live()) == str(newest + 1)
    assert len(result["releases"]) == rounds + 2
    assert result["streams"]["websockets opened"] >= 2 * rounds
    assert result["streams"]["event streams opened"] >= 2 * rounds
    serves(host)
    # Timers of the system start processes, too, which end.
    within(30, lambda: host.run("ps -eo comm= | sort | uniq -c") == processes, pause=1)


def test_five_releases_and_five_rollbacks_under_load(host: Host, changed: Callable[[str], Path]) -> None:
    releases_and_rollbacks_under_load(host, changed, rounds=5, least_requests=30_000)


def test_what_is_under_way_is_finished(host: Host) -> None:
    old = host.live()
    answers: list[Answer] = []

    def ask_slowly() -> None:
        answers.append(host.ask("/slow?seconds=5"))

    run = threading.Thread(target=lambda: program.deploy(host, app_env={"GREETING": "slow"}, app_watch_seconds=0))
    run.start()
    asking = []
    while run.is_alive() and host.live() == old:
        thread = threading.Thread(target=ask_slowly)
        thread.start()
        asking.append(thread)
        time.sleep(0.5)
    run.join()
    for thread in asking:
        thread.join()
    assert host.live() > old
    assert len(asking) > 2
    assert [answer.status for answer in answers] == [200] * len(asking)
    assert str(old) in {answer.json()["release"] for answer in answers}


# Half a gigabyte, each page of it.
EATER = "x = bytearray(1 << 29)\nfor i in range(0, len(x), 4096): x[i] = 1"


def test_a_release_has_no_more_memory_than_its_limit(host: Host) -> None:
    # Where the kernel's control groups are of the first version, a test host may only look at them.
    of_its_own = (
        "umount /sys/fs/cgroup/memory && mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory && systemctl daemon-reexec"
    )
    host.run(f"test -e /sys/fs/cgroup/cgroup.controllers || {{ {of_its_own}; }}")
    run = program.deploy(host, app_memory_mb=200, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    number = serves(host)

    def group() -> str:
        """Return the control group of the release, which has the limit and all its processes."""
        master = host.master()
        path = host.run(f"sed -n 's/.*:memory:/memory/p;s/^0:://p' /proc/{master}/cgroup | head -n1").strip()
        limit = host.run(f"cd /sys/fs/cgroup/{path} && cat memory.max 2>/dev/null || cat memory.limit_in_bytes").strip()
        assert int(limit) == 200 * 2**20
        inside = {int(pid) for pid in host.run(f"cat /sys/fs/cgroup/{path}/cgroup.procs").split()}
        assert {master, *map(int, host.run(f"pgrep --parent {master}").split())} == inside
        return f"/sys/fs/cgroup/{path}"

    master = host.master()
    enter = (
        f"echo $$ >{group()}/cgroup.procs; exec setpriv --reuid=shop --regid=shop --clear-groups python3 -c {shlex.quote(EATER)}"
    )
    assert host.run(f"sh -c {shlex.quote(enter)} >/dev/null 2>&1; echo $?").strip() == "137", "it took more than the limit"
    assert (host.master(), host.healthy()) == (master, True)
    # It is the app's user's, with no group of root's, and stays so.
    host.run(f"supervisorctl restart shop-{number}")
    assert group()
    shown = host.run(f"grep -E '^(Uid|Groups|NoNewPrivs)' /proc/{host.master()}/status; id --user shop; id --group shop").split()
    uid, gid = shown[-2:]
    assert shown[:-2] == ["Uid:", uid, uid, uid, uid, "Groups:", gid, "NoNewPrivs:", "1"]
    serves(host)
