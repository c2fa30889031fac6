"""The watch over the other ranks: who is dead, stopped, silent or gone home."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from runtime import rank_watch
from runtime.errors import LostRank
from runtime.rank_watch import Rank, RankWatch, listed, meet, this_rank

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def state_of(pid: int) -> str:
    """Return what Linux says about a process; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that stands for another rank."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> RankWatch:
    """Make the watch of rank 0 over rank 1, whose thread does not run."""
    monkeypatch.setattr(rank_watch, "_TICK", 0.01)
    me = this_rank(0)
    other = me._replace(number=1, pid=0)
    made = RankWatch(dist.HashStore(), me, [me, other], "30 minutes")  # without a process group, the thread ends
    made.thread.join()
    made.store.set("beat/0", "run 0")
    return made


def hear(watch: RankWatch, child: subprocess.Popen[bytes], texts: list[str]) -> str:
    """Return what the watch says about rank 1 after it has heard these texts, one a tick."""
    watch.ranks[1] = watch.ranks[1]._replace(pid=child.pid)
    for count, text in enumerate(texts):
        watch.store.set("beat/1", text)
        watch._listen(count)
    return watch.lost.get(1, "")


def test_a_rank_that_answers_is_healthy_and_one_that_is_done_may_be_silent(
    watch: RankWatch, child: subprocess.Popen[bytes]
) -> None:
    assert not hear(watch, child, [f"run {n}" for n in range(100)])
    assert not hear(watch, child, ["done 0"] * 100)


def test_a_silent_rank_is_lost_after_a_minute(watch: RankWatch, child: subprocess.Popen[bytes]) -> None:
    assert not hear(watch, child, ["run 1"] * 60)
    assert "has not answered for 60 seconds" in hear(watch, child, ["run 1"])


def test_a_silent_rank_is_lost_soon_after_an_operation_has_failed(
    watch: RankWatch, child: subprocess.Popen[bytes]
) -> None:
    watch.status = "stuck"
    assert "has not answered" in hear(watch, child, ["run 1"] * 6)


@linux
def test_a_dead_rank_is_lost_at_once(watch: RankWatch, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    while state_of(child.pid) not in ("Z", ""):
        time.sleep(0.01)
    assert f"rank 1 (process {child.pid} on " in hear(watch, child, ["run 1"] * 3)
    assert "is dead" in watch.lost[1]


@linux
def test_a_stopped_rank_is_named_so_and_killed(watch: RankWatch, child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    while state_of(child.pid) != "T":
        time.sleep(0.01)
    assert not hear(watch, child, ["run 1"] * 60)
    assert "is stopped" in hear(watch, child, ["run 1"])
    watch.end_lost()
    assert child.wait(10) == -signal.SIGKILL


def test_a_process_in_another_container_is_not_looked_up(child: subprocess.Popen[bytes]) -> None:
    rank = Rank(1, "host", "another kernel", child.pid)
    assert rank.state("this kernel") == "?"
    assert rank._replace(kernel="").state("") == "?"


def test_a_rank_that_failed_leaves_this_one_time_for_its_own_error(
    watch: RankWatch, child: subprocess.Popen[bytes]
) -> None:
    assert not hear(watch, child, ["failed 0"] * 20)
    assert "ended with an error" in hear(watch, child, ["failed 0"])


def test_the_first_healthy_rank_of_a_machine_speaks(watch: RankWatch) -> None:
    assert watch.speaks()
    watch.me = watch.ranks[1]
    assert not watch.speaks()
    watch.lost[0] = "rank 0 is dead"
    assert watch.speaks()


def test_a_rank_that_has_said_what_ended_it_is_not_reported_again(
    watch: RankWatch, child: subprocess.Popen[bytes]
) -> None:
    hear(watch, child, ["failed 0"] * 21)
    assert watch.lost
    assert not watch.speaks()
    watch.ranks[1] = watch.ranks[1]._replace(host="another")
    assert watch.speaks()


def test_an_operation_that_failed_is_explained(watch: RankWatch) -> None:
    watch.heard[1] = "run 5"
    late = watch.explain(RuntimeError("[gloo] Timed out waiting 1800000ms for recv operation"))
    assert late == "rank 1 did not come to the other processes within 30 minutes"
    broken = watch.explain(RuntimeError("[gloo] Connection reset"))
    assert broken == "the connection between the processes broke ([gloo] Connection reset)"
    watch.lost[1] = "rank 1 is dead"
    assert watch.explain(RuntimeError("[gloo] Connection closed")) == "rank 1 is dead"


def test_ranks_meet_and_missing_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    store = dist.HashStore()
    with pytest.raises(LostRank, match=r"^ranks 1 and 2 of 3 processes did not start within 0 seconds"):
        meet(store, this_rank(0), 3, 0.2)
    for number in (1, 2):
        store.set(f"rank/{number}", f'[{number}, "host", "", 7]')
    assert [rank.number for rank in meet(store, this_rank(0), 3, 5)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "rank 3"), ([1, 2], "ranks 1 and 2"), (list(range(20)), "ranks 0, 1, 2, 3, 4, 5, 6 and 13 more")],
)
def test_ranks_are_listed(numbers: list[int], text: str) -> None:
    assert listed(numbers) == text
