"""A backbone is found below the prefixes of other programs, whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models.foreign_weights import find_backbone
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import create_multi_label_model

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red")})
ARCH = "test_resnet"


def weights_of(arch: str = ARCH, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    weights: dict[str, Tensor] = timm.create_model(arch, num_classes=0).state_dict()
    return {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in weights.items()}


def below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def moco(weights: dict[str, Tensor]) -> dict[str, Any]:
    head = {"fc.0.weight": torch.rand(2, 2), "fc.2.weight": torch.rand(2, 2)}
    state = below("module.encoder_q.", weights | head) | below("module.encoder_k.", weights_of(seed=2) | head)
    state |= {"module.queue": torch.rand(2, 2), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 200, "arch": ARCH, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def dino(weights: dict[str, Tensor]) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.rand(2, 2)}
    student = below("module.backbone.", weights_of(seed=2)) | below("module.", head)
    return {"student": student, "teacher": below("backbone.", weights) | head, "epoch": 3}


def lightning(weights: dict[str, Tensor]) -> dict[str, Any]:
    state = below("backbone.", weights) | {"projection_head.0.weight": torch.rand(2, 2)}
    return {"pytorch-lightning_version": "2.6.6", "global_step": 5, "callbacks": {}, "state_dict": state}


def lightly(weights: dict[str, Tensor]) -> dict[str, Any]:
    momentum = below("backbone_momentum.", weights_of(seed=2))
    return {"state_dict": momentum | below("backbone.", weights) | {"projection_head.0.weight": torch.rand(2, 2)}}


def solo(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {"state_dict": below("encoder.", weights) | {"classifier.weight": torch.rand(2, 2)}}


def nested(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {"model": below("student.backbone.", weights), "iteration": 3}


FILES = [
    (moco, "state_dict.module.encoder_q.", "state_dict.module.encoder_q.fc (2), state_dict.module.encoder_k ("),
    (dino, "teacher.backbone.", "student ("),
    (lightning, "state_dict.backbone.", "state_dict.projection_head"),
    (lightly, "state_dict.backbone.", "state_dict.backbone_momentum ("),
    (solo, "state_dict.encoder.", "state_dict.classifier"),
    (nested, "model.student.backbone.", ""),
    (lambda weights: below("model.", weights), "model.", ""),
]


def loaded(path: Path, setting: str, arch: str = ARCH) -> Any:
    """Return a backbone that has loaded a file by one of the two settings."""
    torch.manual_seed(7)
    if setting == "pretrained_path":
        return create_multi_label_model(arch, SPACE, image_size=(3, 32, 32), pretrained_path=str(path)).backbone
    model = create_multi_label_model(arch, SPACE, image_size=(3, 32, 32))
    load_initial_checkpoint(model, path)
    return model.backbone


@pytest.mark.parametrize("setting", ["pretrained_path", "initial_checkpoint"])
@pytest.mark.parametrize(("made", "prefix", "left_out"), FILES)
def test_the_prefix_is_taken_off_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str, made: Any, prefix: str, left_out: str
) -> None:
    caplog.set_level("INFO")
    weights = weights_of()
    torch.save(made(weights), tmp_path / "theirs.pth")
    state = loaded(tmp_path / "theirs.pth", setting).state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    [line] = [message for message in caplog.messages if "took the" in message]
    needed = sum(not name.endswith("num_batches_tracked") for name in weights)
    assert line.startswith(f"{tmp_path}/theirs.pth: took the {needed} tensors below '{prefix}' for the backbone")
    assert left_out in line
    assert ("; left out: " in line) == bool(left_out)


@pytest.mark.parametrize("setting", ["pretrained_path", "initial_checkpoint"])
def test_a_backbone_that_fits_in_part_is_refused(tmp_path: Path, setting: str) -> None:
    weights = weights_of()
    content = moco(weights)
    for side in "qk":
        del content["state_dict"][f"module.encoder_{side}.layer2.0.conv1.weight"]
    torch.save(content, tmp_path / "theirs.pth")
    with pytest.raises(UsageError) as error:
        loaded(tmp_path / "theirs.pth", setting)
    needed = sum(not name.endswith("num_batches_tracked") for name in weights)
    assert str(error.value).startswith(f"{setting}: {tmp_path}/theirs.pth does not fit ")
    assert str(error.value).endswith(
        f": below 'state_dict.module.encoder_q.' it has {needed - 1} of the backbone's {needed} tensors, and lacks "
        "layer2.0.conv1.weight: set arch to the architecture of the file"
    )


@pytest.mark.parametrize("setting", ["pretrained_path", "initial_checkpoint"])
def test_a_deeper_sibling_below_a_prefix_is_refused(tmp_path: Path, setting: str) -> None:
    torch.save({"state_dict": below("encoder.", weights_of("resnet34"))}, tmp_path / "theirs.pth")
    with pytest.raises(UsageError, match="does not fit"):
        loaded(tmp_path / "theirs.pth", setting, "resnet18")


@pytest.mark.parametrize("setting", ["pretrained_path", "initial_checkpoint"])
def test_a_safetensors_file_has_prefixes_too(tmp_path: Path, setting: str) -> None:
    weights = weights_of()
    safetensors.torch.save_file(below("encoder.", weights), tmp_path / "theirs.safetensors")
    state = loaded(tmp_path / "theirs.safetensors", setting).state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


@pytest.mark.parametrize("setting", ["pretrained_path", "initial_checkpoint"])
def test_torchvisions_resnet_fits_timms_also_as_a_sequence_of_its_children(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    from torchvision.models import resnet18

    caplog.set_level("INFO")
    torch.manual_seed(3)
    theirs = resnet18()
    sequence = nn.Sequential(*list(theirs.children())[:-1])
    torch.save(theirs.state_dict(), tmp_path / "plain.pth")
    torch.save({"state_dict": below("backbone.", sequence.state_dict())}, tmp_path / "lightly.ckpt")
    theirs.eval()
    images = torch.rand(2, 3, 32, 32)
    expected = sequence.eval()(images).flatten(1)
    for name in ("plain.pth", "lightly.ckpt"):
        backbone = loaded(tmp_path / name, setting, "resnet18").eval()
        torch.testing.assert_close(backbone(images), expected)


def test_files_without_the_backbone_are_left_to_other_readers() -> None:
    wanted = list(weights_of())
    for content in (
        {},
        {"a": 3},
        [1],
        None,
        {"state_dict": {"x": torch.zeros(1)}},
        below("a.", weights_of("test_vit")),
    ):
        assert find_backbone(content, wanted) is None
