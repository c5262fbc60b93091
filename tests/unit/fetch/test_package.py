"""A package or a wheel is a source of one requirement."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import checksum, names, text_in


@pytest.mark.parametrize("package", ["shop==1.4", "shop[pg]==1.4"])
def test_a_package_is_one_requirement(package: str, fetch: Callable[..., dict[str, Any]]) -> None:
    source = fetch(package, requirements="")["source"]
    assert names(source["archive"]) == ["requirements.txt"]
    assert text_in(source["archive"], "requirements.txt") == f"{package}\n"
    assert (source["kind"], source["revision"], source["origin"]) == ("requirements", "1.4", "package")
    assert fetch(package, version="spring")["source"]["revision"] == "spring"
    with pytest.raises(AnsibleActionFail, match="app_source is a package, which has no folders: leave app_directory as"):
        fetch(package, directory="backend")


def test_a_wheel_is_a_requirement_with_the_wheel_beside_it(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    path = tmp_path / "shop-1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("shop.py", "x" * 5000)
    address, _ = serve(tmp_path)
    sources = [fetch(path)["source"], fetch(f"{address}/{path.name}", checksum=checksum(path))["source"]]
    assert names(sources[0]["archive"]) == ["requirements.txt", path.name]
    assert text_in(sources[0]["archive"], "requirements.txt").splitlines()[-1] == f"./{path.name}"
    assert sources[0]["digest"] == sources[1]["digest"]
    assert [source["revision"] for source in sources] == ["1.4"] * 2
    assert [source["origin"] for source in sources] == [path.name, f"{address}/{path.name}"]
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("more.py", "")
    assert fetch(path)["source"]["lock"] != sources[0]["lock"]
    whole = path.read_bytes()
    for text in (whole[:1000], whole.replace(b"xxxx", b"xxyx", 1)):
        path.write_bytes(text)
        with pytest.raises(AnsibleActionFail, match=r"\(app_source\) is damaged"):
            fetch(path)


def test_a_wheelhouse_is_packed_apart(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    house = tmp_path / "wheels"
    house.mkdir()
    (house / "README").touch()
    with pytest.raises(AnsibleActionFail, match=r"app_wheelhouse is .*wheels: there are no wheels"):
        fetch(app, wheelhouse=str(house))
    (house / "a-1-py3-none-any.whl").write_text("a", encoding="utf-8")
    first = fetch(app, wheelhouse=str(house))["source"]
    assert names(first["wheels"]["archive"]) == ["a-1-py3-none-any.whl"]
    assert first["digest"] == fetch(app)["source"]["digest"]
    (house / "README").write_text("changed", encoding="utf-8")
    assert fetch(app, wheelhouse=str(house))["source"] == first
    (house / "a-1-py3-none-any.whl").write_text("b", encoding="utf-8")
    assert fetch(app, wheelhouse=str(house))["source"]["wheels"]["digest"] != first["wheels"]["digest"]
