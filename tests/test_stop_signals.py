"""Signals that ask for an end: at once, after a step, a second time, in a child, and where nothing can interrupt."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import Interrupted
from runtime.stop_signals import STOP_SIGNALS, stop_signals

ROOT = Path(__file__).resolve().parent.parent
START = """
import ctypes, multiprocessing, os, signal, sys, time
from runtime.errors import report_usage_errors
from runtime.stop_signals import STOP_SIGNALS, stop_signals

def steps(signals, seconds=60):
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not signals.number:
        time.sleep(0.01)
"""


def started(code: str) -> subprocess.Popen[str]:
    """Start a script that prints "ready", and wait for that."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return how a script ended, and what it said."""
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_a_script_with_128_plus_its_number_and_one_line(number: signal.Signals) -> None:
    process = started("""
with report_usage_errors("a.py"), stop_signals("a.py"):
    print("ready", flush=True)
    time.sleep(60)
""")
    process.send_signal(number)
    status, said = ended(process)
    assert status == 128 + number
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert said.strip() == f"a.py: {how}"


STEPS = """
with stop_signals("a.py") as signals, signals.deferring():
    steps(signals)
    time.sleep(2)  # the step
    print("saved", flush=True)
"""


def test_a_first_signal_waits_for_the_end_of_a_step_also_if_it_comes_twice_at_once() -> None:
    process = started(STEPS)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # as from a launcher and from its process group
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "saved\n")
    assert said == "SIGTERM: the run saves its state after this step; a second signal ends it at once\n"


def test_a_second_signal_ends_at_once() -> None:
    process = started(STEPS.replace("2)", "60)"))
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == 130
    assert said.splitlines()[1:] == ["a.py: ended at once by SIGINT"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library's locks have other sizes")
def test_a_second_signal_ends_code_that_nothing_interrupts() -> None:
    process = started("""
with stop_signals("a.py") as signals, signals.deferring():
    lock = ctypes.create_string_buffer(64)
    c = ctypes.CDLL(None)
    c.pthread_mutex_lock(lock)
    print("ready", flush=True)
    c.pthread_mutex_lock(lock)  # as a collective operation waits for another process
""")
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_children_leave_signals_to_their_parent_which_ends_them() -> None:
    process = started("""
def work(pipe):
    for _ in range(600):
        time.sleep(0.1)

with report_usage_errors("a.py"), stop_signals("a.py") as signals:
    child = multiprocessing.get_context("fork").Process(target=work, args=(None,), daemon=True)
    child.start()
    time.sleep(0.3)
    with signals.deferring():
        steps(signals)
    time.sleep(0.5)
    print(child.is_alive(), child.pid, file=sys.stderr, flush=True)
    raise KeyboardInterrupt
""")
    subprocess.run(["kill", "-TERM", "--", f"-{process.pid}"], check=True)  # the process group, as Slurm does
    _, said = ended(process)
    alive, pid = said.splitlines()[1].split()
    assert alive == "True"
    assert not Path(f"/proc/{pid}").exists()


def test_an_ignored_signal_stays_ignored_and_handlers_are_restored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stop_signals("a.py"):
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    kept = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), stop_signals("a.py"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is kept
