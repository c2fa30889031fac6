"""One pass over a split against counting at once, with mirrored images, and several processes against one."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from distributed import run_on_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from catalog.label_space import UNKNOWN, LabelSpace
from timm.data.distributed_sampler import OrderedDistributedSampler
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.evaluate import evaluate, predict

SPACE = LabelSpace.numbered({"gender": 3, "color": 4})
ROWS = 41


class Tiny(nn.Module):
    """A linear model whose logits are random in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.heads = nn.ModuleDict({name: nn.Linear(3 * 4 * 4, k) for name, k in SPACE.num_classes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        h = self.drop(images.flatten(1))
        return {name: head(h) for name, head in self.heads.items()}


def _model() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def _split() -> tuple[Tensor, Tensor]:
    """Draw images and targets; some predictions are right and some wrong, so no metric is near its bounds."""
    g = torch.Generator().manual_seed(1)
    images = torch.randn(ROWS, 3, 4, 4, generator=g)
    logits = predict(_model().eval(), images)
    columns = [
        torch.where(torch.rand(ROWS, generator=g) < 0.6, logits[name].argmax(1), torch.randint(k, (ROWS,), generator=g))
        for name, k in SPACE.num_classes.items()
    ]
    target = torch.stack(columns, dim=1)
    return images, target.masked_fill(torch.rand(target.shape, generator=g) < 0.2, UNKNOWN)


def _batches(size: int = 8) -> list[tuple[Tensor, Tensor]]:
    images, target = _split()
    return list(zip(images.split(size), target.split(size), strict=True))


def _same(images: Tensor) -> Tensor:
    return images


def _counted(logits: dict[str, Tensor]) -> Metrics:
    """Count the whole split at once."""
    evaluator = AttributeEvaluator(SPACE)
    evaluator.update(logits, _split()[1])
    return evaluator.compute()


def _assert_same(metrics: Metrics, expected: Metrics) -> None:
    for name, value in expected["attributes"].items():
        assert metrics["attributes"][name] == pytest.approx(value, rel=1e-6)
    assert {k: v for k, v in metrics.items() if k != "attributes"} == pytest.approx(
        {k: v for k, v in expected.items() if k != "attributes"}, rel=1e-6
    )


def test_batches_give_the_metrics_of_the_whole_split_at_once() -> None:
    expected = _counted(predict(_model().eval(), _split()[0]))
    assert 30 < expected["top1"] < 90
    _assert_same(evaluate(_model(), _batches(), AttributeEvaluator(SPACE), nullcontext, _same), expected)


def test_the_model_is_scored_in_evaluation_mode_and_left_in_it() -> None:
    model = _model().train()
    first = evaluate(model, _batches(), AttributeEvaluator(SPACE), nullcontext, _same)
    assert not any(module.training for module in model.modules())
    _assert_same(first, _counted(predict(_model().eval(), _split()[0])))


def test_no_graph_is_kept() -> None:
    seen = []
    model = _model()
    model.register_forward_hook(lambda module, args, output: seen.append(output["gender"].requires_grad))
    evaluate(model, _batches(), AttributeEvaluator(SPACE), nullcontext, _same)
    assert seen == [False] * 6


def test_each_pass_resets_the_evaluator() -> None:
    evaluator, batches = AttributeEvaluator(SPACE, max_samples=3), _batches()
    first = evaluate(_model(), batches, evaluator, nullcontext, _same)
    assert evaluate(_model(), batches, evaluator, nullcontext, _same) == first
    assert evaluator.num_samples == ROWS


def test_images_pass_through_to_device_and_autocast() -> None:
    seen = []
    model = _model()
    model.register_forward_hook(lambda module, args, output: seen.append((args[0].dtype, output["gender"].dtype)))
    batches = [((images * 10).char(), target) for images, target in _batches()]
    autocast = partial(torch.autocast, device_type="cpu", dtype=torch.bfloat16)
    evaluate(model, batches, AttributeEvaluator(SPACE), autocast, Tensor.float)
    assert seen == [(torch.float32, torch.bfloat16)] * len(batches)


def test_tta_averages_the_logits_of_an_image_and_its_mirror_image() -> None:
    model, images = _model().eval(), _split()[0]
    mirrored = torch.stack([torch.stack(list(reversed(image.unbind(2))), dim=2) for image in images])
    expected = {name: (values + model(mirrored)[name]) / 2 for name, values in model(images).items()}
    averaged = predict(model, images, tta=2)
    assert list(averaged) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(averaged[name], values)
        assert not torch.allclose(predict(model, images)[name], values)
    symmetric = predict(model, mirrored, tta=2)
    torch.testing.assert_close(symmetric, averaged)
    _assert_same(
        evaluate(model, _batches(), AttributeEvaluator(SPACE), nullcontext, _same, tta=2),
        _counted(expected),
    )


def test_after_batch_is_called_once_each_batch_is_counted() -> None:
    calls: list[tuple[int, int]] = []

    def after_batch(batch: int, evaluator: AttributeEvaluator) -> None:
        calls.append((batch, evaluator.num_samples))

    evaluate(_model(), _batches(), AttributeEvaluator(SPACE), nullcontext, _same, after_batch=after_batch)
    assert calls == [(0, 8), (1, 16), (2, 24), (3, 32), (4, 40), (5, 41)]


def _share(tta: int) -> tuple[Metrics, int, int]:
    """Score this process's share, padded as timm's sampler does; return metrics, rows assigned and rows counted."""
    dataset = TensorDataset(*_split())
    sampler = OrderedDistributedSampler(dataset)
    evaluator = AttributeEvaluator(SPACE)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    metrics = evaluate(_model(), loader, evaluator, nullcontext, _same, tta=tta, distributed=True)
    return metrics, len(sampler), evaluator.num_samples


@pytest.mark.parametrize(("processes", "tta"), [(2, 0), (3, 2)])
def test_several_processes_equal_one_without_padded_rows(processes: int, tta: int) -> None:
    expected = evaluate(_model(), _batches(), AttributeEvaluator(SPACE), nullcontext, _same, tta=tta)
    results = run_on_processes(processes, _share, tta)
    assert sum(assigned for _, assigned, _ in results) > ROWS
    assert sum(counted for _, _, counted in results) == ROWS
    for metrics, _, _ in results:
        _assert_same(metrics, expected)
        assert metrics == results[0][0]
