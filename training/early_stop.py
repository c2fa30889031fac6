"""Stopping a run whose metric no longer gets better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class EarlyStop:
    """The best score so far, and the scorings since then; checkpoints hold both, whether or not the run stops early.

    Args:
        metric: metric that chooses the best epoch.
        decreasing: whether lower scores are better.
        patience: scorings without a better one after which the run stops; 0 for never.
        best: best score; None before the first.
        best_epoch: index of its epoch.
        since: scorings since the best one.
        epochs: epochs that were done at the last scoring.
    """

    metric: str = ""
    decreasing: bool = False
    patience: int = 0
    best: float | None = None
    best_epoch: int | None = None
    since: int = 0
    epochs: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the run stops, or has stopped, after `epochs` epochs."""
        return bool(self.patience) and self.since >= self.patience

    def record(self, epoch: int, value: float | None) -> None:
        """Record the score of an epoch; None, in an epoch without scoring, does not count."""
        if value is None:
            return
        self.epochs = epoch + 1
        if self.best is None or (value < self.best if self.decreasing else value > self.best):
            self.best, self.best_epoch, self.since = value, epoch, 0
        else:
            self.since += 1

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        names = ("metric", "best", "best_epoch", "since", "epochs")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue from a checkpoint's state, unless it is about another metric or the file is older."""
        if state and state.get("metric") == self.metric:
            for name, value in self.state().items():
                setattr(self, name, state.get(name, value))

    def sentence(self) -> str:
        """Return why the run stops, for the log."""
        times = "1 scoring" if self.since == 1 else f"{self.since} scorings"
        return (
            f"Stopped early after epoch {self.epochs - 1}: {times} of {self.metric} since {self.best:.4f} (epoch "
            f"{self.best_epoch}) gave no better one (--early-stop {self.patience})"
        )
