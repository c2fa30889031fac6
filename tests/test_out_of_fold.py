"""Out-of-fold probabilities come from heads that saw neither the label nor a copy of its image."""

import numpy as np
import pytest
import torch

from catalog.folds import stratified_folds
from catalog.label_space import LabelSpace
from serving.out_of_fold import FOLDS, out_of_fold_probabilities

ROWS, CLASSES = 60, 3


def clusters(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features around the mean of their class, and the classes."""
    random = np.random.default_rng(seed)
    codes = np.arange(ROWS) % CLASSES
    features = random.normal(size=(ROWS, 8)) + 3 * np.eye(8)[codes]
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(codes)


def test_they_are_those_of_logistic_regressions_without_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = (30.0, 3.0)
    monkeypatch.setattr("serving.out_of_fold._STRENGTHS", strengths)
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, codes = clusters()
    found = out_of_fold_probabilities(features, codes, CLASSES, np.arange(ROWS), seed=3)
    x = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    folds = stratified_folds(np.eye(CLASSES)[codes], np.arange(ROWS), FOLDS, 3)
    expected = {}
    for strength in strengths:
        expected[strength] = np.empty((ROWS, CLASSES))
        for fold in range(FOLDS):
            model = linear_model.LogisticRegression(C=1 / strength, max_iter=1000).fit(
                x[folds != fold], codes[folds != fold]
            )
            expected[strength][folds == fold] = model.predict_proba(x[folds == fold])
    losses = {s: -np.log(p[np.arange(ROWS), codes]).mean() for s, p in expected.items()}
    assert found == pytest.approx(expected[min(losses, key=lambda s: losses[s])], abs=0.03)


def test_a_wrong_label_does_not_vouch_for_itself() -> None:
    features, codes = clusters()
    labels = codes.clone()
    labels[0] = (codes[0] + 1) % CLASSES
    found = out_of_fold_probabilities(features, labels, CLASSES, np.arange(ROWS))
    assert found[0].argmax() == codes[0]
    assert found[0, labels[0]] < 0.3


def test_copies_of_an_image_share_a_fold() -> None:
    features, codes = clusters()
    features[ROWS // 2 :] = features[: ROWS // 2].clone()
    labels = codes.clone()
    labels[: ROWS // 2] = labels[ROWS // 2 :]
    labels[[0, ROWS // 2]] = (codes[0] + 1) % CLASSES  # both copies have the same wrong label
    groups = np.arange(ROWS) % (ROWS // 2)
    found = out_of_fold_probabilities(features, labels, CLASSES, groups)
    assert found[0, labels[0]] < 0.3
    assert found[0] == pytest.approx(found[ROWS // 2])


def test_sets_have_a_probability_for_each_value() -> None:
    features, codes = clusters()
    space = LabelSpace({"tags": ("a", "b", "c")}, ["tags"])
    cells = ["a|b" if code == 0 else "b" if code == 1 else "|" for code in codes.tolist()]
    labels = torch.from_numpy(space.encode("tags", cells))
    found = out_of_fold_probabilities(features, labels, 3, np.arange(ROWS))
    truth = np.array([["a" in cell, "b" in cell, False] for cell in cells])
    assert ((found > 0.5) == truth).mean() > 0.95
    assert found[:, 2].max() < 0.1  # a value that no row has


def test_few_images_have_fewer_folds() -> None:
    features, _ = clusters()
    found = out_of_fold_probabilities(features[:4], torch.tensor([0, 1, 0, 1]), 2, np.array([0, 0, 1, 1]))
    assert FOLDS > 2
    assert np.isfinite(found).all()
