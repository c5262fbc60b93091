"""Builds that are made once and copied: the same files where they can be used, and none where the building host failed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SHOP, Host, Run
from molecule.fleet.conftest import FLEET
from molecule.release.conftest import deploy, flat

# The first is of another system, and so of no use to the others as a builder.
ALONE, BUILDER, COPY = FLEET
PAIR = f"{BUILDER.name}:{COPY.name}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the app, to be changed."""
    shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "shop"


def release(source: Path, *options: str, hosts: str = "fleet", strategy: str = "once", **variables: Any) -> Run:
    """Release the app of `source` on all three hosts, or on some."""
    return deploy(hosts, *options, app_source=str(source), app_build_strategy=strategy, app_watch_seconds=1, **variables)


def change(source: Path, text: str, requirement: bool = False) -> None:
    """Change the code, or, so that another environment is needed, what the app requires."""
    file = source / ("requirements.txt" if requirement else "main.py")
    file.write_text(f"{file.read_text(encoding='utf-8')}\n# {text}\n", encoding="utf-8")


def built(host: Host) -> str:
    """Return the build that is live, as the link says it."""
    return Path(host.run(f"readlink -f /opt/shop/releases/{host.live()}/build").strip()).name


def contents(host: Host) -> str:
    """Return a digest of all files, links and rights of the live build and of its environment."""
    build = f"/opt/shop/builds/{built(host)}"
    trees = f"{build} $(readlink -f {build}/.venv)"
    return host.run(
        f"cd / && {{ find {trees} -type f ! -name .complete | sort | xargs sha256sum;"
        f" find {trees} ! -name .complete -printf '%p %M %U %G %l\\n' | sort; }} | sha256sum"
    )


@contextlib.contextmanager
def without_uv(*hosts: Host) -> Iterator[None]:
    """Have hosts that can build nothing."""
    for host in hosts:
        host.run("for uv in /opt/uv/*/bin/uv; do mv $uv $uv.away; printf '#!/bin/sh\nexit 9\n' >$uv; chmod +x $uv; done")
    try:
        yield
    finally:
        for host in hosts:
            host.run("for uv in /opt/uv/*/bin/uv; do mv $uv.away $uv; done")


def test_what_one_host_built_is_copied(source: Path) -> None:
    change(source, "an environment of its own", requirement=True)
    with without_uv(COPY):
        run = release(source)
        assert run.code == 0, run.output[-3000:]
        assert built(COPY) == built(BUILDER) != built(ALONE)
        assert contents(COPY) == contents(BUILDER)
        stamp = f"stat -c %Y /opt/shop/builds/{built(COPY)}/.venv/.complete"
        made = COPY.run(stamp)
        again = release(source, hosts=PAIR)
        assert set(again.changed.values()) == {0}, again.output[-3000:]
        assert "Install the build of the build host" not in again.output
        dry = release(source, "--check", hosts=PAIR)
        assert set(dry.changed.values()) == {0}, dry.output[-3000:]
        # Other code in the same environment: that is not sent again.
        change(source, "other code")
        run = release(source)
        assert run.code == 0, run.output[-3000:]
        assert contents(COPY) == contents(BUILDER)
        assert COPY.run(stamp.replace(stamp.split("/")[4], built(COPY))) == made
    assert COPY.run("ls -A /opt/shop/builds /opt/shop/venvs | grep '^[.]'", check=False) == ""


def test_hosts_that_wait_fail_with_the_one_that_builds(source: Path) -> None:
    before = {host.name: host.live() for host in (BUILDER, COPY)}
    change(source, "cannot be built", requirement=True)
    with without_uv(BUILDER):
        run = release(source, hosts=PAIR)
    assert run.code != 0
    assert f"{BUILDER.name} builds for this host, too (app_build_strategy: once), and has failed" in flat(run)
    assert {host.name: host.live() for host in (BUILDER, COPY)} == before


def test_a_host_that_can_use_no_other_builds_for_itself(source: Path) -> None:
    change(source, "the other packs nothing")
    run = release(source, strategy=f"{{{{ 'per_host' if inventory_hostname == '{BUILDER.name}' else 'once' }}}}")
    assert run.code == 0, run.output[-3000:]
    assert f"{COPY.name} builds shop itself" in flat(run)
    assert built(COPY) == built(BUILDER)
