"""Checkpoints inside an epoch, and resuming from one."""

from __future__ import annotations

import time

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
        self.interval, seconds = run.settings.recovery_interval, run.settings.recovery_seconds
        self.clock = SharedClock(seconds, run.process.world_size) if seconds else None
        self.previous: RandomState | None = None  # the random state after the last step
        if resumed:
            restore_meter(meter, resumed, run.process.rank, run.process.world_size)

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
        if self._is_due(step) or signal:
            world_size = self.run.process.world_size
            random = [gather_objects(state, world_size) for state in (self.previous, get_random_state())]
            sums = gather_objects(self.meter.state_dict(), world_size)
            self.run.progress = {"epoch": self.epoch, "batch": step + 1, "random": random, "sums": sums}
            self.run.outputs.save_recovery(self.epoch, step)
        if signal:
            self.run.stop.leave(signal)

    def _is_due(self, step: int) -> bool:
        if self.clock:
            return self.clock.is_due(step)
        return self.interval > 0 and (step + 1) % self.interval < self.run.settings.grad_accum_steps

    def end_step(self) -> None:
        """Keep the random state for a checkpoint after the next step."""
        self.previous = get_random_state()


class SharedClock:
    """Says when a time has passed, after the same step on every process: by the first process's clock.

    Several processes compare only now and then, because each comparison waits for all of them: the next one comes
    halfway to the step at which the time should have passed.

    Args:
        seconds: the time, from now and from each step at which it has passed.
        processes: number of processes, which all ask after the same steps.
    """

    def __init__(self, seconds: float, processes: int) -> None:
        self.seconds, self.processes = seconds, processes
        self.start = time.monotonic()
        self.asked = self.next = 0  # steps since the start, and the step number of the next comparison

    def is_due(self, step: int) -> bool:
        """Return whether the time has passed after a step, by its number."""
        self.asked += 1
        if step < self.next:
            return False
        elapsed: float = gather_objects(time.monotonic() - self.start, self.processes)[0]
        if elapsed >= self.seconds:
            self.start, self.asked = time.monotonic(), 0
            return True
        if self.processes > 1:
            left = (self.seconds - elapsed) * self.asked / max(elapsed, 1e-6)
            self.next = step + max(1, int(left / 2))
        return False
