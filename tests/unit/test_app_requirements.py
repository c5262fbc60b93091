"""Requirements files: what is honoured, and what is refused with the line and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.controller.fetch.pyproject import toml
from slipway.host.build.permissions import Allowed, Refused
from slipway.host.build.requirement_text import hashed, logical
from slipway.host.build.requirements import Found, Requirements

NOTHING: dict[str, str] = {}
MIRROR = {
    "UV_DEFAULT_INDEX": "https://ann:secret@mirror.example.com/simple",
    "UV_INDEX": "https://more.example.com/a https://b.example.com",
}


def write(root: Path, **files: str) -> None:
    """Write files, a double underscore in the name standing for a slash and a single one for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def read(
    root: Path,
    text: str = "",
    environment: dict[str, str] = NOTHING,
    source_builds: bool = False,
    installer: str = "uv",
    folder: str = ".",
    **files: str,
) -> Found:
    write(root / folder, requirements_txt=text)
    write(root, **files)
    allowed = Allowed.of(environment, source_builds, installer)
    return Requirements(root, root / folder, allowed, toml).read(root / folder / "requirements.txt")


HARMLESS = """\
# --index-url https://evil.example.com
fastapi[standard]==0.1 ; python_version >= "3.11" and extra == 'x/y'
uvicorn==0.32.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb  # via -r base.in
-r base.txt
--constraint=more/limits.txt
--only-binary :all:
--require-hashes
--prefer-binary
--no-index
-f wheels
--index-url https://pypi.org/simple/
--extra-index-url=https://pypi.org/simple
x @ https://files.example.com/x-1.0-py3-none-any.whl
x[extra] @ https://files.example.com/x-1.0-py3-none-any.whl#sha256=aa
http://files.example.com/x-1.0-py3-none-any.whl#sha256=aa
./wheels/y-1.0-py3-none-any.whl
./wheels/y-1.0-py3-none-any.whl --hash=sha256:aa
"""


def test_what_harms_nobody_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/y-1.0-py3-none-any.whl").touch()
    found = read(tmp_path, HARMLESS, base_txt="six\n-r requirements.txt\n", more__limits_txt="six<2\n")
    assert found == Found({}, False, {})


@pytest.mark.parametrize(
    ("environment", "default", "more"),
    [
        ({}, "", ()),
        ({"UV_DEFAULT_INDEX": "https://a", "UV_INDEX": "https://b https://c"}, "https://a", ("https://b", "https://c")),
        ({"PIP_INDEX_URL": "https://a", "PIP_EXTRA_INDEX_URL": "https://b https://c"}, "https://a", ("https://b", "https://c")),
        ({"UV_DEFAULT_INDEX": "https://a", "PIP_INDEX_URL": "https://x"}, "https://a", ()),
        ({"UV_INDEX": "https://b", "PIP_EXTRA_INDEX_URL": "https://x"}, "", ("https://b",)),
    ],
)
def test_what_the_installer_goes_by_is_allowed(environment: dict[str, str], default: str, more: tuple[str, ...]) -> None:
    assert Allowed.of(environment, False, "uv") == Allowed(default, more, False, "uv")


REFUSED = {
    "an index": (
        "-i https://x.example.com/simple",
        "requirements.txt:2 takes packages from https://x.example.com.*python_index_url",
    ),
    "an index, as in one word": ("-ihttps://x.example.com/simple", "python_index_url"),
    "an index by its other name": ("--pypi-url https://x.example.com/simple", "python_index_url"),
    "another index": ("--extra-index-url https://x.example.com/simple", "requirements.txt:2 .*python_extra_index_urls"),
    "another index, abbreviated": ("--extra-index https://x.example.com/simple", "python_extra_index_urls"),
    "another index, with a password": (
        "--extra-index-url=https://u:hunter2@x.example.com/s",
        "from https://x.example.com/s.*urls",
    ),
    "the second of two": ("--no-index --trusted-host x.example.com", "trusts x.example.com.*python_index_url"),
    "wheels elsewhere": ("--find-links https://x.example.com/wheels", "app_wheelhouse"),
    "wheels on another machine": ("-f /srv/wheels", "app_wheelhouse"),
    "wheels beside the source": ("-f ../wheels", "app_wheelhouse"),
    "no certificate": ("--trusted-host x.example.com", "trusts x.example.com.*python_index_url"),
    "builds": ("--no-binary :all:", "app_source_builds: true"),
    "builds of one": ("--no-binary=wheel", "app_source_builds: true"),
    "builds, abbreviated": ("--no-bin wheel", "app_source_builds: true"),
    "builds by the other option": ("--only-binary :none:", "app_source_builds: true"),
    "pre-releases": ("--pre", r"fastapi==1\.0rc1"),
    "git": ("shop @ git+https://x.example.com/shop", "takes shop from git.*app_source_builds: true"),
    "git, with capitals": ("ShopAPI[X] @ git+https://x.example.com/shop", "takes ShopAPI from git.*app_source_builds: true"),
    "git without a name": ("git+ssh://git@x.example.com/shop#egg=shop", "app_source_builds: true"),
    "git, editable": ("-e git+https://x.example.com/shop#egg=shop", "app_source_builds: true"),
    "a source archive": ("https://x.example.com/shop-1.0.tar.gz", "app_source_builds: true"),
    "a source archive of its own": ("./vendor/shop-1.0.zip", "app_source_builds: true"),
    "a wheel in the clear": ("http://x.example.com/x-1.0-py3-none-any.whl", "https address"),
    "another machine": ("shop @ file:///home/ann/shop", "takes shop from file:///home/ann/shop, a local path.*app_wheelhouse"),
    "another machine, by its path": ("/home/ann/shop", r"\./shop.*app_wheelhouse"),
    "what is not there": ("./nowhere", "no such file or folder"),
    "a neighbour": ("-e ../shop", "outside the source: set app_source to the folder that contains both"),
    "a wheel of a neighbour": ("../x-1.0-py3-none-any.whl", "outside the source"),
    "a folder that is no package": ("./bare", "neither a pyproject.toml nor a setup.py"),
    "a list elsewhere": ("-r https://x.example.com/base.txt", "put that file into the source"),
    "a list outside": ("-r ../../etc/passwd", "outside the source"),
    "a list of the machine": ("-c /etc/passwd", "outside the source"),
    "an unclosed quote": ('--index-url "x', "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("how", ["itself", "included", "a constraint"])
def test_what_is_refused_is_named_with_its_line_and_the_remedy(tmp_path: Path, case: str, how: str) -> None:
    line, words = REFUSED[case]
    root = tmp_path / "app"
    (root / "bare").mkdir(parents=True)
    (tmp_path / "shop").mkdir()
    if how == "itself":
        with pytest.raises(Refused, match=words) as error:
            read(root, f"fastapi\n{line}\n")
    else:
        word = "-r" if how == "included" else "--constraint "
        with pytest.raises(Refused, match=words.replace("requirements.txt:", "base.txt:")) as error:
            read(root, f"{word}base.txt\n", base_txt=f"six\n{line}\n")
    assert ":2 " in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "six==1 # pinned \\\n--index-url https://x.example.com\n",
        "six==1 \\\n    --hash=sha256:00 # pinned \\\n-i https://x.example.com\n",
        "-\\\ni https://x.example.com\n",
        "six==1\\\n --hash=sha256:00\n",
        "\\--index-url \\\nhttps://x.example.com\n",
        "-\\-index-url https://x.example.com\n",
        "# \x0csix==1 \\\n--index-url https://x.example.com\n",
        "# \rsix==1 \\\n--index-url https://x.example.com\n",
        "# \u2028six==1 \\\n--index-url https://x.example.com\n",
    ],
)
def test_what_installers_read_differently_is_refused(tmp_path: Path, text: str) -> None:
    number = 2 if "pinned" in text and "hash" in text else 1
    with pytest.raises(Refused, match=rf"^requirements\.txt:{number} is not read alike by all installers"):
        read(tmp_path, text)
    assert hashed(tmp_path / "requirements.txt", tmp_path) is ("--hash" in text)


@pytest.mark.parametrize("content", ["-i x".encode("utf-16"), b"# -*- coding: utf-7 -*-\n+AC0-i x\n", b"\n# coding=latin-1\n"])
def test_another_encoding_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "base.txt").write_bytes(content)
    with pytest.raises(Refused, match=r"^base\.txt is not UTF-8"):
        read(tmp_path, "-r base.txt\n")


def test_the_mark_of_an_encoding_hides_no_line(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"requirements\.txt:1 .*python_index_url"):
        read(tmp_path, "\ufeff-i https://x.example.com\n")
    assert read(tmp_path, "# coding: utf-8\r\nsix==1 \\\r\n    --hash=sha256:00 \\\r\n\\\r\n# all \\\r\n") == Found({}, False, {})


def test_links_do_not_lead_to_files_of_the_machine(tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (tmp_path / "secret").write_text("-i https://password.example.com\n", encoding="utf-8")
    (root / "base.txt").symlink_to("../secret")
    with pytest.raises(Refused, match="outside the source") as error:
        read(root, "-r base.txt\n")
    assert "password" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "--index-url https://mirror.example.com/simple/",
        "-i https://bob:other@MIRROR.example.com/simple",
        "--extra-index-url https://mirror.example.com/simple",
        "--extra-index-url https://more.example.com/a --extra-index-url https://b.example.com/",
    ],
)
def test_an_index_that_the_operator_named_may_be_named_by_the_source(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"{text}\n", environment=MIRROR) == Found({}, False, {})


def test_with_a_mirror_the_source_does_not_go_to_pypi(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="python_index_url"):
        read(tmp_path, "-i https://pypi.org/simple\n", environment=MIRROR)


@pytest.mark.parametrize(
    "line", ["--no-binary :all:", "x @ git+https://x.example.com/x", "./x-1.0.tar.gz", "--only-binary :none:"]
)
def test_builds_that_the_operator_allows_are(tmp_path: Path, line: str) -> None:
    (tmp_path / "x-1.0.tar.gz").touch()
    assert read(tmp_path, f"{line}\n", source_builds=True) == Found({}, False, {})


def test_pip_knows_pre_releases(tmp_path: Path) -> None:
    assert read(tmp_path, "--pre\n", installer="pip") == Found({}, False, {})


PROJECT = """\
[project]
name = "Corner.Shop"
dependencies = ["fastapi>=0.1", "uvicorn ; python_version > '3'"]
[project.optional-dependencies]
all = ["corner-shop[Post_Gres]", "redis"]
post-gres = ["psycopg"]
"""


@pytest.mark.parametrize(
    "line", ["-e .", ".", "--editable=./", "corner-shop @ file:.", " -e  . ; python_version > '3'  # ours", "-e file:."]
)
def test_the_source_itself_is_a_package(tmp_path: Path, line: str) -> None:
    found = read(tmp_path, f"six==1.17.0\n{line}\nattrs\n", pyproject_toml=PROJECT)
    assert found.packages == {"Corner.Shop": "."}
    assert not found.resolve
    lines = found.replaced["requirements.txt"].splitlines()
    assert [text for text in lines if not text.startswith("#")] == [
        "six==1.17.0",
        "fastapi>=0.1",
        "uvicorn ; python_version > '3'",
        "attrs",
    ]


@pytest.mark.parametrize("name", ["pkg$(id)", "a b", "pkg;id", "lib\nUSER root", "-x", "x/.hidden"])
def test_a_folder_with_a_name_that_is_more_is_not_built(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, pyproject_toml='[project]\nname = "shop"\n')
    allowed = Allowed.of(NOTHING, False, "uv")
    with pytest.raises(Refused, match="a package of the source, has a name that cannot be passed to a build: rename the folder"):
        Requirements(tmp_path, tmp_path, allowed, toml)._package(tmp_path / name, [], "requirements.txt:1")


@pytest.mark.parametrize("need", ["--index-url https://x.example.com", "six --index-url https://x.example.com", "six \\\\"])
def test_a_dependency_does_not_become_an_option(tmp_path: Path, need: str) -> None:
    with pytest.raises(Refused, match=r"pyproject\.toml \(dependencies\) has .* which is not a valid requirement"):
        read(tmp_path, ".", pyproject_toml=f'[project]\nname = "shop"\ndependencies = ["{need}"]\n')


def test_a_dependency_in_several_lines_is_one(tmp_path: Path) -> None:
    found = read(tmp_path, ".", pyproject_toml='[project]\nname = "shop"\ndependencies = ["six\\n>=1,\\n<2"]\n')
    assert found.replaced["requirements.txt"] == "# . (built by itself)\nsix >=1, <2\n"


def test_extras_of_a_package_of_the_source_are_heeded(tmp_path: Path) -> None:
    found = read(tmp_path, "-e .[all]\n", pyproject_toml=PROJECT)
    assert {"redis", "psycopg", "fastapi>=0.1"} <= set(found.replaced["requirements.txt"].splitlines())
    with pytest.raises(Refused, match="requires the extra dev of"):
        read(tmp_path, ".[dev]\n", pyproject_toml=PROJECT)


def test_a_folder_of_the_source_is_a_package_wherever_it_is_named(tmp_path: Path) -> None:
    text = 'from setuptools import setup\nsetup(name="common", install_requires=["six"])\n'
    found = read(tmp_path, "-r base.txt\n", folder="backend", backend__base_txt="-e ../common\nattrs\n", common__setup_py=text)
    assert found == Found({"common": "common"}, True, {"backend/base.txt": "# -e ../common (built by itself)\nattrs\n"})


def test_dependencies_that_only_a_build_tells_are_asked_for_then(tmp_path: Path) -> None:
    dynamic = '[project]\nname = "shop"\ndynamic = ["dependencies"]\n'
    assert read(tmp_path, ".\n", pyproject_toml=dynamic).resolve


def test_pip_builds_no_package_of_the_source(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="python_installer: uv"):
        read(tmp_path, "-e .\n", installer="pip", pyproject_toml=PROJECT)


def test_what_a_package_of_the_source_depends_on_is_judged_too(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"pyproject.toml \(dependencies\) takes x from git.*app_source_builds"):
        read(tmp_path, ".\n", pyproject_toml='[project]\nname = "a"\ndependencies = ["x @ git+https://x.example.com"]\n')


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"index-url": "https://x.example.com"}, "setting index-url.*python_index_url"),
        ({"index": [{"name": "x", "url": "https://x.example.com"}]}, "python_extra_index_urls"),
        ({"pip": {"no-binary": ["x"]}}, "app_source_builds"),
        ({"no-binary": True}, "app_source_builds"),
        ({"allow-insecure-host": ["x.example.com"]}, "certificate"),
        ({"find-links": ["https://x.example.com"]}, "app_wheelhouse"),
    ],
)
def test_settings_of_uv_are_judged_like_the_same_options(tmp_path: Path, table: dict[str, Any], words: str) -> None:
    files = Requirements(tmp_path, tmp_path, Allowed.of({}, False, "uv"), toml)
    with pytest.raises(Refused, match=words):
        files.settings(table, "uv.toml")
    files.settings(
        {"no-binary": False, "find-links": ["wheels"], "package": True, "index": [{"url": "https://pypi.org/simple"}]}, "x"
    )


@pytest.mark.parametrize("include", ["-r two.txt", "-rtwo.txt", "--requirement=two.txt", "-c two.txt", "-c 'two.txt'"])
def test_hashes_are_found_in_what_a_file_includes(tmp_path: Path, include: str) -> None:
    write(
        tmp_path, more__one_txt=f"a\n{include}\n", more__two_txt="# --hash=sha256:0\nb", more__three_txt="b \\\n --hash=sha256:0"
    )
    assert not hashed(tmp_path / "more/one.txt", tmp_path)
    write(tmp_path, more__two_txt="-r three.txt\n-r one.txt\n")
    assert hashed(tmp_path / "more/one.txt", tmp_path)


def test_no_file_outside_the_source_is_read_for_hashes(tmp_path: Path) -> None:
    write(tmp_path, secret_txt="a --hash=sha256:0", source__one_txt=f"-r ../secret.txt\n-r {tmp_path}/secret.txt\n-r link.txt\n")
    (tmp_path / "source/link.txt").symlink_to("../secret.txt")
    assert not hashed(tmp_path / "source/one.txt", tmp_path / "source")


def test_a_line_that_goes_on_is_one_without_the_mark_and_known_by_its_first_and_last() -> None:
    text = "six  # as ever\n\nuvicorn==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n# none \\\nfastapi \\"
    assert list(logical(text)) == [
        (1, 1, "six"),
        (3, 5, "uvicorn==1 --hash=sha256:aa --hash=sha256:bb"),
        (7, 7, "fastapi"),
    ]
