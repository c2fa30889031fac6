"""The loss on soft targets against loops in float64, in chunks, and on several processes against one process."""

import math

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from timm.task.attribute_loss import AttributeLoss
from timm.task.class_imbalance import logit_margins
from timm.task.pseudo_loss import PseudoLoss, SoftTargets, blank_cells

SPACE = LabelSpace({"size": ("L", "S", "M"), "tags": ("a", "b", "c", "d")}, ["tags"])
MARGINS = [torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.0, 2.0, -0.3, 1.0])]
Batch = tuple[dict[str, Tensor], SoftTargets]


def _draw(rows: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    logits = {name: 2 * torch.randn(rows, k, generator=g).double() for name, k in SPACE.num_classes.items()}
    values = [torch.randn(rows, 3, generator=g).softmax(dim=1), torch.rand(rows, 4, generator=g)]
    weights = [torch.rand(rows, generator=g) * (torch.rand(rows, generator=g) < 0.7) for _ in values]
    return logits, SoftTargets(values, weights, [torch.rand(rows, generator=g) < 0.6 for _ in values])


def _rows(batch: Batch, rows: slice) -> Batch:
    logits, targets = batch
    return {name: values[rows] for name, values in logits.items()}, SoftTargets(
        *([entry[rows] for entry in entries] for entries in targets)
    )


def _entropy(name: str, logits: list[float], values: list[float]) -> float:
    if name == "tags":
        ps = [1 / (1 + math.exp(-x)) for x in logits]
        return sum(-q * math.log(p) - (1 - q) * math.log(1 - p) for p, q in zip(ps, values, strict=True)) / len(ps)
    total = math.log(sum(math.exp(x) for x in logits))
    return sum(q * (total - x) for x, q in zip(logits, values, strict=True))


def _loops(batch: Batch, margins: list[Tensor] | None) -> list[float]:
    """Return the loss of each attribute, by loops over its cells."""
    logits, targets = batch
    losses = []
    for index, name in enumerate(SPACE.attributes):
        offsets = [0.0] * SPACE.num_classes[name] if margins is None else margins[index].tolist()
        total, cells = 0.0, 0
        values, weights, unlabeled = (entries[index].tolist() for entries in targets)
        for row, scores in enumerate(logits[name].tolist()):
            if unlabeled[row]:
                cells += 1
                shifted = [x + offset for x, offset in zip(scores, offsets, strict=True)]
                total += weights[row] * _entropy(name, shifted, values[row])
        losses.append(total / cells)
    return losses


@pytest.mark.parametrize("margins", [None, MARGINS], ids=["plain", "margins"])
def test_each_attribute_is_the_weighted_mean_over_all_its_unlabeled_cells(margins: list[Tensor] | None) -> None:
    batch = _draw(20)
    assert PseudoLoss(SPACE, margins)(*batch).tolist() == pytest.approx(_loops(batch, margins), rel=1e-6)


def test_an_unlabeled_cell_of_weight_zero_still_counts() -> None:
    logits, targets = _draw(8)
    everywhere = SoftTargets(targets.values, [torch.ones(8)] * 2, [torch.ones(8).bool()] * 2)
    half = everywhere._replace(weights=[torch.ones(8).masked_fill(torch.arange(8) < 4, 0)] * 2)
    whole = PseudoLoss(SPACE)(logits, half)
    last = PseudoLoss(SPACE)(*_rows((logits, everywhere), slice(4, 8)))
    torch.testing.assert_close(whole, last / 2)


def test_one_hot_targets_of_weight_one_give_the_classification_loss() -> None:
    logits, _ = _draw(10)
    labels = torch.tensor([0, 2, 1, 0, 0, 1, 2, 2, 1, 0])
    sets = torch.arange(10) + 3
    known = torch.nn.functional.one_hot(labels, 3).float()
    present = torch.stack([sets >> i & 1 for i in range(4)], dim=1).float()
    soft = SoftTargets([known, present], [torch.ones(10)] * 2, [torch.ones(10).bool()] * 2)
    expected = AttributeLoss(SPACE, margins=MARGINS)(logits, torch.stack([labels, sets], dim=1))
    torch.testing.assert_close(PseudoLoss(SPACE, MARGINS)(logits, soft), expected)


def test_an_attribute_without_an_unlabeled_cell_has_loss_zero_and_gradient_zero() -> None:
    logits, targets = _draw(6)
    for values in logits.values():
        values.requires_grad_()
    targets.cells[0][:] = False
    losses = PseudoLoss(SPACE)(logits, targets)
    losses.sum().backward()
    assert losses[0] == 0
    assert not logits["size"].grad.any()
    assert logits["tags"].grad.any()


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits, targets = _draw(6)
    losses = PseudoLoss(SPACE)({name: values.half() for name, values in logits.items()}, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, PseudoLoss(SPACE)(logits, targets).float(), rtol=1e-2, atol=0)


def test_the_losses_of_chunks_add_up_to_the_loss_of_the_batch() -> None:
    batch = _draw(16)
    chunks = [_rows(batch, rows) for rows in (slice(0, 4), slice(4, 14), slice(14, 16))]
    criterion = PseudoLoss(SPACE)
    counts = criterion.joint_counts([targets for _, targets in chunks])
    summed = sum(criterion(*chunk, counts) for chunk in chunks)
    torch.testing.assert_close(summed, criterion(*batch), rtol=1e-7, atol=0)


def test_the_loss_of_two_equal_views_is_the_loss_of_one() -> None:
    logits, targets = _draw(7)
    twice = {name: values.repeat(2, 1) for name, values in logits.items()}
    criterion = PseudoLoss(SPACE)
    torch.testing.assert_close(criterion(twice, targets.repeated(2)), criterion(logits, targets))


def test_blank_cells_are_unlabeled_and_empty_sets_are_not() -> None:
    size, tags = blank_cells(torch.tensor([[0, UNKNOWN], [UNKNOWN, 0], [2, 0b11]]), SPACE)
    assert size.tolist() == [False, True, False]
    assert tags.tolist() == [True, False, False]


def test_the_compared_prediction_has_the_margins() -> None:
    targets = torch.tensor([[0, 1], [0, 2], [0, 5], [1, 0], [2, 1]])
    margins = logit_margins(targets, SPACE, 1.0)
    criterion = PseudoLoss(SPACE, margins)
    # flat logits predict the shares of the classes, as training with --logit-adjustment 1 intends
    shares = criterion.losses[0].probabilities(torch.zeros(1, 3))
    torch.testing.assert_close(shares, torch.tensor([[0.6, 0.2, 0.2]]))
    assert criterion.losses[1].probabilities(torch.zeros(1, 4))[0, 0].item() == pytest.approx(3 / 5)


def _on_share(sizes: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses and the gradients of this process's rows."""
    first = sum(sizes[: dist.get_rank()])
    logits, targets = _rows(_draw(sum(sizes)), slice(first, first + sizes[dist.get_rank()]))
    logits = {name: values.clone().requires_grad_() for name, values in logits.items()}
    losses = PseudoLoss(SPACE)(logits, targets)
    losses.sum().backward()
    return losses.detach(), {name: values.grad for name, values in logits.items()}


@pytest.mark.parametrize("sizes", [[4, 2, 6, 3], [5, 0, 1, 4]])
def test_four_processes_average_to_the_joint_batch_in_value_and_gradient(sizes: list[int]) -> None:
    logits, targets = _draw(sum(sizes))
    logits = {name: values.requires_grad_() for name, values in logits.items()}
    losses = PseudoLoss(SPACE)(logits, targets)
    losses.sum().backward()
    shares = run_on_processes(4, _on_share, sizes)
    torch.testing.assert_close(torch.stack([values for values, _ in shares]).mean(dim=0), losses.detach())
    for name, values in logits.items():
        gathered = torch.cat([gradients[name] for _, gradients in shares]) / 4
        torch.testing.assert_close(gathered, values.grad)
