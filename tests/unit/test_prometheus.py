"""Who is asked how, and who may ask: the monitoring's password is for those alone that can prove who they are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from rendering import ROOT, Host, load, parse_nginx

MODES = {"real.test": "acme", "own.test": "files", "self.test": "selfsigned", "plain.test": "none", "watch.test": "none"}
PASSWORD = "a-password-of-the-monitoring"


def watch(**inventory: Any) -> Host:
    """Return the host that asks, which has no certificate itself."""
    host = Host({"metrics_password": PASSWORD, "certbot_mode": "none", **inventory}, name="watch.test")
    host.variables["groups"] = {"web": list(MODES), "monitoring": ["watch.test"]}
    host.variables["group_names"] = ["web", "monitoring"]
    host.variables["hostvars"] = {name: {"certbot_mode": mode, "nginx_domains": [name]} for name, mode in MODES.items()}
    return host


def jobs() -> dict[str, Any]:
    settings = yaml.safe_load(watch().render("prometheus", "prometheus.yml.j2"))
    return {job["job_name"]: job for job in settings["scrape_configs"]}


def asked(job: dict[str, Any]) -> set[str]:
    return {target for each in job["static_configs"] for target in each["targets"]}


def test_each_host_is_asked_by_a_way_on_which_it_proves_who_it_is() -> None:
    found = jobs()
    assert asked(found["verified"]) == {"real.test", "own.test"}
    assert asked(found["selfsigned"]) == {"self.test"}
    assert found["selfsigned"]["tls_config"] == {"ca_file": "/etc/prometheus/slipway.selfsigned.pem"}
    assert "insecure" not in str(found)
    encrypted = {name for name, job in found.items() if job.get("scheme") == "https"}
    assert encrypted == {"verified", "selfsigned"}


BALANCERS: dict[str, dict[str, Any]] = {
    "edge.test": {"haproxy_domains": ["shop.test", "www.shop.test"], "ansible_host": "192.0.2.1"},
    "spare.test": {"haproxy_domains": ["shop.test"], "haproxy_address": "2001:db8::2", "certbot_mode": "files"},
    "inner.test": {"certbot_mode": "selfsigned"},
    "plain.test": {"certbot_mode": "none"},
    "off.test": {"metrics_enabled": False},
}


def watch_balancers(behind: list[str], **inventory: Any) -> Host:
    """Return the host that asks, and load balancers."""
    host = watch(prometheus_balanced=behind, **inventory)
    host.variables["groups"] = {**host.variables["groups"], "web": [*MODES, *behind], "balancer": list(BALANCERS)}
    host.variables["hostvars"] = {**host.variables["hostvars"], **BALANCERS, **{name: {} for name in behind}}
    return host


def test_a_load_balancer_is_scraped_at_its_own_address_and_proves_its_public_name() -> None:
    found = yaml.safe_load(watch_balancers(["one.test"]).render("prometheus", "prometheus.yml.j2"))["scrape_configs"]
    jobs = {job["job_name"].removeprefix("balancer "): job for job in found if job["job_name"].startswith("balancer ")}
    assert {name: (asked(job), job["tls_config"]) for name, job in jobs.items()} == {
        "edge.test": ({"192.0.2.1:443"}, {"server_name": "shop.test"}),
        "spare.test": ({"[2001:db8::2]:443"}, {"server_name": "shop.test"}),
        "inner.test": ({"inner.test:443"}, {"server_name": "inner.test", "ca_file": "/etc/prometheus/slipway.selfsigned.pem"}),
    }
    for name, job in jobs.items():
        assert (job["scheme"], job["follow_redirects"], job["basic_auth"]["username"]) == ("https", False, "monitor")
        labels = [each["labels"] for each in job["static_configs"]]
        assert [each["job"] for each in labels] == ["host", "node", "haproxy"]
        for each in labels:
            assert (each["instance"], each["app"]) == (name, "haproxy")
            assert each["__metrics_path__"] == f"/.slipway/metrics/{each['job']}"


def test_the_certificate_of_a_load_balancer_may_be_signed_by_the_operators_own_ca() -> None:
    host = watch_balancers([], prometheus_ca_file=str(ROOT / "pyproject.toml"))
    found = {job["job_name"]: job for job in yaml.safe_load(host.render("prometheus", "prometheus.yml.j2"))["scrape_configs"]}
    for name, file in (("edge", "authority"), ("spare", "authority"), ("inner", "selfsigned")):
        assert found[f"balancer {name}.test"]["tls_config"]["ca_file"] == f"/etc/prometheus/slipway.{file}.pem"


def test_hosts_behind_load_balancers_are_scraped_by_their_own_names_and_their_certificates_pinned() -> None:
    host = watch_balancers(["one.test", "two.test"])
    jobs = {job["job_name"]: job for job in yaml.safe_load(host.render("prometheus", "prometheus.yml.j2"))["scrape_configs"]}
    assert asked(jobs["selfsigned"]) == {"self.test", "one.test", "two.test"}
    assert asked(jobs["verified"]) == {"real.test", "own.test"}
    (task,) = load(ROOT / "roles/prometheus/tasks/certificates.yml")
    assert host.work_out(task["loop"]) == ["self.test", "one.test", "two.test", "inner.test"]
    read = []
    for name in ("one.test", "inner.test"):
        host.variables["item"] = name
        read.append(host.work_out(task["ansible.builtin.slurp"]["src"]))
    assert read == ["/etc/nginx/slipway/one-test/fullchain.pem", "/etc/haproxy/slipway/site.crt"]


@pytest.mark.parametrize(
    ("results", "content"),
    [
        ([{"content": "b25lCg=="}, {"content": "dHdvCg=="}], "one\ntwo\n"),
        ([{"content": "b25lCg=="}, {"unreachable": True}], None),
    ],
)
def test_pins_are_replaced_when_all_hosts_have_answered(results: list[dict[str, Any]], content: str | None) -> None:
    host = watch()
    host.variables["__prometheus_certificates"] = {"results": results}
    expected = [{"path": "/etc/prometheus/slipway.selfsigned.pem", "content": content}] if content else []
    assert host["__prometheus_trusted_files"] == expected


def test_over_http_a_host_asks_itself_alone_and_by_no_network() -> None:
    plain = jobs()["plain"]
    assert asked(plain) == {"watch.test"}
    assert (plain["scheme"], plain["proxy_url"]) == ("http", "http://127.0.0.1")


@pytest.mark.parametrize(
    ("mode", "watchers", "holds"),
    [
        ("none", ["else.test"], False),
        ("none", ["else.test", "api.example.com"], False),
        ("none", ["api.example.com"], True),
        ("selfsigned", ["else.test"], True),
        ("none", [], True),
    ],
)
def test_a_host_without_a_certificate_is_watched_by_itself_alone(mode: str, watchers: list[str], holds: bool) -> None:
    host = Host({"certbot_mode": mode, "metrics_enabled": True})
    host.variables["groups"] = {"web": ["api.example.com"], "monitoring": watchers}
    (rule,) = [
        rule
        for rule in load(ROOT / "roles" / "metrics" / "vars" / "main" / "rules.yml")["__metrics_rules"]
        if rule["variable"] == "metrics_enabled"
    ]
    assert host.work_out(trust_as_template("{{ " + rule["that"] + " }}")) is holds
    assert "certbot_mode" in rule["expected"]


def test_prometheus_and_alertmanager_ask_for_the_password_on_the_host_itself_too() -> None:
    host = watch()
    for arguments in ("__prometheus_arguments", "__prometheus_alertmanager_arguments"):
        assert "--web.config.file=/etc/prometheus/slipway.web.yml" in host[arguments]
    users = yaml.safe_load(host.render("prometheus", "web.yml.j2"))["basic_auth_users"]
    assert list(users) == ["monitor"]
    assert users["monitor"].startswith("$2b$10$")
    assert users == yaml.safe_load(watch().render("prometheus", "web.yml.j2"))["basic_auth_users"], "it differs from run to run"
    assert users != yaml.safe_load(watch(metrics_password="x" * 20).render("prometheus", "web.yml.j2"))["basic_auth_users"]
    # What they say to each other has it.
    settings = yaml.safe_load(host.render("prometheus", "prometheus.yml.j2"))
    known = {"username": "monitor", "password_file": "/etc/prometheus/slipway.password"}
    assert [each["basic_auth"] for each in settings["alerting"]["alertmanagers"]] == [known]
    assert [job["basic_auth"] for job in settings["scrape_configs"]] == [known] * len(settings["scrape_configs"])


def test_the_password_goes_nowhere_but_where_it_was_sent() -> None:
    """Prometheus would send it along to wherever an answer leads, and an app may say where."""
    settings = yaml.safe_load(watch().render("prometheus", "prometheus.yml.j2"))
    asking = settings["scrape_configs"] + settings["alerting"]["alertmanagers"]
    assert len(asking) == 6
    assert [each.get("follow_redirects") for each in asking] == [False] * len(asking)


def test_only_a_service_that_asks_for_the_password_is_given_it() -> None:
    host = watch(prometheus_enabled=True)
    passed = {}
    for words in parse_nginx(host.render("nginx", "site.conf.j2")).find("server"):
        for name, location in words[-1].locations().items():
            if location.find("auth_basic"):
                passed[name.split()[-1]] = ["$slipway_authorization", "$http_authorization"] in location.find("set")
    assert {path for path, handed in passed.items() if handed} == set(host["prometheus_locations"])
    assert {path for path, handed in passed.items() if not handed} == set(host["metrics_locations"])


@pytest.mark.parametrize(("mode", "closed"), [("none", True), ("selfsigned", False)])
def test_the_password_is_taken_over_https_alone_or_from_the_host_itself(mode: str, closed: bool) -> None:
    host = watch(certbot_mode=mode)
    servers = [words[-1] for words in parse_nginx(host.render("nginx", "site.conf.j2")).find("server")]
    locations = [location for server in servers for location in server.locations().values() if location.find("auth_basic")]
    assert len(locations) == len(host["prometheus_locations"] | host["metrics_locations"])
    for location in locations:
        rules = [directive[:2] for directive in location if directive[0] in ("allow", "deny")]
        assert rules == ([["allow", "127.0.0.1"], ["allow", "::1"], ["deny", "all"]] if closed else [])


def test_each_alert_has_a_series_that_sets_it_off() -> None:
    """Prometheus's own tool tries them in the scenario `monitor`; what has no series there would pass untried."""
    (group,) = yaml.safe_load(watch().render("prometheus", "rules.yml.j2"))["groups"]
    cases = (ROOT / "molecule" / "monitor" / "alerts.test.yml").read_text(encoding="utf-8")
    assert {rule["alert"] for rule in group["rules"]} == set(re.findall(r'alertname="(\w+)"', cases))
