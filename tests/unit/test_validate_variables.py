"""Variables judged on the controller: each problem is named, with what it may be and where to edit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from slipway.controller.variables.action import ValidateAction, shown
from slipway.controller.variables.names import misspelt
from slipway.controller.variables.origin import where
from slipway.controller.variables.types import type_error

SPECS: dict[str, dict[str, Any]] = {
    "shop_name": {"type": "str", "description": "Name of the shop."},
    "shop_size": {"type": "int", "description": ["Size of it.", "It cannot shrink."], "required": True},
    "shop_open": {"type": "bool", "description": "Whether it is open."},
    "shop_kind": {"type": "str", "choices": ["corner", "market"], "description": "What kind of shop it is."},
    "shop_goods": {"type": "list", "elements": "str", "description": "What it sells."},
    "shop_secret": {"type": "str", "no_log": True, "description": "Nobody's business."},
}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("str", ["", "x", "1"], [1, 1.5, True, [], {}, None]),
        ("path", ["/x", "/opt/my-app_2/x.sock"], [1, ["/x"], None, "", "x", "/a b", "/a/../b", "/x;id", "/x\n"]),
        ("int", [0, -5, "7", "-7"], ["", "x", "1.5", 1.5, True, "0x10", " 1", "1\n", "010", [1], None]),
        ("float", [0, 1.5, "0.25", "-2"], ["", "x", "1e3", "1.", ".5", True, "nan", "01.5", [1.5], None]),
        ("bool", [True, False, "yes", "No", "true", "FALSE", 0, 1, "on"], ["maybe", "", 2, 1.5, [True], {}, None]),
        ("list", [[], ["x"]], ["x", "a,b", {}, None, 1]),
        ("dict", [{}, {"a": 1}], ["a=1", [], None]),
        ("raw", [1, "x", [], {}], [None]),
    ],
)
def test_types(kind: str, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if type_error(value, {"type": kind}) is not None] == []
    assert [value for value in bad if type_error(value, {"type": kind}) is None] == []


def test_what_a_value_must_be_is_said_in_words() -> None:
    assert type_error(None, {"type": "dict"}) == "a mapping of names to values, and it is empty"
    assert type_error(3.1, {"type": "str"}) == "text: put it in quotes"
    assert type_error("x", {"type": "int"}) == "a whole number"
    assert type_error([], {}) == "text"


def test_choices_are_listed_and_the_nearest_one_is_offered() -> None:
    spec = SPECS["shop_kind"]
    assert type_error("corner", spec) is None
    assert type_error("cornr", spec) == "one of corner, market (did you mean corner?)"
    assert type_error("zzz", spec) == "one of corner, market"


def test_an_old_value_is_refused_with_the_new_one() -> None:
    assert type_error("plaza", SPECS["shop_kind"], {"plaza": "market"}) == "one of corner, market (plaza was renamed market)"
    assert type_error("market", SPECS["shop_kind"], {"plaza": "market"}) is None


def test_elements_are_judged_too() -> None:
    spec = SPECS["shop_goods"]
    assert type_error(["a", "b"], spec) is None
    assert type_error(["a", 1], spec) == "a list; each element must be text: put it in quotes"
    assert type_error(["a", None], spec) == "a list; each element must be text, and it is empty"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("shop_nmae", "shop_name"),
        ("shop_Size", "shop_size"),
        ("shop_zzzzzzzz", None),
        ("shp_name", "shop_name"),
        ("shop-name", "shop_name"),
        ("shopname", "shop_name"),
        ("shops_name", "shop_name"),
    ],
)
def test_a_misspelt_name_is_found_with_the_real_one(name: str, near: str | None) -> None:
    assert misspelt(["shop_size", "inventory_hostname", name], "shop", SPECS) == {name: near}


@pytest.mark.parametrize("name", ["shop", "workshop_name", "my_shop", "ansible_host", "__shop_name", "environment", "db_name"])
def test_a_name_that_means_something_else_is_left_alone(name: str) -> None:
    assert misspelt([name, "shop_name"], "shop", SPECS) == {}


def test_no_variable_of_one_role_is_taken_for_another_roles() -> None:
    roles = Path(__file__).resolve().parents[2] / "roles"
    declared = {
        path.parts[-3]: yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        for path in roles.glob("*/meta/argument_specs.yml")
    }
    every = {name for names in declared.values() for name in names}
    assert {role: misspelt(every, role, names) for role, names in declared.items()} == {role: {} for role in declared}


def test_a_value_is_shown_as_it_stands_and_a_secret_is_not() -> None:
    assert shown("x'y", {}) == repr("x'y")
    assert shown(["x"], {}) == "['x']"
    assert shown("hunter2", SPECS["shop_secret"]) == "not shown because it is secret"
    assert len(shown("x" * 500, {})) == 80
    assert shown("x" * 500, {}).endswith("...")
    assert "hunter2" not in shown("https://ann:hunter2@host/x", {})
    assert "hunter2" not in shown("https://host/x\nhunter2", {})


# Where to edit it


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory of three files, in the current directory."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "inventories" / "demo"
    for folder in ("group_vars", "host_vars"):
        (directory / folder).mkdir(parents=True)
    (directory / "hosts.yml").write_text("web:\n  hosts:\n    api.example.com:\n      shop_open: 7\n", encoding="utf-8")
    (directory / "group_vars" / "web.yml").write_text("---\nshop_size: big\nshop_kind: x\n", encoding="utf-8")
    (directory / "host_vars" / "api.example.com.yml").write_text("---\n# mine\nshop_kind: kiosk\n", encoding="utf-8")
    return directory


def here(inventory: Path) -> dict[str, Any]:
    return {"inventory_hostname": "api.example.com", "inventory_dir": str(inventory), "group_names": ["web"]}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("shop_kind", "inventories/demo/host_vars/api.example.com.yml:3"),
        ("shop_size", "inventories/demo/group_vars/web.yml:2"),
        ("shop_name", "inventories/demo/host_vars/api.example.com.yml"),
    ],
)
def test_the_file_and_line_are_found_by_name(inventory: Path, name: str, place: str) -> None:
    assert where(name, None, here(inventory)) == place


def test_the_file_and_line_that_a_value_came_from_go_first(inventory: Path) -> None:
    file = inventory / "group_vars" / "web.yml"
    values = DataLoader().load_from_file(str(file))
    assert where("shop_kind", values["shop_kind"], here(inventory)) == "inventories/demo/group_vars/web.yml:3"


def test_the_default_of_a_role_is_not_the_place_to_edit(inventory: Path, tmp_path: Path) -> None:
    file = tmp_path / "roles" / "shop" / "defaults" / "main.yml"
    file.parent.mkdir(parents=True)
    file.write_text("shop_kind: x\n", encoding="utf-8")
    value = DataLoader().load_from_file(str(file))["shop_kind"]
    assert where("shop_kind", value, here(inventory)) == "inventories/demo/host_vars/api.example.com.yml:3"


# The action


@pytest.fixture
def judge(tmp_path: Path, inventory: Path) -> Callable[..., dict[str, Any]]:
    """Judge a host's variables, which are written as YAML, by the specs and by rules."""
    meta = tmp_path / "roles" / "shop" / "meta"
    meta.mkdir(parents=True)
    text = yaml.safe_dump({"argument_specs": {"main": {"options": SPECS}}})
    (meta / "argument_specs.yml").write_text(text, encoding="utf-8")

    def run(text: str, *rules: tuple[str, Any], role: bool = True, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        loader = DataLoader()
        text += "shop_size: 1\n" if "shop_size" not in text else ""
        file = inventory / "host_vars" / "api.example.com.yml"
        file.write_text(text, encoding="utf-8")
        variables = {**here(inventory), **(extra or {}), **(loader.load_from_file(str(file), trusted_as_template=True) or {})}
        conditions = [
            {"variable": name, "that": [trust_as_template(part) for part in that] if isinstance(that, list) else that}
            for name, that in rules
        ]
        variables["__shop_rules"] = [{**rule, "expected": "better"} for rule in conditions]
        task = SimpleNamespace(args={"roles": ["shop"]}, check_mode=False)
        task.async_val, task.action = 0, "validate_variables"
        task._role = SimpleNamespace(_role_path=str(meta.parent.with_name("preflight"))) if role else None
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        templar = Templar(loader=loader, variables=variables)
        action = ValidateAction(task, connection, None, loader, templar, None)
        result: dict[str, Any] = action.run(task_vars=variables)
        return result

    return run


def test_good_variables_pass(judge: Callable[..., dict[str, Any]]) -> None:
    text = "shop_name: x\nshop_size: '3'\nshop_goods: [a]\nother: {}\n"
    result = judge(text, ("shop_size", trust_as_template("shop_size | int in range(1, 9)")))
    assert not result.get("failed")


def test_all_problems_are_told_at_once(judge: Callable[..., dict[str, Any]]) -> None:
    rules = [("shop_size", [trust_as_template("shop_size > 0"), trust_as_template("shop_size < 9")])]
    text = "shop_size: 12\nshop_open: perhaps\nshop_kind: cornr\nshop_xyz123456: red\nshp_name: x\nshop_goods: a\n"
    result = judge(text, *rules)
    assert result["failed"]
    message = result["msg"]
    for words in [
        "api.example.com: 6 errors in the inventory. Nothing was changed.",
        "shop_size is 12; it must be better.",
        "shop_open is 'perhaps'; it must be true or false.",
        "shop_kind is 'cornr'; it must be one of corner, market (did you mean corner?).",
        "shop_xyz123456 is not a Slipway variable: ansible-doc -t role lists",
        "shp_name is not a Slipway variable: did you mean shop_name?",
        "shop_goods is 'a'; it must be a list.",
    ]:
        assert words in message
    for line, name in enumerate(text.splitlines(), start=1):
        place = f"Edit inventories/demo/host_vars/api.example.com.yml:{line}"
        assert place in message, name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop_sort: corner\n", "shop_sort was renamed shop_kind."),
        ("shop_sort: [corner]\n", "shop_sort was renamed shop_kind."),
        ("market_sort: corner\n", "market_sort was renamed shop_goods."),
        (
            "shop_sort: plaza\n",
            "shop_sort was renamed shop_kind, and its value plaza was renamed market: write shop_kind: market.",
        ),
        ("shop_kind: plaza\n", "shop_kind is 'plaza'; it must be one of corner, market (plaza was renamed market)."),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(judge: Callable[..., dict[str, Any]], text: str, words: str) -> None:
    extra = {
        "__shop_renamed": {"shop_sort": "shop_kind", "market_sort": "shop_goods"},
        "__shop_renamed_values": {"shop_kind": {"plaza": "market"}},
    }
    assert judge(text, extra=extra)["msg"].splitlines() == [
        "api.example.com: 1 error in the inventory. Nothing was changed.",
        words,
        "  Edit inventories/demo/host_vars/api.example.com.yml:1",
    ]


def test_one_problem_is_one_problem(judge: Callable[..., dict[str, Any]]) -> None:
    assert "1 error in" in judge("shop_open: perhaps\n")["msg"]


def test_what_is_of_the_wrong_type_is_told_once(judge: Callable[..., dict[str, Any]]) -> None:
    result = judge("shop_size: big\n", ("shop_size", trust_as_template("shop_size | int > 5")))
    assert result["msg"].count("shop_size is") == 1


def test_a_missing_variable_that_is_required_is_described(judge: Callable[..., dict[str, Any]]) -> None:
    assert "shop_size is missing. It is size of it." in judge("# shop_size\n")["msg"]
    assert "shop_size is None; it must be a whole number, and it is empty." in judge("shop_size:\n")["msg"]


def test_templates_are_worked_out_first(judge: Callable[..., dict[str, Any]]) -> None:
    assert not judge("shop_size: '{{ other * 2 }}'\nother: 2\n").get("failed")
    assert "shop_size is 'x-2'" in judge("shop_size: 'x-{{ other }}'\nother: 2\n")["msg"]
    message = judge("shop_size: '{{ nowhere }}'\n")["msg"]
    assert "shop_size cannot be evaluated" in message
    assert "nowhere" in message


@pytest.mark.parametrize("condition", ["shop_size ~", "nowhere > 1", "shop_size", "shop_size | nofilter"])
def test_a_condition_that_cannot_be_judged_does_not_hold(judge: Callable[..., dict[str, Any]], condition: str) -> None:
    assert judge("shop_size: 3\n", ("shop_size", trust_as_template(condition)))["failed"]


def test_rules_are_judged_at_once_and_one_by_one_only_where_one_is_broken(
    judge: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    satisfied = ValidateAction._satisfied

    def ask(self: ValidateAction, condition: Any) -> bool:
        asked.append(condition)
        return satisfied(self, condition)

    monkeypatch.setattr(ValidateAction, "_satisfied", ask)
    conditions = ["shop_size | int > 1 or shop_size == 0", "6 / shop_size == 2"]  # the second one rests on the first
    rules = [("shop_size", conditions), ("shop_name", trust_as_template("shop_name != 'y'"))]
    assert not judge("shop_size: 3\nshop_name: x\n", *rules).get("failed")
    assert asked == []
    message = judge("shop_size: 3\nshop_name: y\n", *rules)["msg"]
    assert "1 error " in message
    assert "shop_name is 'y'; it must be better." in message
    assert asked == [*conditions, rules[1][1]]


def test_what_defaults_are_made_from_is_worked_out_once(judge: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "roles" / "shop" / "defaults" / "main.yml"
    file.parent.mkdir()
    file.write_text(
        "__once: '{{ range(10**9) | random }}'\nshop_name: 'a{{ __once }}'\nshop_kind: 'b{{ __once }}'\n", encoding="utf-8"
    )
    defaults = DataLoader().load_from_file(str(file), trusted_as_template=True)
    same = ("shop_name", trust_as_template("shop_name[1:] == shop_kind[1:]"))
    message = judge("shop_size: 3\n", same, extra=defaults)["msg"]
    assert "shop_kind is 'b" in message
    assert "shop_name" not in message


@pytest.mark.parametrize("text", ["a\\nb", "\\0", "\\e[31m", "a" * 5000])
def test_a_text_is_one_line_of_some_length(judge: Callable[..., dict[str, Any]], text: str) -> None:
    for name, value in (("shop_name", f'"{text}"'), ("shop_goods", f'[good, "{text}"]')):
        assert f"{name} is " in judge(f"{name}: {value}\n")["msg"]


def test_a_default_that_follows_a_faulty_variable_is_not_told_too(judge: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "roles" / "shop" / "defaults" / "main.yml"
    file.parent.mkdir()
    file.write_text("shop_goods: '{{ shop_name }}'\n", encoding="utf-8")
    default = DataLoader().load_from_file(str(file), trusted_as_template=True)
    result = judge("shop_name: 7\n", extra=default)
    assert "shop_name is 7" in result["msg"]
    assert "shop_goods" not in result["msg"]


def test_a_secret_is_in_no_message(judge: Callable[..., dict[str, Any]]) -> None:
    result = judge("shop_secret: hunter2\n", ("shop_secret", trust_as_template("shop_secret | length > 20")))
    assert "shop_secret is not shown because it is secret; it must be better." in result["msg"]
    assert "hunter2" not in str(result)
    assert "hunter2" not in str(judge("shop_secret: [hunter2]\n"))


def test_outside_of_a_role_there_is_nothing_to_judge_by(judge: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleError, match="use it in a role's tasks"):
        judge("", role=False)
