"""All processes stop after the same update, whichever of them has received a signal."""

import signal

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes

from runtime.errors import Interrupted
from runtime.process import Process
from runtime.stop_signals import StopSignals
from training.stop_vote import StopVote


def test_a_process_alone_stops_when_it_is_asked() -> None:
    signals = StopSignals("a.py")
    vote = StopVote(signals, Process(torch.device("cpu")))
    assert vote.after_update() == 0
    vote.leave_if_asked()
    signals.number = signal.SIGTERM
    assert vote.after_update() == signal.SIGTERM
    with pytest.raises(Interrupted) as raised:
        vote.leave_if_asked()
    assert raised.value.number == signal.SIGTERM
    assert signals.leaving


def _votes(lag: int) -> tuple[list[int], int]:
    """Return what each of four updates says, where rank 1 hears a signal in the second, and then the epoch's end."""
    rank = dist.get_rank()
    signals = StopSignals("a.py")
    vote = StopVote(signals, Process(torch.device("cpu"), rank, rank, dist.get_world_size(), distributed=True))
    vote.lag = lag
    said = []
    for update in range(4):
        if rank == 1 and update == 1:
            signals.number = signal.SIGUSR1
        said.append(vote.after_update())
    try:
        vote.leave_if_asked()
    except Interrupted as interrupt:
        return said, interrupt.number
    return said, 0


@pytest.mark.parametrize(("lag", "said"), [(0, [0, 10, 10, 10]), (2, [0, 0, 0, 10]), (8, [0, 0, 0, 0])])
def test_all_processes_hear_of_a_signal_after_the_same_update(lag: int, said: list[int]) -> None:
    expected = [signal.SIGUSR1 if number else 0 for number in said]
    assert run_on_processes(2, _votes, lag) == [(expected, signal.SIGUSR1)] * 2
