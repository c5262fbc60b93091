"""What holds between the roles, so that each can be read, and changed, by itself."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))
ON_THE_HOST = sorted(
    path
    for pattern in ("roles/*/files/*.py", "plugins/modules/*.py", "src/slipway/host/**/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "__init__.py"
)
MODULES = [path for path in ON_THE_HOST if "argument_spec=" in path.read_text(encoding="utf-8")]
PLUGINS = sorted(path for kind in ("action", "filter", "modules", "test") for path in ROOT.glob(f"plugins/{kind}/*.py"))
ACTIONS = sorted(ROOT.glob("plugins/action/*.py"))

TEMPLATES = sorted(path for path in ROOT.glob("roles/*/templates/**/*") if path.is_file())

# The names of other roles that a role speaks all the same.
SPOKEN = {
    # What an operator is told to set.
    "metrics": {"certbot_mode"},
    # That, too; what the inventory says of other hosts, of whose roles no default is known on the one that watches them; and a
    # word of Prometheus's own.
    "prometheus": {
        "metrics_path",
        *("app_keep_releases", "app_workers", "haproxy_max_connections", "nginx_connections"),
        *("app_instances", "app_name", "certbot_mode", "metrics_enabled", "nginx_certificate", "nginx_domains", "nginx_site"),
        *("haproxy_address", "haproxy_certificate", "haproxy_domains"),
    },
}

# What roles hand to playbooks, beside the facts of a host.
RESULTS = {"app_findings", "app_status", "haproxy_status"}

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


@each_role
def test_what_is_specified_has_a_default_and_the_other_way_round(role: str) -> None:
    assert list(specs(role)) == list(read(ROOT / "roles" / role / "defaults" / "main.yml"))


@each_role
def test_what_can_be_set_is_heard(role: str) -> None:
    """A variable that only its own rule looks at would be checked and then ignored."""
    files = [
        path
        for each in ROLES
        for path in places(each, "tasks", "handlers", "templates", "vars")
        if path.name not in ("rules.yml", "renamed.yml")
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


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/vars/main/renamed.yml")), ids=lambda path: path.parents[2].name)
def test_what_was_renamed_has_a_name_that_exists(path: Path) -> None:
    role = path.parents[2].name
    declared = {name: spec for each in ROLES for name, spec in specs(each).items()}
    tables = read(path)
    assert not tables[f"__{role}_renamed"].keys() & declared.keys()
    assert set(tables[f"__{role}_renamed"].values()) <= declared.keys()
    for name, values in tables.get(f"__{role}_renamed_values", {}).items():
        assert not values.keys() & set(declared[name]["choices"]), name
        assert set(values.values()) <= set(declared[name]["choices"]), name


@each_role
def test_a_specification_says_what_and_how_much(role: str) -> None:
    """The default is the one in defaults/main.yml, as it is written there, so that ansible-doc shows it."""
    defaults = read(ROOT / "roles" / role / "defaults" / "main.yml")
    for name, spec in specs(role).items():
        assert spec.get("required") or (spec["default"], type(spec["default"])) == (defaults[name], type(defaults[name])), name
        assert spec.get("type") in ("str", "int", "float", "bool", "list", "dict", "path", "raw"), name
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
            names += list(task.get("vars", {})) + list(set(task.get("ansible.builtin.set_fact", {})) - RESULTS)
            for name in names:
                assert name.startswith(f"__{role}_"), f"{path.name}: {name}"


def spoken(role: str, *folders: str) -> set[str]:
    """Return the words in files of a role that may be variables of another one."""
    others = "|".join(other for other in ROLES if other != role)
    pattern = re.compile(rf"(?<!\w)(?:__)?(?:{others})_[a-z]\w*")
    return {match[0] for path in places(role, *folders) for match in pattern.finditer(comment_free(path))}


def variables(role: str) -> set[str]:
    """Return the variables of a role, its own included."""
    path = ROOT / "roles" / role / "vars" / "main" / "main.yml"
    private = set(read(path)) if path.exists() else set()
    registered = {task["register"] for path in places(role, "tasks") for task in tasks(path) if "register" in task}
    return {*specs(role), *private, *registered, f"__{role}_rules"}


@each_role
def test_a_role_speaks_of_no_other(role: str) -> None:
    others = {name for other in ROLES if other != role for name in variables(other)}
    assert spoken(role, "tasks", "templates", "handlers", "vars") & others == SPOKEN.get(role, set())
    # On the left-hand side of defaults, too, there are none: see above.
    assert {name for name in spoken(role, "defaults") if name.startswith("__")} == set()


@each_role
def test_a_role_that_listens_to_others_is_wired_in_its_defaults(role: str) -> None:
    declared = {name for other in ROLES for name in specs(other)}
    assert spoken(role, "defaults") - {"inventory_hostname"} - declared == set()


def test_playbooks_use_no_private_name_of_a_role() -> None:
    private = re.compile(rf"(?<!\w)__(?:{'|'.join(ROLES)})_[a-z]\w*")
    paths = [ROOT / "site.yml", *ROOT.glob("playbooks/**/*.yml")]
    assert {name for path in paths for name in private.findall(comment_free(path))} == set()


def untagged(entry: dict[str, Any], inherited: bool = False) -> Iterator[str]:
    """Yield what imports the role preflight, in an entry of a playbook, with a tag of its own or of what it is in."""
    tagged = inherited or "tags" in entry
    imported = entry.get("ansible.builtin.import_role", {}) or entry.get("ansible.builtin.include_role", {})
    if tagged and "preflight" in (imported.get("name"), entry.get("role")):
        yield str(entry)
    for key in ("roles", "pre_tasks", "tasks", "post_tasks", "block", "rescue", "always"):
        for inner in entry.get(key) or []:
            if isinstance(inner, dict):
                yield from untagged(inner, tagged)


PLAYBOOKS = sorted(ROOT.glob("playbooks/**/*.yml"))


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_what_checks_a_host_has_no_tag(path: Path) -> None:
    """A tag would be one of all tasks of the roles that are imported for their variables alone, and these would run."""
    assert [found for entry in read(path) for found in untagged(entry)] == []


@pytest.mark.parametrize(
    "entry",
    [
        {"roles": [{"role": "preflight", "tags": ["always"]}]},
        {"tasks": [{"ansible.builtin.import_role": {"name": "preflight"}, "tags": ["always"]}]},
        {"tasks": [{"tags": ["x"], "block": [{"ansible.builtin.import_role": {"name": "preflight"}}]}]},
        {"tags": ["always"], "roles": [{"role": "preflight"}]},
    ],
)
def test_a_tag_of_what_checks_a_host_is_found(entry: dict[str, Any]) -> None:
    assert list(untagged(entry))


def test_roles_that_are_imported_for_their_variables_have_no_other_tag() -> None:
    tasks_of_preflight = tasks(ROOT / "roles/preflight/tasks/load.yml")
    assert {str(task["tags"]) for task in tasks_of_preflight if "ansible.builtin.import_role" in task} == {"['never']"}
    (imported,) = [task for task in tasks(ROOT / "roles/preflight/tasks/main.yml") if "validate.yml" in str(task)]
    assert "tags" not in imported
    assert all("tags" not in task for task in tasks(ROOT / "roles/preflight/tasks/validate.yml"))


@each_role
def test_a_task_file_fits_one_screen(role: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in places(role, "tasks")}
    assert {path: length for path, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("role", [role for role in ROLES if role != "preflight"])
def test_systems_are_told_apart_in_a_table_and_not_in_tasks(role: str) -> None:
    for path in places(role, "tasks", "handlers"):
        for task in tasks(path):
            conditions = task.get("when", [])
            for condition in conditions if isinstance(conditions, list) else [conditions]:
                assert not re.search(r"os_family|distribution", str(condition)), f"{path.name}: {task['name']}"
            assert not {"include_vars", "ansible.builtin.include_vars"} & set(task), f"{path.name}: {task['name']}"


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(table, id=name)
        for path in sorted(ROOT.glob("roles/*/vars/main/main.yml"))
        for name, table in read(path).items()
        if name.endswith("_families")
    ],
)
def test_both_families_have_the_same_entries(table: dict[str, dict[str, Any]]) -> None:
    assert {"Debian", "RedHat"} <= set(table)
    assert len({frozenset(entries) for entries in table.values()}) == 1


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


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.relative_to(ROOT / 'roles')}")
def test_a_template_is_used_by_its_role(path: Path) -> None:
    role = path.relative_to(ROOT / "roles").parts[0]
    texts = "".join(other.read_text(encoding="utf-8") for other in places(role, "tasks", "vars", "templates"))
    assert re.search(rf"[' /]{re.escape(path.name)}\b", texts)


# One list of scrape jobs with the three ways in which Prometheus may verify a host.
DECIDES = {"prometheus/templates/prometheus.yml.j2"}


def test_a_template_substitutes_and_decides_little() -> None:
    tags = re.compile(r"\{%-? *(?:if|elif|else|for|set|macro)\b")
    texts = {f"{path.relative_to(ROOT / 'roles')}": path.read_text(encoding="utf-8") for path in TEMPLATES}
    assert {name for name, text in texts.items() if len(tags.findall(text)) > 8} == DECIDES
    assert {name for name, text in texts.items() if name.startswith("nginx") and len(text.splitlines()) > 100} == set()


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_modules_documentation_names_what_it_takes(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
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


def document(path: Path, name: str) -> Any:
    found = re.search(rf'^{name} = (?:r?)"""\n(.*?)^"""', path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return yaml.safe_load(found[1])


@pytest.mark.parametrize("path", [*ACTIONS, *MODULES], ids=lambda path: "/".join(path.parts[-2:]))
def test_an_example_is_a_task_that_gives_what_is_required_and_nothing_unknown(path: Path) -> None:
    options = document(path, "DOCUMENTATION")["options"]
    for task in document(path, "EXAMPLES"):
        assert set(task) <= {"name", path.stem, "register", "loop", "when"}
        given = set(task[path.stem])
        assert given <= set(options), given - set(options)
        assert {name for name, option in options.items() if option.get("required")} <= given


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: "/".join(path.parts[-2:]))
def test_documentation_says_of_each_option_and_result_what_it_is(path: Path) -> None:
    documented = document(path, "DOCUMENTATION")
    assert documented["short_description"][0].isupper()
    for name, entry in {**documented["options"], **document(path, "RETURN")}.items():
        sentences = entry["description"] if isinstance(entry["description"], list) else [entry["description"]]
        assert "type" in entry, name
        assert all(sentence.endswith(".") for sentence in sentences), name
    if path.parent.name in ("action", "modules"):
        assert all("returned" in entry for entry in document(path, "RETURN").values())


@pytest.mark.parametrize(
    ("path", "kind", "listed"),
    [
        (path, kind, listed)
        for kind, listed in (("FilterModule", "filters"), ("TestModule", "tests"))
        for path in PLUGINS
        if path.parent.name == listed[:-1]
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_an_example_of_a_filter_or_a_test_uses_it(path: Path, kind: str, listed: str) -> None:
    plugin = getattr(importlib.import_module(f"plugins.{path.parent.name}.{path.stem}"), kind)()
    used = re.findall(r"(?:\||\bis) (\w+)", str(document(path, "EXAMPLES")))
    assert set(used) & set(getattr(plugin, listed)())


def test_roles_have_no_code_of_their_own_that_ansible_finds() -> None:
    folders = ("library", "module_utils", "filter_plugins", "lookup_plugins", "action_plugins")
    assert [str(path) for folder in folders for path in ROOT.glob(f"roles/*/{folder}/*")] == []
