import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.worker import orders, run


def test_orders_are_filled_and_an_order_is_taken_once(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.order").write_text(f"{name}\n", encoding="utf-8")
    first = next(orders(tmp_path))
    assert first.name == "ann.taken"
    assert [order.name for order in orders(tmp_path)] == ["bob.taken"]


def test_a_worker_ends_what_it_has_begun(tmp_path: Path) -> None:
    (tmp_path / "1.order").write_text("", encoding="utf-8")
    (tmp_path / "2.order").write_text("Bob", encoding="utf-8")
    stop = threading.Event()
    worker = threading.Thread(target=run, args=(tmp_path, stop))
    worker.start()
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("*.greeting"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop.set()
    worker.join(10)
    assert (tmp_path / "1.greeting").read_text(encoding="utf-8") == "Hello, World!\n"
    assert (tmp_path / "2.greeting").read_text(encoding="utf-8") == "Hello, Bob!\n"
    assert list(tmp_path.glob("*.taken")) == []


def test_a_worker_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "app.worker"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stderr is not None
        assert "starts" in worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
        output = worker.stderr.read()
    assert (worker.returncode, "has stopped" in output) == (0, True)
