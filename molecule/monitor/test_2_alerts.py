"""Whoever is to be told is told, once by each real fault; and the rules hold what they promise over time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from molecule.conftest import SHOP, play, podman, within
from molecule.monitor.conftest import MADE, WATCH, WATCHED, Told, query
from molecule.release.program import deploy
from tests.unit.certificates import certify

APP = WATCHED.app
TLS = f"/etc/nginx/slipway/{APP}"

OF_BALANCERS = {
    "BalancerDown",
    "NoBackendUp",
    "BackendDown",
    "EndpointDown",
    "BalancerErrors",
    "BalancerConnectionsNearlyUsedUp",
    "ServiceDown",
}


def firing(alert: str) -> bool:
    """Say whether Prometheus finds that this is so for long enough."""
    return bool(query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


def test_the_rules_over_time() -> None:
    """Prometheus's own tool feeds them series that are made up, and compares what they find.

    The rules stay as they are here until somebody is to be told, which gives others.
    """
    cases = Path(__file__).with_name("alerts.test.yml").read_text(encoding="utf-8")
    podman("cp", str(Path(__file__).with_name("alerts.test.yml")), f"{WATCH.name}:/root/alerts.test.yml")
    # As a user has them, not as these tests do.
    plain = {"prometheus_alert_after_seconds": 60, "prometheus_alert_window_seconds": 300, "prometheus_scrape_seconds": 15}
    run = play(f"--limit={WATCH.name}", "--tags=prometheus", f"--extra-vars={json.dumps(plain)}")
    assert run.code == 0, run.output[-3000:]
    WATCH.run("cd /root && ln -sf /etc/prometheus/slipway.rules.yml . && promtool test rules alerts.test.yml")
    rules = yaml.safe_load(WATCH.run("cat /etc/prometheus/slipway.rules.yml"))["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(re.findall(r'alertname="(\w+)"', cases))
    assert all(rule["annotations"]["summary"] and rule["annotations"]["remedy"] for rule in rules)


def test_what_made_pages_each_minute_is_gone_with_its_pages(older: None, somebody: Told) -> None:
    left = f"ls -d {MADE} /opt/slipway/overview/overview.py /etc/systemd/system/slipway-overview.* 2>/dev/null || :"
    assert WATCH.run(left) == ""
    assert "slipway-overview" not in WATCH.run(
        "systemctl list-units --all --no-legend; ls /etc/systemd/system/timers.target.wants"
    )


def test_a_failed_release_a_full_disk_little_memory_and_many_connections(somebody: Told, tmp_path: Path) -> None:
    """The limits of memory, which is the machine's, and of connections are drawn where this host is beyond them."""
    (tmp_path / "main.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    (tmp_path / "requirements.txt").write_text((SHOP / "requirements.txt").read_text(encoding="utf-8"), encoding="utf-8")
    assert deploy(WATCHED, app_source=str(tmp_path), app_module="main:app", app_static="").code != 0
    assert not firing("ConnectionsNearlyUsedUp")
    WATCHED.run("mkdir -p /srv/full && mount -t tmpfs -o size=8m tmpfs /srv/full && head --bytes=7M /dev/zero > /srv/full/it")
    WATCHED.run("mount -o remount,size=16m /run && head --bytes=15M /dev/zero > /run/full")
    connections = [WATCHED.connect() for _ in range(100)]
    try:
        for connection in connections:  # Nginx keeps those that asked for something
            connection.sendall(f"HEAD /healthz HTTP/1.1\r\nHost: {WATCHED.name}\r\n\r\n".encode())
        for alert in ("ReleaseFailed", "DiskNearlyFull", "MemoryNearlyUsedUp", "RuntimeNearlyFull", "ConnectionsNearlyUsedUp"):
            somebody.hears(alert)
    finally:
        WATCHED.run("umount /srv/full; rm /run/full; mount -o remount,size=50% /run")
        for connection in connections:
            connection.close()


def test_errors_and_slow_answers(somebody: Told, tmp_path: Path) -> None:
    text = (SHOP / "main.py").read_text(encoding="utf-8")
    broken = '\n\n@app.get("/broken")\nasync def broken() -> None:\n    raise RuntimeError("as it was told to")\n'
    (tmp_path / "main.py").write_text(text + broken, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text((SHOP / "requirements.txt").read_text(encoding="utf-8"), encoding="utf-8")
    assert deploy(WATCHED, app_source=str(tmp_path), app_module="main:app", app_static="").code == 0

    def break_it() -> bool:
        for _ in range(10):
            WATCHED.ask("/broken")
        WATCHED.ask("/slow?seconds=1.5")
        return {"AppErrors", "AppSlow"} <= somebody.firing

    within(90, break_it)
    assert not firing("ReleaseFailed")  # a good release ends that


def test_a_job_that_fails(somebody: Told) -> None:
    source = {"app_source": str(SHOP), "app_module": "main:app", "app_static": ""}
    assert deploy(WATCHED, app_jobs={"cleanup": {"schedule": "yearly", "command": "exit 3"}}, **source).code == 0
    assert WATCHED.run(f"slipway run {APP} --job cleanup >/dev/null; echo $?").strip() == "3"
    somebody.hears("JobFailed")
    assert deploy(WATCHED, app_jobs={"cleanup": {"schedule": "yearly", "command": "true"}}, **source).code == 0
    WATCHED.run(f"slipway run {APP} --job cleanup")
    within(60, lambda: not firing("JobFailed"), pause=0.5)


def test_a_backup_that_fails_and_one_that_is_too_old(somebody: Told) -> None:
    repository = {"backup_repository": "/srv/backup", "backup_password": "canary-of-the-backups"}
    run = play(f"--limit={WATCHED.name}", "--tags=backup", f"--extra-vars={json.dumps(repository)}")
    assert run.code == 0, run.output[-3000:]
    WATCHED.run(f"slipway backup {APP}")
    WATCHED.run(f"mv /srv/backup /srv/away && ! slipway backup {APP} && ! slipway drill {APP} && mv /srv/away /srv/backup")
    somebody.hears("BackupFailed")
    somebody.hears("RestoreDrillFailed")
    WATCHED.run(f"sed -i -E 's/(\"success\": )[0-9.]+/\\1 1.0/' /var/lib/slipway/backup/{APP}.json")
    somebody.hears("BackupTooOld")
    WATCHED.run(f"slipway backup {APP} && slipway drill {APP}")
    names = ("BackupFailed", "BackupTooOld", "RestoreDrillFailed")
    within(60, lambda: not any(firing(name) for name in names), pause=0.5)


def test_a_process_beside_the_web_server_that_ends_again_and_again_and_one_that_is_down(somebody: Told) -> None:
    source = {"app_source": str(SHOP), "app_module": "main:app", "app_static": ""}
    assert deploy(WATCHED, app_processes={"worker": "sleep 86400"}, **source).code == 0

    def kill_it() -> bool:
        WATCHED.run("pkill -9 -fx 'sleep 86400'", check=False)
        return "ProcessRestarting" in somebody.firing

    within(120, kill_it, pause=4)
    WATCHED.run(f"supervisorctl stop {APP}-{WATCHED.live()}.worker:*")
    somebody.hears("ProcessDown")
    assert deploy(WATCHED, **source).code == 0
    within(60, lambda: not firing("ProcessDown"), pause=0.5)


def test_processes_that_end_again_and_again(somebody: Told) -> None:
    def kill_one() -> bool:
        master = WATCHED.master()
        WATCHED.run(f"pkill -9 -o -P {master}", check=False)
        return "RestartLoop" in somebody.firing

    within(90, kill_one, pause=1.5)


def test_a_program_that_cannot_be_kept_running(somebody: Told) -> None:
    release = WATCHED.live()
    launch = f"/opt/{APP}/releases/{release}/launch.py"
    WATCHED.run(f"mv {launch} /root/launch.py && kill -9 {WATCHED.master()}")
    try:
        somebody.hears("ProgramFatal")
        assert WATCHED.healthy()  # the workers serve on without their master
    finally:
        WATCHED.run(f"mv /root/launch.py {launch}; supervisorctl start {APP}-{release}", check=False)
    within(60, WATCHED.healthy)


def test_an_app_that_is_down(somebody: Told) -> None:
    release = WATCHED.live()
    within(60, lambda: not firing("ProgramFatal"), pause=0.5)
    WATCHED.run(f"supervisorctl stop {APP}-{release}")
    try:
        somebody.hears("AppDown")
    finally:
        WATCHED.run(f"supervisorctl start {APP}-{release}")
    within(60, WATCHED.healthy)


def test_a_door_that_leads_nowhere(somebody: Told) -> None:
    site = f"/etc/nginx/conf.d/{APP}.conf"
    WATCHED.run(f"cp {site} /root/site.conf && sed -i 's/proxy_pass http:..{APP};/return 503;/' {site} && systemctl reload nginx")
    try:
        somebody.hears("DoorDown")
    finally:
        WATCHED.run(f"mv /root/site.conf {site} && systemctl reload nginx")


def test_certificates(somebody: Told, tmp_path: Path) -> None:
    """One in the file that is not served and a placeholder, one that is served and about to expire, and an authority that does
    not answer."""
    certify(tmp_path / "fullchain.pem", tmp_path / "privkey.pem", ["watched.test"], issuer="watched.test", days=5, lifetime=64)
    WATCHED.run(f"mkdir -p /root/tls /root/short && cp -a {TLS}/*.pem /root/tls/")
    for file in ("fullchain.pem", "privkey.pem"):
        podman("cp", str(tmp_path / file), f"{WATCHED.name}:/root/short/{file}")
    restore = f"rm -f {TLS}/*.pem && cp -a /root/tls/*.pem {TLS}/"
    WATCHED.run(f"rm {TLS}/*.pem && cp /root/short/*.pem {TLS}/")
    # Served to the host itself alone: Prometheus asks nobody who has a certificate like that.
    pair = "ssl_certificate /root/short/fullchain.pem; ssl_certificate_key /root/short/privkey.pem;"
    short = f"server {{ listen 127.0.0.1:443 ssl; {pair} return 200; }}"
    WATCHED.run(f"sed -i 's,acme2.lab.test:14000,acme2.lab.test:1,' /etc/letsencrypt/renewal/{APP}.conf")
    try:
        somebody.hears("CertificateNotServed")
        somebody.hears("CertificatePlaceholder")
        WATCHED.run(f"{restore} && echo '{short}' > /etc/nginx/conf.d/short.conf && systemctl reload nginx")
        somebody.hears("CertificateShort")
        somebody.hears("CertificateNearlyOver")
        WATCHED.run("sed -i 's/certbot -q renew/certbot -q renew --force-renewal/' /lib/systemd/system/certbot.service")
        WATCHED.run("systemctl daemon-reload && systemctl start certbot.service", check=False)
        somebody.hears("CertificateRenewalFailed")
    finally:
        WATCHED.run(f"sed -i 's,acme2.lab.test:1/,acme2.lab.test:14000/,' /etc/letsencrypt/renewal/{APP}.conf")
        WATCHED.run(f"rm -f /etc/nginx/conf.d/short.conf; {restore}")
        WATCHED.run(
            "sed -i 's/ --force-renewal//' /lib/systemd/system/certbot.service; systemctl daemon-reload; systemctl reload nginx"
        )
        WATCHED.run("systemctl reset-failed certbot.service", check=False)
    within(60, lambda: not firing("CertificateNotServed"), pause=0.5)


def test_what_tells_of_the_app_has_stopped(somebody: Told) -> None:
    WATCHED.run(f"systemctl stop slipway-metrics-{APP}")
    try:
        somebody.hears("MetricsStale")
    finally:
        WATCHED.run(f"systemctl start slipway-metrics-{APP}")
    within(60, lambda: not firing("MetricsStale"), pause=0.5)


def test_a_host_that_is_down(somebody: Told) -> None:
    podman("pause", WATCHED.name)
    try:
        somebody.hears("HostDown")
    finally:
        podman("unpause", WATCHED.name)
    within(60, WATCHED.healthy)
    rules = yaml.safe_load(WATCH.run("cat /etc/prometheus/slipway.rules.yml"))["groups"][0]["rules"]
    # One test each; those of load balancers, which this scenario has none of, are tested by their rules alone.
    assert {rule["alert"] for rule in rules} - OF_BALANCERS == somebody.firing - OF_BALANCERS
