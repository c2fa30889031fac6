"""The frozen candidate scores what training and scoring the same model on the same tables would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_checkpoint import make_data, make_model

from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label import MultiLabelModel
from training.frozen_candidate import FrozenCandidate, compute_features, freeze

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenCandidate:
    """Return a candidate whose features decide the classes of one attribute, and not of the other."""
    model, rng = make_model(), np.random.default_rng(0)
    color, size = rng.integers(0, 3, 300), rng.integers(0, 6, 300)
    centers = 0.3 * rng.normal(size=(3, model.num_features))
    features = torch.from_numpy(centers[color] + rng.normal(size=(300, model.num_features))).float()
    targets = torch.from_numpy(np.stack([color, size], axis=1))
    targets[::9, 0] = -100
    return FrozenCandidate(model, np.arange(0, 600, 2), features, targets, seconds=30.0)


def test_the_scores_are_those_of_logistic_regression_with_the_best_strength(frozen: FrozenCandidate) -> None:
    rows = frozen.rows
    scores, seconds = frozen.score(rows[:200], rows[200:230], rows[230:])
    assert 30 < seconds < 60
    x, y = frozen.features.numpy(), frozen.targets[:, 0].numpy()
    learned, held = np.arange(300) < 200, np.arange(300) >= 230
    learned, held = learned & (y >= 0), held & (y >= 0)
    scaler = StandardScaler().fit(x[learned])
    accuracies = [
        100
        * LogisticRegression(C=1 / strength, max_iter=5000)
        .fit(scaler.transform(x[learned]), y[learned])
        .score(scaler.transform(x[held]), y[held])
        for strength in (1e3, 1e2, 1e1, 1.0, 0.1)
    ]
    assert min(accuracies) - 1 <= scores["color"] <= max(accuracies) + 1
    assert scores["color"] > 60 > 40 > scores["size"]


def test_the_labels_of_held_out_rows_decide_nothing(frozen: FrozenCandidate) -> None:
    rows = frozen.rows
    frozen.score(rows[:200], rows[200:230], rows[230:])
    before = frozen.model.heads[0].weight.clone()
    changed = frozen.targets.clone()
    changed[230:] = 0
    other = FrozenCandidate(frozen.model, rows, frozen.features, changed, 30.0)
    other.score(rows[:200], rows[200:230], rows[230:])
    assert torch.equal(frozen.model.heads[0].weight, before)


def test_features_are_those_of_the_model_and_are_computed_once(tmp_path: Path) -> None:
    model: MultiLabelModel = make_model()
    table = read_table(make_data(tmp_path, 9) / "val.csv")
    images = TwoViewDataset(table, encode_targets(table, model.label_space, strict=False))
    batches: list[int] = []

    def compute() -> tuple[torch.Tensor, torch.Tensor]:
        return compute_features(model, images, 0, torch.no_grad, lambda seconds, count: batches.append(count))

    rows = np.arange(9)
    first, again = (freeze(model, rows, tmp_path / "features.pt", compute) for _ in range(2))
    assert batches == [9]
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.targets, images.targets)
    loader = create_eval_loader(images, model.config["data_config"], 4, LoaderSettings(use_prefetcher=False))
    with torch.no_grad():
        expected = torch.cat([model.forward_features(batch) for batch, _ in loader])
    assert torch.allclose(first.features, expected, atol=1e-5)
