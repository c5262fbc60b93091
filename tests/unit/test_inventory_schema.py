"""The JSON schemas of the inventory: they take every inventory of the project, and refuse what a run would refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml
from rendering import ROOT

SCHEMAS = {name: json.loads((ROOT / f"inventories/schema/{name}.json").read_text(encoding="utf-8")) for name in ("hosts", "vars")}
INVENTORIES = [*sorted(ROOT.glob("inventories/*/hosts.yml")), *sorted(ROOT.glob("molecule/inventory/*.yml"))]
VARIABLES = sorted(ROOT.glob("inventories/*/*_vars/**/*.yml"))
VALUES = yaml.safe_load((ROOT / "tests/unit/bad_inventory.yml").read_text(encoding="utf-8"))["values"]


class Loader(yaml.SafeLoader):
    """Reads what is tagged as !vault or !unsafe as an editor does, as the text that stands there."""

    def text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))


for tag in ("!vault", "!unsafe"):
    Loader.add_constructor(tag, Loader.text)


def check(schema: str, *files: Path) -> dict[str, Any]:
    """Return the result of check-jsonschema for some files."""
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "-o", "json", "--schemafile", str(ROOT / f"inventories/schema/{schema}.json"), *map(str, files)]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    return result


def errors(schema: str, text: str) -> list[str]:
    """Return where a text of YAML breaks a schema, as paths."""
    resource = referencing.Resource.from_contents(SCHEMAS["vars"])
    registry = referencing.Registry().with_resource("vars.json", resource)
    validator = jsonschema.Draft7Validator(SCHEMAS[schema], registry=registry)
    found = validator.iter_errors(yaml.load(text, Loader))
    return ["/".join(map(str, error.absolute_path)) for error in found]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_is_one_of_draft_7(schema: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[schema])


@pytest.mark.parametrize(("schema", "files"), [("hosts", INVENTORIES), ("vars", VARIABLES)], ids=["hosts", "vars"])
def test_the_inventories_of_the_project_are_taken(schema: str, files: list[Path]) -> None:
    assert len(files) > 2
    assert check(schema, *files)["status"] == "ok"


@pytest.mark.parametrize(
    "file", [*sorted(ROOT.glob("inventories/*/hosts.yml")), *VARIABLES], ids=lambda file: "/".join(file.parts[-2:])
)
def test_an_example_names_its_schema_in_its_first_line(file: Path) -> None:
    name = "hosts" if file.name == "hosts.yml" else "vars"
    first, second = file.read_text(encoding="utf-8").splitlines()[:2]
    key, _, path = first.partition("$schema=")
    assert (key, second) == ("# yaml-language-server: ", "---")
    assert (file.parent / path).resolve() == ROOT / f"inventories/schema/{name}.json"


BAD_VARIABLES = {
    "misspelt": "app_modul: shop.main:app",
    "unknown": "nginx_no_such_thing: 1",
    "type": "app_workers: many",
    "number-for-text": "app_version: 1.4",
    "boolean": "app_openapi_gate: sometimes",
    "choice": "app_server: apache",
    "elements": "nginx_domains: [1, 2]",
    "text-for-list": "nginx_domains: api.example.com",
    "text-for-mapping": "app_env: DEBUG=1",
    "list-for-mapping": "app_env: [DEBUG]",
    "relative-path": "python_interpreter: python3",
    "path-that-climbs": "python_interpreter: /opt/../python3",
    "empty": "app_source:",
    "no-mapping": "- app_source: x",
}
GOOD_VARIABLES = {
    "empty": "---",
    "own-names": "vault_database_url: secret\nshop_color: red\napplication: 1\nansible_host: 192.0.2.1",
    "template": 'app_workers: "{{ cores }}"\napp_server: "{{ server }}"\nnginx_domains: "{{ names }}"',
    "vault": "app_workers: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6231\n",
    "vault-in-a-mapping": "app_secrets:\n  A: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    62\n",
    "unsafe": "app_secrets: {A: !unsafe 'a{{b'}",
    "numbers-in-quotes": 'app_workers: "2"\napp_container_cpus: "1.5"',
    "truth": "app_openapi_gate: yes\nnginx_access_log: /var/log/nginx/x.log",
}
BAD_HOSTS = {
    "host-beside-hosts": "web:\n  api.example.com:\n",
    "list-of-hosts": "web:\n  hosts: [api.example.com]\n",
    "host-without-colon": "web:\n  hosts: api.example.com\n",
    "misspelt-key": "web:\n  host:\n    api.example.com:\n",
    "variables-beside-hosts": "web:\n  hosts:\n    api.example.com:\n  app_server: uvicorn\n",
    "group-with-a-hyphen": "web-servers:\n  hosts:\n    api.example.com:\n",
    "misspelt-variable-of-a-host": "web:\n  hosts:\n    api.example.com: {app_modul: x}\n",
    "variable-of-a-group": "web:\n  vars: {app_server: apache}\n",
    "variable-of-a-group-in-a-group": "all:\n  children:\n    web:\n      hosts:\n        a.example.com: {app_workers: many}\n",
    "no-mapping": "- web\n",
}
GOOD_HOSTS = {
    "groups-in-groups": "all:\n  children:\n    web:\n      children:\n        shop:\n          hosts:\n            w.test:\n",
    "variables": "web:\n  hosts:\n    a.example.com: {ansible_host: 192.0.2.1, app_name: shop}\n  vars:\n    app_workers: 2\n",
    "empty-group": "balancer:\nmonitoring:\n  hosts:\n",
}


@pytest.mark.parametrize("case", BAD_VARIABLES)
def test_a_bad_file_of_variables_is_refused(case: str) -> None:
    assert errors("vars", BAD_VARIABLES[case])


@pytest.mark.parametrize("case", GOOD_VARIABLES)
def test_a_good_file_of_variables_is_taken(case: str) -> None:
    assert errors("vars", GOOD_VARIABLES[case]) == []


@pytest.mark.parametrize("case", BAD_HOSTS)
def test_a_bad_file_of_hosts_is_refused(case: str) -> None:
    assert errors("hosts", BAD_HOSTS[case])


@pytest.mark.parametrize("case", GOOD_HOSTS)
def test_a_good_file_of_hosts_is_taken(case: str) -> None:
    assert errors("hosts", GOOD_HOSTS[case]) == []


@pytest.mark.parametrize(("schema", "cases"), [("hosts", BAD_HOSTS), ("vars", BAD_VARIABLES)], ids=["hosts", "vars"])
def test_check_jsonschema_refuses_each_bad_file(schema: str, cases: dict[str, str], tmp_path: Path) -> None:
    for case, text in cases.items():
        (tmp_path / f"{case}.yml").write_text(text, encoding="utf-8")
    found = {Path(error["filename"]).stem for error in check(schema, *tmp_path.iterdir())["errors"]}
    assert found == set(cases)


# What only a run refuses as a whole number: 2.0 is one in JSON, a template fits until it is evaluated, and so does a line end.
ONLY_A_RUN = re.compile(r"-?\d+\.0|!unsafe '\{\{.*|.*\\n\"")


def values(kind: str) -> list[Any]:
    """Return the cases of one kind in bad_inventory.yml, each with its variable and its value as it is written there."""
    return [
        pytest.param(name, str(case["value"] if isinstance(case, dict) else case), id=f"{name}-{title}")
        for name, told in VALUES.items()
        for title, case in told.get(kind, {}).items()
        if not isinstance(case, dict) or "value" in case
        # Long ones are written in short there.
        if not str(case).startswith("<")
    ]


@pytest.mark.parametrize(("name", "text"), values("wrong"))
def test_a_value_of_another_type_is_refused_as_a_run_refuses_it(name: str, text: str) -> None:
    found = {path.partition("/")[0] for path in errors("vars", f"{name}: {text}\n")}
    whole = "integer" in SCHEMAS["vars"]["properties"][name].get("type", [])
    assert found == (set() if whole and ONLY_A_RUN.fullmatch(text) else {name})


@pytest.mark.parametrize(("name", "text"), values("good"))
def test_a_value_that_a_run_takes_is_taken(name: str, text: str) -> None:
    assert errors("vars", f"{name}: {text}\n") == []
