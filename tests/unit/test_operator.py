"""What an operator does on a host itself: look, roll back, run commands, lock."""

# Fixtures are imported, and taken as arguments.
# ruff: noqa: F811

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from typing import Any

import pytest
from test_app_release import ANN, BOB, Host, clock, host  # noqa: F401

from slipway.host import cli, configuration
from slipway.host.lock import Locked, lock
from slipway.host.release.context import Context

Answer = tuple[int, str, str]


@pytest.fixture
def slipway(host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Give a command on a host that serves release 2 of an app, and has release 1."""
    monkeypatch.setattr(configuration, "DIRECTORY", host.layout.home / "etc")
    monkeypatch.setattr(cli, "is_root", lambda: True)
    monkeypatch.setenv("SUDO_USER", "ann")
    told = {name: value for name, value in host.arguments(drain=0.0).items() if name in configuration.PARAMETERS}
    configuration.save(configuration.configured(told), check=False)
    host.run()
    host.run(settings='{"KEY": "open-sesame"}')

    def command(*words: str) -> Answer:
        capsys.readouterr()
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def launched(slipway: Callable[..., Answer], host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's environment, as far as a command needs one."""
    through = {"through": ["/bin/sh", "-c"], "directory": host.layout.home, "user": None}
    monkeypatch.setattr(Context, "launch", lambda context, number: through)


def test_the_configuration_is_roots_alone(slipway: Callable[..., Answer], host: Host) -> None:
    (file,) = (host.layout.home / "etc").iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("shop.json", 0o600)


def test_the_build_stays_what_it_was_if_only_the_rest_is_set(slipway: Callable[..., Answer], host: Host) -> None:
    before = configuration.load("shop")
    assert not configuration.save(before, check=False)
    assert configuration.save({**before, "build": "", "revision": "", "keep": 9}, check=True)
    assert configuration.load("shop") == before
    assert configuration.save({**before, "build": "", "revision": "", "keep": 9}, check=False)
    assert configuration.load("shop") == {**before, "keep": 9}


@pytest.mark.parametrize(
    "words", [("releases", "nosuch"), ("status", "nosuch"), ("rollback", "nosuch"), ("run", "nosuch", "--", "id")]
)
def test_an_app_that_is_not_there_is_named_beside_those_that_are(slipway: Callable[..., Answer], words: tuple[str, ...]) -> None:
    code, _, error = slipway(*words)
    assert (code, error.splitlines()[0]) == (2, "This host has no app nosuch; it has shop. playbooks/deploy.yml brings one here.")


def test_a_damaged_configuration_is_named(slipway: Callable[..., Answer], host: Host) -> None:
    (host.layout.home / "etc" / "shop.json").write_text("{", encoding="utf-8")
    code, _, error = slipway("releases", "shop")
    assert code == 1
    assert "shop.json cannot be used" in error and "playbooks/deploy.yml writes it anew" in error


def test_a_configuration_of_another_version_is_named(slipway: Callable[..., Answer], host: Host) -> None:
    (host.layout.home / "etc" / "shop.json").write_text('{"name": "shop"}', encoding="utf-8")
    code, _, error = slipway("status")
    assert code == 1
    assert "shop.json cannot be used (This step needs layout.): playbooks/deploy.yml writes it anew" in error


def test_the_lock_of_an_app_that_is_not_there_is_let_go(
    run_step: Callable[..., dict[str, Any]], slipway: Callable[..., Answer]
) -> None:
    told = {"app": "nosuch", "run": ANN}
    result = run_step("release", step="unlock", **told)
    assert (result["changed"], result["release"], "msg" in result) == (False, None, False)
    assert "This host has no app nosuch" in run_step("release", step="lock", **told)["msg"]


def test_without_roots_rights_it_says_how(slipway: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "is_root", lambda: False)
    assert slipway("status", "shop") == (2, "", "This needs root's rights: sudo slipway status shop\n")


def test_the_help_is_the_manual(slipway: Callable[..., Answer]) -> None:
    code, manual, _ = slipway("--help")
    assert code == 0
    for command in ("status", "releases", "rollback", "logs", "run", "shell", "doctor", "lock", "unlock", "completion"):
        assert re.search(rf"^    {command}\s", manual, re.MULTILINE)
        assert "exit codes:" in slipway(command, "--help")[1]


def test_bash_completes_its_commands(slipway: Callable[..., Answer]) -> None:
    code, script, _ = slipway("completion")
    assert code == 0
    assert "rollback" in script and script.endswith("complete -F _slipway slipway\n")


def test_releases_are_listed_for_people_and_for_programs(slipway: Callable[..., Answer]) -> None:
    lines = slipway("releases", "shop")[1].splitlines()
    assert [line.split()[:2] for line in lines] == [["RELEASE", "STATE"], ["2", "live"], ["1", "kept"]]
    assert [row["release"] for row in json.loads(slipway("releases", "shop", "--json")[1])] == [2, 1]


def test_a_rollback_is_one_as_by_a_playbook(slipway: Callable[..., Answer], host: Host) -> None:
    code, said, _ = slipway("rollback", "shop", "--check")
    assert (code, said) == (0, "shop would be rolled back from release 2 to 1.\n")
    host.is_served_by(2)
    code, said, _ = slipway("rollback", "shop")
    assert code == 0 and said.startswith("shop serves release 1 now; before, it was 2.")
    host.is_served_by(1)
    assert host.layout.record(2)["outcome"] == "rolled back"
    code, said, _ = slipway("rollback", "shop", "--to", "1", "--json")
    assert (code, json.loads(said)["changed"]) == (0, False)
    code, said, _ = slipway("rollback", "shop", "--to", "7")
    assert code == 1 and "7" in said
    host.is_served_by(1)
    assert configuration.load("shop")["rollback_settings"] == "original"


def test_a_rollback_and_a_playbook_exclude_each_other(slipway: Callable[..., Answer], host: Host) -> None:
    with lock(host.layout, BOB):
        code, said, _ = slipway("rollback", "shop")
    assert code == 3 and "bob on desk" in said
    host.is_served_by(2)


def test_a_locked_app_is_changed_by_who_locked_it_alone(slipway: Callable[..., Answer], host: Host) -> None:
    code, said, _ = slipway("lock", "shop", "--minutes", "5")
    assert code == 0 and said.startswith("shop is locked until ")
    with pytest.raises(Locked, match="ann on "), lock(host.layout, BOB, patience=0.0):
        pass
    assert "ann on " in json.loads(slipway("status", "shop", "--json")[1])[0]["locked"]
    assert slipway("rollback", "shop")[0] == 0
    with pytest.raises(Locked, match="ann on "), lock(host.layout, BOB, patience=0.0):
        pass
    code, said, _ = slipway("unlock", "shop")
    assert code == 0 and said.startswith("shop is not locked any more; it was, by ann on ")
    with lock(host.layout, BOB, patience=0.0):
        pass
    assert slipway("unlock", "shop")[1] == "shop was not locked.\n"
    code, _, error = slipway("lock", "shop", "--minutes", "600")
    assert code == 1 and "1 to 360 minutes" in error


def test_looking_ends_no_lock(slipway: Callable[..., Answer], host: Host) -> None:
    with lock(host.layout, BOB, lease=60.0):
        pass
    assert "bob on desk, until " in json.loads(slipway("status", "shop", "--json")[1])[0]["locked"]
    with pytest.raises(Locked), lock(host.layout, ANN, patience=0.0):
        pass


def test_status_tells_by_its_exit_code_whether_all_is_well(slipway: Callable[..., Answer], host: Host) -> None:
    code, said, _ = slipway("status")
    assert code == 0
    assert said.splitlines()[1].split()[:2] == ["shop", "2"]
    host.supervisor.kill("shop-2")
    assert slipway("status", "shop")[0] == 1


@pytest.mark.usefixtures("launched")
def test_a_command_runs_in_the_live_release(slipway: Callable[..., Answer], host: Host) -> None:
    code, said, _ = slipway("run", "shop", "--", "sh", "-c", "echo $1 open-sesame; exit 7", "sh", "a b")
    assert (code, said) == (7, "a b ********\n")
    entry = host.history()[-1]
    assert (entry["release"], entry["code"]) == (2, 7)
    assert "exit 7" in entry["command"] and "sesame" not in json.dumps(entry)
    assert entry["who"].startswith("ann@")
    # It is no release, and no failed one.
    assert json.loads(slipway("status", "shop", "--json")[1])[0]["last"].startswith("2 live")
    assert slipway("run", "shop")[0] == 2


@pytest.mark.usefixtures("launched")
def test_a_playbook_runs_a_command_too(
    run_step: Callable[..., dict[str, Any]], slipway: Callable[..., Answer], host: Host
) -> None:
    told: dict[str, Any] = {"app": "shop", "command": "pwd; echo open-sesame; exit 3", "timeout": 10, "run": ANN}
    result = run_step("run", **told)
    assert (result["code"], result["lines"], result["release"]) == (3, [str(host.layout.home), "********"], 2)
    assert host.history()[-1]["who"] == "ann@laptop"
    entries = len(host.history())
    assert run_step("run", check=True, **told)["lines"] == []
    assert len(host.history()) == entries
    assert "took longer than 0.2 s" in run_step("run", **{**told, "command": "sleep 60", "timeout": 0.2})["msg"]


def test_logs_are_shown(slipway: Callable[..., Answer], host: Host) -> None:
    (host.layout.logs / "2.log").write_text("one\ntwo GET /?token=abc\n", encoding="utf-8")
    settings = configuration.load("shop")
    configuration.save({**settings, "masked": "(token=)[a-z]+"}, check=False)
    code, said, _ = slipway("logs", "shop", "--grep", "two")
    assert code == 0 and "two GET /?token=********" in said and "one" not in said
    assert slipway("logs", "shop", "--grep", "(")[0] == 1
    assert slipway("logs", "shop", "--grep", "nothing has this")[1] == "There is no such line.\n"
