"""Releases and rollbacks as the controller makes them, but without a run of ansible-playbook: in this process.

What the role's tasks tell the host's program is worked out by Ansible's own engine from the inventory and a test's variables, and
the controller's own actions take it there. What is left out is the run around them: facts, the check of variables, the account,
other hosts of the app, and what is shown to the operator.
"""

from __future__ import annotations

import json
import posixpath
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager

from molecule.conftest import INVENTORY, PODMAN, ROOT, Host, Run
from slipway.controller.build import BuildAction
from slipway.controller.fetch.action import FetchAction
from slipway.controller.identity import machine
from slipway.controller.image import ImageAction
from slipway.controller.step import StepAction
from tests.unit.rendering import Host as Rendered


class Failed(Exception):
    """A step failed; the message is the operator's."""


def task_of(arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Return what an action is made with: a task with those arguments, and for the rest what it does not look at here."""
    task = SimpleNamespace(args=arguments, action="", check_mode=False, async_val=0)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None, join_path=posixpath.join))
    return task, connection, None, None, None, None


class Fetch(FetchAction):
    """The fetching of a source, which may have to ask the host for its Python.

    Args:
        host: the host.
        arguments: what the task tells its action.
    """

    def __init__(self, host: Host, arguments: dict[str, Any]) -> None:
        super().__init__(*task_of(arguments))
        self.host = host

    def _low_level_execute_command(self, cmd: str, **options: Any) -> dict[str, Any]:
        """Run a command on the host."""
        done = subprocess.run(
            [PODMAN, "exec", self.host.container, options["executable"], "-c", cmd], capture_output=True, text=True, check=False
        )
        return {"rc": done.returncode, "stdout": done.stdout}


class Step(StepAction):
    """A step of a release that reaches its host by podman alone.

    Args:
        host: the host.
        name_of_run: what tells the run in whose name it is taken from others.
        arguments: what the task tells its action.
    """

    def __init__(self, host: Host, name_of_run: dict[str, str], arguments: dict[str, Any]) -> None:
        super().__init__(*task_of(arguments))
        self.host = host
        self.name_of_run = name_of_run
        self.told: dict[str, Any] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step that the task names."""
        return self.step(self._task.args["step"], self._task.args["arguments"], {})

    def step(self, name: str, arguments: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Take the step `name`, told `arguments`, and return its result."""
        self.told = dict(arguments)
        return super().step(name, arguments, task_vars)

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any = None) -> dict[str, Any]:
        """Have the host's program take the step, as the module `slipway` does there."""
        program = f"/opt/slipway/{module_args['program']}/slipway.pyz"
        command = [PODMAN, "exec", "--interactive", self.host.container, "python3", program, "step", module_args["step"]]
        told = json.dumps({"arguments": self.told, "run": {**module_args["run"], **self.name_of_run}})
        done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def _make_tmp_path(self, remote_user: str | None = None) -> None:
        """Have a directory on the host for what is sent there."""
        self._connection._shell.tmpdir = self.host.run("mktemp --directory").strip()

    def _transfer_file(self, local_path: str, remote_path: str) -> None:
        """Send a file to the host."""
        command = [PODMAN, "exec", "--interactive", self.host.container, "cp", "/dev/stdin", remote_path]
        with Path(local_path).open("rb") as file:
            subprocess.run(command, stdin=file, check=True)

    def _fixup_perms2(self, remote_paths: Sequence[str], remote_user: str | None = None, execute: bool = True) -> None:
        """Leave what was sent as it is: root sends it to itself."""

    def _remove_tmp_path(self, tmp_path: str, force: bool = False) -> None:
        """Remove from the host what was sent."""
        self.host.run(f"rm -r {tmp_path}")


class Build(Step, BuildAction):
    """The step that builds, likewise."""

    run = BuildAction.run


class Image(Step, ImageAction):
    """The step that has an image, likewise."""

    run = BuildAction.run


@cache
def variables_of_hosts() -> dict[str, dict[str, Any]]:
    """Return the variables of each test host, and what Ansible adds to them."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    hosts = InventoryManager(loader, sources=[str(INVENTORY)])
    variables = VariableManager(loader=loader, inventory=hosts)
    found = {host.name: variables.get_vars(host=host, include_hostvars=False) for host in hosts.get_hosts()}
    for each in found.values():
        del each["ansible_facts"]  # none are known
    return found


class Controller:
    """The controller in one run for one host, a Debian.

    Args:
        host: the host, which is converged.
        variables: what the operator gives as extra variables.
    """

    def __init__(self, host: Host, variables: dict[str, Any]) -> None:
        known = variables_of_hosts()
        hosts = {name: {**each, **variables} for name, each in known.items()}
        alone = {"hostvars": hosts, "ansible_play_hosts": [host.name]}
        system = {"distribution_major_version": str(known[host.name]["test_image"]).removeprefix("debian")}
        self.host = host
        self.role = Rendered({**known[host.name], **alone, **variables}, host.name, system)
        self.name_of_run = {"id": f"{machine()} {uuid.uuid4()}", "at": str(time.time())}
        self.lines: list[str] = []
        self.changed = 0

    def arguments(self, action: str, file: str, **registered: Any) -> dict[str, Any]:
        """Return what the one task with that action in a task file of the role tells it."""
        (found,) = self.role.arguments("app", action, file, **registered)
        return dict(found)

    def take(self, kind: type[Step], arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a step, and return its result.

        Raises:
            Failed: when it fails.
        """
        result = kind(self.host, self.name_of_run, arguments).run(task_vars={})
        self.lines += [f"[WARNING]: {warning}" for warning in result.get("warnings", [])]
        if result.get("failed"):
            raise Failed(result["msg"])
        self.changed += bool(result["changed"])
        return result

    def release(self) -> None:
        """Do what the role does on the one host of an app."""
        (told,) = self.role.arguments("preflight", "slipway", preflight_app=self.role["app_name"])
        self.take(Step, told)
        told = self.arguments("slipway_fetch", "fetch.yml")
        fetched = Fetch(self.host, told).run(task_vars={"inventory_hostname": self.host.name})
        if self.role["app_runtime"] == "container":
            told = self.arguments("slipway_image", "image.yml", __app_fetched=fetched)
            made = {"__app_image_build": self.take(Image, told)}
        else:
            told = self.arguments("slipway_build", "venv.yml", __app_fetched=fetched, __app_waits_for="", __app_prebuilt={})
            made = {"__app_venv_build": self.take(Build, told)}
        for name in (["prepare", "migrate"] if self.role["app_migrate_command"] else []) + ["activate"]:
            self.take(Step, self.arguments("slipway", "step.yml", __app_step=name, **made))

    def roll_back(self) -> None:
        """Do what the role does to roll the app back."""
        self.take(Step, self.arguments("slipway", "step.yml", __app_step="rollback"))

    def finish(self, work: Callable[[], None]) -> Run:
        """Do `work`, and return what came of it as that of a run of ansible-playbook."""
        code = 0
        try:
            work()
        except (Failed, AnsibleActionFail) as error:
            code = 2
            self.lines.append(str(error))
        return Run(code, "\n".join(self.lines), {self.host.name: self.changed})


def deploy(host: Host, **variables: Any) -> Run:
    """Release the app on a host as playbooks/deploy.yml does, with variables on top of the inventory."""
    controller = Controller(host, variables)
    return controller.finish(controller.release)


def rollback(host: Host, **variables: Any) -> Run:
    """Roll the app back on a host as playbooks/rollback.yml does, with variables on top of the inventory."""
    controller = Controller(host, variables)
    return controller.finish(controller.roll_back)
