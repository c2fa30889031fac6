"""Metrics of projections against loops in float64, on one process and on several."""

import math

import pytest
import torch
import torch.nn.functional as F
from distributed import run_on_processes
from torch import Tensor

import simclr.projection_meter
from simclr import PROJECTION_METRICS, ProjectionMeter

Batch = tuple[Tensor, Tensor]  # projections of two views [2, n, P], labels [n, A]


def draw(n: int, dim: int = 6, seed: int = 0) -> Batch:
    """Draw two similar views, and labels of two attributes, a third of them unknown."""
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(1, n, dim, generator=random)
    views = image + 0.7 * torch.randn(2, n, dim, generator=random)
    labels = torch.randint(0, 2, (n, 2), generator=random)
    return views, labels.masked_fill(torch.rand(n, 2, generator=random) < 0.35, -100)


def slowly(batches: list[Batch]) -> dict[str, float]:
    """Compute the metrics pair by pair."""
    distances, kernels, hits, agreeing, rows = [], [], [], [], []
    for views, labels in batches:
        units = F.normalize(views.double(), dim=2)
        n = units.shape[1]
        points = [(view, image) for view in range(2) for image in range(n)]
        rows += [units[point] for point in points]
        distances += [float((units[0, i] - units[1, i]).norm() ** 2) for i in range(n)]
        for view, i in points:
            kernels += [math.exp(-2 * float((units[view, i] - units[view, j]).norm() ** 2)) for j in range(n) if j != i]
            others = {point: float(units[view, i] @ units[point]) for point in points if point != (view, i)}
            hits.append(max(others, key=lambda point: others[point]) == (1 - view, i))
        for i in range(n):
            for j in set(range(n)) - {i}:
                both = [(int(a), int(b)) for a, b in zip(labels[i], labels[j], strict=True) if a >= 0 and b >= 0]
                agreeing += [all(a == b for a, b in both)] if both else []
    matrix = torch.stack(rows)
    shares = torch.linalg.svdvals(matrix)
    shares = shares / shares.sum()
    return {
        "alignment": sum(distances) / len(distances),
        "uniformity": math.log(sum(kernels) / len(kernels)),
        "effective_rank_z": math.exp(-sum(float(s) * math.log(s) for s in shares)),
        "variance_z": float((matrix - matrix.mean(0)).norm(dim=1).square().mean()),
        "contrastive_top1": 100 * sum(hits) / len(hits),
        "false_negatives": 100 * sum(agreeing) / len(agreeing) if agreeing else math.nan,
    }


def measured(batches: list[Batch]) -> dict[str, float]:
    meter = ProjectionMeter()
    for views, labels in batches:
        meter.update(views, labels)
    return meter.compute()


@pytest.mark.parametrize("sizes", [(9,), (5, 12, 2), (1, 4)])
def test_the_metrics_equal_loops_over_pairs(sizes: tuple[int, ...]) -> None:
    batches = [draw(n, seed=n) for n in sizes]
    result = measured(batches)
    assert tuple(result) == PROJECTION_METRICS
    assert result == pytest.approx(slowly(batches), rel=1e-4)


def test_the_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = draw(23)
    whole = measured([batch])
    monkeypatch.setattr(simclr.projection_meter, "BLOCK_ENTRIES", 23 * 4)
    assert measured([batch]) == pytest.approx(whole, rel=1e-6)


def test_in_a_large_batch_only_the_first_images_are_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simclr.projection_meter, "MAX_ANCHORS", 10)
    views, labels = draw(30, dim=4)
    units = F.normalize(views.double(), dim=2).flatten(0, 1)
    similarities = (units @ units.T).fill_diagonal_(-math.inf)
    hits = [int(similarities[row].argmax()) == (row + 30) % 60 for row in (*range(10), *range(30, 40))]
    assert 0 < sum(hits) < 20
    assert measured([(views, labels)])["contrastive_top1"] == pytest.approx(100 * sum(hits) / 20)


def _shares_measured(batches: list[list[Batch]]) -> dict[str, float]:
    rank = torch.distributed.get_rank()
    return measured([shares[rank] for shares in batches])


@pytest.mark.parametrize("sizes", [(4, 7), (3, 0, 5)])
def test_several_processes_measure_the_joint_batch(sizes: tuple[int, ...]) -> None:
    batches = [[draw(n, seed=10 * step + n) for n in sizes] for step in range(2)]
    joint = [tuple(torch.cat(part, dim=1 - p) for p, part in enumerate(zip(*b, strict=True))) for b in batches]
    expected = slowly(joint)  # type: ignore[arg-type]  # two parts
    for result in run_on_processes(len(sizes), _shares_measured, batches):
        assert result == pytest.approx(expected, rel=1e-4)


def test_orthogonal_images_have_the_closed_forms() -> None:
    result = measured([(torch.eye(4).repeat(2, 1, 1), torch.tensor([[0], [0], [1], [-100]]))])
    assert result["alignment"] == 0
    assert result["contrastive_top1"] == 100
    assert result["uniformity"] == pytest.approx(-4)  # orthogonal units are at squared distance 2
    assert result["effective_rank_z"] == pytest.approx(4)
    assert result["variance_z"] == pytest.approx(0.75)
    assert result["false_negatives"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("point", [torch.tensor([3.0, 4.0, 0.0]), torch.zeros(3)])
def test_collapsed_projections_distinguish_nothing(point: Tensor) -> None:
    result = measured([(point.expand(2, 8, 3), torch.zeros(8, 1, dtype=torch.int64))])
    assert result["alignment"] == pytest.approx(0)
    assert result["contrastive_top1"] == 0  # ties are wrong
    assert result["effective_rank_z"] < 1.001
    assert result["variance_z"] < 1e-9
    assert result["false_negatives"] == 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_dtype_and_scale_gives_the_same_metrics(dtype: torch.dtype) -> None:
    views, labels = draw(8)
    views = views.to(dtype)
    expected = measured([(views.float(), labels)])
    assert measured([(views * 256, labels)]) == pytest.approx(expected, rel=1e-5)


def test_a_metric_without_data_is_nan() -> None:
    assert all(math.isnan(value) for value in ProjectionMeter().compute().values())
    views, labels = draw(3)
    for unknown in (None, torch.full_like(labels, -100), labels[:, :0]):
        meter = ProjectionMeter()
        meter.update(views, unknown)
        assert math.isnan(meter.compute()["false_negatives"])
    assert math.isnan(measured([(torch.full((2, 3, 4), math.nan), labels)])["effective_rank_z"])
