"""The loss of multi-valued attributes against loops in float64, with weights, mixing and several processes."""

import math
from collections.abc import Callable

import pytest
import torch
from distributed import run_on_processes
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.task.attribute_loss import AttributeLoss
from timm.task.class_imbalance import BETA, class_weights, logit_margins
from timm.task.multi_valued_loss import KINDS

K = 4
SPACE = LabelSpace({"size": ("L", "S"), "tags": ("a", "b", "c", "d")}, ["tags"])
# The last image has a value outside the label space.
TARGET = torch.tensor([[0, 0b0011], [1, 0b1000], [UNKNOWN, 0], [0, UNKNOWN], [1, 0b10110]])


def _logits(rows: int = len(TARGET)) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(rows)
    return {name: 2 * torch.randn(rows, k, generator=random).double() for name, k in SPACE.num_classes.items()}


def _bce(p: float, y: float, weight: float) -> float:
    return -(weight * y * math.log(p) + (1 - y) * math.log(1 - p))


def _asl(p: float, y: float, weight: float) -> float:
    """Equation 7 of arXiv:2009.14119 for a target that is 0 or 1."""
    shifted = max(p - 0.05, 0)
    return -(weight * (1 - p) * math.log(p) if y else shifted**4 * math.log(1 - shifted))


def _slow(logits: Tensor, one: Callable[[float, float, float], float], mean: bool, weights: list[float]) -> float:
    """Return the mean loss over known sets, by loops over images and values."""
    by_image = []
    for row, words in zip(logits.tolist(), TARGET[:, 1].tolist(), strict=True):
        if words >= 0:
            terms = [
                one(1 / (1 + math.exp(-x)), words >> i & 1, w)
                for i, (x, w) in enumerate(zip(row, weights, strict=True))
            ]
            by_image.append(sum(terms) / (K if mean else 1))
    return sum(by_image) / len(by_image)


@pytest.mark.parametrize(("kind", "one"), [("bce", _bce), ("asl", _asl)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_equals_a_loop_over_values(kind: str, one: Callable[..., float], weighted: bool) -> None:
    weights = [1.0, 2.0, 0.5, 7.0] if weighted else [1.0] * K
    given = [torch.ones(2), torch.tensor(weights)] if weighted else None
    logits = _logits()
    losses = AttributeLoss(SPACE, weights=given, multi_valued_loss=kind)(logits, TARGET)
    assert losses[1].item() == pytest.approx(_slow(logits["tags"], one, kind == "bce", weights), rel=1e-5)


def test_smoothing_moves_each_value_towards_one_half() -> None:
    logits = _logits()
    loss = AttributeLoss(SPACE, smoothing=0.2)(logits, TARGET)[1].item()
    hard, even = (_slow(logits["tags"], one, True, [1] * K) for one in (_bce, lambda p, y, w: _bce(p, 0.5, w)))
    assert loss == pytest.approx(0.8 * hard + 0.2 * even)


def test_a_value_weighs_its_smoothed_target_which_moves_towards_the_sigmoid_of_its_margin() -> None:
    logits, weights, margins = _logits(), [1.0, 2.0, 0.5, 7.0], [1.0, -2.0, 0.0, -4.0]
    given = ([torch.ones(2), torch.tensor(weights)], [torch.zeros(2), torch.tensor(margins)])
    loss = AttributeLoss(SPACE, 0.2, 0, *given)(logits, TARGET)[1].item()
    by_image = []
    for row, words in zip(logits["tags"].tolist(), TARGET[:, 1].tolist(), strict=True):
        terms = []
        for i, (x, weight, margin) in enumerate(zip(row, weights, margins, strict=True)):
            smooth = 0.8 * (words >> i & 1) + 0.2 / (1 + math.exp(-margin))
            terms.append((weight if words >> i & 1 else 1) * _bce(1 / (1 + math.exp(-x - margin)), smooth, 1))
        by_image += [sum(terms) / K] if words >= 0 else []
    assert loss == pytest.approx(sum(by_image) / len(by_image), rel=1e-6)


# No asl with a margin: it ignores easy negatives, and a margin makes all negatives of a rare value easy at first.
@pytest.mark.parametrize(("kind", "weights", "tau"), [("bce", "inverse", 0), ("bce", "none", 1), ("asl", "inverse", 0)])
def test_a_perfect_fit_predicts_rare_values_also_with_smoothing(kind: str, weights: str, tau: int) -> None:
    """Optimize the logits of an image with the value and of an image without it."""
    space = LabelSpace({"tags": ("rare",)}, ["tags"])
    target = torch.tensor([[1]] + [[0]] * 999)
    criterion = AttributeLoss(
        space, 0.1, 0, class_weights(target, space, weights), logit_margins(target, space, tau), kind
    )
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        losses = [criterion({"tags": logits[i].view(1, 1)}, target[i : i + 1]) for i in range(2)]
        torch.cat(losses).sum().backward()
        optimizer.step()
    assert logits[0] > 1 > -1 > logits[1]


def test_a_margin_is_added_to_the_logits() -> None:
    logits, margin = _logits(), torch.tensor([1.0, -2.0, 0.0, 3.0])
    moved = {"size": logits["size"], "tags": logits["tags"] + margin}
    given = AttributeLoss(SPACE, margins=[torch.zeros(2), margin])(logits, TARGET)
    assert torch.allclose(given, AttributeLoss(SPACE)(moved, TARGET))


def test_a_batch_without_a_known_set_has_loss_and_gradient_zero() -> None:
    tags = torch.randn(2, K, requires_grad=True)
    loss = AttributeLoss(SPACE)({"size": torch.zeros(2, 2), "tags": tags}, torch.tensor([[0, UNKNOWN]] * 2))[1]
    loss.backward()
    assert tags.grad is not None
    assert (loss.item(), tags.grad.abs().max().item()) == (0, 0)


@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_the_loss_of_mixed_images_is_the_mix_of_their_losses(lam: float) -> None:
    mixup = MultiLabelMixup(SPACE, mixup_alpha=1.0)
    mixup.mixup._params_per_batch = lambda: (lam, False)
    target = TARGET[[0, 1, 2, 3]]
    _, soft = mixup(torch.zeros(4, 3, 2, 2), target)
    logits = _logits(4)
    loss = AttributeLoss(SPACE)
    counted = loss.joint_counts([soft])
    assert counted[1].item() == pytest.approx(3)
    alone, other = ([loss(_row(logits, i), t[i : i + 1])[1].item() for i in range(4)] for t in (target, target.flip(0)))
    expected = sum(lam * a + (1 - lam) * b for a, b in zip(alone, other, strict=True))
    assert loss(logits, soft)[1].item() * counted[1].item() == pytest.approx(expected, rel=1e-5)


def _row(logits: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: values[row : row + 1] for name, values in logits.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_average_to_the_loss_of_the_joint_batch(kind: str) -> None:
    logits = _logits()
    whole = AttributeLoss(SPACE, multi_valued_loss=kind)(logits, TARGET)
    parts = run_on_processes(2, _share_of_loss, logits, TARGET, kind)
    assert torch.allclose(torch.stack(parts).mean(dim=0), whole, rtol=1e-6)


def _share_of_loss(logits: dict[str, Tensor], target: Tensor, kind: str) -> Tensor:
    rows = slice(0, 2) if torch.distributed.get_rank() == 0 else slice(2, None)
    return AttributeLoss(SPACE, multi_valued_loss=kind)({n: v[rows] for n, v in logits.items()}, target[rows])


def test_a_weight_compares_the_images_with_a_value_to_the_images_without_it() -> None:
    # Among the four known sets, 1 has a, 2 have b, 1 has c and 1 has d.
    _, weights = class_weights(TARGET, SPACE, "inverse") or []
    assert weights.tolist() == pytest.approx([3, 1, 3, 3])
    _, effective = class_weights(TARGET, SPACE, "effective") or []
    assert effective[0].item() == pytest.approx((1 - BETA**3) / (1 - BETA))
    _, margins = logit_margins(TARGET, SPACE, 2.0) or []
    assert margins.tolist() == pytest.approx([2 * math.log(1 / 3), 0, 2 * math.log(1 / 3), 2 * math.log(1 / 3)])
