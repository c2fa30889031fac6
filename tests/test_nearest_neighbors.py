"""Weighted k-nearest neighbors against scikit-learn and a loop, and several processes against one."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from distributed import run_on_processes
from sklearn.neighbors import KNeighborsClassifier
from table_files import draw_catalog
from torch import Tensor

from catalog.build_label_space import build_label_space
from catalog.label_space import LabelSpace
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader
from timm.data.neighbor_dataset import NeighborDataset
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label import create_multi_label_model
from timm.task.nearest_neighbors import NEIGHBORS, neighbor_accuracies, neighbor_metrics

SIZES = (3, 5)
TWO = LabelSpace.numbered({"a": 2})
SPACE = LabelSpace.numbered({"a": 3, "b": 5})


def draw(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw unit rows near class centers, and labels of two attributes, some of them unknown."""
    random = torch.Generator().manual_seed(seed)
    centers = torch.randn(3, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.stack([torch.randint(0, k, (rows,), generator=random) for k in SIZES], dim=1)
    units = F.normalize(centers[labels[:, 0]] + 1.5 * torch.randn(rows, 8, generator=random), dim=1)
    return units, labels.masked_fill(torch.rand(rows, 2, generator=random) < 0.3, -100)


def slowly(index: Tensor, labels: Tensor, queries: Tensor, targets: Tensor, k: int) -> list[float]:
    """Let neighbors vote one by one, in float64."""
    result = []
    for attribute, classes in enumerate(SIZES):
        right = []
        for query, target in zip(queries.double(), targets[:, attribute].tolist(), strict=True):
            if target == -100:
                continue
            known = [
                (float(row @ query), int(label))
                for row, label in zip(index.double(), labels[:, attribute], strict=True)
                if label >= 0
            ]
            votes = [0.0] * classes
            for similarity, label in sorted(known, reverse=True)[:k]:
                votes[label] += math.exp(similarity / 0.07)
            right.append(votes.index(max(votes)) == target)
        result.append(100 * sum(right) / len(right))
    return result


@pytest.mark.parametrize("k", [1, 7, 20, 200])
def test_accuracies_equal_a_loop_over_neighbors(k: int) -> None:
    index, queries = draw(90, 0), draw(40, 1)
    expected = slowly(*index, *queries, k)
    assert neighbor_accuracies(*index, *queries, SPACE, [k])[k] == pytest.approx(expected)
    assert 20 < expected[0] < 100


def test_accuracies_equal_scikit_learns() -> None:
    (index, labels), (queries, targets) = draw(400, 2), draw(300, 3)
    found = neighbor_accuracies(index, labels, queries, targets, SPACE)
    for k in NEIGHBORS:
        for attribute in range(len(SIZES)):
            known, scored = labels[:, attribute] >= 0, targets[:, attribute] >= 0
            peer = KNeighborsClassifier(
                k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
            )
            peer.fit(index[known].double().numpy(), labels[known, attribute].numpy())
            score = peer.score(queries[scored].double().numpy(), targets[scored, attribute].numpy())
            assert found[k][attribute] == pytest.approx(100 * score)


def test_a_class_outside_the_label_space_is_wrong_and_an_unknown_label_is_not_scored() -> None:
    index, labels = torch.eye(2), torch.tensor([[0], [1]])
    targets = torch.tensor([[0], [-1], [-100], [-100]])
    assert neighbor_accuracies(index, labels, index.repeat(2, 1), targets, TWO, [1]) == {1: [50.0]}


def test_without_a_label_on_either_side_there_is_no_accuracy() -> None:
    index, unknown, known = torch.eye(2), torch.tensor([[-100], [-100]]), torch.tensor([[0], [1]])
    for labels, targets in ((unknown, known), (known, unknown)):
        assert math.isnan(neighbor_accuracies(index, labels, index, targets, TWO, [1])[1][0])
    assert neighbor_accuracies(index, unknown[:, :0], index, unknown[:, :0], LabelSpace({}), [1]) == {1: []}


# With a model and images


def sets(data: Path, most: int = 1000) -> tuple[NeighborDataset, TwoViewDataset, Any]:
    train, val = (read_table(data / f"{split}.csv") for split in ("train", "val"))
    space = build_label_space(train)
    source = TwoViewDataset(train, encode_targets(train, space, strict=True))
    return NeighborDataset(source, most, 0), TwoViewDataset(val, encode_targets(val, space, strict=False)), space


def score(data: Path, processes: int = 1) -> Any:
    """Score a new model on the catalog, on one process or as one of several."""
    index_set, eval_set, space = sets(data)
    torch.manual_seed(0)
    model = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32))
    config = resolve_preprocessing(model.pretrained_cfg, {"input_size": (3, 32, 32)})
    loaders = [
        create_eval_loader(dataset, config, 4, LoaderSettings(distributed=processes > 1))
        for dataset in (index_set, eval_set)
    ]
    before = [value.clone() for value in model.state_dict().values()]
    result = neighbor_metrics(model, *loaders, nullcontext, lambda images: images, space)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    return result


def _score_as_one_of_several(data: Path) -> Any:
    return score(data, dist.get_world_size())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"), train=50, val=17)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_equal_one(data: Path, processes: int) -> None:
    accuracies, spread = score(data)
    assert all(0 < value <= 100 for values in accuracies.values() for value in values)
    for joint, joint_spread in run_on_processes(processes, _score_as_one_of_several, data):
        assert joint == accuracies
        assert joint_spread == pytest.approx(spread, rel=1e-4)


# Which images vote


def test_the_index_holds_every_labeled_image_once_or_a_seeded_sample(data: Path) -> None:
    whole, _, _ = sets(data)
    labeled = [row for row, target in enumerate(whole.source.targets.tolist()) if max(target) >= 0]
    assert whole.rows.tolist() == labeled
    assert len(labeled) < len(whole.source)
    first, again, other = (NeighborDataset(whole.source, 20, seed).rows.tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 20
    assert set(first) < set(labeled)


def test_without_labels_the_index_holds_all_images(data: Path) -> None:
    whole, _, _ = sets(data)
    whole.source.targets = torch.full_like(whole.source.targets, -100)
    assert len(NeighborDataset(whole.source, 30, 0)) == 30


def test_index_images_are_transformed_as_in_evaluation_and_unreadable_ones_have_no_vote(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data", train=8, val=8, blanks=False)
    index_set, _, space = sets(data)
    plain = TwoViewDataset(index_set.source.table, index_set.source.targets.numpy(), None)
    model = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32))
    config = resolve_preprocessing(model.pretrained_cfg, {"input_size": (3, 32, 32)})
    [(images, targets)], [(expected, labels)] = (
        list(create_eval_loader(dataset, config, 8, LoaderSettings())) for dataset in (index_set, plain)
    )
    assert torch.equal(images, expected)
    assert torch.equal(targets, labels)
    (data / "images" / "train-2.png").write_bytes(b"no image")
    assert index_set[2][1].tolist() == [-100, -100]
    assert not index_set.source.unreadable.any()  # marking it would change the random numbers of training
