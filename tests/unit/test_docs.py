"""The pages and schemas that script/docs generates: they are up to date, and hold every variable and system."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from rendering import ROOT

import docs


def test_generated_files_are_up_to_date() -> None:
    """If not: script/docs."""
    assert docs.outdated() == []


def test_a_generated_file_that_differs_or_is_missing_is_named(tmp_path: Path) -> None:
    write_role(tmp_path)
    write(tmp_path / "docs" / "support.md", f"# Support\n\n{docs.BEGIN}\nold\n{docs.END}\n\nby hand\n")
    assert docs.outdated(tmp_path) == [*docs.generate(tmp_path)]
    for name, text in docs.generate(tmp_path).items():
        write(tmp_path / name, text)
    assert docs.outdated(tmp_path) == []
    page = (tmp_path / "docs" / "support.md").read_text(encoding="utf-8")
    assert "(`shop_systems`): Debian 13." in page
    assert page.endswith(f"{docs.END}\n\nby hand\n")
    write(tmp_path / "docs" / "variables.md", "changed by hand\n")
    assert docs.outdated(tmp_path) == ["docs/variables.md"]


@pytest.mark.parametrize("page", ["", docs.BEGIN, f"{docs.BEGIN}{docs.END}{docs.BEGIN}{docs.END}"])
def test_a_page_needs_one_generated_part(page: str) -> None:
    with pytest.raises(ValueError, match="expected one part"):
        docs.filled(page, "text")


def test_the_page_of_variables_lists_types_defaults_and_wiring(tmp_path: Path) -> None:
    write_role(tmp_path)
    page = docs.variables_page(docs.read_specs(tmp_path))
    assert "| `shop_kind` | `small`, empty | `small` | What it is: `a\\|b` or \\<none> of shop\\_key. |" in page
    assert "| `shop_key` | str, secret | empty | A key. |" in page
    assert '| `shop_systems` | list of str | `["Debian 13"]` | Systems. |' in page
    assert "| `shop_owner` | str | required | Whose it is. |" in page
    assert "| `shop_text` | str | [see defaults](../roles/shop/defaults/main.yml) | Long. |" in page
    _, _, wiring = page.partition("Wiring of shop:")
    assert wiring.count("| `shop_") == 1
    assert "| `shop_door` | int | `{{ door_port }}` | A port. |" in wiring


def test_every_variable_of_every_role_is_on_the_page_once() -> None:
    page = (ROOT / "docs" / "variables.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(named) == sorted(name for spec in docs.read_specs().values() for name in spec["options"])


def test_every_system_that_a_run_accepts_has_its_row_in_the_table_of_support() -> None:
    _, _, table = (ROOT / "docs" / "support.md").read_text(encoding="utf-8").partition(docs.END)
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    rows = [row.replace("RHEL", "RedHat").replace(" Stream", "") for row in first]
    (accepted,) = [
        option["default"]
        for spec in docs.read_specs().values()
        for name, option in spec["options"].items()
        if name.endswith("_systems")
    ]
    for system in accepted:
        name, version = system.split()
        assert any(name in row and re.search(rf"\b{version}\b", row) for row in rows), system


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_role(root: Path) -> None:
    """Write the specifications of two roles, shop and door."""
    options = {
        "shop_kind": {
            "description": ["What it is:", "C(a|b) or <none> of shop_key."],
            "type": "str",
            "choices": ["small", ""],
            "default": "small",
        },
        "shop_key": {"description": "A key.", "type": "str", "no_log": True, "default": ""},
        "shop_systems": {"description": "Systems.", "type": "list", "elements": "str", "default": ["Debian 13"]},
        "shop_owner": {"description": "Whose it is.", "type": "str", "required": True},
        "shop_text": {"description": "Long.", "type": "str", "default": "x" * 100},
        "shop_door": {"description": "A port.", "type": "int", "default": "{{ door_port }}"},
    }
    door = {"door_port": {"description": "The port.", "type": "int", "default": 443}}
    for role, specs in (("shop", options), ("door", door)):
        entry = {"argument_specs": {"main": {"short_description": f"The {role}", "options": specs}}}
        write(root / "roles" / role / "meta" / "argument_specs.yml", yaml.safe_dump(entry, sort_keys=False))
