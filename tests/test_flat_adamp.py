"""AdamP for all weights at once against timm's, weight by weight."""

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from options.train import parse_train_args
from options.train_kwargs import optimizer_kwargs
from timm.models import create_model
from timm.optim import AdamP, Lookahead
from training.flat_adamp import FlatAdamP, flattened
from training.optimization import make_optimizer

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def steps(
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    gradients: Sequence[Sequence[torch.Tensor | None]],
) -> list[torch.Tensor]:
    """Return the weights after steps with these gradients."""
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
        optimizer.step()
    return [weight.detach() for weight in weights]


def parallel(weight: torch.Tensor, way: str) -> torch.Tensor:
    """Return a gradient that makes AdamP project a weight by its rows, as a whole, or not at all."""
    gradient = torch.randn_like(weight)
    if weight.ndim < 2 or way == "none":
        return gradient + 10 * weight
    rows, other = weight.reshape(len(weight), -1), gradient.reshape(len(weight), -1)
    along = (rows * other).sum(dim=1, keepdim=True) / rows.square().sum(dim=1, keepdim=True).clamp_min(1e-30)
    if way == "whole":  # each row is parallel to its gradient, and the rows cancel out
        sign = torch.ones(len(rows), 1, dtype=weight.dtype)
        sign[len(rows) // 2 :] = -rows[: len(rows) // 2].square().sum() / rows[len(rows) // 2 :].square().sum()
        return (rows * sign).reshape(weight.shape)
    return (other - along * rows).reshape(weight.shape)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(SHAPES, st.sampled_from(["rows", "whole", "none", "absent"])), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 99),
)
def test_the_weights_equal_those_of_timm(
    kinds: list[tuple[tuple[int, ...], str]], nesterov: bool, decay: float, seed: int
) -> None:
    torch.manual_seed(seed)
    start = [torch.randn(shape, dtype=torch.float64) for shape, _ in kinds]
    gradients: list[list[torch.Tensor | None]] = [
        [
            None if way == "absent" and not step else parallel(weight, way)
            for weight, (_, way) in zip(start, kinds, strict=True)
        ]
        for step in range(3)
    ]
    ends = []
    for cls in (AdamP, FlatAdamP):
        weights = [nn.Parameter(weight.clone()) for weight in start]
        optimizer = cls(weights, lr=0.01, weight_decay=decay, nesterov=nesterov, wd_ratio=0.1)
        ends.append(steps(optimizer, weights, gradients))
    for expected, found in zip(*ends, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", ["rows", "whole"])
def test_a_projected_weight_is_not_lengthened_and_decays_less(way: str) -> None:
    torch.manual_seed(0)
    start = torch.randn(6, 50, dtype=torch.float64)
    gradient = parallel(start, way)
    ends = []
    for decay in 0.0, 1.0:
        weight = nn.Parameter(start.clone())
        ends += steps(FlatAdamP([weight], lr=1e-3, weight_decay=decay), [weight], [[gradient]])
    dims = (1,) if way == "rows" else (0, 1)
    change = ends[0] - start
    assert float((change * start).sum(dim=dims).abs().max()) < 1e-9
    assert float(change.abs().min()) > 0
    torch.testing.assert_close(ends[1], ends[0] - 1e-3 * 0.1 * start)  # 0.1 is wd_ratio


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_weights_of_a_network_in_any_memory_order_equal_those_of_timm(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = create_model("test_efficientnet", num_classes=3).to(dtype).to(memory_format=memory_format)
    gradients = [[torch.randn_like(weight) for weight in model.parameters()] for _ in range(3)]
    ends = []
    for cls in (AdamP, FlatAdamP):
        weights = list(copy.deepcopy(model).parameters())
        ends.append(steps(cls(weights, lr=0.01, weight_decay=0.1, nesterov=True), weights, gradients))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    for expected, found in zip(*ends, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_a_run_of_timms_continues_with_ours_and_back() -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 4, dtype=torch.float64)
    gradients = [[torch.randn_like(start)] for _ in range(4)]
    ends = []
    for first, second in ((AdamP, AdamP), (AdamP, FlatAdamP), (FlatAdamP, AdamP)):
        weight = nn.Parameter(start.clone())
        optimizer = first([weight], lr=0.1)
        steps(optimizer, [weight], gradients[:2])
        other = second([weight], lr=0.1)
        other.load_state_dict(optimizer.state_dict())
        ends += steps(other, [weight], gradients[2:])
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-10, atol=1e-12)


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_more_weights_take_no_more_arithmetic_and_nothing_waits_for_the_device() -> None:
    arithmetic = []
    for number in (2, 40):
        weights = [nn.Parameter(torch.randn(3 + n % 4, 5)) for n in range(number)]
        optimizer = FlatAdamP(weights, lr=0.1)
        gradients = [[torch.randn_like(weight) for weight in weights]]
        steps(optimizer, weights, gradients)
        with Operators() as ran:
            optimizer.step()
        views = ("view", "permute", "split", "detach", "reshape", "alias")
        arithmetic.append([name for name in ran.names if not any(view in name for view in views)])
        assert not [name for name in ran.names if "local_scalar" in name]
    assert len(arithmetic[0]) == len(arithmetic[1]) < 80


def adamp(device: str, *flags: str) -> torch.optim.Optimizer:
    """Return the optimizer that train.py makes on a device."""
    args = parse_train_args(["DATA", "--opt", "adamp", "--weight-decay", "0.1", *flags])
    return make_optimizer(nn.Linear(3, 2), torch.device(device), 0.5, **optimizer_kwargs(args))  # type: ignore[arg-type]


def test_a_gpu_takes_the_flat_form_with_the_same_settings() -> None:
    ours, theirs = adamp("cuda"), adamp("cpu")
    assert (type(ours), type(theirs)) == (FlatAdamP, AdamP)
    for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert {k: v for k, v in one.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}
    assert type(adamp("cuda", "--opt-kwargs", "caution=True")) is AdamP


def test_lookahead_wraps_the_flat_form() -> None:
    ours = adamp("cuda", "--opt", "lookahead_adamp")
    assert isinstance(ours, Lookahead)
    assert type(ours._base_optimizer) is FlatAdamP
    assert ours.param_groups is ours._base_optimizer.param_groups
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    assert flattened(sgd) is sgd
