"""The app's Redis on this host: whether it answers, can store what it is given, and waits for a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slipway.host.doctor.subject import Subject, output
from slipway.host.finding import Finding, error, warning
from slipway.host.redis import RedisError, information, unit, waiting

# The share of its memory from which it is nearly full, and from which it is full: what it stores comes in pieces.
NEAR, FULL = 0.9, 0.99

MIB = 2**20


def redis(subject: Subject) -> Iterator[Finding]:
    """Whether the server answers, will after a reboot, has memory left, and writes its data to the disk."""
    path = subject.arguments["redis"]
    if not path:
        return
    app = Path(path).parent.name
    service = unit(app)
    restart = f"systemctl restart {service}"
    try:
        found = information(path, ("memory", "persistence"))
    except RedisError as failure:
        if "LOADING" in str(failure):
            yield warning("Redis is still reading its data", str(failure), f"journalctl --unit {service} --follow")
            return
        log = output("journalctl", "--unit", service, "--lines=3", "--no-pager", "--output=cat")[1]
        yield error("Redis is down", f"{failure}\n{log}", restart)
        return
    if output("systemctl", "is-enabled", "--quiet", service)[0]:
        yield warning("Redis will not start after a reboot", f"{service} is not enabled.", f"systemctl enable {service}")
    yield from memory(found)
    if found.get("aof_last_write_status", "ok") != "ok":
        evidence = "Its last write to its file failed, and it refuses to store more until one succeeds."
        yield error("Redis cannot write its data to the disk", evidence, "df /var/lib/slipway/redis")
    pending = waiting(app)
    if pending:
        evidence = f"It takes {', '.join(pending)} then. Requests that need it fail meanwhile."
        yield warning("Redis waits for a restart", evidence, restart)


def memory(found: dict[str, str]) -> Iterator[Finding]:
    """Whether the server has memory left, unless it makes room by itself."""
    used, limit = int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
    if not limit or found.get("maxmemory_policy") != "noeviction" or used < NEAR * limit:
        return
    evidence = f"It uses {used // MIB} of {limit // MIB} MiB, and stores nothing beyond that (noeviction)."
    remedy = "Raise redis_memory_mb, then: ansible-playbook site.yml --tags redis"
    if used >= FULL * limit:
        yield error("Redis is at its memory limit", evidence, remedy)
    else:
        yield warning("Redis is near its memory limit", evidence, remedy)


CHECKS = (redis,)
