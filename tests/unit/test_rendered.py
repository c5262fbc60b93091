"""The lookup with which roles render their templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROOT, Host


class Heavy(str):
    """A variable that nobody may copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise AssertionError("copied")


def rendered(host: Host, lookup: str, template: str, options: str = "") -> Any:
    return host.work_out(trust_as_template(f"{{{{ lookup('{lookup}', '{template}'{options}) }}}}"), "nginx")


def test_the_text_is_that_of_the_usual_lookup() -> None:
    for template in ("site.conf.j2", "shared.conf.j2", "unavailable.html.j2"):
        text = rendered(Host(), "rendered", template)
        assert text == rendered(Host(), "ansible.builtin.template", template)
        assert text.startswith(("#", "<!doctype"))


def test_variables_are_not_copied() -> None:
    host = Host({"heavy": Heavy("x")})
    assert "server_name" in rendered(host, "rendered", "site.conf.j2")
    with pytest.raises(Exception, match="copied"):
        rendered(host, "ansible.builtin.template", "site.conf.j2")


def test_more_variables_are_for_one_template_alone() -> None:
    host = Host()
    more = ", template_vars={'nginx_site': 'another'}"
    assert "upstream another " in rendered(host, "rendered", "site.conf.j2", more)
    assert "upstream another " not in rendered(host, "rendered", "site.conf.j2")


def test_a_template_that_is_not_there_is_named() -> None:
    with pytest.raises(AnsibleError, match=r"nothing\.j2"):
        rendered(Host(), "rendered", "nothing.j2")


def test_no_role_copies_its_variables_for_a_template() -> None:
    files = [path for folder in ("roles", "playbooks") for path in Path(ROOT, folder).rglob("*.yml")]
    assert [path for path in files if "builtin.template'" in path.read_text(encoding="utf-8")] == []
    assert any("lookup('rendered'" in path.read_text(encoding="utf-8") for path in files)
