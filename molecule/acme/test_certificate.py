"""A certificate from a real ACME server: issued, served, extended and renewed; and the app without one."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from molecule.conftest import ARTEFACTS, Host, play, podman, within
from tests.unit.certificates import LIFETIMES

GROUP = "certified"
CERTIFIED = [Host("app.lab.test"), Host("centos.lab.test")]
AUTHORITY = Host("acme.lab.test")
ROOTS = "https://acme.lab.test:15000/roots/0"


def orders() -> int:
    """Return how many orders the authority has received."""
    return AUTHORITY.run("journalctl -u pebble --no-pager -o cat").count("POST /order-plz")


@pytest.fixture(scope="module")
def root() -> str:
    """The root certificate of the authority, which it makes anew at each start."""
    context = "ssl._create_unverified_context()"
    question = f"import ssl, urllib.request as u; print(u.urlopen('{ROOTS}', context={context}).read().decode())"
    return AUTHORITY.run(f'python3 -c "{question}"')


@pytest.fixture
def absent_authority() -> Iterator[None]:
    """An ACME server that does not answer."""
    podman("pause", AUTHORITY.name)
    yield
    podman("unpause", AUTHORITY.name)


def served(host: Host, root: str) -> dict[str, Any]:
    """Return the certificate that is served, verified down from the authority's root."""
    with host.connect(context=ssl.create_default_context(cadata=root)) as connection:
        return dict(connection.getpeercert() or {})


def names(certificate: dict[str, Any]) -> set[str]:
    """Return the names that a certificate is for."""
    return {value for kind, value in certificate["subjectAltName"]}


def test_the_authority_vouches_for_what_is_served(host: Host, root: str) -> None:
    assert names(served(host, root)) == {host.name}


def test_a_renewed_certificate_is_served(host: Host, root: str) -> None:
    serial, master = served(host, root)["serialNumber"], host.run("systemctl show -P MainPID nginx")
    host.run("certbot renew --force-renewal --no-random-sleep-on-renew")
    within(10, lambda: served(host, root)["serialNumber"] != serial)
    assert host.run("systemctl show -P MainPID nginx") == master, "Nginx was restarted"


def test_a_second_run_orders_nothing(root: str) -> None:
    """Neither does a dry run, also after a renewal."""
    before, serials = orders(), [served(host, root)["serialNumber"] for host in CERTIFIED]
    for options in ([], ["--check", "--tags=nginx,certbot"]):
        run = play("--limit=certified", *options)
        assert (run.code, run.changed) == (0, {host.name: 0 for host in CERTIFIED}), run.output[-3000:]
        assert (orders(), [served(host, root)["serialNumber"] for host in CERTIFIED]) == (before, serials)


def test_renewal_happens_by_itself(host: Host) -> None:
    timers = re.findall(r"\S*certbot\S*\.timer", host.run("systemctl list-timers --no-pager"))
    assert len(timers) == 1, timers
    assert host.run(f"systemctl is-enabled {timers[0]}").strip() == "enabled"


def test_a_reload_that_was_lost_is_made_good(root: str) -> None:
    serials = {host.name: served(host, root)["serialNumber"] for host in CERTIFIED}
    for host in CERTIFIED:
        host.run("certbot renew --force-renewal --no-random-sleep-on-renew --deploy-hook false", check=False)
        assert served(host, root)["serialNumber"] == serials[host.name], "the hook was to fail"
    run = play("--limit=certified", "--tags=nginx")
    assert run.code == 0, run.output[-3000:]
    for host in CERTIFIED:
        assert served(host, root)["serialNumber"] != serials[host.name]
        host.run(r"sed -i 's/^renew_hook.*/renew_hook = systemctl reload nginx/' /etc/letsencrypt/renewal/*.conf")


def test_a_domain_that_is_added_is_certified_under_the_same_name(root: str) -> None:
    host, more = Host("app.lab.test"), '{"nginx_domains": ["app.lab.test", "www.app.lab.test"]}'
    before = orders()
    run = play(f"--limit={host.name}", f"--extra-vars={more}")
    assert run.code == 0, run.output[-3000:]
    assert orders() == before + 1
    # Nginx takes its new workers a moment after it was told to.
    within(10, lambda: names(served(host, root)) == {"app.lab.test", "www.app.lab.test"})
    assert host.run("ls /etc/letsencrypt/renewal").split() == ["app-lab-test.conf"]
    again = play(f"--limit={host.name}", "--tags=nginx,certbot", f"--extra-vars={more}")
    assert (again.changed, orders()) == ({host.name: 0}, before + 1)


def test_names_that_lead_elsewhere_are_seen_before_an_order(root: str) -> None:
    host, before = Host("app.lab.test"), orders()
    elsewhere = '{"certbot_domains": ["app.lab.test", "nowhere.lab.test", "acme.lab.test", "centos.lab.test"]}'
    run = play(f"--limit={host.name}", "--tags=certbot", f"--extra-vars={elsewhere}")
    flat = " ".join(run.output.split())
    assert "No certificate was ordered" in flat
    for reason in (
        "nowhere.lab.test has no DNS record",
        "acme.lab.test: port 80 of [0-9.]+ does not answer",
        "centos.lab.test: [0-9.]+ answers (404|301) instead of the challenge",
    ):
        assert re.search(reason, flat), flat[-3000:]
    assert "app.lab.test: " not in flat.split("No certificate was ordered", 1)[1].split("Then run this again")[0]
    assert orders() == before
    assert run.code == 0, "the certificate that is there goes on being served"
    assert "app.lab.test" in names(served(host, root))
    vars(host)["trust"] = ssl.create_default_context(cadata=root)
    assert host.healthy()


def test_without_the_authority_the_app_is_served_all_the_same(absent_authority: None) -> None:
    host = Host("centos.lab.test")
    host.run("rm -rf /etc/letsencrypt /etc/nginx/slipway/*/*.pem")
    run = play(f"--limit={host.name}")
    flat = " ".join(run.output.split())
    assert "the CA at https://acme.lab.test:14000/dir (certbot_server) does not answer" in flat, flat[-3000:]
    assert "serves the app, but with a placeholder for a certificate" in flat
    assert run.code != 0, "what browsers refuse is no success"
    assert host.ask("/").json() == {"message": "Hello, World!"}


def test_the_next_run_gets_what_was_missing(root: str) -> None:
    host = Host("centos.lab.test")
    run = play(f"--limit={host.name}", "--tags=nginx,certbot")
    assert run.code == 0, run.output[-3000:]
    assert names(served(host, root)) == {host.name}


def test_the_grade_of_the_tls(root: str) -> None:
    AUTHORITY.run("command -v testssl || (apt-get update -q && apt-get install -qy --no-install-recommends testssl.sh procps)")
    report = "/root/testssl.json"
    AUTHORITY.run(f"cat > /root/root.pem <<'END'\n{root}\nEND")
    # What the grade is made of, and not how each of forty clients would fare.
    rated = "--protocols --std --fs --server-defaults --headers --vulnerable"
    AUTHORITY.run(
        f"rm -f {report}; testssl --quiet --color 0 {rated} --add-ca /root/root.pem --jsonfile {report} app.lab.test", check=False
    )
    findings = AUTHORITY.run(f"cat {report}")
    ARTEFACTS.mkdir(exist_ok=True)
    (ARTEFACTS / "testssl.json").write_text(findings, encoding="utf-8")
    values = {finding["id"]: finding["finding"] for finding in json.loads(findings)}
    assert values["overall_grade"] == "A+", values


# Last, since the authority forgets its root and all accounts when it starts again.
@pytest.mark.parametrize("days", LIFETIMES[1:])
def test_certbot_renews_before_anybody_is_alarmed_however_long_a_certificate_lasts(days: float) -> None:
    """Without an address of the operator's, too, which each of these accounts is registered without."""
    host, seconds = Host("app.lab.test"), round(days * 86400)
    AUTHORITY.run(f"sed -i -E 's/(ValidityPeriod\": )[0-9]+/\\1{seconds}/' /etc/pebble/pebble.json && systemctl restart pebble")
    within(60, lambda: "pebble" in AUTHORITY.run("ss -ltnp 'sport = :14000'"))
    host.run("command -v faketime || (apt-get update -q && apt-get install -qy --no-install-recommends faketime)")
    host.run("rm -rf /etc/letsencrypt/accounts && sed -i '/^account = /d' /etc/letsencrypt/renewal/*.conf")

    def renew(*options: str, later: float = 0) -> tuple[str, list[float]]:
        """Have certbot renew what is due some seconds from now; return the certificate's number, and when it begins and ends."""
        words = "--no-random-sleep-on-renew --agree-tos --register-unsafely-without-email"
        host.run(f"faketime -f +{later:.0f}s certbot renew {words} {' '.join(options)}")
        text = host.run("openssl x509 -noout -serial -dates -in /etc/letsencrypt/live/app-lab-test/cert.pem")
        found = dict(line.split("=", 1) for line in text.splitlines())
        return found["serial"], [ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter")]

    def diagnosis() -> list[str]:
        """Return what the doctor finds."""
        return [finding["what"] for finding in json.loads(host.run("slipway doctor --json", check=False))]

    number, (begin, end) = renew("--force-renewal")
    assert abs(end - begin - seconds) < 2
    # Older ones renew 30 days before the end, if that is sooner.
    share = 1 / 2 if days < 10 else 1 / 3
    assert renew(later=(1 - share) * seconds + 3600)[0] != number, "it is due, and the alarm only at a quarter"
    # What is an alarm for one that lasts longer is none for this one.
    within(10, lambda: not [what for what in diagnosis() if "ertificate" in what])
