"""What the role backup brings to a host: settings with secrets for root alone, and units without any."""

from __future__ import annotations

import json
from pathlib import Path

from backups import KEY, PASSWORD
from rendering import Host

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
    assert arguments["more_services"] == ["slipway-backup-shop.timer"]
    (text,) = arguments["secrets"].values()
    assert PASSWORD not in str(arguments["files"]) and KEY not in str(arguments["files"])
    given = json.loads(text)
    assert Settings(**given).database == "shop"
    assert (given["password"], given["environment"]["AWS_SECRET_ACCESS_KEY"]) == (PASSWORD, KEY)
    units = {Path(file["path"]).name: file["content"] for file in arguments["files"] if "content" in file}
    assert "OnCalendar=daily\nRandomizedDelaySec=30min" in units["slipway-backup-shop.timer"]
    (arguments,) = Host({"app_name": "shop"}).arguments("backup", "configuration")
    assert (arguments["files"], arguments["more_services"], len(arguments["absent"])) == ([], [], 4)
