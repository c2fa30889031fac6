"""The classification loss against loops in float64, and on several processes against one process."""

import math

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from timm.loss import JsdCrossEntropy
from timm.task.attribute_loss import AttributeLoss

SPACE = LabelSpace.numbered({"gender": 3, "color": 7})


def _draw(rows: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = {name: torch.randn(rows, k, generator=g, requires_grad=True) for name, k in SPACE.num_classes.items()}
    target = torch.stack([torch.randint(k, (rows,), generator=g) for k in SPACE.num_classes.values()], dim=1)
    return logits, target.masked_fill(torch.rand(target.shape, generator=g) < 0.3, UNKNOWN)


def _loops(logits: Tensor, target: Tensor, smoothing: float) -> float:
    losses = []
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        if label != UNKNOWN:
            total = math.log(sum(math.exp(value) for value in row))
            log_p = [value - total for value in row]
            losses.append(-(1 - smoothing) * log_p[label] - smoothing * sum(log_p) / len(row))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_attribute_is_the_mean_over_its_known_labels(smoothing: float) -> None:
    logits, target = _draw(20)
    losses = AttributeLoss(SPACE, smoothing)(logits, target)
    for index, name in enumerate(SPACE.attributes):
        assert losses[index].item() == pytest.approx(
            _loops(logits[name].detach(), target[:, index], smoothing), rel=1e-5
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_attribute_without_a_label_has_loss_zero_and_gradient_zero(smoothing: float) -> None:
    logits, target = _draw(6)
    target[:, 1] = UNKNOWN
    losses = AttributeLoss(SPACE, smoothing)(logits, target)
    assert losses[1].item() == 0
    losses.sum().backward()
    assert torch.equal(logits["color"].grad, torch.zeros(6, 7))
    assert logits["gender"].grad.abs().sum() > 0


def test_soft_targets_that_are_one_hot_give_the_hard_loss() -> None:
    logits, target = _draw(20)
    soft = [
        torch.nn.functional.one_hot(column.clamp(min=0), k).float() * (column >= 0).unsqueeze(1)
        for column, k in zip(target.unbind(1), SPACE.num_classes.values(), strict=True)
    ]
    criterion = AttributeLoss(SPACE, smoothing=0.1)
    torch.testing.assert_close(criterion(logits, soft), criterion(logits, target))


def test_soft_targets_without_mass_give_zero_not_nan() -> None:
    logits, _ = _draw(4)
    losses = AttributeLoss(SPACE, 0.1)(logits, [torch.zeros(4, 3), torch.zeros(4, 7)])
    losses.sum().backward()
    assert losses.tolist() == [0, 0]
    assert torch.isfinite(logits["gender"].grad).all()


def test_with_all_labels_known_the_jsd_loss_equals_timms() -> None:
    logits, target = _draw(12)
    target = target.clamp(min=0)[:4].repeat(3, 1)
    losses = AttributeLoss(SPACE, smoothing=0.1, jsd_splits=3)(logits, target)
    for index, name in enumerate(SPACE.attributes):
        expected = JsdCrossEntropy(num_splits=3, smoothing=0.1)(logits[name], target[:, index])
        torch.testing.assert_close(losses[index], expected)


def test_the_jsd_loss_of_an_attribute_without_labels_is_zero() -> None:
    logits, target = _draw(12)
    target[:, 0] = UNKNOWN
    assert AttributeLoss(SPACE, jsd_splits=3)(logits, target)[0].item() == 0


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits, target = _draw(8)
    losses = AttributeLoss(SPACE)({name: values.half() for name, values in logits.items()}, target)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()


def _on_share(sizes: list[int]) -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses and the gradients of this process's rows."""
    logits, target = _draw(sum(sizes))
    first = sum(sizes[: dist.get_rank()])
    rows = slice(first, first + sizes[dist.get_rank()])
    local = {name: values[rows].detach().requires_grad_() for name, values in logits.items()}
    losses = AttributeLoss(SPACE, 0.1)(local, target[rows])
    losses.sum().backward()
    return losses.tolist(), {name: values.grad for name, values in local.items()}


@pytest.mark.parametrize("sizes", [[5, 5], [1, 9], [4, 2, 3], [3, 0, 4, 1]])
def test_several_processes_average_to_the_joint_batch_in_value_and_gradient(sizes: list[int]) -> None:
    logits, target = _draw(sum(sizes))
    losses = AttributeLoss(SPACE, 0.1)(logits, target)
    losses.sum().backward()
    shares = run_on_processes(len(sizes), _on_share, sizes)
    means = torch.tensor([values for values, _ in shares]).mean(dim=0)
    torch.testing.assert_close(means, losses.detach())
    for name, values in logits.items():
        gathered = torch.cat([gradients[name] for _, gradients in shares]) / len(sizes)
        torch.testing.assert_close(gathered, values.grad)


@pytest.mark.parametrize("kind", ["hard", "soft", "jsd"])
def test_the_losses_of_chunks_add_up_to_the_losses_of_the_batch(kind: str) -> None:
    criterion = AttributeLoss(SPACE, smoothing=0.1, jsd_splits=2 if kind == "jsd" else 0)
    chunks = [_draw(rows, seed=rows) for rows in (4, 10, 2)]
    logits = [{name: values.double() for name, values in chunk.items()} for chunk, _ in chunks]
    targets = [_soft(target) if kind == "soft" else target for _, target in chunks]
    counts = criterion.joint_counts(targets)
    summands = [criterion(chunk, target, counts) for chunk, target in zip(logits, targets, strict=True)]

    def joined(pieces: list[Tensor]) -> Tensor:  # a batch holds one split after the other
        halves = [piece.chunk(2) for piece in pieces]
        return torch.cat([half[i] for i in range(2) for half in halves])

    target = [joined(list(columns)) for columns in zip(*targets, strict=True)] if kind == "soft" else joined(targets)
    whole = criterion({name: joined([chunk[name] for chunk in logits]) for name in SPACE.attributes}, target)
    torch.testing.assert_close(sum(summands), whole, rtol=1e-6, atol=0)
    assert whole.dtype == torch.float64
    means = torch.stack([criterion(chunk, target) for chunk, target in zip(logits, targets, strict=True)]).mean(dim=0)
    assert (means - whole).abs().min() > 1e-3  # unknown cells: the mean of the chunks' means differs


def _soft(target: Tensor) -> list[Tensor]:
    """Return soft targets with half of each label's mass."""
    columns = zip(target.unbind(1), SPACE.num_classes.values(), strict=True)
    return [torch.nn.functional.one_hot(c.clamp(min=0), k) * (c >= 0).unsqueeze(1) * 0.5 for c, k in columns]
