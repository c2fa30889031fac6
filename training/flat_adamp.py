"""AdamP in a fixed number of kernels, whatever the number of weights.

timm's AdamP takes the weights one by one: dozens of kernels for each, and two waits for the device to decide whether
the weight is projected. Here all weights of a group are updated together, and the decision stays on the device. The
state is the same as with timm's, so a resumed run may have the other form.

- AdamP: Heo et al., 2021, https://arxiv.org/abs/2006.08217, algorithm 2 and equation 12
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from timm.optim import AdamP, Lookahead

Group = dict[str, Any]


def flattened(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer of timm's with its AdamP replaced by the flat form, before the first step.

    An optimizer that is not AdamP, or AdamP with `caution`, is returned as it is.
    """
    inner = getattr(optimizer, "_base_optimizer", optimizer)
    if type(inner) is not AdamP or any(group["caution"] for group in inner.param_groups):
        return optimizer
    flat = FlatAdamP(inner.param_groups)
    return Lookahead(flat) if isinstance(optimizer, Lookahead) else flat


class FlatAdamP(AdamP):
    """timm's AdamP without `caution`; its results differ by rounding alone."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights that have a gradient; return the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in _of_one_kind(group["params"]):
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and type."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        changes = self._changes(weights, gradients, group)
        vector, matrix = ([weight.ndim < 2 for weight in weights], [weight.ndim > 1 for weight in weights])
        if any(vector):
            vectors = list(compress(weights, vector))
            torch._foreach_mul_(vectors, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(vectors, list(compress(changes, vector)))
        if any(matrix):
            matrices = list(compress(weights, matrix))
            _update_matrices(
                self._layout_of(matrices),
                matrices,
                list(compress(gradients, matrix)),
                list(compress(changes, matrix)),
                group,
            )

    def _changes(self, weights: list[Tensor], gradients: list[Tensor], group: Group) -> list[Tensor]:
        """Return Adam's changes of the weights, without decay, and take the gradients into the state."""
        beta1, beta2 = group["betas"]
        states = [self._state_of(weight) for weight in weights]
        steps = [state["step"] for state in states]
        means, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)

        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        ahead = means
        if group["nesterov"]:
            ahead = list(torch._foreach_mul(means, beta1))
            torch._foreach_add_(ahead, gradients, alpha=1 - beta1)
        changes = list(torch._foreach_div(ahead, roots))
        torch._foreach_mul_(changes, [-group["lr"] / (1 - beta1**step) for step in steps])
        return changes

    def _state_of(self, weight: Tensor) -> dict[str, Any]:
        """Return the state of a weight, with its step counted."""
        state: dict[str, Any] = self.state[weight]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        state["step"] += 1
        return state

    def _layout_of(self, weights: list[Tensor]) -> _Layout:
        """Return the layout of weights, kept from earlier steps: to make it waits for the device."""
        kept: dict[Any, _Layout] = self.__dict__.setdefault("_layouts", {})
        key = (weights[0].device, *((weight.shape, weight.stride()) for weight in weights))
        if key not in kept:
            kept[key] = _Layout.of(weights)
        return kept[key]


class _Layout(NamedTuple):
    """Where the rows of several weights lie in one vector; a row is what has one index in the first dimension.

    Attributes:
        orders: for each weight, its dimensions in the order of memory.
        elements: elements of each weight.
        row_lengths: elements of each row, int64 [R].
        row_counts: rows of each weight, int64 [T].
        row_scale: square root of the elements of a row of each weight, float64 [T].
        scale: square root of the elements of each weight, float64 [T].
    """

    orders: list[tuple[int, ...]]
    elements: list[int]
    row_lengths: Tensor
    row_counts: Tensor
    row_scale: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weights: list[Tensor]) -> _Layout:
        """Return the layout of weights on one device."""
        elements = [weight.numel() for weight in weights]
        counts = torch.tensor([len(weight) for weight in weights])
        sizes = torch.tensor(elements)
        columns = sizes // counts
        vectors = columns.repeat_interleave(counts), counts, columns.double().sqrt(), sizes.double().sqrt()
        return cls(
            [_memory_order(weight) for weight in weights],
            elements,
            *(vector.to(weights[0].device) for vector in vectors),
        )

    def flat(self, tensors: list[Tensor]) -> Tensor:
        """Return tensors of the weights' shapes as one vector, row after row, at least float32."""
        vector = torch.cat([one.permute(order).reshape(-1) for one, order in zip(tensors, self.orders, strict=True)])
        return vector.to(torch.promote_types(vector.dtype, torch.float32))

    def copy(self, vector: Tensor, weights: list[Tensor]) -> None:
        """Write a vector into weights."""
        inner = [weight.permute(order) for weight, order in zip(weights, self.orders, strict=True)]
        parts = vector.split(self.elements)
        torch._foreach_copy_(inner, [part.view(one.shape) for part, one in zip(parts, inner, strict=True)])

    def sum_of_rows(self, values: Tensor) -> Tensor:
        """Return the sum of each row [R] of a vector."""
        return torch.segment_reduce(values, "sum", lengths=self.row_lengths, unsafe=True)

    def by_weight(self, rows: Tensor, reduce: str) -> Tensor:
        """Return the sum ("sum") or the largest ("max") of each weight's rows, [T]."""
        return torch.segment_reduce(rows, reduce, lengths=self.row_counts, unsafe=True)

    def to_rows(self, values: Tensor) -> Tensor:
        """Return for each row the value [T] of its weight, [R]."""
        return values.repeat_interleave(self.row_counts, output_size=len(self.row_lengths))

    def to_elements(self, rows: Tensor) -> Tensor:
        """Return for each element the value [R] of its row, a vector."""
        return rows.repeat_interleave(self.row_lengths, output_size=sum(self.elements))


def _update_matrices(
    layout: _Layout, weights: list[Tensor], gradients: list[Tensor], changes: list[Tensor], group: Group
) -> None:
    """Add to each weight its change, without what would only lengthen its rows or the whole weight, and decay it.

    A weight is projected row by row if its rows are nearly orthogonal to their gradients: if the largest cosine is
    below delta / sqrt(elements of a row). Else it is projected as one vector if its cosine is below
    delta / sqrt(elements). A projected weight's decay is multiplied by wd_ratio.
    """
    delta, eps = group["delta"], group["eps"]
    weight, gradient, change = (layout.flat(tensors) for tensors in (weights, gradients, changes))
    products = (weight * gradient, gradient.square(), weight.square(), weight * change)
    rows = [layout.sum_of_rows(product) for product in products]
    wholes = [layout.by_weight(row, "sum") for row in rows]

    by_rows = layout.by_weight(_cosine(rows, eps), "max") < delta / layout.row_scale  # bool [T]
    as_whole = ~by_rows & (_cosine(wholes, eps) < delta / layout.scale)
    row_share, whole_share = (radial / (square.sqrt() + eps).square() for *_, square, radial in (rows, wholes))
    share = torch.where(layout.to_rows(by_rows), row_share, layout.to_rows(as_whole * whole_share))
    projected = (by_rows | as_whole).to(weight.dtype)
    decay = group["lr"] * group["weight_decay"] * (1 + (group["wd_ratio"] - 1) * projected)
    factor = 1 - layout.to_rows(decay) - share
    layout.copy(torch.addcmul(change, weight, layout.to_elements(factor)), weights)


def _cosine(sums: Sequence[Tensor], eps: float) -> Tensor:
    """Return the absolute cosines of weights and gradients from the sums of their products."""
    product, gradient, weight, _ = sums
    return product.abs() / (gradient.sqrt().clamp_min(eps) * weight.sqrt().clamp_min(eps))


def _memory_order(weight: Tensor) -> tuple[int, ...]:
    """Return the dimensions of a weight in the order of memory, so that to flatten it copies once."""
    if weight.ndim == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last):
        return (0, 2, 3, 1)
    return tuple(range(weight.ndim))


def _of_one_kind(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the weights with a gradient, together if they have the same device and type."""
    kinds = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            kinds[parameter.device, parameter.dtype].append(parameter)
    yield from kinds.values()
