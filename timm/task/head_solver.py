"""Attribute heads solved on fixed features: L2-regularized logistic regression, the same on any number of processes.

A head is linear in the representation h, so its best weights for fixed features are a convex problem. For one attribute
with standardized features x, labels y, label weights u and class margins m, the solver minimizes

    sum over labels of u * cross_entropy(x @ W.T + b + m, y)  +  strength / 2 * sum(W ** 2)

A multi-valued attribute has one binary problem for each value instead of the softmax. Strength is 1 / C of
scikit-learn's `LogisticRegression`. The intercept b has no penalty, and cells without a label do not count. The result
has the standardization folded into it.

- L-BFGS with a line search: Liu and Nocedal, 1989, https://doi.org/10.1007/BF01589116 (PyTorch's)

Loss and gradient are sums over chunks of rows. Each process holds its share of the rows in host memory, float32, and
moves one chunk at a time to the device, where all arithmetic is float64. The sums are all-reduced, so every process
takes the same steps and has the same heads. A problem of at most 1 GiB in float64 stays on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.collectives import sum_over_processes
from timm.data.target_codes import value_sets

CHUNK_ROWS = 4096  # with D = 1280 a chunk takes 42 MB in float64
KEPT_BYTES = 2**30  # size of a problem that stays on the device
ROUGH, FINE = 1e-4, 1e-7  # largest entry of the scaled gradient: to compare strengths, and for the heads to keep
_ITERATIONS = 500
_HISTORY = 20  # updates that approximate the Hessian
_NEGLIGIBLE = 1e-12  # share of the largest variance, below which a direction is rounding noise


class Head(NamedTuple):
    """The weights of a linear head for features as they are, without standardization.

    Attributes:
        weight: float64 [K, D].
        bias: float64 [K].
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, float64 [n, K], of features [n, D] on any device."""
        parts = [
            F.linear(rows.to(self.weight.device, torch.float64), self.weight, self.bias)
            for rows in features.split(CHUNK_ROWS)
        ]
        return torch.cat(parts)


class HeadProblem:
    """The logistic regression of one attribute. Every process must make the same calls.

    Args:
        features: floating-point [n, D], this process's rows; n may be 0.
        labels: class indices, int64 [n], negative where unknown; or the columns [n, W] of a multi-valued attribute.
        classes: K, the number of classes.
        weight: weight of each class's labels [K], or None; for a multi-valued attribute, of each value in the images
            that have it.
        margin: offset added to the logits while solving [K], or None.
        device: device of the arithmetic; it must support float64. None for the device of the features.

    Attributes:
        known: index of each labeled row, int64 [labeled].
        targets: bool [labeled, K], whether a row has a class.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        classes: int,
        weight: Tensor | None = None,
        margin: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        # labels
        self.device = device or features.device
        self.several = labels.ndim == 2
        self.known = ((labels[:, 0] if self.several else labels) >= 0).nonzero().flatten().to(features.device)
        self.features = features
        labels = labels[self.known.to(labels.device)].to(self.device)
        self.targets = value_sets(labels, classes).values if self.several else F.one_hot(labels, classes).bool()
        self.weight = (torch.ones(classes) if weight is None else weight).to(self.device, torch.float64)
        self.margin = (torch.zeros(classes) if margin is None else margin).to(self.device, torch.float64)

        # principal directions [r, D] of the rows of all processes, and their variances [r]
        self._kept: list[Tensor] | None = None
        self.mean, self.std = self._standardization()
        variances, vectors = torch.linalg.eigh(self._covariance())
        real = variances > _NEGLIGIBLE * variances[-1]
        self.variances, self.directions = variances[real], vectors[:, real].T.contiguous()
        if len(self.known) * features.shape[1] * 8 <= KEPT_BYTES:
            self._kept = [rows @ self.directions.T for rows in self._read()]

    def solve(self, strengths: Iterable[float], included: Tensor | None = None, tol: float = FINE) -> Iterator[Head]:
        """Yield the head for each strength; each solution starts from the previous one.

        A class without a label gets weights of 0 and the intercept that less than one label among all would give it.

        Args:
            strengths: factors of the penalty, above 0; fastest from strong to weak.
            included: bool [labeled], the rows to learn from; None for all.
            tol: largest entry of the gradient at which a solution is accepted.
        """
        counts, total = self._counts(included)
        learned = ((counts > 0) & (counts < total)) if self.several else counts > 0
        solution = self._without_features(counts, total, learned)
        for strength in strengths:
            if len(solution) > (not self.several):
                solution = self._minimize(solution, strength / total, total, learned, included, tol)
            yield self._head(solution, counts, total, learned)

    def _without_features(self, counts: Tensor, total: float, learned: Tensor) -> Tensor:
        """Return the solution [K, r + 1] that predicts the frequency of the classes; the last column is b."""
        present, absent = counts[learned] * self.weight[learned], (total - counts)[learned]
        solution = torch.zeros(len(present), len(self.variances) + 1, dtype=torch.float64, device=self.device)
        solution[:, -1] = present.log() - (absent.log() if self.several else 0) - self.margin[learned]
        return solution

    def _minimize(
        self, start: Tensor, penalty: float, total: float, learned: Tensor, included: Tensor | None, tol: float
    ) -> Tensor:
        """Return the minimum [K, r + 1], along the principal directions.

        Args:
            start: first guess [K, r + 1].
            penalty: strength for each labeled row.
            total: number of labeled rows of all processes.
            learned: bool [K], the classes that have weights.
            included: bool [labeled], the rows to learn from; None for all.
            tol: largest entry of the gradient of the mean loss at the minimum.
        """
        # Scale the variables so that all directions are about equally steep, which needs the fewest steps.
        curvature = self._curvature(start, learned, included)[:, None] / total + 1e-6  # [K, 1]
        scale = torch.cat([(curvature * self.variances + penalty).rsqrt(), curvature.rsqrt()], dim=1)
        variables = (start / scale).requires_grad_()

        def evaluate() -> Tensor:
            solution = variables.detach() * scale
            loss, gradient = self._loss(solution, learned, included)
            gradient /= total
            gradient[:, :-1] += penalty * solution[:, :-1]
            variables.grad = gradient * scale
            return loss / total + penalty / 2 * solution[:, :-1].square().sum()

        torch.optim.LBFGS(
            [variables],
            max_iter=_ITERATIONS,
            max_eval=2 * _ITERATIONS,
            tolerance_grad=tol,
            tolerance_change=0.0,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        ).step(evaluate)
        return variables.detach() * scale

    def _loss(self, solution: Tensor, learned: Tensor, included: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses over all processes, a scalar, and its gradient [K, r + 1]."""
        width = solution.shape[1] - 1 if self._kept is not None else len(self.mean)
        sums = torch.zeros(len(solution) * (width + 1) + 1, dtype=torch.float64, device=self.device)
        gradient = sums[1:].view(len(solution), width + 1)
        for x, logits, present, weights in self._batches(solution, learned, included):
            if self.several:
                losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
                residual = logits.sigmoid() - present
            else:
                log_probabilities = logits.log_softmax(dim=0)
                losses = -log_probabilities * present
                residual = log_probabilities.exp() - present
            residual *= weights
            sums[0] += (losses * weights).sum()
            gradient[:, :-1] += residual @ x
            gradient[:, -1] += residual.sum(dim=1)
        sums = sum_over_processes(sums)
        gradient = sums[1:].view(len(solution), width + 1)
        if self._kept is None:
            gradient = torch.cat([gradient[:, :-1] @ self.directions.T, gradient[:, -1:]], dim=1)
        return sums[0], gradient

    def _curvature(self, solution: Tensor, learned: Tensor, included: Tensor | None) -> Tensor:
        """Return the sum over all labels of each logit's second derivative of the loss, float64 [K]."""
        sums = torch.zeros(len(solution), dtype=torch.float64, device=self.device)
        for _, logits, _, weights in self._batches(solution, learned, included):
            probabilities = logits.sigmoid() if self.several else logits.softmax(dim=0)
            sums += (probabilities * (1 - probabilities) * weights).sum(dim=1)
        return sum_over_processes(sums)

    def _batches(
        self, solution: Tensor, learned: Tensor, included: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield the chunks of this process: rows, and their logits, labels and label weights, classes first.

        Rows are [chunk, r or D]; the others are [K, chunk], the weights of a single-valued attribute [1, chunk]. With
        few classes, products with classes first are twice as fast.
        """
        weight = solution[:, :-1] if self._kept is not None else solution[:, :-1] @ self.directions
        bias = (solution[:, -1] + self.margin[learned])[:, None]
        first = 0
        for x in self._read():
            rows = slice(first, first + len(x))
            targets = self.targets[rows].T
            if self.several:
                weights = torch.where(targets, self.weight[:, None], 1.0)[learned]
            else:
                weights = (self.weight @ targets.double())[None]
            if included is not None:
                weights = weights * included[rows].to(self.device)
            yield x, weight @ x.T + bias, targets[learned].double(), weights
            first += len(x)

    def _counts(self, included: Tensor | None) -> tuple[Tensor, float]:
        """Return the labels of each class over all processes, float64 [K], and the number of labeled rows."""
        targets = self.targets if included is None else self.targets[included.to(self.device)]
        counts = torch.cat([targets.sum(dim=0), torch.tensor([len(targets)], device=self.device)])
        counts = sum_over_processes(counts.double())
        return counts[:-1], float(counts[-1])

    def _head(self, solution: Tensor, counts: Tensor, total: float, learned: Tensor) -> Head:
        """Return the head of a solution, with the standardization folded into it."""
        weight = torch.zeros(len(counts), len(self.mean), dtype=torch.float64, device=self.device)
        weight[learned] = solution[:, :-1] @ self.directions / self.std
        rare = math.log(total + 1)  # log odds against less than one label among all
        if self.several:
            bias = torch.where(counts > 0, rare, -rare).double()
            bias[learned] = solution[:, -1]
        else:
            bias = (solution[:, -1].logsumexp(dim=0) - rare).expand(len(counts)).clone()
            bias[learned] = solution[:, -1]
            bias -= bias[learned].mean()  # a shift of all intercepts changes nothing
        return Head(weight, bias - weight @ self.mean)

    def _read(self) -> Iterator[Tensor]:
        """Yield this process's labeled rows, float64 [chunk, D] and standardized, or [chunk, r] from memory."""
        if self._kept is not None:
            yield from self._kept
            return
        for rows in self._raw():
            yield rows.sub_(self.mean).div_(self.std)

    def _raw(self) -> Iterator[Tensor]:
        """Yield this process's labeled rows on the device, float64 [chunk, D], in memory of their own."""
        for rows in self.known.split(CHUNK_ROWS) if len(self.known) else ():
            yield self.features[rows].to(self.device, torch.float64)

    def _standardization(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [D] of the labeled rows of all processes; a constant feature has 1."""
        sums = torch.zeros(self.features.shape[1] + 1, dtype=torch.float64, device=self.device)
        sums[-1] = len(self.known)
        for rows in self._raw():
            sums[:-1] += rows.sum(dim=0)
        sums = sum_over_processes(sums)
        self.total = float(sums[-1])
        mean = sums[:-1] / max(self.total, 1)
        squares = torch.zeros_like(mean)
        for rows in self._raw():
            squares += rows.sub_(mean).square_().sum(dim=0)
        variance = sum_over_processes(squares) / max(self.total, 1)
        constant = variance <= (1e-12 * mean) ** 2  # rounding noise
        return mean, torch.where(constant, 1.0, variance.sqrt())

    def _covariance(self) -> Tensor:
        """Return the covariance [D, D] of the standardized rows of all processes."""
        sums = torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64, device=self.device)
        for rows in self._read():
            sums.addmm_(rows.T, rows)
        return sum_over_processes(sums) / max(self.total, 1)
