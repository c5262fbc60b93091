"""Certificates of a site behind load balancers: each balancer's own, and the one of each app host that they pin."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from molecule.conftest import play, polling, within
from molecule.fleet.conftest import BALANCERS, DOMAIN, EDGE, FLEET, NAMES, SPARE, Balancer, loaded, running

# The port at which certbot listens on a load balancer while it orders a certificate.
ACME_PORT = 8888
CHALLENGES = "/.well-known/acme-challenge"


def test_each_balancer_has_a_certificate_of_its_own_and_renews_it() -> None:
    served = [balancer.certificate() for balancer in BALANCERS]
    assert {names for each in served for names in each["subjectAltName"]} == {("DNS", DOMAIN)}
    assert len({each["serialNumber"] for each in served}) == 2
    keys = {balancer.run("sha256sum < /etc/haproxy/slipway/site.key") for balancer in BALANCERS}
    assert len(keys) == 2, "they share a private key"
    with loaded(EDGE), polling(SPARE, "/healthz") as failures:
        EDGE.renew()
        assert SPARE.serial() == served[1]["serialNumber"], "a renewal changes the certificate of the other one"
        SPARE.renew()
    assert failures == []
    run = play("--limit=balancer", "--tags=haproxy,certbot")
    assert (run.code, set(run.changed.values())) == (0, {0}), run.output[-3000:]


def test_a_lost_certificate_is_ordered_again_while_the_other_balancer_serves() -> None:
    before = EDGE.serial()
    with loaded(SPARE):
        EDGE.run("rm -r /etc/letsencrypt/live /etc/letsencrypt/archive /etc/letsencrypt/renewal")
        run = play(f"--limit={EDGE.name}", "--tags=haproxy,certbot")
        assert run.code == 0, run.output[-3000:]
        within(15, lambda: EDGE.serial() != before)


@pytest.mark.parametrize(("asked", "ordering"), [(SPARE, EDGE), (EDGE, SPARE)], ids=["spare to edge", "edge to spare"])
def test_a_challenge_that_reaches_the_other_balancer_is_answered(asked: Balancer, ordering: Balancer) -> None:
    directory = "/run/challenges"
    ordering.run(f"mkdir -p {directory}{CHALLENGES} && printf 'the answer' > {directory}{CHALLENGES}/a-token-of-the-test")
    server = ["python3", "-u", "-m", "http.server", str(ACME_PORT), "--bind=127.0.0.1", f"--directory={directory}"]
    with running(ordering, "challenges", *server):
        within(10, lambda: ordering.run(f"ss -Hltn sport = :{ACME_PORT}").strip())
        for balancer in (ordering, asked):
            # A CA asks from several places at once.
            with ThreadPoolExecutor(10) as pool:
                answers = pool.map(partial(balancer.ask, tls=False), [f"{CHALLENGES}/a-token-of-the-test"] * 20)
                assert {(answer.status, answer.body) for answer in answers} == {(200, "the answer")}, balancer.name
        for balancer in (ordering, asked):
            begin = time.monotonic()
            assert balancer.ask(f"{CHALLENGES}/unknown-{balancer.name}", tls=False).status == 404
            assert time.monotonic() - begin < 5
        lines = ordering.run("cat /run/challenges.log")
        for balancer in (ordering, asked):
            # Each asks itself and the other one a few times, and does not ask on what it was asked by the other one.
            assert 1 <= lines.count(f'"GET {CHALLENGES}/unknown-{balancer.name} ') <= 10, "they ask each other in a loop"


def test_a_host_with_another_certificate_than_the_pinned_one_gets_no_requests() -> None:
    host = FLEET[1]
    certificate, key = host.pinned, host.key
    host.run(f"cp -a {certificate} /root/pinned.pem; cp -a {key} /root/pinned.key")
    # A POST that is under way as that Nginx restarts is sent nowhere else.
    with loaded(expected="POST .*: 50[23]"):
        names = host.run(f"openssl x509 -in {certificate} -noout -ext subjectAltName | tail -n 1 | tr -d ' '").strip()
        assert names == "DNS:two.test.backend.slipway.internal"
        host.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN=another "
            f"-addext subjectAltName={names} -keyout {key} -out {certificate} 2>/dev/null"
        )
        assert EDGE.uses(*NAMES)  # until Nginx reads it
        host.run("systemctl restart nginx")
        within(15, lambda: all(balancer.uses("one.test", "three.test") for balancer in BALANCERS))
        # Not because Nginx was away.
        within(15, lambda: EDGE.state()["two.test"].check.startswith("L6"))
        host.run(f"cp -a /root/pinned.pem {certificate}; cp -a /root/pinned.key {key}; systemctl restart nginx")
        within(15, lambda: all(balancer.uses(*NAMES) for balancer in BALANCERS))
