"""The logistic regression of the label-efficiency study: its predictions, and the photographs that it reads."""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import logistic_regression


def test_rotated_features_give_the_predictions_of_all_features() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=60)
    features = rng.normal(size=(60, 100)) + 2 * np.eye(3, 100)[truth] + 5  # fewer images than features
    labels = [f"class {kind}" for kind in truth]
    new = rng.normal(size=(200, 100)) + 2 * np.eye(3, 100)[rng.integers(3, size=200)] + 5
    found = logistic_regression.fit_predict(features, labels, {"new": new})["new"]
    plain = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(features, labels).predict(new)
        for c in logistic_regression.STRENGTHS
    ]
    assert max(np.mean(np.array(found) == one) for one in plain) > 0.99


def test_the_strength_is_chosen_by_cross_validation() -> None:
    # the classes differ in one feature of 40, so the penalty decides
    rng = np.random.default_rng(1)
    truth, new_truth = np.arange(90) % 2, np.arange(3000) % 2
    features, new = (rng.normal(size=(len(kinds), 40)) for kinds in (truth, new_truth))
    features[:, 0] += 3 * truth
    new[:, 0] += 3 * new_truth
    names = np.array(["a", "b"])
    found = logistic_regression.fit_predict(features, names[truth].tolist(), {"new": new})["new"]
    accuracies = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
        .fit(features, names[truth])
        .score(new, names[new_truth])
        for c in logistic_regression.STRENGTHS
    ]
    assert np.mean(np.array(found) == names[new_truth]) > min(accuracies) + 0.02


def test_features_belong_to_photographs_by_name() -> None:
    features = {"a": np.zeros(2), "b": np.ones(2)}
    rows = [{"image_path": "/small/b.jpg"}, {"image_path": "images/a.png"}]
    assert np.array_equal(logistic_regression.select(features, rows), [[1, 1], [0, 0]])
