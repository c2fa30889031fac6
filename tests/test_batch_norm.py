"""The batch norm flags change every batch norm there is, survive in the checkpoint, and refuse to do nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.data.view_plan import plan_views
from timm.models.batch_norm import set_batch_norm, split_batch_norm, synchronize_batch_norm
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
        lambda model: synchronize_batch_norm(model, "cuda"),
    ],
    ids=["settings", "split", "synchronized"],
)
def test_a_model_without_batch_norm_refuses(apply: Callable[[MultiLabelModel], None]) -> None:
    model = create_multi_label_model("test_vit", SPACE, image_size=(3, 32, 32))
    with pytest.raises(UsageError, match="test_vit has no batch norm: leave the batch norm flags out"):
        apply(model)


def test_one_view_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="split_bn needs two views or more"):
        split_batch_norm(make(), 1)
