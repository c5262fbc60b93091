"""A release in a container: what it may do there, where its image comes from, and what is left of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import ROOT, SECRET, Host, Run, podman, polling, within
from molecule.release import program
from molecule.release.conftest import base, deploy, flat, have_engine, serves
from molecule.release.logs import SAYS, TOKEN, files, journal, leaks

SNAPSHOT = "other.test"
REGISTRY = "127.0.0.1:5000"


def boxed(**variables: Any) -> dict[str, Any]:
    """Return the variables by which the app is run in a container, and others on top of them."""
    settings: dict[str, Any] = {"app_runtime": "container", "app_image_base": base(), "app_watch_seconds": 1}
    return {**settings, **variables}


def ship(host: Host, **variables: Any) -> Run:
    """Release the app in a container."""
    return program.deploy(host, **boxed(**variables))


def inside(host: Host, command: str) -> str:
    """Run a command in the container of the live release, and return what it prints, its exit code last."""
    return host.run(f"podman exec shop-{host.live()} sh -c '{command}'; echo $?", check=False)


def images(host: Host) -> list[str]:
    """Return the app's images."""
    return host.run("podman images --all --format '{{.Repository}}:{{.Tag}}'").split()


@pytest.fixture(scope="module", autouse=True)
def engine(host: Host) -> None:
    have_engine(host, "podman")


def test_a_release_in_a_container_is_told_what_a_playbook_tells_it_and_a_second_run_changes_nothing(host: Host) -> None:
    release = boxed(app_env={"GREETING": "boxed"})
    run = deploy(host, **release)
    assert (run.code, run.changed[host.name]) == (0, 2), run.output[-3000:]  # an image, and a release of it
    number = serves(host)
    by_playbook = host.run("cat /etc/slipway/apps/shop.json")
    run = program.deploy(host, **release)
    assert (run.code, run.changed) == (0, {host.name: 0}), run.output
    assert host.run("cat /etc/slipway/apps/shop.json") == by_playbook
    for arguments in ((), ("--check",)):
        run = deploy(host, *arguments, playbook="site.yml", **release)
        assert (run.code, run.changed[host.name]) == (0, 0), run.output[-3000:]
    assert deploy(host, "--check", **boxed(app_env={"GREETING": "another"})).changed[host.name] == 1
    assert serves(host) == number


def test_the_app_is_locked_in(host: Host) -> None:
    run = ship(host, app_container_memory_mb=256, app_container_cpus=1.5, app_env={"GREETING": "limited"})
    assert run.code == 0, run.output[-3000:]
    number = serves(host)
    told = json.loads(host.run(f"podman inspect shop-{number}"))[0]
    assert told["HostConfig"]["Memory"] == 256 * 2**20
    assert told["HostConfig"]["NanoCpus"] == 1_500_000_000
    status = inside(host, "cat /proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = host.run("id -u shop").strip()
    assert facts["Uid"].split() == [user] * 4
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    for place in ("/srv/source/x", f"/opt/shop/releases/{number}/x", "/usr/x", "/x"):
        assert inside(host, f"touch {place}").strip() != "0", place
    for place in ("/tmp/x", "/opt/shop/shared/x"):
        assert inside(host, f"touch {place}").strip() == "0", place
    build = host.run("readlink /opt/shop/current/build | xargs basename").strip()
    assert "canary" not in host.run(f"podman inspect shop-{number}; podman history --no-trunc localhost/slipway-shop:{build}")
    # Whoever takes too much memory is killed, and nobody else.
    with polling(host, "/items/1") as failures:
        assert inside(host, 'python3 -c "bytearray(400 * 2**20)"').strip().endswith("137")
    assert failures == []
    within(10, host.healthy)


KEEPS = """
import sqlite3
from pathlib import Path
@app.post("/keep")
def keep():
    Path("uploads", f"{len(list(Path('uploads').iterdir()))}.txt").write_text("written")
    with sqlite3.connect("shop.sqlite3") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table if not exists kept (id integer primary key)")
        database.execute("insert into kept default values")
        (count,) = database.execute("select count(*) from kept").fetchone()
    return {"files": sorted(path.name for path in Path("uploads").iterdir()), "rows": count}
app.frontend("/ui", directory="dist")
"""


def test_data_of_the_app_and_files_of_an_open_page_outlive_a_container(host: Host, changed: Callable[[str], Path]) -> None:
    def release(mark: str) -> None:
        source = changed(f"{KEEPS}# {mark}")
        for name in ("uploads/from-source.txt", "dist/index.html", f"dist/index-BfX9k2a{mark}.js"):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(name, encoding="ascii")
        run = ship(host, app_source=str(source), app_shared={"uploads": "", "shop.sqlite3": "db/shop.sqlite3"})
        assert run.code == 0, run.output[-3000:]
        serves(host)

    release("Q")
    first = host.live()
    assert host.ask("/keep", "POST").json() == {"files": ["1.txt", "from-source.txt"], "rows": 1}
    release("R")
    assert host.ask("/keep", "POST").json() == {"files": ["1.txt", "2.txt", "from-source.txt"], "rows": 2}
    for mark in "QR":
        script = host.ask(f"/ui/index-BfX9k2a{mark}.js")
        assert (script.status, "immutable" in script.headers["cache-control"]) == (200, True), mark
    assert host.ask("/ui/index.html").headers["x-release"] == str(host.live())
    assert program.rollback(host, **boxed()).code == 0
    assert serves(host) == first
    assert host.ask("/keep", "POST").json() == {"files": ["1.txt", "2.txt", "3.txt", "from-source.txt"], "rows": 3}
    assert host.run("stat --format=%U /opt/shop/shared/uploads/3.txt /opt/shop/shared/db/shop.sqlite3").split() == ["shop"] * 2


def test_the_sources_own_recipe_is_taken(host: Host, shop: Path) -> None:
    recipe = """
    ARG BASE=docker.io/library/python:3.13-slim
    FROM $BASE
    RUN python3 -m venv /env && /env/bin/pip install --quiet --disable-pip-version-check fastapi uvicorn websockets
    ENV PATH=/env/bin:$PATH GREETING=baked
    WORKDIR /code
    COPY main.py .
    CMD ["uvicorn", "main:app"]
    """
    (shop / "Dockerfile").write_text("\n".join(line.strip() for line in recipe.splitlines()), encoding="utf-8")
    live = serves(host)
    run = ship(host, app_source=str(shop), app_image_args={"BASE": base()})
    assert run.code != 0
    assert "the image lacks gunicorn, uvicorn_worker: have it install what app_server: gunicorn needs" in flat(run)
    assert serves(host) == live
    run = ship(host, app_source=str(shop), app_image_args={"BASE": base()}, app_server="uvicorn", app_env={"KEY": "x"})
    assert run.code == 0, run.output[-3000:]
    number = serves(host)
    assert number > live
    assert host.ask("/items/1").json()["greeting"] == "baked"
    assert inside(host, "pwd").split() == ["/code", "0"]
    (shop / "Dockerfile").write_text("FROM localhost/nobody\n", encoding="utf-8")
    run = ship(host, app_source=str(shop), app_server="uvicorn")
    assert run.code != 0
    assert "The build failed. The live release is unchanged." in flat(run)
    assert serves(host) == number


def test_an_image_has_what_a_uv_lock_names(host: Host, kiosk: Path) -> None:
    run = ship(host, app_source=str(kiosk), app_module="kiosk.main:app", app_env={"GREETING": "locked"}, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    serves(host)
    assert host.ask("/items/1").json()["greeting"] == "locked"
    present = inside(host, "ls /srv/.venv/lib/python3*/site-packages")
    assert "kiosk" in present and "fastapi-0.165.0.dist-info" in present
    assert "pytest" not in present


def test_a_changed_page_in_an_image_is_new_to_a_client(host: Host, shop: Path) -> None:
    (shop / "pages").mkdir()
    with open(shop / "main.py", "a", encoding="utf-8") as code:
        code.write("\nfrom fastapi.staticfiles import StaticFiles\napp.mount('/pages', StaticFiles(directory='pages'))\n")
    known: dict[str, dict[str, str]] = {}
    for text in ("AAAA", "BBBB"):
        (shop / "pages" / "index.html").write_text(text, encoding="ascii")
        (shop / "pages" / "same.js").write_text("same", encoding="ascii")
        run = ship(host, app_source=str(shop), app_watch_seconds=0)
        assert run.code == 0, run.output[-3000:]
        for name, headers in known.items():
            for header, value in (("If-None-Match", headers["etag"]), ("If-Modified-Since", headers["last-modified"])):
                answer = host.ask(f"/pages/{name}", headers={header: value})
                assert (answer.status, answer.body) == ((304, "") if name == "same.js" else (200, text)), (name, header)
        known = {name: host.ask(f"/pages/{name}").headers for name in ("index.html", "same.js")}


def test_a_migration_and_hooks_run_in_the_image(host: Host, shop: Path) -> None:
    hooks = {"before_switch": "pwd >> $HOME/hooks; id -un 2>/dev/null; exit 0", "after_switch": "echo $SLIPWAY_TO >> $HOME/hooks"}
    host.run("rm -f /opt/shop/shared/hooks")
    run = ship(host, app_hooks=hooks, app_migrate_command="pwd >> $HOME/hooks; sleep 1", app_env={"GREETING": "migrated"})
    assert run.code == 0, run.output[-3000:]
    number = serves(host)
    assert host.run("cat /opt/shop/shared/hooks").split() == ["/srv/source", "/srv/source", str(number)]
    run = ship(host, app_migrate_command="sleep 600", app_migrate_timeout=2, app_env={"GREETING": "hangs"})
    assert run.code != 0
    assert "took longer than 2 s (app_migrate_timeout)" in flat(run)
    assert host.run("podman ps --all --format '{{.Names}}'").split() == [f"shop-{number}"]
    assert serves(host) == number


def test_back_to_a_virtual_environment_and_forth(host: Host) -> None:
    assert ship(host, app_env={"GREETING": "forth"}).code == 0
    in_container = serves(host)
    plain = program.deploy(host, app_watch_seconds=1)
    assert plain.code == 0, plain.output[-3000:]
    beside = serves(host)
    assert host.run("podman ps --all --quiet") == ""
    with polling(host, "/items/1") as failures:
        for number in (in_container, beside):
            run = program.rollback(host, release=number, app_watch_seconds=1)
            assert run.code == 0, run.output[-3000:]
            assert serves(host) == number
    assert failures == []
    run = program.rollback(host, release=in_container, app_rollback_settings="current")
    assert run.code != 0
    assert "was built for another app_runtime" in flat(run)


ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", "/metrics")
print(connection.getresponse().read().decode())
"""


def test_requests_are_counted_over_all_workers(host: Host) -> None:
    example = {
        "app_source": str(ROOT / "app"),
        "app_module": "app.main:app",
        "app_image_args": {"BASE": base()},
        "app_server": "uvicorn",
        "app_workers": 3,
    }
    for count in (40, 23):
        run = ship(host, app_env={"ENVIRONMENT": "staging", "TURN": str(count)}, **example)
        assert run.code == 0, run.output[-3000:]
        number = serves(host)
        assert {host.ask(f"/items/{item}").status for item in range(count)} == {200}
        told = host.run(f"python3 -c '{ASK}' /run/shop/{number}.sock")
        assert f'http_requests_total{{handler="/items/{{item_id}}",method="GET",status="200"}} {count}.0' in told.splitlines()
        assert host.ask("/metrics").status == 404


def test_images_go_with_their_releases(host: Host, changed: Callable[[str], Path]) -> None:
    for number in range(3):
        run = ship(host, app_source=str(changed(f"# {number}")), app_keep_releases=1)
        assert run.code == 0, run.output[-3000:]
    kept = sorted(image for image in images(host) if "slipway-shop" in image)
    assert kept == sorted(f"localhost/slipway-shop:{build}" for build in host.run("ls /opt/shop/builds").split())
    assert len(kept) == 2
    assert [image for image in images(host) if "none" in image] == []
    assert "MiB" in flat(deploy(host, playbook="playbooks/releases.yml"))


def test_an_image_that_the_controller_builds(host: Host, changed: Callable[[str], Path]) -> None:
    before = podman("images", "--format={{.Repository}}")
    run = deploy(host, **boxed(app_source=str(changed("# from the controller")), app_image_builder="controller"))
    assert run.code == 0, run.output[-3000:]
    serves(host)
    assert podman("images", "--format={{.Repository}}") == before


@pytest.mark.parametrize("target", ["files", "journald"])
def test_a_container_logs_to_the_same_places(host: Host, changed: Callable[[str], Path], target: str) -> None:
    run = ship(host, app_source=str(changed(SAYS)), app_log_target=target, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    release, name = str(serves(host)), f"of-a-container.{target}"
    assert host.ask("/say/four", headers={"X-Request-ID": name}).status == 200
    assert host.ask("/leak", headers={"X-Request-ID": name}).status == 500
    read = {"files": files, "journald": journal}[target]
    within(10, lambda: len([line for line in read(host) if line.get("request_id") == name]) == 3)
    first, _, _ = [line for line in read(host) if line.get("request_id") == name]
    assert (first["message"], first["release"]) == ("four", release)
    assert leaks(host, SECRET, TOKEN) == []


CONFIGURATION = f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}}}
http: {{addr: "{REGISTRY}"}}
auth: {{htpasswd: {{realm: test, path: /etc/docker/registry/htpasswd}}}}
"""
PLAIN = f'[[registry]]\nlocation = "{REGISTRY}"\ninsecure = true\n'


@pytest.fixture
def registry(host: Host) -> Iterator[str]:
    """A registry on the host that lets nobody in but ann."""
    host.run("apt-get install -qqy --no-install-recommends docker-registry apache2-utils >/dev/null")
    host.run("htpasswd -Bbc /etc/docker/registry/htpasswd ann open-sesame 2>&1")
    host.run(f"cat >/etc/docker/registry/config.yml <<'END'\n{CONFIGURATION}\nEND")
    host.run(f"cat >/etc/containers/registries.conf.d/test.conf <<'END'\n{PLAIN}\nEND")
    host.run("systemctl restart docker-registry")
    question = f"python3 -c 'import urllib.request as u; u.urlopen(\"http://{REGISTRY}/v2/\")' 2>&1"
    within(10, lambda: "401" in host.run(question, check=False))
    yield f"{REGISTRY}/team/shop"
    host.run("systemctl stop docker-registry")


def test_an_image_that_is_pulled(host: Host, registry: str) -> None:
    assert ship(host, app_env={"GREETING": "pushed"}).code == 0
    build = host.run("readlink /opt/shop/current/build | xargs basename").strip()
    host.run(f"podman push --creds=ann:open-sesame localhost/slipway-shop:{build} {registry}:v1")
    login = {"app_registry_username": "ann", "app_registry_password": "open-sesame"}
    live = serves(host)
    run = ship(host, app_image=registry, app_version="v1")
    assert run.code != 0
    assert f"The image {registry}:v1 (app_image) cannot be pulled." in flat(run)
    assert serves(host) == live
    for by, image, version in ((deploy, registry, "v1"), (program.deploy, f"{registry}:v1", "")):
        run = by(host, **boxed(app_image=image, app_version=version, app_env={"GREETING": "pulled"}, **login))
        assert run.code == 0, run.output[-3000:]
        assert "open-sesame" not in run.output
    number = serves(host)
    assert number == live + 1, "the second of them is the same again"
    assert host.ask("/items/1").json()["greeting"] == "pulled"
    assert [image for image in images(host) if registry in image] == []
    assert host.run("grep -rl open-sesame /opt/shop /root /run/containers /var/log 2>/dev/null", check=False) == ""
    listed = flat(deploy(host, playbook="playbooks/releases.yml"))
    assert f"{number} live v1" in listed


def test_docker_does_the_same(host: Host, changed: Callable[[str], Path]) -> None:
    have_engine(host, "docker")
    # Its newer builder does not start containers in containers beside cgroups of version 1.
    docker = {"app_container_engine": "docker", "app_build_environment": {"DOCKER_BUILDKIT": "0"}, "app_keep_releases": 1}
    with polling(host, "/items/1") as failures:
        for number in range(3):
            run = ship(host, app_source=str(changed(f"# docker {number}")), **docker)
            assert run.code == 0, run.output[-3000:]
            live = serves(host)
        host.run(f"kill -9 {host.master()}")
        within(10, lambda: "attach" in host.run(f"ps -o args= --ppid {host.master()}", check=False))
        run = program.rollback(host, app_runtime="container", app_watch_seconds=1, **docker)
        assert run.code == 0, run.output[-3000:]
    assert failures == []
    assert serves(host) < live
    assert host.run("docker ps --all --format '{{.Names}}'").split() == [f"shop-{host.live()}"]
    assert host.run("podman ps --all --quiet") == ""
    kept = host.run("docker images --format '{{.Tag}}' localhost/slipway-shop").split()
    assert sorted(kept) == sorted(host.run("ls /opt/shop/builds").split())


def test_a_job_has_a_container_of_its_own_which_outlives_its_release(host: Host, changed: Callable[[str], Path]) -> None:
    command = "echo begun; while [ ! -e $HOME/end ]; do sleep 0.2; done; python3 -c 'import main; print(main.NAME)'; exit 3"
    jobs: dict[str, Any] = {"cleanup": {"schedule": "yearly", "command": command, "hosts": "all"}}
    run = ship(host, app_source=str(changed("NAME = 'old'")), app_jobs=jobs, app_keep_releases=1)
    assert run.code == 0, run.output[-3000:]
    host.run("rm -f /opt/shop/shared/end; systemctl start --no-block slipway-job-shop-cleanup.service")
    log = "cat /var/log/shop/job-cleanup.log"
    within(60, lambda: '"begun"' in host.run(log, check=False), pause=0.5)
    for name in ("new", "newer", "newest"):
        run = ship(host, app_source=str(changed(f"NAME = '{name}'")), app_jobs=jobs, app_keep_releases=1)
        assert run.code == 0 and "could not be removed" not in run.output, run.output[-3000:]
    host.run("touch /opt/shop/shared/end")
    within(60, lambda: '"result": "failed"' in host.run(log), pause=0.5)
    assert '"message": "old"' in host.run(log)
    assert host.run("podman ps --all --quiet --filter=label=slipway.serves=job") == ""
    # One that ignores SIGTERM leaves no container behind, either.
    jobs = {"cleanup": {**jobs["cleanup"], "command": "trap '' TERM; sleep 300 & sleep 300", "timeout_seconds": 3}}
    run = ship(host, app_jobs=jobs)
    assert run.code == 0, run.output[-3000:]
    assert host.run("slipway run shop --job cleanup >/dev/null; echo $?").strip() == "124"
    assert host.run("podman ps --all --quiet --filter=label=slipway.serves=job") == ""


def test_a_process_has_a_container_of_its_own_which_may_end_its_work(host: Host, changed: Callable[[str], Path]) -> None:
    script = changed(
        """
def work():
    import os, signal, time
    def stop(number, frame):
        print("was told to end", NAME, flush=True)
        while not os.path.exists(f"{os.environ['HOME']}/may-end"):
            time.sleep(0.1)
        print("has ended", NAME, flush=True)
        raise SystemExit
    signal.signal(signal.SIGTERM, stop)
    print("works", NAME, flush=True)
    while True:
        time.sleep(0.1)
"""
    )
    host.run("rm -f /opt/shop/shared/may-end")
    command = {"command": "python3 -c 'import main; main.work()'", "stop_seconds": 120, "memory_mb": 128}
    processes: dict[str, Any] = {"worker": {**command, "instances": 2}}
    log = "cat /var/log/shop/*.worker*.log"

    def release(name: str) -> int:
        (script / "main.py").write_text(
            f"{(script / 'main.py').read_text(encoding='utf-8')}\nNAME = {name!r}\n", encoding="utf-8"
        )
        with polling(host, "/items/1") as failures:
            run = ship(host, app_source=str(script), app_processes=processes)
        assert (run.code, failures) == (0, []), run.output[-3000:]
        return host.live()

    def containers() -> Counter[str]:
        lines = host.run("podman ps --all --filter=label=slipway.program --format='{{.Names}}'").splitlines()
        return Counter(line.partition(".")[0] for line in lines)

    old = release("old")
    assert containers() == {f"shop-{old}": 2}
    status = host.run(f"podman exec shop-{old}.worker.0 cat /proc/1/status")
    assert f"Uid:\t{host.run('id -u shop').strip()}" in status and "NoNewPrivs:\t1" in status
    new = release("new")
    within(30, lambda: host.run(log).count("was told to end old") == 2)
    assert containers() == {f"shop-{old}": 2, f"shop-{new}": 2}
    run = program.rollback(host, **boxed(app_processes=processes))
    assert run.code == 0, run.output[-3000:]
    within(30, lambda: host.run(log).count("was told to end new") == 2)
    host.run("touch /opt/shop/shared/may-end")
    within(30, lambda: (host.run(log).count("has ended old"), host.run(log).count("has ended new")) == (2, 2))
    within(30, lambda: containers() == {f"shop-{old}": 2})
    run = ship(host, app_source=str(script), app_processes={})
    assert run.code == 0, run.output[-3000:]
    within(30, lambda: containers() == {})


def test_a_drill_has_a_container_of_its_own_and_leaves_none(host: Host) -> None:
    run = deploy(
        host, "--tags=backup", playbook="site.yml", **boxed(backup_repository="/srv/backup", backup_password="canary-of-a-backup")
    )
    assert run.code == 0, run.output[-3000:]
    host.run("slipway backup shop")
    before = host.run("podman ps --all --format '{{.Names}}' | sort; ls -A /opt/shop")
    said = host.run("slipway drill shop")
    assert f"release {host.live()} is healthy with it" in said
    assert host.run("podman ps --all --format '{{.Names}}' | sort; ls -A /opt/shop") == before
    assert host.healthy()
