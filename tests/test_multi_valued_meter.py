"""Metrics of multi-valued attributes against scikit-learn, a search of thresholds, and one process."""

import math

import numpy as np
import pytest
import torch
from distributed import run_on_processes
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from catalog.label_space import BITS, UNKNOWN, LabelSpace
from timm.task.attribute_evaluator import AttributeEvaluator
from timm.task.multi_valued_meter import MultiValuedMeter, best_threshold, predicted_values

K = 5
SPACE = LabelSpace({"size": ("L", "S"), "tags": tuple("abcde")}, ["tags"])


def _data(rows: int = 40, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Return logits and targets; some labels are unknown, and each of the first three values occurs."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(rows, K, generator=random) < torch.tensor([0.5, 0.3, 0.2, 0.1, 0.0])
    tags = 3 * (truth + torch.randn(rows, K, generator=random)) - 2
    words = (truth.long() << torch.arange(K)).sum(dim=1)
    words[::7] = UNKNOWN
    size = torch.randint(2, (rows,), generator=random)
    size[::5] = UNKNOWN
    return {"size": torch.randn(rows, 2, generator=random), "tags": tags}, torch.stack([size, words], dim=1)


def _known(logits: Tensor, words: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = words >= 0
    return logits[rows].sigmoid().numpy(), ((words[rows, None] >> torch.arange(K)) & 1).numpy()


@pytest.mark.parametrize("threshold", [0.3, None])
def test_the_metrics_equal_scikit_learns(threshold: float | None) -> None:
    logits, target = _data()
    meter = MultiValuedMeter(K, threshold)
    for rows in (slice(0, 13), slice(13, None)):
        meter.update(logits["tags"][rows], target[rows, 1:])
    found, right, _ = meter.compute()
    scores, truth = _known(logits["tags"], target[:, 1])
    guess = scores >= found["threshold"]
    occurs = truth.any(axis=0)
    either = occurs | guess.any(axis=0)
    assert not occurs.all()
    assert found["map"] == pytest.approx(100 * sk.average_precision_score(truth[:, occurs], scores[:, occurs]))
    assert found["micro_f1"] == pytest.approx(100 * sk.f1_score(truth, guess, average="micro"))
    assert found["macro_f1"] == pytest.approx(100 * sk.f1_score(truth[:, either], guess[:, either], average="macro"))
    balanced = [sk.balanced_accuracy_score(truth[:, i], guess[:, i]) for i in range(K) if occurs[i]]
    assert found["balanced_accuracy"] == pytest.approx(100 * np.mean(balanced))
    assert found["top1"] == pytest.approx(100 * sk.accuracy_score(truth, guess))
    assert int(right.sum()) == (truth == guess).all(axis=1).sum()
    assert found["count"] == len(truth)
    assert math.isnan(found["top5"])


LOGITS = [-40.0, -3.0, -1.0, 0.0, 0.5, 4.0, 15.0, 20.0, 40.0]  # the last two have probability 1 in float32


@given(st.lists(st.tuples(st.sampled_from(LOGITS), st.booleans()), min_size=1, max_size=30))
def test_no_other_threshold_has_a_better_f1(pairs: list[tuple[float, bool]]) -> None:
    logits, truth = (torch.tensor(column)[:, None] for column in zip(*pairs, strict=True))
    threshold = best_threshold(logits, truth)
    assert 0 < threshold < 1

    def f1(at: float) -> float:
        guess = predicted_values(logits, at)
        return 2 * int((guess & truth).sum()) / max(1, int(guess.sum() + truth.sum()))

    others = [1e-30, *np.linspace(0.001, 0.999, 100), 1 - 1e-7]
    assert f1(threshold) >= max(f1(at) for at in others) - 1e-12
    if not truth.any():
        assert threshold == 0.5


def test_nan_scores_raise_no_error() -> None:
    """The loss already shows that a model diverged."""
    logits, target = _data()
    nan = {name: torch.full_like(values, torch.nan) for name, values in logits.items()}
    evaluator = AttributeEvaluator(SPACE)
    evaluator.update(nan, target)
    found = evaluator.compute()["attributes"]["tags"]
    assert 0 < found["threshold"] < 1
    assert (found["micro_f1"], found["macro_f1"]) == (0, 0)
    logits["tags"][3] = torch.nan
    known = target[:, 1] >= 0
    truth = ((target[known, 1:] >> torch.arange(K)) & 1).bool()
    assert best_threshold(logits["tags"][known], truth) == pytest.approx(
        best_threshold(logits["tags"][known].nan_to_num(-50), truth)
    )


def test_the_memory_of_a_batch_may_be_reused_for_the_next() -> None:
    logits, target = _data()
    meter, reused, words = MultiValuedMeter(K), torch.empty(20, K), torch.empty(20, 1, dtype=torch.int64)
    for rows in (slice(0, 20), slice(20, None)):
        reused.copy_(logits["tags"][rows])
        words.copy_(target[rows, 1:])
        meter.update(reused, words)
    whole = MultiValuedMeter(K)
    whole.update(logits["tags"], target[:, 1:])
    assert meter.compute()[0]["map"] == whole.compute()[0]["map"]


def test_the_summary_uses_the_given_threshold_and_computes_no_ranking() -> None:
    logits, target = _data()
    evaluator = AttributeEvaluator(SPACE, thresholds={"tags": 0.3})
    evaluator.update(logits, target)
    so_far, whole = evaluator.summary(), evaluator.compute()
    names = ("loss", "top1", "exact_match")
    assert [so_far[name] for name in names] == pytest.approx([whole[name] for name in names])
    assert math.isnan(so_far["map"])


def test_the_evaluator_combines_sets_and_classes() -> None:
    logits, target = _data()
    evaluator = AttributeEvaluator(SPACE, [1, 3])
    for rows in (slice(0, 25), slice(25, None)):
        evaluator.update({name: values[rows] for name, values in logits.items()}, target[rows])
    found = evaluator.compute()
    attributes = found["attributes"]
    classes, words = target.unbind(1)
    scores, truth = _known(logits["tags"], words)
    assert attributes["tags"]["loss"] == pytest.approx(sk.log_loss(truth.ravel(), scores.ravel()), rel=1e-4)
    assert found["top1"] == pytest.approx((attributes["size"]["top1"] + 3 * attributes["tags"]["top1"]) / 4)
    assert found["top5"] == attributes["size"]["top5"] == 100
    assert found["map"] == pytest.approx(attributes["tags"]["map"])
    guess = predicted_values(logits["tags"], attributes["tags"]["threshold"])
    sets = ((words.clamp(min=0)[:, None] >> torch.arange(K)) & 1).bool()
    right = (classes < 0) | (logits["size"].argmax(dim=1) == classes)
    right &= (words < 0) | (guess == sets).all(dim=1)
    labeled = (target >= 0).any(dim=1)
    assert found["exact_match"] == pytest.approx(100 * float(right[labeled].float().mean()))


def test_without_stored_scores_the_threshold_is_one_half() -> None:
    logits, target = _data()
    kept = AttributeEvaluator(SPACE, thresholds={"tags": 0.5})
    light = AttributeEvaluator(SPACE, keep_scores=False)
    for evaluator in (kept, light):
        evaluator.update(logits, target)
    one, other = kept.compute(), light.compute()
    assert (one["top1"], one["exact_match"], one["loss"]) == pytest.approx(
        (other["top1"], other["exact_match"], other["loss"])
    )
    assert math.isnan(other["map"])
    assert not light.meters


def test_a_value_outside_the_label_space_is_wrong() -> None:
    logits = {"size": torch.tensor([[1.0, 0.0]] * 2), "tags": torch.tensor([[5.0, -5, -5, -5, -5]] * 2)}
    target = torch.tensor([[0, 0b000001], [0, 0b100001]])
    evaluator = AttributeEvaluator(SPACE, thresholds={"tags": 0.5}, confusion=True)
    evaluator.update(logits, target)
    found = evaluator.compute()
    assert (found["attributes"]["tags"]["top1"], found["exact_match"]) == (50, 50)
    tags = found["attributes"]["tags"]
    # The means are over a and the additional value that is never predicted.
    assert (tags["macro_f1"], tags["map"], tags["micro_f1"]) == pytest.approx((50, 50, 80))
    counts = evaluator.confusion_matrices()["tags"]
    assert counts.tolist() == [[2, 2, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_several_processes_equal_one() -> None:
    logits, target = _data(rows=9)
    alone = AttributeEvaluator(SPACE)
    alone.update(logits, target)
    expected = alone.compute()
    for found in run_on_processes(3, _counted, logits, target):
        for name, values in (expected["attributes"] | {"all": expected}).items():
            metrics = (found["attributes"] | {"all": found})[name]
            numbers = [key for key in values if key != "attributes"]
            assert [metrics[key] for key in numbers] == pytest.approx([values[key] for key in numbers], nan_ok=True)


def _counted(logits: dict[str, Tensor], target: Tensor) -> dict[str, float]:
    """Evaluate this process's share; rank 0 has no images."""
    rank = torch.distributed.get_rank()
    evaluator = AttributeEvaluator(SPACE)
    if rank:
        rows = slice(0, 4) if rank == 1 else slice(4, None)
        evaluator.update({name: values[rows] for name, values in logits.items()}, target[rows])
    return evaluator.compute(distributed=True)


def test_without_a_known_set_there_is_no_metric() -> None:
    evaluator = AttributeEvaluator(SPACE)
    evaluator.update({"size": torch.zeros(2, 2), "tags": torch.zeros(2, K)}, torch.tensor([[0, UNKNOWN]] * 2))
    tags = evaluator.compute()["attributes"]["tags"]
    assert tags["count"] == 0
    assert all(math.isnan(tags[name]) for name in ("loss", "top1", "map", "micro_f1", "macro_f1", "balanced_accuracy"))


def test_an_attribute_may_have_more_values_than_a_column_has_bits() -> None:
    count = BITS + 8
    space = LabelSpace({"tags": tuple(f"v{i:03}" for i in range(count))}, ["tags"])
    target = torch.from_numpy(space.encode("tags", ["v000|v069", "v062", "|", None]))
    logits = torch.full((4, count), -4.0)
    logits[0, [0, 69]] = 4
    logits[1, 62] = 4
    evaluator = AttributeEvaluator(space)
    evaluator.update({"tags": logits}, target)
    assert evaluator.compute()["attributes"]["tags"]["top1"] == 100
