"""Our own services under systemd: each has what it needs and nothing else, since what they read is written by others."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import ROOT, Host

# What starts an app may need whatever that needs.
STARTS_THE_APP = {"drill.service.j2"}
UNITS = sorted(path for path in ROOT.glob("roles/*/templates/*.service.j2") if path.name not in STARTS_THE_APP)

# What no service of ours needs.
WANTED = {
    "ProtectControlGroups": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
}
# What a container engine's client cannot do without.
STRICT = {
    "PrivateDevices": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "SystemCallFilter": "@system-service",
}
# Of systemd's own accord where the user is one that it makes up.
DYNAMIC = {"NoNewPrivileges": "yes", "PrivateTmp": "yes", "ProtectSystem": "strict"}
CAPABILITIES = {
    "metrics.service.j2": "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH",
    "backup.service.j2": "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_KILL CAP_SETGID CAP_SETUID",
}
# What tells of an app looks at its disk, wherever that is; a backup reads all of it, and root's keys.
READS_HOMES = {"metrics.service.j2", "backup.service.j2"}
# Of those that reach nothing but sockets on the host.
FAMILIES = {"redis.service.j2": {"RestrictAddressFamilies": "AF_UNIX"}}


def service(path: Path, **inventory: object) -> dict[str, str]:
    """Return the settings of a service."""
    text = Host(inventory).render(path.parts[-3], path.name)
    section = text.partition("[Service]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in section.splitlines() if "=" in line and not line.startswith("#"))


def test_there_are_services() -> None:
    assert {path.name for path in UNITS} >= {
        "metrics.service.j2",
    }


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_service_is_confined(path: Path) -> None:
    told = service(path)
    wanted = WANTED | STRICT | {"CapabilityBoundingSet": CAPABILITIES.get(path.name, "")} | FAMILIES.get(path.name, {})
    wanted |= {} if told.get("DynamicUser") == "yes" else DYNAMIC
    assert {name: told.get(name) for name in wanted} == wanted
    assert told["ProtectHome"] == ("read-only" if path.name in READS_HOMES else "yes")


def test_one_that_asks_a_container_engine_is_confined_as_far_as_that_goes() -> None:
    told = service(ROOT / "roles/metrics/templates/metrics.service.j2", app_runtime="container")
    wanted = WANTED | {"NoNewPrivileges": "yes", "PrivateTmp": "yes", "ProtectSystem": "full", "ProtectHome": "read-only"}
    assert {name: told.get(name) for name in wanted} == wanted
    assert not (STRICT.keys() | {"CapabilityBoundingSet"}) & told.keys()
