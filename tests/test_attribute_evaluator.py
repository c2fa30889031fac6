"""The evaluator against scikit-learn, with unknown and unseen labels, and several processes against one."""

import math

import pytest
import torch
from distributed import run_on_processes
from torch import Tensor

from catalog.label_space import UNKNOWN, UNSEEN, LabelSpace
from timm.data.distributed_sampler import OrderedDistributedSampler
from timm.task.attribute_evaluator import AttributeEvaluator

SPACE = LabelSpace.numbered({"gender": 3, "article": 12, "color": 7})


def _draw(rows: int, seed: int = 0, blank: float = 0.2) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = {name: torch.randn(rows, k, generator=g) for name, k in SPACE.num_classes.items()}
    columns = []
    for name, k in SPACE.num_classes.items():
        labels = torch.where(
            torch.rand(rows, generator=g) < 0.5, logits[name].argmax(1), torch.randint(k, (rows,), generator=g)
        )
        columns.append(labels.masked_fill(torch.rand(rows, generator=g) < blank, UNKNOWN))
    return logits, torch.stack(columns, dim=1)


def _in_batches(evaluator: AttributeEvaluator, logits: dict[str, Tensor], target: Tensor, sizes: list[int]) -> None:
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        evaluator.update({name: values[rows] for name, values in logits.items()}, target[rows])
        start += size


def test_metrics_equal_scikit_learns_over_the_whole_split_and_are_no_means_over_batches() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, target = _draw(200)
    evaluator = AttributeEvaluator(SPACE)
    _in_batches(evaluator, logits, target, [64, 7, 100, 29])
    result = evaluator.compute()
    for index, name in enumerate(SPACE.attributes):
        known = target[:, index] != UNKNOWN
        labels, scores = target[known, index], logits[name][known]
        found = result["attributes"][name]
        k = min(5, scores.shape[1])
        top5 = (
            metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(scores.shape[1]))
            if k < scores.shape[1]
            else 1
        )
        assert found["count"] == int(known.sum())
        assert found["top1"] == pytest.approx(100 * metrics.accuracy_score(labels, scores.argmax(1)))
        assert found["top5"] == pytest.approx(100 * top5)
        assert found["balanced_accuracy"] == pytest.approx(
            100 * metrics.balanced_accuracy_score(labels, scores.argmax(1))
        )
        assert found["macro_f1"] == pytest.approx(100 * metrics.f1_score(labels, scores.argmax(1), average="macro"))
        assert found["loss"] == pytest.approx(
            metrics.log_loss(labels, scores.double().softmax(1), labels=range(scores.shape[1])), rel=1e-5
        )


def test_perfect_predictions_score_one_hundred_in_everything() -> None:
    logits, target = _draw(50)
    for index, name in enumerate(SPACE.attributes):
        logits[name].scatter_(1, target[:, index].clamp(min=0).unsqueeze(1), 100.0)
    evaluator = AttributeEvaluator(SPACE)
    evaluator.update(logits, target)
    result = evaluator.compute()
    for metric in ("top1", "top5", "balanced_accuracy", "macro_f1", "exact_match"):
        assert result[metric] == 100


def test_an_attribute_with_two_classes_has_a_top_five() -> None:
    evaluator = AttributeEvaluator(LabelSpace.numbered({"kids": 2}))
    evaluator.update({"kids": torch.tensor([[1.0, 0.0], [1.0, 0.0]])}, torch.tensor([[0], [1]]))
    assert evaluator.compute()["attributes"]["kids"]["top5"] == 100
    assert evaluator.compute()["top1"] == 50


def test_a_class_outside_the_label_space_counts_as_wrong_and_in_no_loss() -> None:
    space = LabelSpace.numbered({"kids": 2})
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    evaluator = AttributeEvaluator(space)
    evaluator.update({"kids": logits}, torch.tensor([[0], [1], [UNSEEN]]))
    found = evaluator.compute()["attributes"]["kids"]
    assert found["count"] == 3
    assert found["top1"] == pytest.approx(200 / 3)
    assert found["top5"] == pytest.approx(200 / 3)
    assert found["balanced_accuracy"] == pytest.approx(200 / 3)  # recalls 1, 1 and 0
    assert found["loss"] == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
    assert evaluator.compute()["exact_match"] == pytest.approx(200 / 3)


def test_exact_match_is_over_images_with_a_label_and_over_their_known_labels() -> None:
    space = LabelSpace.numbered({"a": 2, "b": 2})
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    logits = {"a": torch.tensor([right, right, wrong, wrong]), "b": torch.tensor([right, wrong, right, wrong])}
    target = torch.tensor([[0, 0], [0, UNKNOWN], [0, 0], [UNKNOWN, UNKNOWN]])
    evaluator = AttributeEvaluator(space)
    evaluator.update(logits, target)
    assert evaluator.compute()["exact_match"] == pytest.approx(200 / 3)


def test_an_attribute_without_labels_is_nan_and_not_in_the_means() -> None:
    logits, target = _draw(30)
    target[:, 1] = UNKNOWN
    evaluator = AttributeEvaluator(SPACE, weights=[1, 5, 3])
    evaluator.update(logits, target)
    result = evaluator.compute()
    assert math.isnan(result["attributes"]["article"]["top1"])
    attributes = result["attributes"]
    assert result["top1"] == pytest.approx((attributes["gender"]["top1"] + 3 * attributes["color"]["top1"]) / 4)


def test_an_empty_evaluator_gives_nan_not_a_crash() -> None:
    assert math.isnan(AttributeEvaluator(SPACE).compute()["top1"])


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits, target = _draw(40)
    full, half = AttributeEvaluator(SPACE), AttributeEvaluator(SPACE)
    rounded = {name: values.bfloat16() for name, values in logits.items()}
    full.update({name: values.float() for name, values in rounded.items()}, target)
    half.update(rounded, target)
    assert half.compute() == full.compute()


def test_confusion_matrices_count_every_label() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, target = _draw(100)
    evaluator = AttributeEvaluator(SPACE, confusion=True)
    _in_batches(evaluator, logits, target, [60, 40])
    for index, (name, k) in enumerate(SPACE.num_classes.items()):
        known = target[:, index] != UNKNOWN
        expected = metrics.confusion_matrix(target[known, index], logits[name][known].argmax(1), labels=range(k))
        assert (evaluator.confusion_matrices()[name][:k].numpy() == expected).all()
    with pytest.raises(ValueError, match="confusion=True"):
        AttributeEvaluator(SPACE).confusion_matrices()


def test_a_target_of_wrong_shape_raises() -> None:
    with pytest.raises(ValueError, match=r"\[B, 3\]"):
        AttributeEvaluator(SPACE).update(_draw(4)[0], torch.zeros(4, dtype=torch.int64))


def _share(rows: int) -> dict[str, object]:
    """Evaluate this process's padded share of a split, as timm's sampler assigns it."""
    logits, target = _draw(rows)
    sampler = OrderedDistributedSampler(range(rows))
    indices = list(sampler)
    evaluator = AttributeEvaluator(SPACE, max_samples=sampler.num_valid_samples, confusion=True)
    for batch in (indices[i : i + 8] for i in range(0, len(indices), 8)):
        evaluator.update({name: values[batch] for name, values in logits.items()}, target[batch])
    return evaluator.compute(distributed=True) | {"matrix": evaluator.confusion_matrices(distributed=True)["gender"]}


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_several_processes_equal_one_exactly_without_padded_duplicates(processes: int) -> None:
    rows = 41  # no multiple of these numbers of processes, so the sampler pads
    evaluator = AttributeEvaluator(SPACE, confusion=True)
    evaluator.update(*_draw(rows))
    expected = evaluator.compute()
    for result in run_on_processes(processes, _share, rows):
        matrix = result.pop("matrix")
        assert torch.equal(matrix, evaluator.confusion_matrices()["gender"])
        assert result["attributes"]["article"]["count"] == expected["attributes"]["article"]["count"]
        for metric in ("top1", "top5", "balanced_accuracy", "macro_f1", "exact_match"):
            assert result[metric] == expected[metric]
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-6)
