"""A sample of the hostile cases and kills of `make soak`."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak.py")
WAITING: list[str] = []  # cases to leave out until their faults are corrected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_hostile_input_ends_in_an_answer_or_a_sentence_and_a_killed_run_resumes_to_the_same_bytes() -> None:
    command = [sys.executable, SOAK, "--cases", "12", "--kills", "2", "--skip", *WAITING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 killed runs ended as the unbroken run" in done.stdout
