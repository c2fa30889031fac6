"""The figures of a report: intervals, confusions, calibration, coverage and suspects, against libraries and loops."""

import math

import numpy as np
import pytest
import torch
from report_case import class_results, set_results
from scipy.stats import binom
from sklearn.metrics import confusion_matrix as sklearn_confusion

from reports.bootstrap import accuracy, interval
from reports.confusions import Confusion, confusion_matrix, confusion_sentence, top_confusions
from reports.label_errors import likely_label_errors, suspects, worst_mistakes
from reports.probability_curves import attribute_reliability, coverage_at, coverage_curve
from timm.task.temperature import calibration_error

NAN = math.nan


def test_the_interval_of_one_attribute_is_the_binomial_one() -> None:
    for right, images in ((80, 100), (700, 1000), (3, 12)):
        scores = np.array([[1.0] * right + [0.0] * (images - right)])
        exact = binom.ppf([0.025, 0.975], images, right / images) / images * 100
        assert interval(scores) == pytest.approx(tuple(exact), abs=100 / images + 1e-9)


def test_the_interval_equals_a_bootstrap_that_draws_image_after_image() -> None:
    rng = np.random.default_rng(3)
    scores = (rng.random((3, 200)) < [[0.9], [0.6], [0.3]]).astype(float)
    scores[1] = np.where(rng.random(200) < 0.7, scores[0], scores[1])  # attributes are right together
    scores[2, rng.random(200) < 0.5] = NAN
    slow = [accuracy(scores[:, rng.integers(0, 200, 200)]) for _ in range(2000)]
    assert interval(scores) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=0.6)
    assert accuracy(scores) == pytest.approx(100 * np.mean([np.nanmean(one) for one in scores]))


def test_a_paired_interval_is_narrower_than_two_of_equal_models() -> None:
    right = np.random.default_rng(0).random(500) < 0.7
    better = right | (np.arange(500) % 20 == 0)
    low, high = interval((better.astype(float) - right)[None])
    assert 0 < low < 100 * (better.mean() - right.mean()) < high
    alone = interval(better[None].astype(float))
    assert high - low < (alone[1] - alone[0]) / 2


def test_an_interval_without_a_label_is_unknown() -> None:
    assert all(map(math.isnan, interval(np.full((2, 5), NAN))))
    assert math.isnan(accuracy(np.full((2, 5), NAN)))
    assert interval(np.array([[1.0, 1.0], [NAN, NAN]])) == (100.0, 100.0)


def test_the_confusion_matrix_is_sklearns_with_a_row_for_unknown_labels() -> None:
    one = class_results("color", "abcde", 300)
    known = ~one.outside
    matrix = confusion_matrix(one.truth, one.predicted, 5)
    expected = sklearn_confusion(one.truth[known], one.predicted[known], labels=range(5))
    assert (matrix[:-1] == expected).all()
    assert matrix[-1].sum() == one.outside.sum() > 0


def test_the_most_frequent_confusions_are_sentences() -> None:
    one = class_results("color", "abcde", 300)
    counts: dict[tuple[str, str], int] = {}
    for label, predicted in zip(one.truth, one.predicted, strict=True):
        if label >= 0 and label != predicted:
            key = ("abcde"[label], "abcde"[predicted])
            counts[key] = counts.get(key, 0) + 1
    found = top_confusions(one, 4)
    assert [one.count for one in found] == sorted(counts.values(), reverse=True)[:4]
    assert all(counts[one.label, one.predicted] == one.count for one in found)
    navy = Confusion("Navy Blue", "Black", 41, 120)
    assert confusion_sentence(navy) == "Navy Blue is called Black 41 times, in 34% of its images."
    assert confusion_sentence(Confusion("a", "b", 1, 4)) == "a is called b once, in 25% of its images."


def test_the_confusions_of_sets_are_values_missed_while_others_are_given() -> None:
    one = set_results("tags", "abc", 200)
    counts = np.zeros((3, 3), int)
    for truth, predicted in zip(one.truth, one.predicted, strict=True):
        for missed in np.flatnonzero(truth & ~predicted):
            for given in np.flatnonzero(predicted & ~truth):
                counts[missed, given] += 1
    best = top_confusions(one, 1)[0]
    assert best.count == counts.max() == counts["abc".index(best.label), "abc".index(best.predicted)]
    sentence = confusion_sentence(Confusion("wool", "cotton", 5, 10), multi_valued=True)
    assert sentence == "wool is missed and cotton given instead 5 times, in 50% of its images."


@pytest.mark.parametrize("results", [class_results("c", "abcd", 400), set_results("s", "abcd", 400)])
def test_the_calibration_error_is_the_logs(results) -> None:
    known = ~results.outside
    chance = torch.from_numpy(results.raw[known]).double()
    logits = chance.logit() if results.multi_valued else chance.log()
    expected = calibration_error(logits, torch.from_numpy(results.truth[known]))
    assert attribute_reliability(results, calibrated=False).error == pytest.approx(expected, abs=1e-4)


def test_the_coverage_curve_is_that_of_every_threshold() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 30, 90) / 30  # many are equal
    right = rng.random(90) < confidence
    coverage, precision = coverage_curve(confidence, right)
    slow = [
        (np.mean(confidence >= limit), right[confidence >= limit].mean())
        for limit in sorted({*confidence}, reverse=True)
    ]
    assert np.allclose(list(zip(coverage, precision, strict=True)), slow)
    assert coverage_at(confidence, right, 0.8) == max((c for c, p in slow if p >= 0.8), default=0)
    long = rng.random(5000)
    assert len(coverage_curve(long, long > 0.5)[0]) == 100
    assert [len(part) for part in coverage_curve(np.zeros(0), np.zeros(0, bool))] == [0, 0]


def slow_suspects(truth: np.ndarray, chance: np.ndarray) -> list[int]:
    """Return the suspects by the paper's definition, image after image."""
    classes = range(chance.shape[1])
    limits = {k: np.mean([p[k] for p, y in zip(chance, truth, strict=True) if y == k]) for k in set(truth)}
    found = []
    for place, (p, y) in enumerate(zip(chance, truth, strict=True)):
        over = [k for k in classes if k in limits and p[k] >= limits[k]]
        margin = p[y] - max(p[k] for k in classes if k != y)
        if over and max(over, key=lambda k: p[k]) != y and margin < 0:
            found.append((margin, place))
    return [place for _, place in sorted(found)]


def test_suspects_are_those_of_confident_learning() -> None:
    one = class_results("color", "abcde", 200, seed=4)
    known = ~one.outside
    truth, chance = one.truth[known], one.calibrated[known]
    found = suspects(truth, chance)
    assert found.tolist() == slow_suspects(truth, chance)
    assert len(found) > 5
    assert suspects(np.zeros(0, np.int64), np.zeros((0, 3))).tolist() == []


def test_planted_label_errors_come_first_and_mistakes_are_ranked_by_confidence() -> None:
    one = class_results("color", "abc", 400, skill=8)
    flipped = np.flatnonzero(~one.outside & one.right)[:5]
    one.truth[flipped] = (one.truth[flipped] + 1) % 3
    assert set(likely_label_errors(one)[:5].tolist()) == set(flipped.tolist())
    wrong = worst_mistakes(one)
    assert set(wrong.tolist()) == set(np.flatnonzero(~one.right & ~one.outside).tolist())
    assert (np.diff(one.confidence[wrong]) <= 0).all()


def test_a_set_is_as_suspect_as_its_most_suspect_value() -> None:
    one = set_results("tags", "abc", 300)
    one.calibrated[7] = [0.001, 0.999, 0.5]
    one.truth[7] = [True, False, True]
    assert likely_label_errors(one)[0] == 7
