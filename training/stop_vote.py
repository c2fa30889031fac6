"""The agreement of all processes to stop after the same step, when a signal has asked any of them."""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.errors import Interrupted
from runtime.process import Process
from runtime.stop_signals import StopSignals

_LAG = 8  # updates until a GPU's answer is read, so that reading it does not wait for the GPU


class StopVote:
    """Whether a run stops, which all processes find out after the same update.

    Args:
        signals: signals that this process has received.
        process: device and rank of this process.
    """

    def __init__(self, signals: StopSignals, process: Process) -> None:
        self.signals, self.process = signals, process
        self.lag = _LAG if process.distributed and process.device.type == "cuda" else 0
        self.pending: deque[Tensor] = deque()

    def defer(self, deferred: bool) -> None:
        """Let a first signal wait for the end of a step, or not."""
        self.signals.deferred = deferred

    def after_update(self) -> int:
        """Return the signal that a process had received by this update, or a few updates ago; 0 for none."""
        if not self.process.distributed:
            return self.signals.number
        self.pending.append(self._vote())
        return int(self.pending.popleft()) if len(self.pending) > self.lag else 0

    def leave_if_asked(self) -> None:
        """End all processes if any has received a signal. Every process must make this call.

        Raises:
            Interrupted: one has.
        """
        number = int(self._vote()) if self.process.distributed else self.signals.number
        if number:
            self.leave(number)

    def leave(self, number: int) -> None:
        """End this process together with the others, which a launcher would otherwise end before they have saved.

        Raises:
            Interrupted: always.
        """
        self.signals.leave(number)
        if self.process.distributed:
            dist.barrier()
        raise Interrupted(number)

    def _vote(self) -> Tensor:
        """Return the highest number of a signal that any process has received."""
        vote = torch.tensor(self.signals.number, device=self.process.device)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX)
        return vote
