"""The teacher in the same run: what it reads, what the student learns, in chunks, resumed, and on four processes."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from timm.data.view_plan import plan_views, with_teacher
from timm.models.multi_label import MultiLabelModel
from timm.task.class_imbalance import class_shares, logit_margins
from timm.task.ema_teacher import EmaTeacher, TeacherMeter
from timm.task.gradient_cache import chunk_forwards, detached, joint_result
from timm.task.pseudo_loss import SoftTargets
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.utils.model import unwrap_model

SPACE = LabelSpace({"gender": ("a", "b", "c"), "tags": ("p", "q", "r", "s")}, ["tags"])
SETS = LabelSpace({"size": ("L", "S"), "tags": ("p", "q", "r", "s")}, ["tags"])


class Tiny(nn.Module):
    """A backbone with dropout and without batch statistics, so that processes can be compared exactly."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10), nn.Tanh(), nn.Dropout(drop))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def _batch(images: int, seed: int = 0, views: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    target = torch.stack([torch.randint(3, (images,), generator=g), torch.randint(16, (images,), generator=g)], dim=1)
    target = target.masked_fill(torch.rand(target.shape, generator=g) < 0.5, UNKNOWN)
    return torch.randn(views * images, 3, 4, 4, generator=g), target


def _task(contrast: bool = True, drop: float = 0.0, skipped: tuple[str, ...] = (), **options: Any) -> Any:
    """Return a task whose average has been perturbed, so that teacher and student differ."""
    torch.manual_seed(0)
    plan = with_teacher(plan_views(contrast))
    model = MultiLabelModel(Tiny(drop), SPACE, 6 if contrast else 0, image_size=(3, 4, 4))
    task = SimCLRClassificationTask(model, plan, **{"pseudo_weight": 0.8} | options).train()
    task.setup_ema(decay=0.9, use_warmup=False)
    generator = torch.Generator().manual_seed(7)
    for parameter in task.trainable_module_ema.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    shares = class_shares(_batch(40, seed=99)[1], SPACE)
    task.soft_source = EmaTeacher(task, shares, skipped)
    return task


@pytest.mark.parametrize("contrast", [True, False])
def test_the_targets_are_the_averages_predictions_in_evaluation_mode_on_the_light_view(contrast: bool) -> None:
    task = _task(contrast, drop=0.5, logit_margins=[torch.tensor([0.5, 0.0, -2.0]), torch.zeros(4)])
    images, _ = _batch(6, views=len(task.plan))
    found = task.soft_source.predict(images)
    logits = task.trainable_module_ema.module.eval()(images[-6:])
    torch.testing.assert_close(found[0], (logits["gender"] + torch.tensor([0.5, 0.0, -2.0])).softmax(dim=1))
    torch.testing.assert_close(found[1], logits["tags"].sigmoid())


def test_the_teacher_gets_no_gradient_and_draws_no_random_number() -> None:
    task = _task(drop=0.5)
    images, target = _batch(6)
    images.requires_grad_()
    torch.manual_seed(3)
    task.soft_source([(images, target)])
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    task(images, target)["loss"].backward()
    assert all(p.grad is None for p in task.trainable_module_ema.parameters())
    assert not images.grad[12:].any()
    assert all(p.grad is not None for p in task.trainable_module.parameters())


def test_the_student_learns_weighted_targets_of_blank_cells_on_both_full_views() -> None:
    images, target = _batch(8)
    result = _task()(images, target)
    task = _task()
    [soft] = task.soft_source([(images, target)])
    logits, _ = task.trainable_module(images[:16])
    total = 0.0
    for index, name in enumerate(SPACE.attributes):
        blank = (target[:, index] == UNKNOWN).tolist()
        terms = []
        for row in range(16):
            scores, q = logits[name][row].double(), soft.values[index][row % 8].double()
            if name == "tags":
                p = scores.sigmoid()
                entropy = -(q * p.log() + (1 - q) * (1 - p).log()).mean()
            else:
                entropy = -(q * scores.log_softmax(0)).sum()
            if blank[row % 8]:
                terms.append(soft.weights[index][row % 8].item() * entropy.item())
        total += sum(terms) / len(terms) / 2
    assert result["pseudo_loss"].item() == pytest.approx(total, rel=1e-5)
    parts = result["simclr_loss"] * 0.5 + result["classification_loss"] * 0.5 + result["pseudo_loss"] * 0.8
    torch.testing.assert_close(result["loss"], parts)


def test_a_skipped_attribute_and_one_without_labels_have_no_targets() -> None:
    images, target = _batch(8)
    task = _task(skipped=("gender",))
    [soft] = task.soft_source([(images, target)])
    assert not soft.cells[0].any()
    assert torch.equal(soft.cells[1], target[:, 1] == UNKNOWN)
    assert "gender_pseudo_used" not in task.soft_source.numbers()
    unlabeled = EmaTeacher(task, [torch.zeros(3), torch.full((4,), 0.5)])
    assert unlabeled.taught == [False, True]


def test_the_weight_rises_over_the_warm_up() -> None:
    images, target = _batch(8)
    task = _task()
    task.soft_source.warmup_steps = 4
    for share in (0.25, 0.5, 0.75, 1.0, 1.0):
        result = task(images, target)
        parts = 0.5 * result["simclr_loss"] + 0.5 * result["classification_loss"]
        torch.testing.assert_close(result["loss"], parts + 0.8 * share * result["pseudo_loss"])


def test_shares_are_over_the_known_labels() -> None:
    target = torch.tensor([[0, 0b1], [0, 0b11], [0, UNKNOWN], [1, 0b1], [2, 0], [UNKNOWN, 0b100]])
    plain = class_shares(target, SPACE)
    assert plain[0].tolist() == pytest.approx([3 / 5, 1 / 5, 1 / 5])
    assert plain[1].tolist() == pytest.approx([3 / 5, 1 / 5, 1 / 5, 0])
    assert not class_shares(torch.full((3, 2), UNKNOWN), SPACE)[0].any()


def _cached(task: Any, chunks: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    results = []
    for forward in chunk_forwards(task, chunks, torch.enable_grad):
        result = forward()
        result["loss"].backward()
        results.append(detached(result))
    return joint_result(results)


def test_gradient_cached_chunks_have_the_losses_and_gradients_of_the_whole_batch() -> None:
    pieces = [_batch(rows, seed=rows) for rows in (3, 6, 2)]
    views = [torch.cat([images.chunk(3)[view] for images, _ in pieces]) for view in range(3)]
    whole, chunked = _task(), _task()
    for _ in range(2):  # the second step has running statistics
        expected = whole(torch.cat(views), torch.cat([target for _, target in pieces]))
        expected["loss"].backward()
        found = _cached(chunked, pieces)
    for name in ("loss", "pseudo_loss", "simclr_loss", "classification_loss"):
        torch.testing.assert_close(found[name], expected[name].detach())
    pairs = zip(whole.trainable_module.parameters(), chunked.trainable_module.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    assert whole.soft_numbers() == pytest.approx(chunked.soft_numbers())


def test_a_resumed_teacher_continues_bit_for_bit() -> None:
    whole, second = _task(), _task()
    whole.soft_source.warmup_steps = second.soft_source.warmup_steps = 5
    for seed in range(4):
        if seed == 2:
            second.soft_source.load_state_dict(whole.soft_source.state_dict())
        expected = whole(*_batch(8, seed))
        if seed >= 2:
            found = second(*_batch(8, seed))
            assert torch.equal(found["loss"], expected["loss"])


def test_the_meter_measures_use_and_agreement_as_loops_do() -> None:
    meter = TeacherMeter(SETS, [True, True], torch.device("cpu"))
    targets = torch.tensor([[0, 0b1], [1, UNKNOWN], [UNKNOWN, 0b11], [UNKNOWN, UNKNOWN], [UNKNOWN, UNKNOWN]])
    sizes = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8], [0.2, 0.8]])
    tags = torch.tensor([[0.9, 0.1, 0.1, 0.7]] * 5)
    soft = SoftTargets(
        [sizes, tags],
        [torch.tensor([9.0, 9.0, 0.5, 0.04, 0.2]), torch.tensor([9.0, 0.5, 9.0, 0.0, 1.0])],
        [targets[:, 0] == UNKNOWN, targets[:, 1] == UNKNOWN],
    )
    meter.update([sizes, tags], soft, targets)
    found = meter.compute()
    assert found["size_pseudo_used"] == pytest.approx(100 * (0.5 + 0.04 + 0.2) / 3)
    assert found["size_pseudo_agreement"] == 50  # the first is right, the second is not
    assert found["tags_pseudo_used"] == pytest.approx(50)
    assert found["tags_pseudo_agreement"] == pytest.approx(100 * (3 / 4 + 2 / 4) / 2)
    assert found["pseudo_left_out"] == 50  # the fourth of the two images without any label
    assert all(math.isnan(value) for value in meter.compute().values())


def _three_steps(sizes: list[int] | None) -> dict[str, Any]:
    """Return the weights and the teacher after three steps on joint batches, alone or on this process's share."""
    total = sum(sizes) if sizes else 16
    task = _task(attribute_weights={"tags": 2.0}, logit_margins=logit_margins(_batch(40, 99)[1], SPACE, 1.0))
    task.soft_source.warmup_steps = 2
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.5, momentum=0.9)
    if sizes:
        task.prepare_distributed()
    losses = []
    for step in range(3):
        images, target = _batch(total, seed=step)
        if sizes:
            first = sum(sizes[: dist.get_rank()])
            rows = torch.arange(first, first + sizes[dist.get_rank()])
            images, target = images[torch.cat([rows + view * total for view in range(3)])], target[rows]
        optimizer.zero_grad()
        result = task(images, target)
        result["loss"].backward()
        optimizer.step()
        task.update_ema(step=step + 10)
        losses.append(result["pseudo_loss"].detach())
    weights = {name: value.clone() for name, value in unwrap_model(task.trainable_module).state_dict().items()}
    state = task.soft_source.state_dict()["weighting"]
    return {"weights": weights, "state": state, "losses": torch.stack(losses), "numbers": task.soft_numbers()}


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [1, 7, 3, 5]])
def test_three_steps_on_four_processes_end_in_the_weights_and_statistics_of_one(sizes: list[int]) -> None:
    alone = _three_steps(None)
    shares = run_on_processes(4, _three_steps, sizes)
    for shared in shares:
        for kind in ("weights", "state"):
            for name, value in alone[kind].items():
                torch.testing.assert_close(shared[kind][name], value, rtol=1e-5, atol=1e-6)
        assert shared["numbers"] == pytest.approx(alone["numbers"], rel=1e-5)
    means = torch.stack([shared["losses"] for shared in shares]).mean(dim=0)
    torch.testing.assert_close(means, alone["losses"])
