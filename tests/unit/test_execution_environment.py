"""The controller as an image: from the lock file that script/bootstrap heeds, too."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = yaml.safe_load((ROOT / "execution-environment.yml").read_text(encoding="utf-8"))


def test_it_is_made_from_the_lock_file() -> None:
    lock, project, source = DEFINITION["additional_build_files"]
    assert (project["src"], source["src"]) == ("pyproject.toml", "src") and project["dest"] == source["dest"]
    assert "--hash=sha256:" in (ROOT / lock["src"]).read_text(encoding="utf-8")
    copy, install, copy_project, install_project = DEFINITION["additional_build_steps"]["append_base"]
    assert copy_project.split()[1] == f"_build/{project['dest']}"
    assert install_project.endswith(f" --offline --no-deps {copy_project.split()[2]}")
    word, source, target = copy.split()
    assert (word, source) == ("COPY", f"_build/{lock['dest']}/{lock['src']}")
    assert install.startswith("RUN $PYCMD -m pip install ")
    assert install.endswith(f" --require-hashes --requirement {target}")


def test_it_has_what_the_controller_calls() -> None:
    packages = DEFINITION["dependencies"]["python_interpreter"]["package_system"].split()
    assert {"openssh-client", "git", "python3-pip"} <= set(packages)
    assert "\nuv==" in (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert DEFINITION["dependencies"]["ansible_runner"]["package_pip"].startswith("ansible-runner")
