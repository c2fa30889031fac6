"""Averages that stay on the device until somebody reads them, and a watch for losses that stop being numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.errors import UsageError

_IN_A_ROW = 3


class LossMeter:
    """Row-weighted averages of the entries of a task's result whose names end in `loss`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.last: Tensor | None = None
        self.rows = 0

    def update(self, result: Mapping[str, Tensor], rows: int) -> Tensor:
        """Add a step's losses, means over `rows` rows; return them as one tensor, in the order of `names`."""
        self.names = [name for name in result if name.endswith("loss")]
        self.last = torch.stack([result[name].detach().float() for name in self.names])
        self.sums = self.last * rows if self.sums is None else self.sums + self.last * rows
        self.rows += rows
        return self.last

    def values(self) -> dict[str, float]:
        """Return the last step's losses."""
        return {} if self.last is None else dict(zip(self.names, self.last.tolist(), strict=True))

    def averages(self, distributed: bool = False) -> dict[str, float]:
        """Return the averages over all rows so far, of all processes where these exist."""
        if self.sums is None:
            return {}
        joint = torch.cat([self.sums, self.sums.new_tensor([self.rows])])
        if distributed:
            dist.all_reduce(joint)
        means = joint[:-1] / joint[-1].clamp(min=1)
        return dict(zip(self.names, means.tolist(), strict=True))


class NonFiniteLossGuard:
    """Stops a run whose loss is not finite a few steps in a row, and names the term.

    Args:
        lag: steps to wait before a loss is read, so that a GPU need not be waited for.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.pending: deque[tuple[list[str], Tensor]] = deque()
        self.bad = 0

    def check(self, names: list[str], losses: Tensor) -> None:
        """Take a step's losses; look at those of `lag` steps ago.

        Raises:
            UsageError: the third loss in a row that is NaN or infinite.
        """
        self.pending.append((names, losses))
        if len(self.pending) > self.lag:
            names, losses = self.pending.popleft()
            values = losses.tolist()
            broken = [name for name, value in zip(names, values, strict=True) if not abs(value) < float("inf")]
            self.bad = self.bad + 1 if broken else 0
            if self.bad >= _IN_A_ROW:
                terms = ", ".join(name for name in broken if name != "loss") or "loss"
                raise UsageError(
                    f"{terms} was not finite {_IN_A_ROW} steps in a row: lower --lr, clip with --clip-grad 1, or "
                    "without --amp see whether its range is the cause; the last checkpoint is untouched"
                )
