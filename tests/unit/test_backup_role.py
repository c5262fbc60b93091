"""What the role backup brings to a host: settings with secrets for root alone, and units without any."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from ansible.parsing.splitter import parse_kv
from backups import KEY, PASSWORD
from rendering import ROOT, Host

from slipway.host.backup.settings import Settings


def test_the_units_have_no_secret_and_the_settings_have_all() -> None:
    inventory = {
        "app_name": "shop",
        "app_database": "postgresql",
        "backup_repository": "/srv/backup",
        "backup_password": PASSWORD,
    }
    host = Host({**inventory, "backup_environment": {"AWS_SECRET_ACCESS_KEY": KEY}, "backup_schedule": "daily"})
    (arguments,) = host.arguments("backup", "configuration")
    assert arguments["absent"] == []
    assert arguments["more_services"] == ["slipway-backup-shop.timer", "slipway-drill-shop.timer"]
    assert "calendar daily *-*-05 04:15" in " ".join(arguments["test"])
    (text,) = arguments["secrets"].values()
    assert PASSWORD not in str(arguments["files"]) and KEY not in str(arguments["files"])
    given = json.loads(text)
    assert Settings(**given).database == "shop"
    assert (given["password"], given["environment"]["AWS_SECRET_ACCESS_KEY"]) == (PASSWORD, KEY)
    units = {Path(file["path"]).name: file["content"] for file in arguments["files"] if "content" in file}
    assert "OnCalendar=daily\nRandomizedDelaySec=30min" in units["slipway-backup-shop.timer"]
    assert "OnCalendar=*-*-05 04:15\n" in units["slipway-drill-shop.timer"]
    (arguments,) = Host({**inventory, "backup_drill_schedule": ""}).arguments("backup", "configuration")
    assert (arguments["more_services"], len(arguments["absent"])) == (["slipway-backup-shop.timer"], 3)
    (arguments,) = Host({"app_name": "shop"}).arguments("backup", "configuration")
    assert (arguments["files"], arguments["more_services"], len(arguments["absent"])) == ([], [], 7)


def test_what_ansible_cuts_off_a_time_is_refused_before_another_backup_is_restored() -> None:
    cut = parse_kv("at=2026-11-30 14:02")
    assert cut["at"] == "2026-11-30"
    tasks = yaml.safe_load((ROOT / "roles/backup/tasks/restore.yml").read_text(encoding="utf-8"))
    names = [next(iter({"ansible.builtin.assert", "slipway"} & task.keys()), "") for task in tasks]
    before = [task["ansible.builtin.assert"] for task in tasks[: names.index("slipway")] if "ansible.builtin.assert" in task]
    (found,) = [one for one in before if one["that"] == "_raw_params is not defined"]
    assert "_raw_params" in cut
    assert "-e at=2026-11-30T14:02" in found["fail_msg"]
    for place in ("docs/backup.md", "playbooks/restore.yml", "roles/backup/meta/argument_specs.yml"):
        assert not re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", (ROOT / place).read_text(encoding="utf-8")), place


def test_hosts_make_a_shared_repository_one_after_the_other() -> None:
    tasks = yaml.safe_load((ROOT / "roles/backup/tasks/main.yml").read_text(encoding="utf-8"))
    (task,) = [one for one in tasks if one["name"] == "Prepare the repository"]
    assert task["throttle"] == 1
