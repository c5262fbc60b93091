"""What holds between the roles, so that each can be read, and changed, by itself."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))
PREFIXES = ("python", "supervisor", "app", "nginx", "certbot")
ON_THE_HOST = sorted(
    path
    for pattern in ("roles/*/files/*.py", "plugins/modules/*.py", "src/slipway/host/**/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "__init__.py"
)
PLUGINS = sorted(path for kind in ("action", "filter", "modules") for path in ROOT.glob(f"plugins/{kind}/*.py"))
ACTIONS = sorted(ROOT.glob("plugins/action/*.py"))

each_role = pytest.mark.parametrize("role", ROLES)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def specs(role: str) -> dict[str, dict[str, Any]]:
    (entry,) = read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"].values()
    options: dict[str, dict[str, Any]] = entry["options"]
    return options


def tasks(path: Path) -> list[dict[str, Any]]:
    """Return the tasks of a file, those within blocks included."""
    found: list[dict[str, Any]] = []
    pending = list(read(path) or [])
    while pending:
        task = pending.pop(0)
        found.append(task)
        for key in ("block", "rescue", "always"):
            pending.extend(task.get(key, []))
    return found


def places(role: str, *folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / "roles" / role / folder).rglob("*")) if path.is_file()]


def comment_free(path: Path) -> str:
    mark = {".j2": r"^\s*(#|;).*$", ".yml": r"(^|\s)#.*$"}[path.suffix]
    return re.sub(mark, "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_roles_are_those_of_the_design() -> None:
    assert set(PREFIXES) <= set(ROLES)


@each_role
def test_what_is_specified_has_a_default_and_the_other_way_round(role: str) -> None:
    assert list(specs(role)) == list(read(ROOT / "roles" / role / "defaults" / "main.yml"))


@each_role
def test_what_can_be_set_is_heard(role: str) -> None:
    """A variable that only its own rule looks at would be checked and then ignored."""
    files = [
        path for each in ROLES for path in places(each, "tasks", "handlers", "templates", "vars") if path.name != "rules.yml"
    ]
    texts = {str(path): path.read_text(encoding="utf-8") for path in [*files, *ROOT.glob("playbooks/*.yml")]}
    for each in ROLES:
        for name, value in read(ROOT / "roles" / each / "defaults" / "main.yml").items():
            texts[name] = str(value)
        rules = ROOT / "roles" / each / "vars" / "main" / "rules.yml"
        for rule in read(rules)[f"__{each}_rules"] if rules.exists() else ():
            texts[f"rule of {rule['variable']}"] = str(rule["that"])
    for name in read(ROOT / "roles" / role / "defaults" / "main.yml"):
        others = [text for where, text in texts.items() if where not in (name, f"rule of {name}")]
        assert any(re.search(rf"\b{name}\b", text) for text in others), name


@each_role
def test_a_specification_says_what_and_how_much(role: str) -> None:
    """The default is the one in defaults/main.yml, as it is written there, so that ansible-doc shows it."""
    defaults = read(ROOT / "roles" / role / "defaults" / "main.yml")
    for name, spec in specs(role).items():
        assert spec.get("required") or (spec["default"], type(spec["default"])) == (defaults[name], type(defaults[name])), name
        assert spec.get("type") in ("str", "int", "float", "bool", "list", "dict", "path"), name
        description = spec.get("description")
        sentences = description if isinstance(description, list) else [description]
        assert sentences, name
        for sentence in sentences:
            assert isinstance(sentence, str), name
            assert sentence.endswith("."), name
        if spec["type"] == "list":
            assert "elements" in spec, name
        assert set(spec) <= {"description", "type", "elements", "choices", "no_log", "required", "default"}, name


@each_role
def test_a_variable_bears_the_name_of_its_role(role: str) -> None:
    for name in read(ROOT / "roles" / role / "defaults" / "main.yml"):
        assert name.startswith(f"{role}_"), name
    variables = ROOT / "roles" / role / "vars" / "main" / "main.yml"
    for name in read(variables) if variables.exists() else ():
        assert name.startswith(f"__{role}_"), name
    for path in places(role, "tasks"):
        for task in tasks(path):
            names = [task.get("register", "")] if "register" in task else []
            names += list(task.get("vars", {})) + list(task.get("ansible.builtin.set_fact", {}))
            for name in names:
                assert name.startswith(f"__{role}_"), f"{path.name}: {name}"


@pytest.mark.parametrize("role", PREFIXES)
def test_a_role_speaks_of_no_other(role: str) -> None:
    others = "|".join(prefix for prefix in PREFIXES if prefix != role)
    foreign = re.compile(rf"(?<!\w)(?:__)?(?:{others})_[a-z]\w*")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in places(role, "tasks", "templates", "handlers", "vars")
        for match in foreign.finditer(comment_free(path))
    ]
    # On the left-hand side of defaults, too, there are none: see above.
    found += [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in places(role, "defaults")
        for match in re.finditer(rf"__(?:{others})_\w+", comment_free(path))
    ]
    assert found == []


@pytest.mark.parametrize("role", PREFIXES)
def test_a_role_that_listens_to_others_is_wired_in_its_defaults(role: str) -> None:
    declared = {name for other in PREFIXES for name in specs(other)}
    foreign = re.findall(rf"(?<!\w)((?:{'|'.join(PREFIXES)})_\w+)", comment_free(ROOT / "roles" / role / "defaults" / "main.yml"))
    assert set(foreign) - declared == set()


@each_role
def test_a_task_file_fits_one_screen(role: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in places(role, "tasks")}
    assert {path: length for path, length in lengths.items() if length > 60} == {}


@each_role
def test_systems_are_told_apart_in_a_table_and_not_in_tasks(role: str) -> None:
    if role == "inventory":
        return
    for path in places(role, "tasks", "handlers"):
        for task in tasks(path):
            conditions = task.get("when", [])
            for condition in conditions if isinstance(conditions, list) else [conditions]:
                assert not re.search(r"os_family|distribution", str(condition)), f"{path.name}: {task['name']}"
            assert not {"include_vars", "ansible.builtin.include_vars"} & set(task), f"{path.name}: {task['name']}"


@each_role
def test_both_families_have_the_same_entries(role: str) -> None:
    path = ROOT / "roles" / role / "vars" / "main" / "main.yml"
    for name, table in (read(path) if path.exists() else {}).items():
        if name.endswith("_families"):
            assert {"Debian", "RedHat"} <= set(table), name
            assert len({frozenset(entries) for entries in table.values()}) == 1, name


@each_role
def test_every_task_has_a_name_and_modules_their_full_one(role: str) -> None:
    own = {path.stem for path in ROOT.glob("plugins/*/*.py")}
    words = {
        "name",
        "when",
        "register",
        "vars",
        "loop",
        "loop_control",
        "notify",
        "listen",
        "tags",
        "args",
        "environment",
        "block",
    }
    words |= {"rescue", "always", "check_mode", "changed_when", "failed_when", "no_log", "diff", "become", "delegate_to", "until"}
    words |= {"retries", "delay", "run_once", "ignore_errors", "ignore_unreachable", "timeout", "become_user"}
    words |= {"delegate_facts", "throttle"}
    for path in places(role, "tasks", "handlers"):
        for task in tasks(path):
            assert str(task.get("name", ""))[:1].isupper(), f"{path}: {task}"
            for module in set(task) - words:
                assert module in own or module.count(".") == 2, f"{path.name}: {module}"


@each_role
def test_facts_are_read_where_they_are_not_injected(role: str) -> None:
    facts = "ansible_(os_family|distribution|memtotal|processor|pkg_mgr|selinux|all_ipv|hostname|default_ipv|service_mgr)"
    for path in places(role, "tasks", "templates", "handlers", "defaults", "vars"):
        assert not re.search(rf"(?<!\w){facts}\w*", path.read_text(encoding="utf-8")), path


@each_role
def test_a_files_own_templates_are_used(role: str) -> None:
    for path in places(role, "templates"):
        texts = "".join(other.read_text(encoding="utf-8") for other in places(role, "tasks", "vars"))
        assert f"'{path.name}'" in texts or f" {path.name}" in texts, path


def test_what_is_announced_is_heard() -> None:
    heard, announced = set(), set()
    for role in ROLES:
        for path in places(role, "handlers"):
            for handler in tasks(path):
                topics = handler.get("listen", [])
                heard |= {handler["name"], *(topics if isinstance(topics, list) else [topics])}
        for path in places(role, "tasks"):
            for task in tasks(path):
                topics = task.get("notify", [])
                announced |= set(topics if isinstance(topics, list) else [topics])
    assert announced <= heard


@pytest.mark.parametrize("path", ON_THE_HOST, ids=lambda path: path.stem)
def test_a_module_can_be_read_by_the_oldest_python_of_a_host(path: Path) -> None:
    # The /usr/bin/python3 of CentOS 9 is 3.9.
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    assert "from __future__ import annotations" in text
    later = {
        "zip": {"strict"},
        "dataclass": {"slots", "kw_only"},
        "run": {"process_group"},
        "Popen": {"process_group"},
        "rmtree": {"onexc"},
        "extractall": {"filter"},
        "extract": {"filter"},
    }
    names = {
        "ExceptionGroup",
        "aiter",
        "anext",
        "pairwise",
        "batched",
        "StrEnum",
        "UTC",
        "tomllib",
        "TypeAlias",
        "Self",
        "override",
    }
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.Match, getattr(ast, "TryStar", ast.Match)))
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert not later.get(called, set()) & {keyword.arg for keyword in node.keywords}, called
            if called == "isinstance":
                assert not isinstance(node.args[1], ast.BinOp)
        if isinstance(node, (ast.Name, ast.Attribute, ast.alias)):
            name = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", "")
            assert name not in names, name


@pytest.mark.parametrize("path", ON_THE_HOST, ids=lambda path: path.stem)
def test_a_modules_documentation_names_what_it_takes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "argument_spec=" not in text:
        return
    tree = ast.parse(text)
    (documentation,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION"
    ]
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "AnsibleModule"]
    (spec,) = [ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "argument_spec"]
    documented = yaml.safe_load(documentation)
    assert documented["module"] == path.stem
    assert list(documented["options"]) == list(spec)
    for name, option in spec.items():
        told = {key: value for key, value in documented["options"][name].items() if key != "description"}
        assert told == {key: value for key, value in option.items() if key not in ("no_log", "options")}, name


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.stem)
def test_an_actions_documentation_names_what_it_takes(path: Path) -> None:
    found = re.search(r'^DOCUMENTATION = r?"""\n(.*?)^"""', path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    documented = yaml.safe_load(found[1])
    assert documented["action"] == path.stem
    for name, option in documented["options"].items():
        assert set(option) <= {"description", "type", "elements", "required", "choices", "default"}, name
    plugin = importlib.import_module(f"plugins.action.{path.stem}")
    assert set(documented["options"]) == plugin.ActionModule._VALID_ARGS


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_plugin_shows_how_it_is_used_and_what_it_returns(path: Path) -> None:
    for name in ("DOCUMENTATION", "EXAMPLES", "RETURN"):
        found = re.search(rf'^{name} = r?"""\n(.*?)^"""', path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        assert found is not None, name
        assert yaml.safe_load(found[1]), name


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_plugin_is_thin(path: Path) -> None:
    """What it does is in src/slipway."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


def test_roles_have_no_code_of_their_own_that_ansible_finds() -> None:
    folders = ("library", "module_utils", "filter_plugins", "lookup_plugins", "action_plugins")
    assert [str(path) for folder in folders for path in ROOT.glob(f"roles/*/{folder}/*")] == []
