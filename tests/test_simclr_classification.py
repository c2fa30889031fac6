"""The joint task: what it adds up, what each view is for, and several processes against one."""

import math

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from torch import nn

from catalog.label_space import UNKNOWN, LabelSpace
from simclr import nt_xent_loss, sup_con_loss
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.view_plan import ViewPlan, plan_views, with_teacher
from timm.models.multi_label import MultiLabelModel
from timm.task.contrastive_loss import ContrastiveLoss
from timm.task.pseudo_loss import PseudoLoss, SoftTargets
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.utils.model import unwrap_model

SPACE = LabelSpace.numbered({"gender": 3, "color": 4})


class Tiny(nn.Module):
    """A backbone without batch statistics, so that processes can be compared exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10), nn.Tanh())

    def forward(self, images):
        return self.body(images)


def _model(projection_dim: int = 6) -> MultiLabelModel:
    torch.manual_seed(0)
    return MultiLabelModel(Tiny(), SPACE, projection_dim, image_size=(3, 4, 4))


def _task(plan: ViewPlan | None = None, **options) -> SimCLRClassificationTask:
    plan = plan or plan_views(contrast=True)
    return SimCLRClassificationTask(_model(6 if plan.contrast else 0), plan, **options).train()


def _batch(images: int, views: int = 2, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    target = torch.stack([torch.randint(k, (images,), generator=g) for k in (3, 4)], dim=1)
    target = target.masked_fill(torch.rand(target.shape, generator=g) < 0.3, UNKNOWN)
    return torch.randn(views * images, 3, 4, 4, generator=g), target


def test_the_loss_is_the_weighted_sum_of_the_two_that_are_logged_unweighted() -> None:
    images, target = _batch(6)
    result = _task(simclr_loss_weight=0.1, classification_loss_weight=0.9)(images, target)
    expected = 0.1 * result["simclr_loss"] + 0.9 * result["classification_loss"]
    torch.testing.assert_close(result["loss"], expected)


def test_the_contrastive_loss_is_that_of_the_two_views_projections() -> None:
    images, target = _batch(6)
    task = _task(contrastive=ContrastiveLoss(temperature=0.2))
    _, z = task.trainable_module(images)
    torch.testing.assert_close(task(images, target)["simclr_loss"], nt_xent_loss(z[:6], z[6:], 0.2))


@pytest.mark.parametrize("mixing", [False, True])
def test_a_contrastive_loss_reads_the_labels_of_the_images_as_they_were_before_mixing(mixing: bool) -> None:
    plan = plan_views(True, mixing=mixing)
    images, target = _batch(6, views=len(plan))
    mixup = MultiLabelMixup(SPACE, mixup_alpha=1.0, cutmix_alpha=0.0, mode="elem") if mixing else None
    task = _task(plan, mixup=mixup, contrastive=ContrastiveLoss("supcon"))
    _, z = task.trainable_module(images)
    found = task(images, target)["simclr_loss"]
    torch.testing.assert_close(found, sup_con_loss(*z.chunk(len(plan))[-2:], target, 0.5))
    assert (found - nt_xent_loss(*z.chunk(len(plan))[-2:], 0.5)).abs() > 1e-3


def _balanced_task(variances: list[float]) -> SimCLRClassificationTask:
    torch.manual_seed(0)
    model = MultiLabelModel(Tiny(), SPACE, 6, balance="uncertainty", image_size=(3, 4, 4))
    model.log_variances.data = torch.tensor(variances).log()
    return SimCLRClassificationTask(model, plan_views(True), attribute_weights={"gender": 3.0}).train()


def test_learned_variances_weigh_the_attributes_as_in_the_paper() -> None:
    images, target = _batch(6)
    task = _balanced_task([2.0, 0.5])
    result = task(images, target)
    gender, color = result["gender_loss"], result["color_loss"]
    expected = 0.75 * (gender / 2 + math.log(2) / 2) + 0.25 * (color / 0.5 + math.log(0.5) / 2)
    torch.testing.assert_close(result["classification_loss"], expected)
    result["classification_loss"].backward()
    torch.testing.assert_close(
        task.log_variances.grad, torch.stack([0.75 * (0.5 - gender / 2), 0.25 * (0.5 - color / 0.5)])
    )
    assert task.weights()["gender_weight"] == pytest.approx(0.75 / 2)


def test_the_variance_of_an_attribute_without_labels_in_the_batch_stays() -> None:
    images, target = _batch(6)
    target[:, 1] = UNKNOWN
    task = _balanced_task([2.0, 0.5])
    task(images, target)["classification_loss"].backward()
    assert task.log_variances.grad[0] != 0
    assert task.log_variances.grad[1] == 0


def test_attribute_weights_weigh_a_mean() -> None:
    images, target = _batch(6)
    result = _task(attribute_weights={"color": 3.0})(images, target)
    expected = (result["gender_loss"] + 3 * result["color_loss"]) / 4
    torch.testing.assert_close(result["classification_loss"], expected)


@pytest.mark.parametrize(("classify_view", "rows"), [("first", range(6)), ("both", range(12)), ("weak", range(6))])
def test_the_heads_learn_from_the_views_of_the_plan(classify_view: str, rows: range) -> None:
    plan = plan_views(True, classify_view)
    images, target = _batch(6, views=len(plan))
    images.requires_grad_()
    task = _task(plan, simclr_loss_weight=0.0)
    result = task(images, target)
    result["loss"].backward()
    moved = {row for row in range(len(images)) if images.grad[row].abs().sum() > 0}
    labeled = {row for row in rows if (target[row % 6] != UNKNOWN).any()}
    assert moved == labeled
    assert len(result["output"]["gender"]) == len(rows) == len(task.classified_targets(target))


@pytest.mark.parametrize("classify_view", ["first", "both", "weak"])
def test_all_views_go_through_the_backbone_in_one_pass(classify_view: str) -> None:
    plan = plan_views(True, classify_view)
    task, batches = _task(plan), []
    task.trainable_module.backbone.register_forward_hook(lambda module, inputs, h: batches.append(len(inputs[0])))
    task(*_batch(6, views=len(plan)))
    assert batches == [6 * len(plan)]


def test_the_contrastive_loss_leaves_the_light_view_alone() -> None:
    plan = plan_views(True, "weak")
    images, target = _batch(6, views=3)
    images.requires_grad_()
    _task(plan, classification_loss_weight=0.0)(images, target)["loss"].backward()
    assert images.grad[:6].abs().sum() == 0
    assert (images.grad[6:].flatten(1).abs().sum(1) > 0).all()


def test_without_a_contrastive_loss_there_is_none_and_no_projection() -> None:
    task = _task(plan_views(contrast=False))
    result = task(*_batch(6, views=1))
    assert "simclr_loss" not in result
    assert task.trainable_module.projector is None


def test_a_batch_without_any_label_still_trains_contrastively() -> None:
    images, target = _batch(6)
    task = _task()
    result = task(images, torch.full_like(target, UNKNOWN))
    result["loss"].backward()
    assert result["classification_loss"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in task.trainable_module.parameters())
    assert task.trainable_module.heads[0].weight.grad.abs().sum() == 0
    assert task.trainable_module.backbone.body[1].weight.grad.abs().sum() > 0


def test_mixing_changes_the_classified_view_and_spares_the_contrasted_ones() -> None:
    plan = plan_views(True, mixing=True)
    mixup = MultiLabelMixup(SPACE, mixup_alpha=1.0, cutmix_alpha=0.0, mode="elem")
    images, target = _batch(6, views=3)
    before = images.clone()
    result = _task(plan, mixup=mixup, smoothing=0.1)(images, target)
    assert not torch.equal(images[:6], before[:6])
    assert torch.equal(images[6:], before[6:])
    assert math.isfinite(result["loss"].item())


def test_adaptive_clipping_leaves_heads_and_projection_out() -> None:
    task = _task()
    assert len(list(task.get_clip_parameters())) == len(list(task.trainable_module.parameters()))
    assert {id(p) for p in task.get_clip_parameters(exclude_head=True)} == {
        id(p) for p in task.trainable_module.backbone.parameters()
    }


def _three_steps(sizes: list[int] | None, contrastive: tuple[str, bool] = ("ntxent", False)) -> dict[str, torch.Tensor]:
    """Weights after three optimizer steps on joint batches, alone or on this process's share of each."""
    total = sum(sizes) if sizes else 10
    loss = ContrastiveLoss(contrastive[0], mask_false_negatives=contrastive[1])
    task = _task(smoothing=0.1, attribute_weights={"color": 2.0}, contrastive=loss)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    if sizes:
        task.prepare_distributed()
    for step in range(3):
        images, target = _batch(total, seed=step)
        if sizes:
            first = sum(sizes[: dist.get_rank()])
            rows = torch.arange(first, first + sizes[dist.get_rank()])
            images, target = images[torch.cat([rows, rows + total])], target[rows]  # view 0, view 1
        optimizer.zero_grad()
        result = task(images, target)
        result["loss"].backward()
        optimizer.step()
        losses.append(result["simclr_loss"].detach())
    weights = unwrap_model(task.trainable_module).state_dict()
    return {name: value.clone() for name, value in weights.items()} | {"losses": torch.stack(losses)}


@pytest.mark.parametrize("sizes", [[5, 5], [3, 7], [2, 5, 3], [1, 4, 3, 2]])
def test_three_steps_on_several_processes_end_in_the_weights_of_one(sizes: list[int]) -> None:
    assert_ends_in_the_weights_of_one(sizes, ("ntxent", False))


@pytest.mark.parametrize("contrastive", [("ntxent", True), ("dcl", False), ("dcl", True), ("supcon", False)], ids=str)
def test_three_steps_with_each_contrastive_loss_end_in_the_weights_of_one(contrastive: tuple[str, bool]) -> None:
    assert_ends_in_the_weights_of_one([2, 5, 3], contrastive)


def assert_ends_in_the_weights_of_one(sizes: list[int], contrastive: tuple[str, bool]) -> None:
    alone = _three_steps(None, contrastive)
    for shared in run_on_processes(len(sizes), _three_steps, sizes, contrastive):
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


class Given:
    """A source of soft targets that follow from the number of images."""

    def __init__(self, factor: float = 1.0) -> None:
        self.share = factor

    def __call__(self, chunks):
        return [_soft(len(target)) for _, target in chunks]

    def factor(self) -> float:
        return self.share

    def numbers(self) -> dict[str, float]:
        return {}


def _soft(images: int) -> SoftTargets:
    g = torch.Generator().manual_seed(images)
    values = [torch.randn(images, k, generator=g).softmax(dim=1) for k in (3, 4)]
    weights = [torch.rand(images, generator=g) for _ in values]
    return SoftTargets(values, weights, [torch.rand(images, generator=g) < 0.5 for _ in values])


@pytest.mark.parametrize(("contrast", "classify_view"), [(True, "both"), (True, "weak"), (False, "first")])
def test_soft_targets_add_their_weighted_loss_on_the_full_views(contrast: bool, classify_view: str) -> None:
    plan = with_teacher(plan_views(contrast, classify_view))
    images, target = _batch(6, views=len(plan))
    task = _task(plan, pseudo_weight=0.7, attribute_weights={"color": 3.0})
    without = task(images, target)
    assert "pseudo_loss" not in without
    task.soft_source = Given(factor=0.5)
    result = task(images, target)
    logits, _ = task.trainable_module(images)
    taught = {n: torch.cat([values.chunk(len(plan))[v] for v in plan.taught]) for n, values in logits.items()}
    gender, color = PseudoLoss(SPACE)(taught, _soft(6).repeated(len(plan.taught)))
    torch.testing.assert_close(result["pseudo_loss"], (gender + 3 * color) / 4)
    torch.testing.assert_close(result["loss"], without["loss"] + 0.35 * result["pseudo_loss"])


@pytest.mark.parametrize("contrast", [True, False])
def test_the_student_never_reads_the_view_that_only_the_teacher_labels(contrast: bool) -> None:
    plan = with_teacher(plan_views(contrast))
    images, target = _batch(6, views=len(plan))
    images.requires_grad_()
    task, batches = _task(plan, pseudo_weight=1.0), []
    task.soft_source = Given()
    task.trainable_module.backbone.register_forward_hook(lambda module, inputs, h: batches.append(len(inputs[0])))
    task(images, target)["loss"].backward()
    assert batches == [6 * (len(plan) - 1)]
    assert images.grad[: 6 * (len(plan) - 1)].flatten(1).any(dim=1).any()
    assert not images.grad[6 * (len(plan) - 1) :].any()
