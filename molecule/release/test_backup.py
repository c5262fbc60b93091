"""Backups of an app with a database: made by the timer's service, restored beside what is live, and switched to by rename."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from molecule.conftest import Host, Run, play, polling
from molecule.release import program
from molecule.release.conftest import flat
from molecule.snapshot import address_of, variables

SNAPSHOT = "twin.test"
REPOSITORY, PASSWORD = "/srv/backup", "canary-of-the-backups"
UPLOADS = "/opt/shop/shared/uploads"

APP = """
import os
import psycopg
from fastapi import FastAPI

app = FastAPI()

with open("/opt/shop/shared/starts", "a") as starts:
    starts.write("x")

@app.get("/ping")
def ping():
    return "pong"

@app.get("/healthz")
def healthz():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        return connection.execute("SELECT current_database()").fetchone()

@app.get("/orders")
def orders():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        return connection.execute("SELECT count(*), sum(number) FROM orders").fetchone()
"""
MIGRATE = """
import os
import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS orders (number integer PRIMARY KEY)")
"""
# What every process was called with while the block of commands ran.
WATCHED = """
(while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; done > /run/arguments) & watcher=$!
systemctl start slipway-backup-shop.service; code=$?
kill $watcher; exit $code
"""

Site = Callable[..., Run]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the app is released with: its orders are in PostgreSQL, and it is backed up."""
    source = tmp_path_factory.mktemp("shop")
    for name, text in {"main.py": APP, "migrate.py": MIGRATE, "requirements.txt": "fastapi==0.165.0\npsycopg[binary]\n"}.items():
        (source / name).write_text(text, encoding="ascii")
    quick = {"app_watch_seconds": 0, "app_watch_hang_seconds": 0}
    database = {"app_database": "postgresql", "app_database_driver": "", "app_migrate_command": "python migrate.py"}
    return {"app_source": str(source), **quick, **database, "backup_repository": REPOSITORY, "backup_password": PASSWORD}


@pytest.fixture(scope="module")
def site(host: Host, wanted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Run a playbook for the host, in an inventory in which no other host has its app."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    hosts = {"web": {"hosts": {host.name: variables(host.name) | address_of(host)}}}
    inventory.write_text(json.dumps(hosts), encoding="ascii")

    def run(*arguments: str, playbook: str = "site.yml", **more: Any) -> Run:
        return play(*arguments, f"--extra-vars={json.dumps({**wanted, **more})}", playbook=playbook, inventory=inventory)

    return run


@pytest.fixture(scope="module", autouse=True)
def converged(host: Host, site: Site) -> None:
    """Turn backups on, after a dry run for a host that has neither, and have rows and an upload."""
    run = site("--tags=postgresql,backup", "--check", "--diff")
    assert run.code == 0, run.output[-3000:]
    assert host.run("command -v restic; ls /etc/slipway/backup", check=False) == ""
    run = site("--tags=postgresql,backup,app")
    assert run.code == 0, run.output[-3000:]
    host.run(f"install -d -o shop -g shop {UPLOADS}; head -c 300000 /dev/urandom > {UPLOADS}/photo.jpg; chown shop: {UPLOADS}/*")
    psql(host, "INSERT INTO orders SELECT generate_series(1, 1000)")


def psql(host: Host, query: str, database: str = "shop") -> str:
    """Return what the server answers its administrator."""
    return host.run(f"runuser -u postgres -- psql -X -A -t -d {database} -c '{query}'").strip()


def status(host: Host) -> Any:
    """Return how the app's backups are."""
    return json.loads(host.run("slipway status shop --json"))[0]["backup"]


def backups(host: Host) -> Any:
    """Return the backups that there are."""
    return json.loads(host.run("slipway backups shop --json"))["backups"]


def restore(host: Host, **order: Any) -> Any:
    """Restore something as the playbook has the host do it."""
    run = {"id": "1 test", "who": "test", "where": "here", "dead": ""}
    request = json.dumps({"arguments": {"app": "shop", "command": "restore", **order}, "run": run})
    command = ["podman", "exec", "--interactive", host.container, "slipway", "step", "backup"]
    return json.loads(subprocess.run(command, input=request, capture_output=True, text=True, check=True).stdout)


def test_a_second_run_changes_nothing(site: Site) -> None:
    run = site("--tags=backup")
    assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]


def test_the_timers_service_backs_up_and_its_secrets_are_nowhere(host: Host) -> None:
    assert host.run("systemctl is-active slipway-backup-shop.timer").strip() == "active"
    host.run(WATCHED)
    found = status(host)
    assert (found["result"], found["overdue"], found["release"]) == ("ok", False, host.live())
    assert found["size"] > 300000
    first, last = backups(host)
    assert (first["reason"], first["parts"]) == ("migration", "database, files")
    assert (last["id"], last["reason"], last["release"]) == (found["run"], "timer", str(host.live()))

    arguments = host.run("cat /run/arguments")
    assert "restic backup" in arguments
    assert "pg_dump" in arguments
    assert PASSWORD not in arguments
    host.run("journalctl --flush --sync")
    assert host.run(f"journalctl --output=json | grep -c {PASSWORD}", check=False).strip() == "0"
    places = host.run(f"grep -rlIs {PASSWORD} /etc /var /opt /run /root /srv", check=False).split()
    assert places == ["/etc/slipway/backup/shop.json"]
    assert host.run("stat -c '%a %U' /etc/slipway/backup/shop.json").strip() == "600 root"


def test_a_dump_that_fails_leaves_no_snapshot_and_is_red(host: Host) -> None:
    before = status(host)
    fake = "#!/bin/sh\nhead -c 3000000 /dev/urandom; echo the disk is on fire >&2; exit 1\n"
    host.run(f"mv /usr/bin/pg_dump /usr/bin/pg_dump.real; printf '{fake}' > /usr/bin/pg_dump; chmod 755 /usr/bin/pg_dump")
    try:
        host.run("! systemctl start slipway-backup-shop.service")
    finally:
        host.run("mv /usr/bin/pg_dump.real /usr/bin/pg_dump")
    found = status(host)
    assert (found["result"], found["success"]) == ("failed", before["success"])
    assert "the disk is on fire" in found["error"]
    assert "failed; last good:" in host.run("slipway status shop")
    assert "ERROR shop: The last backup failed" in host.run("slipway doctor shop", check=False)
    environment = f"RESTIC_REPOSITORY={REPOSITORY} RESTIC_PASSWORD={PASSWORD}"
    assert found["run"] not in host.run(f"{environment} restic snapshots")


def test_a_dropped_table_is_restored_beside_then_switched_to_and_returned_from(host: Host, site: Site) -> None:
    newest = backups(host)[-1]["id"]
    psql(host, "DROP TABLE orders; CREATE TABLE later (number integer); INSERT INTO later VALUES (1), (2)")
    run = site(playbook="playbooks/restore.yml")
    assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]
    assert newest in run.output

    found = restore(host, at="latest")
    assert {row["table"]: row["lost"] for row in found["comparison"]} == {"public.later": 2, "public.orders": 0}
    assert psql(host, "SELECT count(*) FROM later") == "2"
    assert psql(host, "SELECT count(*) FROM orders", "shop_restored") == "1000"

    with polling(host, "/ping") as failures:
        run = site(playbook="playbooks/restore.yml", at="latest", switch=True)
    assert run.code == 0, run.output[-3000:]
    assert failures == []  # of requests that need no database
    assert f"Backup {newest} of release" in flat(run)
    assert "public.later 2 none 2 public.orders none 1000 0" in flat(run)
    assert "at least 2 rows, of 1 tables" in flat(run)
    assert host.ask("/orders").json() == [1000, 500500]
    # Nobody else can use it, as before.
    allowed = "SELECT array_to_string(datacl, $$ $$) FROM pg_database WHERE datname = current_database()"
    assert psql(host, allowed) == "shop=CTc/shop"

    (former,) = json.loads(host.run("slipway backups shop --json"))["formers"]
    assert f"-e at={former} -e switch=true" in flat(run)
    restore(host, at=former, switch=True)
    assert psql(host, "SELECT count(*) FROM later") == "2"


def test_a_deleted_upload_is_restored_with_its_owner(host: Host, site: Site) -> None:
    seen = f"cd {UPLOADS}/.. && stat -c '%n %a %U %G' . uploads uploads/photo.jpg && sha256sum uploads/photo.jpg"
    before = host.run(seen)
    host.run(f"rm {UPLOADS}/photo.jpg; touch {UPLOADS}/later.jpg")
    run = site(playbook="playbooks/restore.yml", at=backups(host)[-1]["id"], only="shared", switch=True)
    assert run.code == 0, run.output[-3000:]
    assert "would be missing: uploads/later.jpg" in flat(run)
    assert host.run(seen) == before
    (former,) = host.run("ls -d /opt/shop/shared.before-*").split()
    assert host.run(f"ls {former}/uploads").split() == ["later.jpg"]
    assert host.run("ls /opt/shop/shared/uploads").split() == ["photo.jpg"]


def test_a_migration_waits_for_a_backup_and_a_failing_one_stops_the_release(host: Host, wanted: dict[str, Any]) -> None:
    count = len(backups(host))
    run = program.deploy(host, **wanted, app_env={"GREETING": "one"})
    assert run.code == 0, run.output[-3000:]
    made = backups(host)
    assert [len(made), made[-1]["reason"]] == [count + 1, "migration"]

    live = host.live()
    host.run(f"mv {REPOSITORY} {REPOSITORY}.away")
    run = program.deploy(host, **wanted, app_env={"GREETING": "two"})
    assert (run.code, host.live()) == (2, live)
    assert (
        "the backup before the migration failed, so nothing was migrated: The backup repository cannot be opened." in run.output
    )
    assert "-e app_migrate_backup=false" in run.output
    assert host.run(f"ls {REPOSITORY}", check=False) == ""  # no other one was made in its place
    run = program.deploy(host, **wanted, app_env={"GREETING": "two"}, app_migrate_backup=False)
    assert run.code == 0, run.output[-3000:]
    host.run(f"mv {REPOSITORY}.away {REPOSITORY}")


# What the owner of a database may do there to have the administrator run something of its own, and to end what takes time.
TRAPS = """
SET ROLE shop;
CREATE SCHEMA traps;
CREATE FUNCTION traps.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a trap''; END';
CREATE VIEW public.alembic_version AS SELECT traps.format('', '') AS version_num;
ALTER ROLE shop IN DATABASE shop SET work_mem = '5MB';
ALTER DATABASE shop SET statement_timeout = '20ms';
SELECT set_config('search_path', 'traps,pg_catalog,x;ALTER/**/ROLE/**/shop/**/SUPERUSER;--', false);
ALTER DATABASE shop SET search_path FROM CURRENT;
"""


def test_nothing_that_the_app_put_into_its_database_is_run_by_a_backup_or_leads_a_restore(host: Host) -> None:
    host.run(f"runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1 -d shop <<'END'\n{TRAPS}\nEND")
    try:
        host.run("slipway backup shop")
        assert status(host)["result"] == "ok"
        found = restore(host, at="latest")
        assert {row["table"]: row["lost"] for row in found["comparison"]}["public.orders"] == 0
        assert psql(host, "SELECT rolsuper FROM pg_roles WHERE rolname = $$shop$$", "postgres") == "f"
        kept = "FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = $$shop_restored$$"
        assert psql(host, f"SELECT setconfig {kept} AND setrole <> 0", "postgres") == "{work_mem=5MB}"
        assert "statement_timeout=20ms" in psql(host, f"SELECT setconfig {kept} AND setrole = 0", "postgres")
    finally:
        undo = ("ALTER DATABASE shop RESET ALL", "ALTER ROLE shop IN DATABASE shop RESET ALL", "DROP SCHEMA traps CASCADE")
        for statement in undo:
            psql(host, f"SET statement_timeout = 0; {statement}")


# Another process empties a table right after its rows were dumped, and has to wait until they are counted as well.
EMPTYING = """#!/bin/sh
for real in /usr/lib/postgresql/*/bin/pg_dump /usr/bin/pg_dump.real; do [ -x "$real" ] && break; done
"$real" "$@"; code=$?
psql -X -d shop -c 'TRUNCATE public.emptied' >/dev/null 2>&1 &
timeout 10 sh -c 'until psql -X -A -t -d postgres -c "SELECT 1 FROM pg_locks WHERE NOT granted" | grep -q 1; do :; done'
exit $code
"""


def test_a_table_that_is_emptied_after_its_dump_is_counted_as_it_was_dumped(host: Host) -> None:
    psql(host, "CREATE TABLE emptied AS SELECT generate_series(1, 1000) AS number")
    host.run(
        f"mv /usr/bin/pg_dump /usr/bin/pg_dump.real; cat >/usr/bin/pg_dump <<'END'\n{EMPTYING}END\nchmod 755 /usr/bin/pg_dump"
    )
    try:
        host.run("slipway backup shop")
    finally:
        host.run("mv /usr/bin/pg_dump.real /usr/bin/pg_dump")
    found = restore(host, at="latest")
    assert {row["table"]: (row["live"], row["backup"]) for row in found["comparison"]}["public.emptied"] == (0, 1000)


def rest(host: Host) -> str:
    """Return what there is beside the live database and folder, by which one tells what a drill left."""
    psql_list = "runuser -u postgres -- psql -X -A -t -c 'SELECT datname FROM pg_database ORDER BY 1'"
    return host.run(f"ls -A /opt/shop; {psql_list}; pgrep -fa '[.]drill/'", check=False)


# A constraint that is checked while a table is restored, by a function that wants more than its app may have.
GREEDY = """
CREATE FUNCTION public.greedy(number integer) RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN RESET ROLE; IF current_setting(''is_superuser'') = ''on'' THEN ALTER ROLE shop SUPERUSER; END IF; RETURN true; END';
CREATE TABLE public.wishes (number integer CHECK (public.greedy(number)));
INSERT INTO public.wishes VALUES (1);
"""


def test_a_drill_restores_the_newest_backup_serves_the_app_with_it_and_leaves_nothing(host: Host, site: Site) -> None:
    assert host.run("systemctl is-active slipway-drill-shop.timer").strip() == "active"
    host.run(f"runuser -u shop -- psql -X -q -v ON_ERROR_STOP=1 -d shop <<'END'\n{GREEDY}\nEND")
    host.run("slipway backup shop")
    before, rows = rest(host), psql(host, "SELECT count(*) FROM orders")
    starts = host.run("cat /opt/shop/shared/starts")
    with polling(host, "/healthz") as failures:
        host.run("systemctl start slipway-drill-shop.service")
    assert failures == []
    found = status(host)["drill"]
    assert (found["result"], found["backup"]) == ("ok", backups(host)[-1]["id"])
    assert found["found"].endswith(f"release {host.live()} is healthy with it"), found
    assert psql(host, "SELECT rolsuper FROM pg_roles WHERE rolname = $$shop$$", "postgres") == "f"
    assert rest(host) == before
    assert psql(host, "SELECT count(*) FROM orders") == rows
    assert host.run("cat /opt/shop/shared/starts") == starts  # the app began once more, with another folder in its place
    psql(host, "DROP TABLE wishes")
    run = site(playbook="playbooks/restore.yml", drill=True)
    assert (run.code, sum(run.changed.values())) == (0, 0), run.output[-3000:]
    assert f"Backup {found['backup']} can be restored: " in flat(run)
    host.run("journalctl --flush --sync")
    assert host.run(f"journalctl --output=json | grep -c {PASSWORD}", check=False).strip() == "0"


def test_a_drill_that_is_killed_leaves_what_is_live_and_the_next_one_clears_up(host: Host) -> None:
    before, rows = rest(host), psql(host, "SELECT count(*) FROM orders")
    for seconds in (0.7, 1.5, 2.5, 3.5):
        host.run(f"slipway drill shop >/dev/null 2>&1 & sleep {seconds}; kill -9 $!; wait", check=False)
        assert host.ask("/orders").status == 200
        assert psql(host, "SELECT count(*) FROM orders") == rows
    host.run("slipway drill shop")
    assert rest(host) == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("find data -type f -exec truncate --size=200 {} +", "restic|dump"),
        ("rm keys/*", "no key found"),
        ("rm snapshots/*", "There is no backup of shop"),
    ],
)
def test_a_drill_is_red_for_a_repository_that_is_none(host: Host, fault: str, reason: str) -> None:
    before = rest(host)
    host.run(f"cp -a {REPOSITORY} {REPOSITORY}.whole; cd {REPOSITORY} && {fault}; rm -rf /var/cache/slipway/restic/*")
    try:
        host.run("! systemctl start slipway-drill-shop.service")
    finally:
        host.run(f"rm -r {REPOSITORY}; mv {REPOSITORY}.whole {REPOSITORY}; rm -rf /var/cache/slipway/restic/*")
    found = status(host)["drill"]
    assert found["result"] == "failed"
    assert re.search(reason, found["error"]), found
    assert "ERROR shop: The last drill failed" in host.run("slipway doctor shop", check=False)
    assert rest(host) == before
