"""Work ends at its time limit, and a limit that is not reached leaves no trace."""

import signal
import threading
import time

import pytest

from training.time_limit import OutOfTime, time_limit


def test_work_ends_when_its_time_is_up() -> None:
    start = time.monotonic()
    with pytest.raises(OutOfTime), time_limit(0.2):
        sum(number for number in range(10**9))
    assert 0.2 <= time.monotonic() - start < 10


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_is_no_work(seconds: float) -> None:
    with pytest.raises(OutOfTime), time_limit(seconds):
        pytest.fail("worked")


def test_work_that_ends_in_time_is_not_interrupted_later() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.1):
        pass
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is before


def test_outside_the_main_thread_work_goes_to_its_end() -> None:
    done = []

    def work() -> None:
        with time_limit(0.05):
            time.sleep(0.2)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
