"""Git is run without the operator's own settings in the way, and what lets it in is seen nowhere."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import Repository

from slipway.controller.fetch.cache import cache_directory
from slipway.controller.fetch.checkout import checkout
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.git import git


def test_a_password_is_shown_nowhere(tmp_path: Path, program: Callable[[str, str], Path]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(FetchError, match="git fetch failed") as error:
        checkout(f"http://ann:hunter2@127.0.0.1:{port}/x.git", "", 20, tmp_path / "1")
    assert "hunter2" not in str(error.value)
    assert f"127.0.0.1:{port}" in str(error.value)
    program("git", "#!/bin/sh\necho 'fatal: https://ann:hunter2@host/x.git not found' >&2; exit 128\n")
    with pytest.raises(FetchError, match=r"git fetch failed: fatal: https://host/x\.git not found"):
        git(["fetch"], 20)


def test_git_of_another_repository_is_left_alone(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As within a hook of the operator's own repository.
    repository.commit(main__py="one")
    own = Repository(tmp_path / "own")
    mine = own.commit(notes="mine")
    own.git("checkout", "--quiet", "-b", "work")
    monkeypatch.setenv("GIT_DIR", str(own.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(own.path / ".git/index"))
    checkout(str(repository.path), "main", 20, tmp_path / "1")
    monkeypatch.undo()
    assert (tmp_path / "1/main.py").exists()
    assert own.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines() == [
        f"refs/heads/main {mine}",
        f"refs/heads/work {mine}",
    ]


def test_git_waits_neither_for_an_answer_nor_for_ever(program: Callable[[str, str], Path]) -> None:
    program("git", "#!/bin/sh\nexec sleep 60\n")
    before = time.monotonic()
    with pytest.raises(FetchError, match=r"git fetch took longer than 0\.2 s \(app_fetch_timeout\)"):
        git(["fetch", "x"], 0.2)
    assert time.monotonic() - before < 10
    program("git", '#!/bin/sh\necho "$GIT_TERMINAL_PROMPT"\n')
    assert git(["fetch"], 5) == "0"


def test_what_git_started_ends_with_it(program: Callable[[str, str], Path], tmp_path: Path) -> None:
    program("git", f"#!/bin/sh\n(sleep 2; touch {tmp_path}/late) &\nsleep 60\n")
    with pytest.raises(FetchError, match="took longer"):
        git(["fetch", "x"], 0.2)
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_a_controller_without_git_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FetchError, match="git is not installed on the controller"):
        git(["fetch"], 5)


def test_the_origin_is_remembered_without_its_password(repository: Repository, fetch: Callable[..., dict[str, Any]]) -> None:
    repository.commit(requirements__txt="fastapi\n")
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "{repository.path}"]\n insteadOf = https://ann:hunter2@host/x.git\n', encoding="utf-8"
    )
    result = fetch("https://ann:hunter2@host/x.git")
    assert "hunter2" not in str(result)
    assert result["source"]["origin"] == "https://host/x.git"


@pytest.mark.parametrize(("login", "user"), [("", "x-access-token"), ("deploy@", "deploy")])
def test_a_token_opens_a_repository_and_is_seen_nowhere(
    repository: Repository,
    tmp_path: Path,
    fetch: Callable[..., dict[str, Any]],
    serve: Callable[..., tuple[str, list[str]]],
    program: Callable[[str, str], Path],
    login: str,
    user: str,
) -> None:
    commit = repository.commit(requirements__txt="fastapi\n")
    repository.git("update-server-info")
    address, _ = serve(tmp_path, f"{user}:s3cr3t-token")
    address = address.replace("//", f"//{login}") + "/origin.git/.git"
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".gitconfig").write_text(f"[credential]\n helper = store --file {home}/remembered\n", encoding="utf-8")
    log = tmp_path / "log"
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    program("git", f'#!/bin/sh\necho "$@" >>{log}\nexec {real} "$@"\n')
    result = fetch(f"git+{address}", git_token="s3cr3t-token")
    assert result["source"]["revision"] == commit
    secret = base64.b64encode(f"{user}:s3cr3t-token".encode()).decode()
    kept = [path for path in [*cache_directory().rglob("*"), *home.rglob("*"), log] if path.is_file()]
    assert len(kept) > 5
    for text in [str(result), *(path.read_bytes().decode("latin-1") for path in kept)]:
        assert "s3cr3t-token" not in text
        assert secret not in text
    with pytest.raises(AnsibleActionFail, match="git fetch failed") as error:
        fetch(f"git+{address}", git_token="an0ther-token")
    assert "an0ther-token" not in str(error.value)
    program("git", '#!/bin/sh\necho "$GIT_CONFIG_VALUE_0 ${GIT_CONFIG_VALUE_0##* }" >&2; test $1 = init\n')
    with pytest.raises(AnsibleActionFail, match=r"git fetch failed: \*+ \*+$"):
        fetch(f"git+{address}", git_token="s3cr3t-token")


@pytest.mark.parametrize("address", ["http://git.example.com/x.git", "ssh://git@git.example.com/x.git", "git@host:x.git"])
def test_a_token_does_not_travel_in_the_clear(fetch: Callable[..., dict[str, Any]], address: str) -> None:
    with pytest.raises(AnsibleActionFail, match="app_git_token is only sent to https addresses") as error:
        fetch(address, git_token="s3cr3t-token")
    assert "s3cr3t-token" not in str(error.value)


def test_a_key_opens_a_repository(
    repository: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]], program: Callable[[str, str], Path]
) -> None:
    commit = repository.commit(requirements__txt="fastapi\n")
    key = tmp_path / "a key"
    log = tmp_path / "log"
    # One that lets in whom the key is shown by.
    program("ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" >{log}\nshift $(($# - 1))\neval "exec $1"\n')
    with pytest.raises(AnsibleActionFail, match=r"app_git_key is .*a key: there is no such file"):
        fetch(f"ssh://git@host{repository.path}", git_key=str(key))
    key.touch()
    assert fetch(f"ssh://git@host{repository.path}", git_key=str(key))["source"]["revision"] == commit
    words = log.read_text(encoding="utf-8").splitlines()
    assert words[:2] == ["-i", str(key)]
    assert {"-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oStrictHostKeyChecking=accept-new"} <= set(words)
