"""What a load balancer exports, and to whom HAProxy serves it."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.template import trust_as_template
from rendering import Host

PORTS = {"host": 9114, "node": 9100}


def balancer(**inventory: Any) -> Host:
    """Return a load balancer that is watched."""
    settings = {
        "metrics_password": "a-password-of-the-monitoring",
        "haproxy_group": "fleet",
        "haproxy_domains": ["shop.test", "www.shop.test"],
        "haproxy_certificate": "/etc/haproxy/slipway/site.crt",
        "haproxy_monitoring_password": "{{ metrics_password }}",
        "haproxy_monitoring_addresses": ["192.0.2.9", "2001:db8::/64"],
        "haproxy_exporters": "{{ metrics_exporters }}",
        "certbot_mode": "acme",
        **inventory,
    }
    host = Host(
        {name: trust_as_template(value) if isinstance(value, str) else value for name, value in settings.items()}, "edge.test"
    )
    host.variables["group_names"] = ["balancer"]
    host.variables["groups"] = {"balancer": ["edge.test"], "fleet": ["one.test", "two.test"], "monitoring": ["watch.test"]}
    host.variables["hostvars"] = {"one.test": {"app_health_path": "/ready", "app_health_body": "ok"}, "two.test": {}}
    return host


def test_a_load_balancer_has_exporters_of_its_own() -> None:
    host = balancer()
    assert (host["metrics_enabled"], host["metrics_exporters"]) == (True, PORTS)
    assert host["__metrics_exporters"] == ["prometheus-node-exporter"]
    assert "nginx" not in str(host["__metrics_packages"])
    assert "slipway exporter /etc/slipway/slipway-metrics-haproxy.json" in host.render("metrics", "metrics.service.j2")
    assert "ProtectSystem=strict" in host.render("metrics", "metrics.service.j2")
    assert json.loads(host.render("metrics", "metrics.json.j2")) == {
        "name": "haproxy",
        "health": {"path": "/ready", "status": 200, "body": "ok", "headers": {}, "host": "shop.test"},
        "endpoint": {"host": "shop.test", "port": 443, "tls": True},
        "services": ["haproxy.service", "certbot.timer"],
        "certificate": "/etc/haproxy/slipway/site.crt",
        "certbot": "certbot.service",
        "port": 9114,
        "file": "/run/slipway/haproxy.prom",
        "seconds": 5,
    }


def test_an_app_host_keeps_the_exporter_of_nginx() -> None:
    host = Host({"metrics_password": "a-password-of-the-monitoring"})
    host.variables["groups"] = {"web": ["api.example.com"], "monitoring": ["watch.test"]}
    assert (host["metrics_enabled"], host["metrics_exporters"]) == (True, {})
    assert host["__metrics_exporters"] == ["prometheus-node-exporter", "prometheus-nginx-exporter"]
    assert set(host["__metrics_exporters"]) < set(host["__metrics_packages"])
    assert "port" not in json.loads(host.render("metrics", "metrics.json.j2"))


def rules(host: Host) -> list[str]:
    text = host.render("haproxy", "haproxy/monitoring_frontend.cfg.j2")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_haproxy_serves_metrics_over_tls_and_for_the_password_alone() -> None:
    found = rules(balancer())
    paths = [line.split()[-1] for line in found if line.startswith("acl slipway_metrics ")]
    assert paths == [f"/.slipway/metrics/{name}" for name in ("haproxy", *PORTS)]
    order = [
        "http-request return status 404 if slipway_private !slipway_metrics",
        "http-request return status 404 if slipway_private !{ ssl_fc }",
        "http-request deny deny_status 401 if slipway_metrics { req.fhdr(authorization,1),length gt 200 }",
        "http-request deny deny_status 429 if slipway_metrics { sc_http_req_rate(0,slipway_passwords) gt 100 }",
        "http-request auth realm slipway if slipway_metrics !{ http_auth(slipway_monitoring) }",
        "http-request del-header Authorization if slipway_metrics",
        "http-request use-service prometheus-exporter if { path /.slipway/metrics/haproxy }",
        "http-request set-var(txn.slipway_exporter) path,field(4,/) if slipway_metrics",
    ]
    assert [line for line in found if line in order] == order
    known = [line.split()[-1] for line in found if line.startswith("acl slipway_monitoring ")]
    assert known == ["127.0.0.0/8", "::1", "192.0.2.9", "2001:db8::/64"]


def test_the_exporters_of_a_load_balancer_are_asked_on_the_host_itself() -> None:
    text = balancer().render("haproxy", "haproxy/monitoring_sections.cfg.j2")
    for name, port in PORTS.items():
        section = text.partition(f"backend slipway_metrics_{name}\n")[2].partition("\n\n")[0].strip()
        assert section.split("\n    ")[-2:] == ["http-request set-path /metrics", f"server {name} 127.0.0.1:{port}"]
    assert "a-password" not in text
    assert "user monitor password $6$rounds=1000$" in text
    assert text == balancer().render("haproxy", "haproxy/monitoring_sections.cfg.j2"), "it differs from run to run"
    assert text != balancer(metrics_password="x" * 20).render("haproxy", "haproxy/monitoring_sections.cfg.j2")


def test_a_load_balancer_that_is_not_watched_serves_none_of_slipways_paths() -> None:
    host = balancer(metrics_enabled=False)
    assert rules(host) == [
        "acl slipway_private path,url_dec -m sub /.slipway/",
        "http-request return status 404 if slipway_private",
    ]
    assert not re.search("userlist|backend", host.render("haproxy", "haproxy/monitoring_sections.cfg.j2"))
