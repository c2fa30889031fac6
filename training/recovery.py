"""Checkpoints inside an epoch, and resuming from one."""

from __future__ import annotations

from runtime.random_state import RandomState, gather_objects, get_random_state
from training.loss_meter import EpochMeter
from training.resume import restore_meter, restore_random_state
from training.run import Run, Start


class Recovery:
    """The checkpoints inside an epoch, and the steps that a resumed run has already done.

    Args:
        run: run whose checkpoints these are.
        epoch: index of the epoch, from 0.
        steps: steps per epoch.
        meter: meter of the epoch, which continues from the checkpoint's sums.
        resumed: where a recovery checkpoint was written inside this epoch; None where the epoch starts anew.
    """

    def __init__(self, run: Run, epoch: int, steps: int, meter: EpochMeter, resumed: Start | None) -> None:
        self.run, self.epoch, self.steps, self.meter, self.resumed = run, epoch, steps, meter, resumed
        self.interval = run.settings.recovery_interval
        self.previous: RandomState | None = None  # the random state after the last step
        if resumed:
            restore_meter(meter, resumed, run.process.rank, run.process.world_size)

    def is_done(self, step: int) -> bool:
        """Return whether the interrupted run had done a step, and restore the random state after it."""
        if not self.resumed or step >= self.resumed["batch"]:
            return False
        self.previous = restore_random_state(self.resumed, self.resumed["batch"] - step, self.run.process.rank)
        return True

    def save_if_due(self, step: int) -> None:
        """Write a checkpoint at the interval. Call it only after updates, because gradients are not saved."""
        last = step + 1 == self.steps
        if self.interval and not last and (step + 1) % self.interval < self.run.settings.grad_accum_steps:
            world_size = self.run.process.world_size
            random = [gather_objects(state, world_size) for state in (self.previous, get_random_state())]
            sums = gather_objects(self.meter.state_dict(), world_size)
            self.run.progress = {"epoch": self.epoch, "batch": step + 1, "random": random, "sums": sums}
            self.run.outputs.save_recovery(self.epoch, step)

    def end_step(self) -> None:
        """Keep the random state for a checkpoint after the next step."""
        if self.interval:
            self.previous = get_random_state()
