"""What Grafana would be given: it cannot be installed here, so its files are read as Grafana's documentation has them."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT, Host, load

HOST = Host({"grafana_enabled": True, "grafana_password": "CANARY-CANARY"})
TASKS = ROOT / "roles/grafana/tasks"


def configured(host: Host) -> dict[str, str]:
    """Return the files of the service, by path."""
    (arguments,) = host.arguments("grafana", "configuration", "grafana.yml")
    assert arguments["service"] == "grafana-server"
    plain = {file["path"]: file["content"] for file in arguments["files"] if "content" in file}
    groups = {file["path"]: file.get("group") for file in arguments["files"]}
    assert {groups[path] for path in arguments["secrets"]} == {"grafana"}
    return {**plain, **arguments["secrets"]}


def settings(host: Host) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(configured(host)["/etc/grafana/grafana.ini"])
    return parser


def test_it_listens_on_the_host_alone_below_the_path_that_nginx_hands_on() -> None:
    server = settings(HOST)["server"]
    assert dict(server) == {
        "http_addr": "127.0.0.1",
        "http_port": "3000",
        "root_url": "https://api.example.com/.slipway/grafana/",
        "serve_from_sub_path": "true",
    }
    assert HOST["grafana_locations"] == {"/.slipway/grafana/": "http://127.0.0.1:3000"}
    other = Host({"grafana_enabled": True, "grafana_port": 3100})
    assert settings(other)["server"]["http_port"] == "3100"
    assert other["grafana_locations"] == {"/.slipway/grafana/": "http://127.0.0.1:3100"}


def test_without_it_nginx_hands_nothing_on() -> None:
    assert Host()["grafana_enabled"] is False
    assert Host()["grafana_locations"] == {}
    (task,) = load(TASKS / "main.yml")
    assert task["when"] == "grafana_enabled | bool"


def test_it_calls_nobody_and_lets_nobody_in() -> None:
    found = settings(HOST)
    assert {found["analytics"][name] for name in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates")} == {
        "false"
    }
    assert (found["auth.anonymous"]["enabled"], found["users"]["allow_sign_up"]) == ("false", "false")
    assert found["security"]["cookie_secure"] == "true"
    assert settings(Host({"grafana_enabled": True, "certbot_mode": "none"}))["security"]["cookie_secure"] == "false"


def test_the_password_is_in_a_file_that_grafana_alone_reads() -> None:
    assert settings(HOST)["security"]["admin_password"] == "$__file{/etc/grafana/slipway-password}"
    assert not [path for path, text in configured(HOST).items() if "CANARY" in text]
    tasks: list[dict[str, Any]] = load(TASKS / "password.yml")
    with_it = [task for task in tasks if "grafana_password }}" in json.dumps(task)]
    assert len(with_it) == 3
    assert {task["no_log"] for task in with_it} == {True}
    for task in with_it:
        if copy := task.get("ansible.builtin.copy"):
            assert (copy["mode"], copy["group"], HOST.work_out(copy["dest"])) == (
                "0640",
                "grafana",
                "/etc/grafana/slipway-password",
            )
            assert task["diff"] is False
        else:
            assert "grafana_password" not in json.dumps(task["ansible.builtin.command"]["argv"]), (
                "who lists processes would see it"
            )


def test_it_asks_prometheus_and_has_the_dashboards() -> None:
    files = configured(HOST)
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/slipway.yml"])["datasources"]
    assert (source["uid"], source["type"], source["isDefault"]) == ("slipway", "prometheus", True)
    assert source["url"] == "http://127.0.0.1:9090/.slipway/prometheus"
    assert "basicAuth" not in source
    own = Host({"grafana_enabled": True, "prometheus_enabled": True, "metrics_password": "with-a-$-and-a-quote-'\""})
    (source,) = yaml.safe_load(configured(own)["/etc/grafana/provisioning/datasources/slipway.yml"])["datasources"]
    assert (source["basicAuth"], source["basicAuthUser"]) == (True, "monitor")
    assert source["secureJsonData"]["basicAuthPassword"] == "with-a-$$-and-a-quote-'\""
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/slipway.yml"])["providers"]
    directory = provider["options"]["path"]
    for name in ("fleet", "app"):
        text = (ROOT / "playbooks/files/dashboards" / f"{name}.json").read_text(encoding="utf-8")
        assert files[f"{directory}/{name}.json"] == text, "as it is in the project, {{names}} included"
    assert {Path(path).parent.as_posix() for path in files if path.endswith(".json")} == {directory}


@pytest.mark.parametrize(("family", "file"), [("Debian", "apt.yml"), ("RedHat", "dnf.yml")])
def test_it_comes_from_grafanas_own_repository(family: str, file: str) -> None:
    host = Host({"grafana_enabled": True}, facts={"os_family": family, "distribution_major_version": "9"})
    assert host["__grafana_family"]["repository"] + ".yml" == file
    (repository,) = [
        arguments
        for module in ("ansible.builtin.deb822_repository", "ansible.builtin.yum_repository")
        for arguments in host.arguments("grafana", module, file)
    ]
    if family == "Debian":
        assert repository["uris"] == "https://apt.grafana.com"
        assert (repository["suites"], repository["components"]) == ("stable", "main")
        assert repository["signed_by"] == "https://apt.grafana.com/gpg.key"
    else:
        assert (repository["baseurl"], repository["gpgkey"]) == ("https://rpm.grafana.com", "https://rpm.grafana.com/gpg.key")
        assert repository["gpgcheck"] is True


def test_a_dry_run_of_a_bare_host_needs_no_package() -> None:
    needing = {"Install Grafana", "Set the administrator's password", "Add the Grafana repository", "Refresh the package lists"}
    conditions = {task["name"]: str(task.get("when")) for file in ("grafana.yml", "apt.yml") for task in load(TASKS / file)}
    assert {name for name, condition in conditions.items() if "not ansible_check_mode" in condition} == needing
