"""An operator on the host itself: looks, runs commands, rolls back and locks, beside a controller that does the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molecule.conftest import SECRET, Host, Run, polling, within
from molecule.release import program
from molecule.release.conftest import deploy, flat, serves

SNAPSHOT = "twin.test"


def slipway(host: Host, words: str) -> tuple[int, str]:
    """Give a command on the host; return its exit code and what it printed."""
    output = host.run(f"SUDO_USER=ann slipway {words} 2>&1; echo $?", check=False)
    text, _, code = output.rstrip().rpartition("\n")
    return int(code), text


def test_an_operator_and_a_controller_exclude_each_other(host: Host, changed: Callable[[str], Path]) -> None:
    runs: list[Run] = []
    secrets = {"KEY_OF_THE_APP": f"{SECRET}-run"}
    source = changed("# what an operator rolls back from")

    def release() -> None:
        settings = {"app_watch_seconds": 4, "app_watch_hang_seconds": 0}
        runs.append(program.deploy(host, app_source=str(source), app_secrets=secrets, **settings))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(slipway(host, f"status {host.app} --json")[1])[0]
        return found

    before = serves(host)
    with polling(host, "/items/1") as failures:
        controller = threading.Thread(target=release)
        controller.start()
        within(90, lambda: bool(status()["locked"]), pause=0.1)
        code, said = slipway(host, f"rollback {host.app}")
        assert code == 3 and "This app is locked by another run" in said
        controller.join()
        assert runs[0].code == 0, runs[0].output[-3000:]
        now = serves(host)
        assert now > before
        assert (status()["release"], status()["health"], status()["locked"]) == (now, "ok", "")

        # The live release's code, settings and user, its exit code, and no secret.
        code, said = slipway(host, f"run {host.app} -- sh -c 'id -un; pwd; echo $RELEASE_ID $KEY_OF_THE_APP; exit 5'")
        assert (code, said.splitlines()) == (5, [host.app, f"/opt/{host.app}/builds/{build(host, now)}", f"{now} ********"])
        run = deploy(host, playbook="playbooks/run.yml", command="python -c 'import main; print(main.app.title)'")
        assert run.code == 0 and "FastAPI" in run.output, run.output[-2000:]

        assert slipway(host, f"lock {host.app} --minutes 5")[0] == 0
        run = program.deploy(host, app_watch_seconds=0)
        assert run.code != 0 and "This app is locked by another run: ann on" in flat(run), run.output[-3000:]
        code, said = slipway(host, f"rollback {host.app}")
        assert code == 0 and said.splitlines()[-1].startswith(f"{host.app} now serves release {before}; it served {now}.")
        assert serves(host) == before
        assert slipway(host, f"unlock {host.app}")[0] == 0
    assert failures == []
    entries = [json.loads(line) for line in host.run(f"cat /opt/{host.app}/history.jsonl").splitlines()]
    assert [entry["code"] for entry in entries if "exit 5" in entry.get("command", "")] == [5]
    assert SECRET not in json.dumps(entries)


def build(host: Host, release: int) -> str:
    """Return the name of a release's build."""
    return host.run(f"basename $(readlink /opt/{host.app}/releases/{release}/build)").strip()


def test_what_the_host_says_of_itself(host: Host) -> None:
    code, said = slipway(host, "doctor --json")
    assert [finding for finding in json.loads(said) if finding["severity"] == "error"] == [] and code == 0
    code, said = slipway(host, f"releases {host.app}")
    assert code == 0 and said.startswith("RELEASE  STATE")
    assert slipway(host, f"logs {host.app} --lines 1")[0] == 0
    code, said = slipway(host, "status nosuch")
    assert (code, said) == (2, f"This host has no app nosuch; it has {host.app}. To deploy one: playbooks/deploy.yml")
    assert host.run("setpriv --reuid=nobody --clear-groups slipway status 2>&1; echo $?").split()[-1] == "2"
    assert "usage: slipway" in host.run("setpriv --reuid=nobody --clear-groups slipway --help")
    assert host.run("bash -c 'source <(slipway completion); complete -p slipway'").strip() == "complete -F _slipway slipway"
    assert host.run(f"stat -c '%U %a' /etc/slipway/apps/{host.app}.json").split() == ["root", "600"]
