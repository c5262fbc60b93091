import os
import subprocess
import sys
import time
from pathlib import Path


def cleanup(home: Path) -> str:
    environment = {**os.environ, "HOME": str(home)}
    place = Path(__file__).parents[1]
    command = [sys.executable, "-m", "app.cleanup"]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True).stderr


def test_old_greetings_are_removed_and_nothing_else(tmp_path: Path) -> None:
    greetings = tmp_path / "greetings"
    greetings.mkdir()
    for name in ("old.greeting", "new.greeting", "old.order"):
        (greetings / name).touch()
    two_days_ago = time.time() - 2 * 86_400
    for name in ("old.greeting", "old.order"):
        os.utime(greetings / name, (two_days_ago, two_days_ago))
    assert "removed 1 old greetings" in cleanup(tmp_path)
    assert sorted(path.name for path in greetings.iterdir()) == ["new.greeting", "old.order"]


def test_without_a_worker_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert "removed 0 old greetings" in cleanup(tmp_path)
