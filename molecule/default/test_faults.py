"""What becomes of the app when something under it is killed, or the server restarts."""

from __future__ import annotations

from molecule.conftest import Host, podman, polling, within

GROUP = "systems"


def gunicorns(host: Host) -> dict[int, int]:
    """Return Gunicorn's processes with their parents."""
    lines = host.run("ps -eo pid,ppid,args").splitlines()
    return {int(line.split()[0]): int(line.split()[1]) for line in lines if "-m gunicorn" in line}


def no_orphans(host: Host) -> bool:
    """Say whether there is one master, under supervisord, and all the rest are its workers."""
    family = gunicorns(host)
    supervisord = set(host.pids("supervisord -"))
    masters = [pid for pid, parent in family.items() if parent in supervisord]
    return len(masters) == 1 and all(parent == masters[0] for pid, parent in family.items() if pid != masters[0])


def test_a_killed_worker_is_replaced(host: Host) -> None:
    before = set(gunicorns(host))
    worker = next(pid for pid in before if pid != host.master())
    host.run(f"kill -9 {worker}")
    within(15, lambda: len(gunicorns(host)) == len(before) and worker not in gunicorns(host))
    assert host.healthy()


def test_a_killed_gunicorn_is_replaced_without_a_failed_request(host: Host) -> None:
    before, master = len(gunicorns(host)), host.master()
    with polling(host) as failures:
        host.run(f"kill -9 {master}")
        within(15, lambda: no_orphans(host) and len(gunicorns(host)) == before and master not in gunicorns(host))
    assert failures == []


def test_a_killed_supervisord_is_replaced_without_a_failed_request(host: Host) -> None:
    before, master = len(gunicorns(host)), host.master()
    with polling(host) as failures:
        host.run("pkill -9 -x supervisord")
        within(10, lambda: master not in gunicorns(host) and no_orphans(host) and len(gunicorns(host)) == before)
    assert failures == []
    within(10, lambda: "RUNNING" in host.run(f"supervisorctl status {host.app}-{host.live()}", check=False))


def test_a_killed_nginx_is_replaced(host: Host) -> None:
    def master() -> str:
        return host.run("systemctl show --property=MainPID --value nginx").strip()

    before = master()
    host.run("systemctl kill --kill-who=main --signal=KILL nginx")
    within(15, lambda: master() not in ("0", before) and host.healthy())


def test_a_page_says_so_while_the_app_is_away(host: Host) -> None:
    program = f"{host.app}-{host.live()}"
    host.run(f"supervisorctl stop {program}")
    try:
        answer = host.ask("/")
        assert (answer.status, answer.headers["retry-after"]) == (502, "5")
        assert "Back in a moment" in answer.body
        assert "nosniff" in answer.headers["x-content-type-options"]
        assert host.ask("/static/style.css").status == 200
    finally:
        host.run(f"supervisorctl start {program}")
    within(10, host.healthy)
    assert "retry-after" not in host.ask("/").headers


def test_nginx_logs_go_on_after_a_rotation(host: Host) -> None:
    log = f"/var/log/nginx/{host.app}.access.log"
    host.run("logrotate --force /etc/logrotate.d/nginx")
    host.ask("/items/4711")
    within(10, lambda: "/items/4711" in host.run(f"cat {log}", check=False))
    assert "/items/4711" not in host.run(f"cat {log}.1", check=False)


def test_everything_is_back_after_a_restart(host: Host) -> None:
    release = host.live()
    podman("restart", "--time=10", host.name)
    within(30, host.healthy)
    assert host.ask("/version").json()["release"] == str(release)
    within(10, lambda: no_orphans(host))
