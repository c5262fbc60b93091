"""The doctor names what is wrong and nothing else; the status of a fleet is one table, with those that do not answer in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import Host, Run, play, podman, within
from molecule.release.conftest import deploy, flat, serves
from tests.unit.certificates import certify

HOSTS = ["twin.test"]
SITE = "/etc/nginx/conf.d/shop.conf"
CERTIFICATES = "/etc/nginx/slipway/shop"


def examine(host: Host, directory: Path, **variables: Any) -> tuple[Run, dict[str, dict[str, str]]]:
    """Return a run of the doctor, and its findings by what they say is wrong."""
    run = deploy(host, "--timeout=5", playbook="playbooks/doctor.yml", doctor_directory=str(directory), **variables)
    file = directory / f"doctor-{host.name}.json"
    assert file.exists(), run.output[-3000:]
    told = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    findings = told["findings"]
    assert all(finding["remedy"] and finding["severity"] in ("error", "warning") for finding in findings)
    severities = {finding["severity"] for finding in findings}
    assert told["worst"] == ("error" if "error" in severities else "warning" if severities else "none")
    assert run.code == (2 if severities & {"error", variables.get("doctor_fail_on", "error")} else 0), run.output[-3000:]
    return run, {finding["what"]: finding for finding in findings}


def healthy(host: Host, directory: Path) -> None:
    run, findings = examine(host, directory, doctor_fail_on="warning")
    assert findings == {}, run.output[-3000:]
    assert (run.code, run.changed[host.name]) == (0, 0)
    assert f"Nothing is wrong with {host.name}." in flat(run)


@pytest.fixture
def number(host: Host, tmp_path: Path) -> Iterator[int]:
    """The live release of a healthy host, which is healthy again afterwards."""
    host.run(f"cp -a {CERTIFICATES} /root/certificates; cp -a /opt/shop/history.jsonl /root/history; cp -a {SITE} /root/site")
    yield serves(host)
    host.run(f"rm -rf {CERTIFICATES}; mv /root/certificates {CERTIFICATES}; mv /root/history /opt/shop/history.jsonl")
    host.run(f"mv /root/site {SITE}; rm -f /run/reboot-required; umount /tmp; pkill -f '[h]ttp.server 80'", check=False)
    host.run("systemctl enable nginx supervisor; systemctl restart nginx; systemctl start supervisor")
    within(10, lambda: host.run("supervisorctl pid", check=False).strip().isdigit())
    host.run("rm -f /etc/supervisor/conf.d/shop-999.conf; supervisorctl update")
    assert deploy(host, playbook="site.yml").code == 0
    healthy(host, tmp_path)


def certificate(host: Host, directory: Path, name: str, days: float) -> None:
    """Put another certificate where Nginx finds it the next time that it is loaded, one of 64 days that ends in so many."""
    certify(directory / "fullchain.pem", directory / "privkey.pem", [name], issuer=name, days=days, lifetime=64)
    for file in ("fullchain.pem", "privkey.pem"):
        podman("cp", str(directory / file), f"{host.name}:{CERTIFICATES}/{file}")


def test_nothing_is_wrong_with_a_healthy_host(host: Host, tmp_path: Path) -> None:
    # Whatever became of the last release, there is a good one after it.
    assert deploy(host, app_env={"GREETING": "well"}, app_watch_seconds=0).code == 0
    assert deploy(host, playbook="site.yml").code == 0
    healthy(host, tmp_path)


def test_faults_that_no_client_sees_yet(host: Host, number: int, tmp_path: Path) -> None:
    release = f"/opt/shop/releases/{number}"
    host.run(f"chmod 0644 {release}/settings.json; chown root /opt/shop/shared; ln -sfn releases/0 /opt/shop/current")
    host.run(f"touch -d '+1 day' {release}/build/main.py; systemctl disable nginx; touch /run/reboot-required")
    host.run(f"mv /etc/supervisor/conf.d/shop-{number}.conf /root/section")
    host.run("printf '[program:shop-999]\\ncommand=sleep 900\\n' >/etc/supervisor/conf.d/shop-999.conf")
    host.run(f"supervisorctl reread; supervisorctl add shop-999; echo '# somebody' >>{SITE}")
    host.run("mount -t tmpfs -o size=1m tmpfs /tmp; head -c 2M /dev/zero >/tmp/full", check=False)
    host.run("""echo '{"release": 998, "outcome": "failed", "reason": "no such table"}' >>/opt/shop/history.jsonl""")
    certificate(host, tmp_path, host.name, 20)
    try:
        run, found = examine(host, tmp_path)
    finally:
        host.run(f"mv /root/section /etc/supervisor/conf.d/shop-{number}.conf; supervisorctl stop shop-999")
        host.run(f"touch -d '-1 day' {release}/build/main.py; chmod 0640 {release}/settings.json; chown shop /opt/shop/shared")
    assert run.code != 0
    assert {what: finding["severity"] for what, finding in found.items()} == {
        f"Others may read or change the secrets of release {number}": "error",
        "The app may not write to its shared directory": "error",
        "The link `current` does not lead to the live release": "warning",
        "Code was changed on the host since it was built": "warning",
        f"Release {number} will not start after a reboot": "error",
        "nginx will not start after a reboot": "warning",
        f"Release 999 runs, but {number} is live": "warning",
        "Files are not what the roles would write": "warning",
        "Updates wait for a reboot": "warning",
        "The disk of /tmp is 100 % full": "error",
        "The last release, 998, failed": "warning",
        "Nginx serves another certificate than the one in its file": "error",
    }
    assert SITE in found["Files are not what the roles would write"]["evidence"]
    assert "mend it: systemctl enable nginx" in flat(run)


def test_warnings_fail_where_that_is_asked_for(host: Host, number: int, tmp_path: Path) -> None:
    host.run(f"touch /run/reboot-required /opt/shop/releases/{number}/launch.py")
    wanted = {"Updates wait for a reboot", f"Release {number} runs with older files than it has"}
    try:
        for severity, code in (("error", 0), ("warning", 2)):
            run, found = examine(host, tmp_path, doctor_fail_on=severity)
            assert (set(found), run.code) == (wanted, code)
        remedy = found[f"Release {number} runs with older files than it has"]["remedy"]
        host.run(remedy.replace("*", "'*'"))
        within(10, host.healthy)
    finally:
        host.run("rm /run/reboot-required")
    refused = deploy(host, playbook="playbooks/doctor.yml", doctor_fail_on="nothing")
    assert "doctor_fail_on is 'nothing'; it must be error or warning." in flat(refused)


def test_faults_that_clients_see(host: Host, number: int, tmp_path: Path) -> None:
    certificate(host, tmp_path, "other.example.com", 2.5)
    host.run(f"systemctl reload nginx; chmod 0700 /run/shop; supervisorctl stop shop-{number}; echo 'server {{' >>{SITE}")
    try:
        run, found = examine(host, tmp_path)
    finally:
        host.run(f"chmod 0710 /run/shop; supervisorctl start shop-{number}; sed -i '$d' {SITE}")
    assert run.code != 0
    wanted = {
        "The certificate ends in 2 days",
        f"The certificate is not for {host.name}",
        "Nginx may not look into the directory of sockets",
        f"The program shop-{number} is STOPPED",
        "Nobody listens at the live release's socket",
        "Nginx would refuse its configuration",
        "The public door does not answer from the live release",
    }
    assert wanted <= set(found), sorted(found)


def test_faults_of_the_services(host: Host, number: int, tmp_path: Path) -> None:
    host.run("systemctl stop nginx supervisor; mv /opt/shop/live.sock /root/link")
    host.run("nohup python3 -m http.server 80 >/dev/null 2>&1 &")
    try:
        run, found = examine(host, tmp_path)
    finally:
        host.run("mv /root/link /opt/shop/live.sock")
    assert run.code != 0
    wanted = {"nginx does not run", "supervisor does not run", "Nothing is live", "Nobody listens on port 443"}
    assert {*wanted, "Port 80 belongs to another program than Nginx"} <= set(found), sorted(found)


def test_the_status_of_hosts_of_which_one_is_down(host: Host, tmp_path: Path) -> None:
    assert deploy(host).code == 0
    podman("pause", "release.test")
    try:
        run = play(
            "--limit=released", f"--extra-vars=status_directory={tmp_path}", "--timeout=5", playbook="playbooks/status.yml"
        )
        _, silent = examine(Host("release.test", "shop"), tmp_path)
    finally:
        podman("unpause", "release.test")
    assert run.code != 0
    rows = {row["host"]: row for row in json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["hosts"]}
    row = rows[host.name]
    assert (row["health"], row["release"], row["workers"], row["last"]) == ("ok", serves(host), 2, f"{serves(host)} live")
    assert (row["server"], row["certificate_days"] > 21, 0 < row["disk_percent"] < 100) == ("gunicorn", True, True)
    assert len(rows) == 3
    assert rows["release.test"]["health"] != "ok"
    assert list(silent) == ["The host does not answer"]
    assert "Not well: release.test" in flat(run)
    page = (tmp_path / "status.html").read_text(encoding="utf-8")
    # The third has tests of its own just now.
    well = [name for name, each in rows.items() if each["health"] == "ok"]
    assert {host.name} <= set(well) < set(rows)
    assert f"{len(well)} of 3 hosts are well" in page
    assert f'<a href="https://{host.name}/">' in page
    within(10, host.healthy)


def test_the_logs_of_all_hosts(host: Host) -> None:
    name = "a-request-of-the-test"
    assert host.ask("/items/7", headers={"X-Request-ID": name}).headers["x-request-id"] == name
    within(10, lambda: name in host.run("cat /var/log/nginx/shop.access.log"))
    run = deploy(host, playbook="playbooks/logs.yml", grep=name)
    assert run.code == 0, run.output[-3000:]
    assert "== /var/log/nginx/shop.access.log" in run.output
    assert '"path":"/items/7"' in run.output
    assert "There is no such line." in flat(deploy(host, playbook="playbooks/logs.yml", grep="nobody-said-this"))
    assert "Application startup complete" in deploy(host, playbook="playbooks/logs.yml").output
