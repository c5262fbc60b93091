"""The doctor names what is wrong and nothing else, and what site.yml mends of it is mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import Host, Run, podman, within
from molecule.release.conftest import deploy, flat, serves
from molecule.snapshot import started
from tests.unit.certificates import certify

SNAPSHOT = "twin.test"
SITE = "/etc/nginx/conf.d/shop.conf"
CERTIFICATES = "/etc/nginx/slipway/shop"


@pytest.fixture
def host() -> Iterator[Host]:
    """A host of the test's own, with which nothing is wrong."""
    with started(SNAPSHOT, "test-doctor") as one:
        yield one


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
    assert f"{host.name} has no findings." in flat(run)


def looked_over(host: Host) -> dict[str, str]:
    """Return what the doctor finds that is called on the host itself, each with its severity."""
    output = host.run("slipway doctor --json; echo $?", check=False)
    told, _, code = output.rstrip().rpartition("\n")
    findings = json.loads(told)
    assert all(finding["remedy"] for finding in findings)
    severities = {finding["what"]: finding["severity"] for finding in findings}
    assert int(code) == ("error" in severities.values())
    return severities


def certificate(host: Host, directory: Path, name: str, days: float) -> None:
    """Put another certificate where Nginx finds it the next time that it is loaded, one of 64 days that ends in so many."""
    certify(directory / "fullchain.pem", directory / "privkey.pem", [name], issuer=name, days=days, lifetime=64)
    for file in ("fullchain.pem", "privkey.pem"):
        podman("cp", str(directory / file), f"{host.container}:{CERTIFICATES}/{file}")


def test_nothing_is_wrong_with_a_healthy_host_and_warnings_fail_where_that_is_asked_for(host: Host, tmp_path: Path) -> None:
    healthy(host, tmp_path)
    number = serves(host)
    host.run(f"touch /run/reboot-required /opt/shop/releases/{number}/launch.py")
    wanted = {"A reboot is pending", f"Release {number} runs with older files than it has"}
    assert looked_over(host) == dict.fromkeys(wanted, "warning")
    for severity, code in (("error", 0), ("warning", 2)):
        run, found = examine(host, tmp_path, doctor_fail_on=severity)
        assert (set(found), run.code) == (wanted, code)
    remedy = found[f"Release {number} runs with older files than it has"]["remedy"]
    host.run(remedy.replace("*", "'*'"))
    within(10, host.healthy)
    assert looked_over(host) == {"A reboot is pending": "warning"}
    refused = deploy(host, playbook="playbooks/doctor.yml", doctor_fail_on="nothing")
    assert "doctor_fail_on is 'nothing'; it must be error or warning." in flat(refused)


def test_faults_that_no_client_sees_yet(host: Host, tmp_path: Path) -> None:
    number = serves(host)
    release = f"/opt/shop/releases/{number}"
    host.run(f"chmod 0644 {release}/settings.json; chown root /opt/shop/shared; ln -sfn releases/0 /opt/shop/current")
    host.run(f"touch -d '+1 day' {release}/build/main.py; systemctl disable nginx; touch /run/reboot-required")
    host.run(f"mv /etc/supervisor/conf.d/shop-{number}.conf /root/section")
    host.run("printf '[program:shop-500]\\ncommand=sleep 900\\n' >/etc/supervisor/conf.d/shop-500.conf")
    host.run(f"supervisorctl reread; supervisorctl add shop-500; echo '# somebody' >>{SITE}")
    host.run("mount -t tmpfs -o size=1m tmpfs /tmp; head -c 2M /dev/zero >/tmp/full", check=False)
    host.run("""echo '{"release": 998, "outcome": "failed", "reason": "no such table"}' >>/opt/shop/history.jsonl""")
    certificate(host, tmp_path, host.name, 20)
    run, found = examine(host, tmp_path)
    severities = {what: finding["severity"] for what, finding in found.items()}
    drift = "Files differ from what the roles would write"
    assert severities == {
        f"The secrets of release {number} are accessible to others": "error",
        "The app cannot write to its shared directory": "error",
        "The link `current` does not point to the live release": "warning",
        "Code was changed on the host since it was built": "warning",
        f"Release {number} will not start after a reboot": "error",
        "nginx will not start after a reboot": "warning",
        f"Release 500 still runs, but {number} is live": "warning",
        drift: "warning",
        "A reboot is pending": "warning",
        "The disk of /tmp is 100 % full": "error",
        "The last release, 998, failed": "warning",
        "Nginx does not serve the certificate in its file": "error",
    }
    assert SITE in found[drift]["evidence"]
    assert "fix: systemctl enable nginx" in flat(run)
    # What is told on the host itself is the same, but for what only a controller knows.
    del severities[drift]
    assert looked_over(host) == severities
    # What the remedies leave to site.yml, that mends.
    host.run(
        f"umount /tmp; rm /run/reboot-required; touch -d '-1 day' {release}/build/main.py; chmod 0640 {release}/settings.json"
    )
    host.run("chown shop /opt/shop/shared; systemctl reload nginx")
    run = deploy(host, playbook="site.yml")
    assert run.code == 0, run.output[-3000:]
    healthy(host, tmp_path)
    del host.trust  # it has another certificate
    assert serves(host) > number


def test_faults_that_clients_see(host: Host, tmp_path: Path) -> None:
    number = serves(host)
    certificate(host, tmp_path, "other.example.com", 2.5)
    host.run(f"systemctl reload nginx; chmod 0700 /run/shop; supervisorctl stop shop-{number}; echo 'server {{' >>{SITE}")
    wanted = {
        "The certificate expires in 2 days",
        f"The certificate is not for {host.name}",
        "Nginx cannot access the socket directory",
        f"The program shop-{number} is STOPPED",
        "Nothing listens on the live release's socket",
        "Nginx's configuration is invalid",
        "The public endpoint does not answer from the live release",
    }
    found = looked_over(host)
    assert wanted <= set(found), sorted(found)


def test_faults_of_the_services(host: Host) -> None:
    host.run("systemctl stop nginx supervisor; mv /opt/shop/live.sock /root/link")
    host.run("nohup python3 -m http.server 80 >/dev/null 2>&1 &")
    wanted = {"nginx does not run", "supervisor does not run", "Nothing is live", "Nothing listens on port 443"}
    found = looked_over(host)
    assert {*wanted, "Port 80 is used by a program other than Nginx"} <= set(found), sorted(found)


def test_the_logs_of_a_host(host: Host) -> None:
    name = "a-request-of-the-test"
    assert host.ask("/items/7", headers={"X-Request-ID": name}).headers["x-request-id"] == name
    within(10, lambda: name in host.run("cat /var/log/nginx/shop.access.log"))
    run = deploy(host, playbook="playbooks/logs.yml")
    assert run.code == 0, run.output[-3000:]
    assert "== /var/log/nginx/shop.access.log" in run.output
    assert '"path":"/items/7"' in run.output
    assert "Application startup complete" in run.output
    assert "No matching log lines." in flat(deploy(host, playbook="playbooks/logs.yml", grep="nobody-said-this"))
