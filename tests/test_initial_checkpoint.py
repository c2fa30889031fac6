import logging

import pytest
import safetensors.torch
import torch
from original_checkpoint import save_as_original

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import create_multi_label_model

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red", "teal"), "gender": ("Men", "Women")})


def make(seed, space=SPACE, arch="test_efficientnet", **kwargs):
    torch.manual_seed(seed)
    return create_multi_label_model(arch, space, image_size=(3, 32, 32), **kwargs)


def save(model, path, **args):
    """Save a model with what a run writes into its checkpoints."""
    weights = {"arch": model.config["arch"], "state_dict": model.state_dict()}
    torch.save(weights | {"multi_label": model.config, "args": args}, path)
    return path


def equal(one, other):
    weights, expected = one.state_dict(), other.state_dict()
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "timm.models.initial_checkpoint")


def test_a_checkpoint_of_the_same_label_space_is_taken_whole(tmp_path, caplog):
    source, model = make(0), make(1)
    load_initial_checkpoint(model, save(source, tmp_path / "a.pth"))
    assert equal(model, source)
    assert caplog.messages == [f"{tmp_path}/a.pth: took backbone, head color, head gender, projector; nothing is new"]


def test_weights_that_contradict_their_own_description_are_refused(tmp_path):
    source = make(0)
    weights = source.state_dict() | {"backbone.extra": torch.zeros(1)}
    content = {"arch": "test_efficientnet", "state_dict": weights, "multi_label": source.config, "args": {}}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"a.pth does not fit its own description .*backbone.extra"):
        load_initial_checkpoint(make(1), tmp_path / "a.pth")


def test_heads_that_have_learned_nothing_are_named(tmp_path, caplog):
    for weight, named in ((0.1, False), (0, True)):
        load_initial_checkpoint(make(1), save(make(0), tmp_path / "a.pth", classification_loss_weight=weight))
        assert ("its heads learned nothing in that run" in caplog.messages[-1]) == named


def test_heads_are_taken_by_attribute_where_the_classes_are_the_same(tmp_path, caplog):
    space = LabelSpace({"season": ("dry", "wet"), "gender": ("Men", "Women"), "color": ("blue", "red", "violet")})
    source, model, before = make(0), make(1, space), make(1, space)
    load_initial_checkpoint(model, save(source, tmp_path / "a.pth"))
    assert equal(model.backbone, source.backbone)
    assert equal(model.projector, source.projector)
    assert equal(model.heads[1], source.heads[1])  # gender
    assert equal(model.heads[0], before.heads[0])
    assert equal(model.heads[2], before.heads[2])  # as many classes, but others
    assert caplog.messages[-1].endswith("took backbone, head gender, projector; new: head color, head season")


def test_a_head_of_one_class_an_image_is_not_one_of_several(tmp_path, caplog):
    source, model = make(0), make(1, LabelSpace(SPACE.classes, {"color"}))
    load_initial_checkpoint(model, save(source, tmp_path / "a.pth"))
    assert caplog.messages == [f"{tmp_path}/a.pth: took backbone, head gender, projector; new: head color"]


def test_a_projection_head_of_another_shape_stays_new(tmp_path, caplog):
    model, before = make(1, projection_dim=16), make(1, projection_dim=16)
    load_initial_checkpoint(model, save(make(0), tmp_path / "a.pth"))
    assert equal(model.projector, before.projector), "whole or not at all"
    assert caplog.messages[-1].endswith("took backbone, head color, head gender; new: projector")
    load_initial_checkpoint(make(1, projection_layers=1), tmp_path / "a.pth")
    assert "new: projector" in caplog.messages[-1]
    load_initial_checkpoint(make(1, projection_dim=0), tmp_path / "a.pth")
    assert caplog.messages[-1].endswith("took backbone, head color, head gender; nothing is new")


def test_the_originals_checkpoint_gives_backbone_and_projector_and_no_nameless_heads(tmp_path, caplog):
    source, model = make(0), make(1)
    save_as_original(source, tmp_path / "original.pth.tar")
    load_initial_checkpoint(model, tmp_path / "original.pth.tar")
    assert equal(model.backbone, source.backbone)
    assert equal(model.projector, source.projector)
    assert caplog.messages[-1].endswith("took backbone, projector; new: head color, head gender")


@pytest.mark.parametrize("form", ["weights.pth", "weights.safetensors", "timm.pth.tar"])
def test_timms_weights_fill_the_backbone(tmp_path, caplog, form):
    weights = timm.create_model("test_efficientnet").state_dict()  # its classifier is left over
    if form == "weights.safetensors":
        safetensors.torch.save_file(weights, tmp_path / form)
    else:
        torch.save(weights if form == "weights.pth" else {"state_dict": weights, "epoch": 1}, tmp_path / form)
    model = make(1)
    load_initial_checkpoint(model, tmp_path / form)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)
    assert caplog.messages[-1].endswith("took backbone; new: head color, head gender, projector")


def test_a_misfit_is_one_sentence_and_changes_nothing(tmp_path):
    model, before = make(1), make(1)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    ours = save(make(0, arch="test_resnet"), tmp_path / "ours.pth")
    with pytest.raises(UsageError, match=r"does not fit the backbone: .*first being backbone\.conv_stem\.weight"):
        load_initial_checkpoint(model, tmp_path / "resnet.pth")
    with pytest.raises(UsageError, match=r"ours.pth holds a test_resnet, and arch is .*: use arch test_resnet"):
        load_initial_checkpoint(model, ours)
    torch.save({"a": 1, "conv_stem.weight": "not a tensor"}, tmp_path / "dict.pth")
    with pytest.raises(UsageError, match="does not fit the backbone"):
        load_initial_checkpoint(model, tmp_path / "dict.pth")
    assert equal(model, before)


def test_a_deeper_sibling_is_one_sentence(tmp_path):
    kwargs = {"arch": "test_resnet", "model_kwargs": {"layers": (1, 1, 1, 1)}}
    model, before = make(1, **kwargs), make(1, **kwargs)
    deeper = make(0, arch="test_resnet", model_kwargs={"layers": (3, 1, 1, 1)})
    torch.save(deeper.backbone.state_dict(), tmp_path / "plain.pth")
    for path in (save(deeper, tmp_path / "ours.pth"), tmp_path / "plain.pth"):
        with pytest.raises(
            UsageError,
            match=r"does not fit the backbone, which lacks 24 tensors of the file, .*backbone\.layer1\.1\.conv1",
        ):
            load_initial_checkpoint(model, path)
    assert equal(model, before)


def test_a_few_tensors_that_the_backbone_lacks_are_named(tmp_path, caplog):
    weights = timm.create_model("test_efficientnet").state_dict() | {"blocks.0.0.extra.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "a.pth")
    load_initial_checkpoint(make(1), tmp_path / "a.pth")
    assert caplog.messages[-1].endswith("has no place for backbone.blocks.0.0.extra.weight: not loaded")


def test_the_setting_that_adapts_weights_to_another_image_size_is_named(tmp_path):
    torch.save(timm.create_model("test_vit", img_size=160).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(UsageError, match=r"first being backbone\.pos_embed; pretrained_path adapts"):
        load_initial_checkpoint(make(1, arch="test_vit"), tmp_path / "vit.pth")


def test_an_unreadable_file_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"initial_checkpoint: no file .*none\.pth"):
        load_initial_checkpoint(make(1), tmp_path / "none.pth")
    (tmp_path / "garbage.pth").write_bytes(b"\x80garbage")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("garbage.pth", "empty.pth", "garbage.safetensors", "list.pth"):
        with pytest.raises(UsageError, match=f"initial_checkpoint: .*{name} cannot be read: .") as caught:
            load_initial_checkpoint(make(1), tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
