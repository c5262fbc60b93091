"""Run git on the controller, with a key or a token that is shown nowhere."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.kind import shown


def _environment() -> dict[str, str]:
    """Return this process's environment without what git tells a hook of the repository that it runs in."""
    own = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"}
    return {name: value for name, value in os.environ.items() if name not in own}


def access(address: str, key: str, token: str) -> dict[str, str]:
    """Return what git must find in its environment to be let in: a command line and a configuration would show it.

    Args:
        address: that of the repository.
        key: the file of a private key; empty for none.
        token: goes into a header that only the address's own host is sent; empty for none.

    Raises:
        FetchError: when the key is not there, or the token would travel in the clear.
    """
    environment: dict[str, str] = {}
    if key:
        file = Path(key).expanduser()
        if not file.is_file():
            raise FetchError(f"app_git_key is {key}: there is no such file on this machine.")
        options = ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new")
        environment["GIT_SSH_COMMAND"] = shlex.join(["ssh", "-i", str(file), *(f"-o{option}" for option in options)])
    if token:
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
            raise FetchError(f"app_git_token goes to an https address only, and app_source is {shown(address)}.")
        header = f"Authorization: Basic {_basic(address, token)}"
        host = parts.netloc.rpartition("@")[2]
        # No helper may be asked, for it would remember the token.
        settings = {f"http.{parts.scheme}://{host}/.extraHeader": header, "credential.helper": ""}
        first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        for number, (name, value) in enumerate(settings.items(), start=first):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        environment["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return environment


def _basic(address: str, token: str) -> str:
    """Return the credentials of HTTP: the token, for the user that the address names, or the one that GitHub expects."""
    user = unquote(urlsplit(address).username or "x-access-token")
    return base64.b64encode(f"{user}:{token}".encode()).decode("ascii")


def git(arguments: list[str], timeout: float, directory: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Run git, with `extra` in its environment, and return what it prints.

    Raises:
        FetchError: when git is missing, takes longer than `timeout` seconds, or fails; addresses lose their password.
    """
    environment = {**_environment(), "GIT_TERMINAL_PROMPT": "0", **(extra or {})}
    try:
        process = subprocess.Popen(
            ["git", "-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise FetchError("app_source is a git repository, and git is not installed on the controller.") from error
    try:
        output, complaint = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"git {arguments[0]} took longer than {timeout:g} s (app_fetch_timeout).") from error
    finally:
        if process.poll() is None:  # with all that it has started, for that would go on writing
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        text = re.sub(r"//[^/@\s]+@", "//", complaint.strip())
        for name, value in (extra or {}).items():
            if name.startswith("GIT_CONFIG_VALUE_") and value:  # as GIT_CURL_VERBOSE shows it
                text = text.replace(value, "***").replace(value.rpartition(" ")[2], "***")
        raise FetchError(f"git {arguments[0]} failed: {text}")
    return output.strip()


def find_object(repository: Path, name: str, kind: str = "commit") -> str:
    """Return the commit, or other `kind` of object, that `name` stands for in `repository`; empty if it stands for none."""
    if not repository.is_dir():
        return ""
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", f"{name}^{{{kind}}}" if kind == "commit" else name],
        cwd=repository,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
