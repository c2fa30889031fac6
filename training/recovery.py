"""Checkpoints inside an epoch, and resuming from one."""

from __future__ import annotations

from runtime.random_state import RandomState, gather_objects, get_random_state
from training.resume import restore_random_state
from training.run import Run, Start


class Recovery:
    """The checkpoints inside an epoch, and the steps that a resumed run has already done.

    Args:
        run: run whose checkpoints these are.
        epoch: index of the epoch, from 0.
        steps: steps per epoch.
        resumed: where a recovery checkpoint was written inside this epoch; None where the epoch starts anew.
    """

    def __init__(self, run: Run, epoch: int, steps: int, resumed: Start | None) -> None:
        self.run, self.epoch, self.steps, self.resumed = run, epoch, steps, resumed
        self.interval = run.settings.recovery_interval
        self.previous: RandomState | None = None  # the random state after the last step

    def is_done(self, step: int) -> bool:
        """Return whether the interrupted run had done a step, and restore the random state after it."""
        if not self.resumed or step >= self.resumed["batch"]:
            self.run.stop.defer(True)  # from now on, there is something to save
            return False
        self.previous = restore_random_state(self.resumed, self.resumed["batch"] - step, self.run.process.rank)
        return True

    def save_if_due(self, step: int) -> None:
        """Write a checkpoint at the interval, or end the run with one if a signal has asked for it.

        Call it only after updates, because gradients are not saved. The last step has the checkpoint of its epoch.

        Raises:
            Interrupted: a signal has asked a process to end.
        """
        signal = self.run.stop.after_update()
        if step + 1 == self.steps:
            return
        if signal or (self.interval and (step + 1) % self.interval < self.run.settings.grad_accum_steps):
            world_size = self.run.process.world_size
            random = [gather_objects(state, world_size) for state in (self.previous, get_random_state())]
            self.run.progress = {"epoch": self.epoch, "batch": step + 1, "random": random}
            self.run.outputs.save_recovery(self.epoch, step)
        if signal:
            self.run.stop.leave(signal)

    def end_step(self) -> None:
        """Keep the random state for a checkpoint after the next step."""
        self.previous = get_random_state()
