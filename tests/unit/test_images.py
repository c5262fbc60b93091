"""What script/image decides without a container."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import images
import podman_setup
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    return Path(shutil.copytree(images.RECIPES, tmp_path / "images"))


@pytest.mark.parametrize("name", images.IMAGES)
def test_every_image_has_a_reference_and_its_recipes(name: str) -> None:
    assert re.fullmatch(rf"localhost/slipway-{name}:[0-9a-f]{{12}}", images.reference(name, cas=[]))
    for folder in {images.IMAGES[name].folder, images.IMAGES[name].stand_in} - {""}:
        assert (images.RECIPES / folder / "Containerfile").is_file()


def test_every_recipe_belongs_to_an_image() -> None:
    used = {folder for image in images.IMAGES.values() for folder in (image.folder, image.stand_in)}
    assert {path.name for path in images.RECIPES.iterdir() if path.is_dir()} == used - {""}


def test_a_changed_recipe_changes_the_reference(recipes: Path) -> None:
    before = images.reference("centos9", recipes=recipes, cas=[])
    with (recipes / "centos9-standin" / "packages").open("a", encoding="utf-8") as table:
        table.write("appstream tmux tmux\n")
    assert images.reference("centos9", recipes=recipes, cas=[]) != before


def test_a_lost_executable_bit_changes_the_reference(recipes: Path) -> None:
    before = images.reference("centos9", recipes=recipes, cas=[])
    (recipes / "centos9-standin/rpms/centos-stream-release/files/usr/bin/update-ca-trust").chmod(0o644)
    assert images.reference("centos9", recipes=recipes, cas=[]) != before


def test_a_change_of_the_parent_changes_its_children_only(recipes: Path) -> None:
    before = {name: images.reference(name, recipes=recipes, cas=[]) for name in images.IMAGES}
    (recipes / "debian" / "packages").write_text("systemd-sysv\n", encoding="utf-8")
    after = {name: images.reference(name, recipes=recipes, cas=[]) for name in images.IMAGES}
    assert all(before[name] != after[name] for name in images.IMAGES)
    (recipes / "acme" / "pebble.json").write_text("{}", encoding="utf-8")
    last = {name: images.reference(name, recipes=recipes, cas=[]) for name in images.IMAGES}
    assert [name for name in images.IMAGES if last[name] != after[name]] == ["acme"]


def test_a_certificate_or_a_base_changes_the_reference(tmp_path: Path) -> None:
    certificate = tmp_path / "corporate.crt"
    certificate.write_text("one", encoding="utf-8")
    plain = images.reference("debian12", cas=[])
    trusting = images.reference("debian12", cas=[certificate])
    certificate.write_text("two", encoding="utf-8")
    renewed = images.reference("debian12", cas=[certificate])
    based = images.reference("debian12", base="docker.io/library/debian:12", cas=[])
    assert len({plain, trusting, renewed, based}) == 4


def test_the_digest_keeps_neighbours_apart() -> None:
    assert images.digest([("a", b"bc")]) != images.digest([("ab", b"c")])


def test_an_unknown_name_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["debian11"]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "no image named 'debian11'" in streams.err
    assert "debian12, debian13, ubuntu2404, centos9, python, traefik, acme" in streams.err


def test_acme_takes_no_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["--base", "debian:13", "acme"]) == 1
    assert "always built on debian13" in capsys.readouterr().err


def test_list_prints_the_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(images.IMAGES)


DEFAULT_MIRRORS = (images.DEBIAN_MIRROR, images.DEBIAN_SECURITY_MIRROR)


@pytest.mark.parametrize(
    ("sources", "mirrors"),
    [
        ("", DEFAULT_MIRRORS),
        (
            "URIs: http://mirror.example/debian/\nURIs: http://mirror.example/debian-security\n",
            ("http://mirror.example/debian", "http://mirror.example/debian-security"),
        ),
        (
            "deb [signed-by=/k.gpg] https://a.example/debian trixie main",
            ("https://a.example/debian", images.DEBIAN_SECURITY_MIRROR),
        ),
        ("# deb http://a.example/debian trixie main", DEFAULT_MIRRORS),
        ("deb http://archive.ubuntu.com/ubuntu noble main", DEFAULT_MIRRORS),
    ],
)
def test_the_machines_own_mirror_is_used(sources: str, mirrors: tuple[str, str]) -> None:
    assert images.debian_mirrors(sources) == mirrors


def test_a_failed_command_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(images.ImageError, match=r"ended with code 3; all of its output is in .*\nwhy it failed$"):
        images.run(["sh", "-c", "echo why it failed; exit 3"], tmp_path / "log", within=10)
    with pytest.raises(images.ImageError, match="took too long"):
        images.run(["sleep", "5"], tmp_path / "log", within=0.1)


def test_a_progress_bar_counts_as_one_line() -> None:
    assert podman_setup.last_lines("first\n10%\r50%\r100%\n\nlast\n", 2) == "100%\nlast"


def test_settings_for_podman_name_runc_beside_cgroup_v1_only() -> None:
    old = podman_setup.containers_conf(unified_cgroups=False, files=10000, processes=4096)
    new = podman_setup.containers_conf(unified_cgroups=True, files=10000, processes=4096)
    assert 'default_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]' in old
    assert 'runtime = "runc"' in old
    assert "pids_limit = 0" in old
    assert 'default_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]' in new
    assert "runc" not in new


def conclude(monkeypatch: pytest.MonkeyPatch, conf: Path, complaints: list[str]) -> str:
    """Prepare a machine whose trial containers end with these complaints; settings go to `conf`."""
    monkeypatch.setattr(podman_setup, "CONTAINERS_CONF", conf)
    monkeypatch.setattr(podman_setup, "as_root", list)
    monkeypatch.setattr(podman_setup, "start_trial_container", lambda: complaints.pop(0))
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: "/usr/sbin/runc")
    return podman_setup.prepare()


def test_a_machine_whose_podman_works_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "nothing to prepare" in conclude(monkeypatch, tmp_path / "conf", [""])
    assert not (tmp_path / "conf").exists()


def test_limits_that_are_too_high_are_lowered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = conclude(monkeypatch, tmp_path / "d" / "conf", ["error setting rlimit type 7", ""])
    assert said.endswith("and now it can")
    assert "default_ulimits" in (tmp_path / "d" / "conf").read_text(encoding="utf-8")


def test_a_podman_that_stays_broken_is_an_error_with_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(podman_setup.PodmanError, match=r"netavark not found; .*apt-get install"):
        conclude(monkeypatch, tmp_path / "conf", ["error setting rlimit type 7", "netavark not found"])
