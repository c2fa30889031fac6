"""A child ends by itself, at its deadline, or with its parent, and takes its own children along."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.child_process import interrupted_by_signals, run_child

# starts a grandchild that would sleep for a minute, writes its id, and sleeps too
FAMILY = """
import pathlib, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(grandchild.pid))
time.sleep(60)
"""


def has_ended(pid: int) -> bool:
    """Whether a process ends within five seconds; a zombie has ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("status", [0, 3])
def test_a_child_that_ends_in_time_returns_its_status_and_leaves_its_log(tmp_path: Path, status: int) -> None:
    words = [sys.executable, "-c", f"print('here'); raise SystemExit({status})"]
    assert run_child(words, tmp_path / "logs" / "a.log", 60) == status
    assert (tmp_path / "logs" / "a.log").read_text() == "here\n"


def test_a_child_is_stopped_at_its_deadline_with_its_own_children(tmp_path: Path) -> None:
    start = time.monotonic()
    assert run_child([sys.executable, "-c", FAMILY, f"{tmp_path / 'pid'}"], tmp_path / "log", 1.5) is None
    assert time.monotonic() - start < 10
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.child_process._PATIENCE", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    start = time.monotonic()
    assert run_child([sys.executable, "-c", deaf], tmp_path / "log", 1) is None
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_parent_stops_the_child(tmp_path: Path, number: signal.Signals) -> None:
    parent = f"""
import sys
from pathlib import Path
from training.child_process import interrupted_by_signals, run_child
with interrupted_by_signals():
    try:
        run_child([sys.executable, "-c", {FAMILY!r}, {str(tmp_path / "pid")!r}], Path({str(tmp_path / "log")!r}), 60)
    except KeyboardInterrupt:
        raise SystemExit(77)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=Path(__file__).resolve().parent.parent)
    pid = tmp_path / "pid"
    for _ in range(600):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 77
    assert has_ended(int(pid.read_text()))


def test_handlers_of_signals_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
