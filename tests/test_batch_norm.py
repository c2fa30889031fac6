"""The batch norm flags change every batch norm there is, survive in the checkpoint, and refuse to do nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.data.view_plan import plan_views
from timm.models.batch_norm import freeze_batch_norm, set_batch_norm, split_batch_norm, synchronize_batch_norm
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.task.simclr_classification import SimCLRClassificationTask

SPACE = LabelSpace.numbered({"color": 3})


def make(arch: str = "test_resnet") -> MultiLabelModel:
    torch.manual_seed(0)
    return create_multi_label_model(arch, SPACE, image_size=(3, 32, 32), projection_norm="batch", projection_dim=8)


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    ("words", "momentum", "eps"),
    [((True, None, None), 0.01, 1e-3), ((True, 0.2, None), 0.2, 1e-3), ((False, None, 0.5), 0.1, 0.5)],
)
def test_every_batch_norm_takes_the_settings(
    words: tuple[bool, float | None, float | None], momentum: float, eps: float
) -> None:
    model = make()
    set_batch_norm(model, *words)
    assert len(norms(model)) > len(norms(model.backbone)) > 1
    assert {(norm.momentum, norm.eps) for norm in norms(model)} == {(momentum, eps)}


def test_without_flags_every_batch_norm_keeps_its_own() -> None:
    model = make()
    before = [(norm.momentum, norm.eps) for norm in norms(model)]
    set_batch_norm(model, False, None, None)
    assert [(norm.momentum, norm.eps) for norm in norms(model)] == before
    assert "batch_norm" not in model.config


def test_a_checkpoint_predicts_with_the_epsilon_of_training(tmp_path) -> None:
    model = make()
    set_batch_norm(model, False, None, 0.5)
    task = SimCLRClassificationTask(model, plan_views(contrast=True))
    torch.save({"epoch": 0, **task.get_checkpoint_state()}, tmp_path / "last.pth.tar")
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = model.eval()(images)["color"]
        found = MultiLabelModel.from_checkpoint(tmp_path / "last.pth.tar")(images)["color"]
        other = make().eval()(images)["color"]
    assert torch.equal(found, expected)
    assert not torch.allclose(other, expected)


def test_split_statistics_are_each_views_own() -> None:
    model = make()
    split_batch_norm(model, 2)
    model.train()
    model(torch.cat([torch.randn(4, 3, 32, 32), 5 + torch.randn(4, 3, 32, 32)]))
    first = next(module for module in model.backbone.modules() if hasattr(module, "aux_bn"))
    assert not torch.allclose(first.running_mean, first.aux_bn[0].running_mean)


def test_synchronized_batch_norms_replace_all_and_need_a_gpu() -> None:
    model = make()
    count = len(norms(model))
    with pytest.raises(UsageError, match="sync_bn needs GPUs"):
        synchronize_batch_norm(model, "cpu")
    synchronize_batch_norm(model, "cuda")
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules()) == count


@pytest.mark.parametrize(
    "apply",
    [
        lambda model: set_batch_norm(model, True, None, None),
        lambda model: split_batch_norm(model, 2),
        freeze_batch_norm,
        lambda model: synchronize_batch_norm(model, "cuda"),
    ],
    ids=["settings", "split", "frozen", "synchronized"],
)
def test_a_model_without_batch_norm_refuses(apply: Callable[[MultiLabelModel], None]) -> None:
    model = create_multi_label_model("test_vit", SPACE, image_size=(3, 32, 32))
    with pytest.raises(UsageError, match="test_vit has no batch norm: leave the batch norm flags out"):
        apply(model)


def test_one_view_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="split_bn needs two views or more"):
        split_batch_norm(make(), 1)


# Frozen statistics


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_frozen_norms_compute_the_same_in_training_and_in_evaluation(arch: str) -> None:
    model = make(arch).double()
    for norm in norms(model.backbone):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.eval().forward_features(images)
    assert not torch.allclose(model.train().forward_features(images), expected)
    model.load_state_dict(before)
    freeze_batch_norm(model)
    assert torch.equal(model.train().forward_features(images), expected)
    assert not any(norm.training for norm in norms(model.backbone))
    assert all(norm.training for norm in norms(model.projector))
    assert model.keeps_statistics
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    scales = [parameter for norm in norms(model.backbone) for parameter in norm.parameters()]
    assert scales
    assert all(parameter.requires_grad for parameter in scales)


def test_the_average_keeps_the_frozen_statistics() -> None:
    model = make()
    freeze_batch_norm(model)
    task = SimCLRClassificationTask(model, plan_views(contrast=True))
    task.setup_ema(decay=0.5)
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    task.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    task(torch.randn(8, 3, 32, 32), torch.zeros(4, 1, dtype=torch.int64))["loss"].backward()
    optimizer.step()
    task.update_ema(step=5)
    averaged = task.get_trainable_module(ema=True).module
    for trained in (model, averaged):
        torch.testing.assert_close(dict(trained.backbone.named_buffers()), before, rtol=0, atol=0)
    assert not torch.equal(averaged.heads[0].weight, model.heads[0].weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["compiled", "checkpointed"])
def test_frozen_norms_have_the_same_gradients_when_compiled_or_checkpointed(way: str) -> None:
    images, target = torch.randn(8, 3, 32, 32), torch.zeros(4, 1, dtype=torch.int64)
    gradients = []
    for changed in (False, True):
        model = make("test_efficientnet")
        freeze_batch_norm(model)
        task = SimCLRClassificationTask(model, plan_views(contrast=True))
        if changed and way == "compiled":
            task.compile(backend="aot_eager")
        elif changed:
            model.set_grad_checkpointing(True)
        task.eval()
        task.train()
        task(images, target)["loss"].backward()
        assert not any(norm.training for norm in norms(model.backbone))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
