"""The action that fetches and packs the source of one app."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from slipway.controller import interpreter as interpreters
from slipway.controller.fetch.cache import cache_directory, locked
from slipway.controller.fetch.dependencies import Dependencies
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.image import pulled_image, recipe
from slipway.controller.fetch.interpreter import Choice, for_host, for_image
from slipway.controller.fetch.pack import check_links, pack
from slipway.controller.fetch.procfile import procfile
from slipway.controller.fetch.pyproject import entrypoint
from slipway.controller.fetch.source import Fetched, SourceRequest, fetch, pack_wheels
from slipway.host.build.permissions import Allowed, Refused
from slipway.host.errors import ReleaseError


class FetchAction(ActionBase):
    """Fetch and pack the source of one app."""

    _requires_connection = False
    # fmt: off
    _VALID_ARGS = frozenset((
        "source", "version", "checksum", "git_key", "git_token", "directory", "module", "requirements", "installer", "elsewhere",
        "wheelhouse", "exclude", "timeout", "hooks", "hook_timeout", "image", "dockerfiles", "environment", "source_builds",
        "interpreter", "base", "known", "python", "minimum", "uv_version", "downloads", "processes",
    ))
    # fmt: on

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the packed source is, what it was made from, and its digests.

        Raises:
            AnsibleActionFail: when the source cannot be had, or lacks what it must hold.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        try:
            result.update(changed=False, source=self._source(host))
        except (FetchError, Refused, ReleaseError, interpreters.Unreadable) as error:
            raise AnsibleActionFail(str(error)) from None  # Ansible would say all of it twice
        return result

    def _source(self, host: str) -> dict[str, Any]:
        """Return what stands for the source: what is known of it from before in the same run, or what is fetched now."""
        known: dict[str, Any] | None = (self._task.args.get("known") or {}).get("source")
        if known:
            return {**known, **self._interpreter(known, host)}
        if self._text("image"):
            return pulled_image(self._text("image"), self._text("version"))
        request = SourceRequest.of(self._task.args)
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if {"before_fetch", "after_fetch"} & set(request.hooks):  # they may write into one directory for several hosts
                name = hashlib.sha256(self._text("source").encode()).hexdigest()[:16]
                stack.enter_context(locked(cache_directory("hooks") / name))
            fetched = fetch(request, scratch)
            request.hook("after_fetch", fetched.root)
            check_links(fetched.root, request.exclude)
            app = "" if self._text("module") else entrypoint(fetched.root / request.directory)
            processes = {} if self._task.args.get("processes") else procfile(fetched.root / request.directory, request.exclude)
            needs = self._needs(request, fetched)
            needs.update(self._interpreter(needs, host))
            digest, archive = pack(fetched.root, request.exclude, cache_directory(), replaced=needs.pop("replaced", None))
        return {
            "archive": str(archive),
            "digest": digest,
            "revision": fetched.revision or digest[:12],
            "origin": fetched.origin,
            "directory": request.directory,
            "entrypoint": app,
            "processes": processes,
            **needs,
            "wheels": pack_wheels(self._text("wheelhouse")),
        }

    def _needs(self, request: SourceRequest, fetched: Fetched) -> dict[str, Any]:
        """Return what a host must know to install what the app depends on."""
        arguments = self._task.args
        environment = {name: str(value) for name, value in (arguments.get("environment") or {}).items()}
        allowed = Allowed.of(environment, bool(arguments.get("source_builds")), self._text("installer") or "uv")
        needs = recipe(fetched.root, request.directory, list(arguments.get("dockerfiles") or [])) or Dependencies(
            fetched.root, request.directory, request.exclude, allowed
        ).facts(self._text("requirements"), bool(arguments.get("elsewhere")), environment)
        return {**needs, "python": needs.get("python", []) + fetched.demands}

    def _interpreter(self, source: dict[str, Any], host: str) -> dict[str, Any]:
        """Return what Python the app runs with, as far as that is known yet.

        Returns:
            `interpreter`, what uv is asked for on the host, empty if its own will do; `base`, the image that the app's own is
            made from; and `asks`, what uv is asked for in that.

        Raises:
            FetchError: when there is none that the source and the operator allow.
        """
        choice, demands = Choice.of(self._task.args), list(source.get("python") or [])
        base, interpreter, request = self._text("base"), self._text("interpreter"), ""
        if base and source["kind"] not in ("image", "dockerfile"):
            base = for_image(demands, choice, base)
        elif interpreter and (demands or choice.python):
            request = for_host(demands, choice, host, self._version(interpreter), interpreter)
        return {"interpreter": request, "base": base, "asks": choice.python or interpreters.request(demands)}

    def _version(self, interpreter: str) -> str:
        """Return the version of the host's `interpreter`; empty if it is not there yet, or none is named."""
        if not interpreter:
            return ""
        answer = self._low_level_execute_command(f"{shlex.quote(interpreter)} -V", executable="/bin/sh")
        found = re.match(r"Python (\d+\.\d+\.\d+\w*)", str(answer.get("stdout", "")))
        return found[1] if found and not answer.get("rc") else ""

    def _text(self, name: str) -> str:
        return str(self._task.args.get(name) or "")
