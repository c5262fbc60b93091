"""An image, or the recipe of one, stands for a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail


@pytest.mark.parametrize(
    ("image", "version", "pulled", "revision"),
    [
        ("ghcr.io/x/shop", "", "ghcr.io/x/shop", "latest"),
        ("ghcr.io/x/shop:1.4", "", "ghcr.io/x/shop:1.4", "1.4"),
        ("127.0.0.1:5000/shop:1.4", "2.0", "127.0.0.1:5000/shop:2.0", "2.0"),
        ("127.0.0.1:5000/shop", "", "127.0.0.1:5000/shop", "latest"),
        ("shop", "v1", "shop:v1", "v1"),
        ("ghcr.io/x/shop@sha256:" + "a" * 64, "v1", "ghcr.io/x/shop@sha256:" + "a" * 64, "sha256:" + "a" * 12),
    ],
)
def test_an_image_is_its_own_source(
    image: str, version: str, pulled: str, revision: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    source = fetch("/nowhere", image=image, version=version)["source"]
    assert (source["image"], source["revision"], source["kind"]) == (pulled, revision, "image")


def test_a_recipe_is_found_where_one_is_wanted(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    both = ["Dockerfile", "Containerfile"]
    assert fetch(app, dockerfiles=both)["source"]["kind"] == "requirements"
    (app / "Containerfile").write_text("FROM x\n", encoding="utf-8")
    assert fetch(app, dockerfiles=[])["source"]["kind"] == "requirements"
    source = fetch(app, dockerfiles=both, installer="pip", requirements="")["source"]
    assert (source["kind"], source["requirements"]) == ("dockerfile", "Containerfile")
    with pytest.raises(AnsibleActionFail, match=r"The source has no Dockerfile\.web"):
        fetch(app, dockerfiles=["Dockerfile.web"])
