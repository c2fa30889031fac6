"""Sums over the matrix of logits, and their gradient, one block at a time.

The matrix has this process's n rows and the m columns of all processes:

                 lower ranks | local rows | higher ranks
               +-------------+------------+--------------+
               |             | * * * *    |              |    The local part is symmetric. Only its blocks on and above
    local rows |             | m * * *    |              |    the diagonal (*) are computed. Each serves its own rows
               |             | m m * *    |              |    and, transposed, as its mirror image (m).
               |             | m m m *    |              |
               +-------------+------------+--------------+

A block fits a core's cache. It is discarded after use, and the backward pass computes it again.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from simclr.pair_roles import PairRoles

# Rows and columns of a block. On a CPU a block fits the second-level cache of a core; on a GPU it fills the device.
BLOCK_SIZE = {"cpu": 256, "other": 4096}

# Up to this logit, exp(logit) and its sum over a billion rows are finite in the dtype.
LARGEST_LOGIT = {torch.float32: 40.0, torch.float64: 300.0}


def block_size(device: torch.device) -> int:
    """Return the rows and columns of a block on a device."""
    return BLOCK_SIZE.get(device.type, BLOCK_SIZE["other"])


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of sums: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


class SimilarityBlocks:
    """The logits of the local rows with the rows of all processes, computed in blocks.

    Args:
        columns: the rows of all processes, of length 1 or 0, divided by the square root of the temperature, [m, P].
        roles: the role of each pair of rows, and the range of the n local rows.
        temperature: divisor of the similarities; no logit exceeds 1 / temperature.
    """

    def __init__(self, columns: Tensor, roles: PairRoles, temperature: float) -> None:
        self.columns, self.roles = columns, roles
        self.sum_dtype = sum_dtype(columns.device)
        self.bounded = 1 / temperature <= LARGEST_LOGIT[columns.dtype]  # then exp needs no shift by the maximum

    def positions(self) -> Iterator[tuple[slice, slice, bool]]:
        """Yield each block's rows and columns, and whether its transpose serves as the mirrored block."""
        size = block_size(self.columns.device)
        start, stop = self.roles.local.start, self.roles.local.stop
        local = [slice(begin, min(begin + size, stop)) for begin in range(start, stop, size)]
        remote = [
            slice(begin, min(begin + size, end))
            for first, end in ((0, start), (stop, len(self.columns)))
            for begin in range(first, end, size)
        ]
        for index, rows in enumerate(local):
            for columns in local[index:]:
                yield rows, columns, columns is not rows
            for columns in remote:
                yield rows, columns, False

    def log_sum_exp(self) -> list[Tensor]:
        """Return the log-sum-exp of each local row, [n], over the pairs that are not excluded.

        With weighted positives also return the sum of their weighted logits, [n], and the sum of their weights, [n].
        """
        start, stop = self.roles.local.start, self.roles.local.stop
        sums = self.columns.new_zeros(stop, dtype=self.sum_dtype)  # entries before `start` stay unused
        largest = None if self.bounded else torch.full_like(sums, -math.inf)
        positives = [torch.zeros_like(sums) for _ in range(2 * self.roles.weigh_positives)]
        for rows, columns, mirrored in self.positions():
            block = self.columns[rows] @ self.columns[columns].T  # logits [r, c]
            weights = self.roles.weights(rows, columns)
            if weights is not None:
                _add_sums(positives[1], rows, columns, mirrored, weights)
                _add_sums(positives[0], rows, columns, mirrored, weights.mul_(block))
            self.roles.exclude(block, rows, columns)
            if largest is None:
                _add_sums(sums, rows, columns, mirrored, block.exp_())
            else:
                _add_shifted(sums, largest, rows, block)
                if mirrored:
                    _add_shifted(sums, largest, columns, block.T)
        logs = sums.log() if largest is None else sums.log() + largest
        return [values[start:] for values in (logs, *positives)]

    def gradient(self, logs: Tensor, grads: Tensor, weight_grads: Tensor | None = None) -> Tensor:
        """Return the gradient of the local rows of `columns`, [n, P].

        Args:
            logs: the log-sum-exp of each row, [m].
            grads: the gradient of each row's result, [m], for the sum of all processes' losses.
            weight_grads: with weighted positives, `grads` divided by the sum of each row's weights, [m].
        """
        start, stop = self.roles.local.start, self.roles.local.stop
        result = torch.zeros_like(self.columns[:stop])
        logs = logs.masked_fill(logs == -math.inf, 0)  # an empty sum: all its logits are -inf, so exp gives 0
        # softmax = exp(logit) / sum. Bounded logits need no shift, so a block and its transpose share one exp.
        scaled_grads = (grads * (-logs).exp()).to(self.columns.dtype) if self.bounded else None
        logs, grads = logs.to(self.columns.dtype), grads.to(self.columns.dtype)
        weight_grads = None if weight_grads is None else weight_grads.to(self.columns.dtype)
        for rows, columns, mirrored in self.positions():
            # logits [r, c]; then, in place, the gradient of each logit: the row's part plus the column's
            block = self.columns[rows] @ self.columns[columns].T
            self.roles.exclude(block, rows, columns)
            if scaled_grads is not None:
                block = block.exp_().mul_(scaled_grads[rows, None] + scaled_grads[columns])
            else:
                row_part = (block - logs[rows, None]).exp_().mul_(grads[rows, None])
                block = block.sub_(logs[columns]).exp_().mul_(grads[columns]).add_(row_part)
            weights = self.roles.weights(rows, columns)
            if weights is not None and weight_grads is not None:
                block.sub_(weights.mul_(weight_grads[rows, None] + weight_grads[columns]))
            result[rows].addmm_(block, self.columns[columns])
            if mirrored:
                result[columns].addmm_(block.T, self.columns[rows])
        return result[start:]


def _add_sums(sums: Tensor, rows: slice, columns: slice, mirrored: bool, block: Tensor) -> None:
    """Add a block's row sums to `sums`, and its column sums too if the block is mirrored."""
    sums[rows] += block.sum(dim=1)
    if mirrored:
        sums[columns] += block.sum(dim=0)


def _add_shifted(sums: Tensor, largest: Tensor, rows: slice, block: Tensor) -> None:
    """Add exp(block) to the sums of its rows, where sums are divided by exp(`largest`), the largest logit so far."""
    shift = torch.maximum(largest[rows], block.amax(dim=1))
    shift = shift.clamp(min=torch.finfo(block.dtype).min)  # all pairs of a block may be excluded
    sums[rows] *= (largest[rows] - shift).exp()
    sums[rows] += (block - shift[:, None].to(block.dtype)).exp_().sum(dim=1)
    largest[rows] = shift
