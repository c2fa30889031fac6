import pickle
import re
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from original_checkpoint import save_as_original

import timm
from catalog.label_space import LabelSpace
from timm.data.view_plan import plan_views
from timm.layers import convert_splitbn_model
from timm.models import multi_label_checkpoint
from timm.models.multi_label import MultiLabelModel, build_model, create_multi_label_model
from timm.models.multi_label_checkpoint import CheckpointError, read_checkpoint
from timm.optim import create_optimizer_v2
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.utils import CheckpointSaver

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red", "teal"), "gender": ("Men", "Women"), "a.b c": ("p", "q")})
GOLDEN = Path(__file__).parents[2] / "shared/golden"


def make(arch="test_resnet", space=SPACE, **kwargs):
    torch.manual_seed(0)
    model = create_multi_label_model(arch, space, image_size=(3, 32, 32), **kwargs)
    with torch.no_grad():  # running statistics that a new model does not have
        model.train()(torch.randn(8, 3, 32, 32))
    return model.eval()


def save(model, folder, ema=False, split_bn=False):
    """Save as train.py does; return the path and the task."""
    if split_bn:
        convert_splitbn_model(model.backbone, 2)
    plan = plan_views(contrast=True, classify_view="both", mixing=False, aug_splits=0)
    task = SimCLRClassificationTask(model, plan)
    optimizer = create_optimizer_v2(model, "adamw", lr=0.1)
    if ema:
        task.setup_ema(decay=0.5)
    task.train()
    targets = torch.zeros(4, len(model.label_space), dtype=torch.long)
    task(torch.randn(len(plan) * 4, 3, 32, 32), targets)["loss"].backward()
    optimizer.step()
    task.update_ema(step=10)
    saver = CheckpointSaver(task.get_trainable_module(), optimizer, checkpoint_dir=str(folder), task=task)
    task.checkpoint_extras["args"] = lambda: {"model": "test_resnet", "lr": 0.1}
    saver.save_checkpoint(0, metric=1.0)
    task.eval()
    return folder / "last.pth.tar", task


def same_outputs(one, other):
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        h, expected = one.forward_features(images), other.forward_features(images)
        heads, expected_heads = one.forward_heads(h), other.forward_heads(expected)
        assert torch.equal(h, expected)
        assert heads.keys() == expected_heads.keys()
        assert all(torch.equal(heads[name], expected_heads[name]) for name in heads)
        if one.projector is not None:
            assert torch.equal(one.forward_projection(h), other.forward_projection(expected))
    return True


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("test_resnet", {"global_pool": "catavgmax", "drop_rate": 0.3, "projection_layers": 3}),
        ("test_vit", {"drop_path_rate": 0.1, "projection_norm": "batch"}),
        ("test_efficientnet", {"projection_dim": 32, "model_kwargs": {"act_layer": "silu"}}),
    ],
)
def test_a_checkpoint_alone_rebuilds_the_model_bit_for_bit(tmp_path, arch, kwargs):
    path, task = save(make(arch, **kwargs), tmp_path)
    saved = torch.load(path, weights_only=True)  # without any allowance
    assert saved["arch"] == arch
    model = MultiLabelModel.from_checkpoint(path)
    assert not model.training
    assert model.label_space == SPACE
    assert model.config == task.get_trainable_module().config
    assert same_outputs(model, task.get_trainable_module())


def test_a_rebuilt_model_saves_and_rebuilds_again(tmp_path):
    path, task = save(make(), tmp_path)
    again = MultiLabelModel.from_checkpoint(path)
    torch.save({"state_dict": again.state_dict(), "multi_label": again.config}, tmp_path / "again.pth")
    assert same_outputs(MultiLabelModel.from_checkpoint(tmp_path / "again.pth"), task.get_trainable_module())


def test_the_averaged_weights_are_taken_when_asked_for(tmp_path):
    path, task = save(make(), tmp_path, ema=True)
    averaged = MultiLabelModel.from_checkpoint(path, use_ema=True)
    assert same_outputs(averaged, task.get_trainable_module(ema=True).module)
    assert not torch.equal(averaged.heads[0].weight, MultiLabelModel.from_checkpoint(path).heads[0].weight)


def test_a_checkpoint_without_averaged_weights_says_so(tmp_path):
    path, _ = save(make(), tmp_path)
    with pytest.raises(CheckpointError, match="was trained without model_ema, so it has no averaged weights"):
        MultiLabelModel.from_checkpoint(path, use_ema=True)


def test_the_batch_norms_of_augmented_views_are_left_out(tmp_path):
    path, task = save(make(), tmp_path, split_bn=True)
    assert any(".aux_bn." in name for name in torch.load(path, weights_only=True)["state_dict"])
    assert same_outputs(MultiLabelModel.from_checkpoint(path), task.get_trainable_module())


def test_the_prefix_of_a_compiled_or_distributed_model_is_dropped(tmp_path):
    model = make()
    weights = {f"_orig_mod.module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "multi_label": model.config}, tmp_path / "wrapped.pth")
    assert same_outputs(MultiLabelModel.from_checkpoint(tmp_path / "wrapped.pth"), model)


def test_the_class_order_is_the_checkpoints_whatever_the_table_says_now(tmp_path):
    table = tmp_path / "train.csv"
    table.write_text("image_path,color\na.png,red\nb.png,blue\nc.png,teal\n")
    unsorted = LabelSpace({"color": ("red", "blue", "teal")})
    path, _ = save(make(space=unsorted), tmp_path)
    table.write_text("image_path,color\na.png,amber\nb.png,blue\n")
    assert MultiLabelModel.from_checkpoint(path).label_space == unsorted


class Burglar:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def test_a_missing_file_is_one_sentence(tmp_path):
    for path, sentence in (tmp_path / "none.pth", "no checkpoint at"), (tmp_path, "is a folder.*: name a file in it"):
        with pytest.raises(CheckpointError, match=sentence):
            MultiLabelModel.from_checkpoint(path)


@pytest.mark.parametrize("seed", range(40))
def test_garbage_is_one_sentence(tmp_path, seed):
    path = tmp_path / "garbage.pth"
    garbage = np.random.default_rng(seed).bytes(seed * 10)
    path.write_bytes(b"" if seed == 0 else b"\x80\x02" * (seed % 2) + garbage)
    with pytest.raises(CheckpointError, match=r"garbage\.pth cannot be read as a checkpoint \(.") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_one_sentence(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pth cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "cut.pth")


def test_a_zip_file_of_another_kind_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"other\.zip cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "other.zip")


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2], {"state_dict": 3}, torch.zeros(2)], ids=str)
def test_a_file_without_state_dict_is_one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth is not a training checkpoint: it has no state_dict"):
        read_checkpoint(tmp_path / "other.pth")


def test_damaged_attributes_are_one_sentence_with_the_file(tmp_path):
    broken = {"state_dict": {}, "multi_label": make().config | {"label_space": {"attributes": ["color"]}}}
    torch.save(broken, tmp_path / "broken.pth")
    checkpoint = read_checkpoint(tmp_path / "broken.pth")
    for read in (lambda: checkpoint.label_space, lambda: build_model(checkpoint)):
        with pytest.raises(CheckpointError, match=r"broken\.pth cannot be used: the lists attributes and classes are"):
            read()


def test_weights_and_checkpoints_of_timm_are_refused(tmp_path):
    weights = timm.create_model("test_resnet").state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth is not a training checkpoint"):
        MultiLabelModel.from_checkpoint(tmp_path / "weights.pth")
    torch.save({"state_dict": weights, "args": Namespace(model="test_resnet")}, tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match=r"names no attributes, .*initial_checkpoint or pretrained_path"):
        MultiLabelModel.from_checkpoint(tmp_path / "timm.pth")


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, form):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    content = {"state_dict": {}, "multi_label": Burglar(trace)}
    if form == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"evil\.pth cannot be read as a checkpoint") as caught:
        MultiLabelModel.from_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    with Path.open(path, "rb") as file:  # the trap itself works
        if form == "pickle":
            pickle.load(file)
            assert trace.exists()


# The format


def test_the_module_lists_every_key_that_training_writes(tmp_path):
    path, _ = save(make(), tmp_path, ema=True)
    saved = torch.load(path, weights_only=True)
    listed = set(re.findall(r"^ +([a-z_]+)(?:, [a-z_]+)* {2,}", multi_label_checkpoint.__doc__, re.MULTILINE))
    assert set(saved) | set(saved["multi_label"]) <= listed
    assert {"optimizer", "saver", "state_dict_ema", "multi_label", "metric"} <= set(saved)


def test_a_checkpoint_of_ours_has_typed_entries(tmp_path):
    path, task = save(make(), tmp_path, ema=True)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.path, checkpoint.arch, checkpoint.epoch, checkpoint.next_epoch) == (path, "test_resnet", 0, 1)
    assert checkpoint.label_space == SPACE
    assert checkpoint.trained_flags == {"model": "test_resnet", "lr": 0.1}
    assert not checkpoint.is_original
    assert checkpoint.saver["best_metric"] == 1.0 or checkpoint.saver["pending"] == (0, 1.0)
    assert checkpoint.chosen == {}
    averaged = task.get_trainable_module(ema=True).module.state_dict()
    assert all(torch.equal(checkpoint.weights(ema=True)[name], averaged[name]) for name in averaged)


def test_thresholds_are_those_of_the_weights(tmp_path):
    space = LabelSpace({"tags": ("a", "b")}, {"tags"})
    model = make(space=space)
    entries = {"state_dict": model.state_dict(), "state_dict_ema": model.state_dict(), "multi_label": model.config}
    torch.save(entries | {"thresholds": {"tags": 0.2}, "thresholds_ema": {"tags": 0.3}}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").chosen == {
        "thresholds": {"tags": 0.2},
        "thresholds_ema": {"tags": 0.3},
    }
    assert MultiLabelModel.from_checkpoint(tmp_path / "a.pth").thresholds == {"tags": 0.2}
    assert MultiLabelModel.from_checkpoint(tmp_path / "a.pth", use_ema=True).thresholds == {"tags": 0.3}


@pytest.mark.parametrize("version", [None, 1, 2])
def test_the_next_epoch_follows_timms_version(tmp_path, version):
    saved = {"state_dict": {}, "epoch": 3} | ({} if version is None else {"version": version})
    torch.save(saved, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").next_epoch == (4 if version == 2 else 3)


def test_flags_are_a_plain_dict_also_where_the_file_has_a_namespace(original):
    _, path = original
    checkpoint = read_checkpoint(path)
    assert checkpoint.trained_flags == {"model": "test_efficientnet", "batch_size": 32}
    assert checkpoint.is_original
    assert checkpoint.label_space is None
    assert (checkpoint.arch, checkpoint.next_epoch) == ("test_efficientnet", 4)


@pytest.mark.parametrize("form", ["weights.pth", "model.pth", "weights.safetensors"])
def test_a_bare_file_of_weights_is_read_where_it_is_accepted(tmp_path, form):
    weights = {"conv.weight": torch.ones(2)}
    if form == "weights.safetensors":
        safetensors.torch.save_file(weights, tmp_path / form)
    else:
        torch.save({"model": weights, "epoch": 3} if form == "model.pth" else weights | {"a": 1}, tmp_path / form)
    checkpoint = read_checkpoint(tmp_path / form, bare=True)
    assert checkpoint.weights().keys() == {"conv.weight"}
    assert (checkpoint.arch, checkpoint.label_space, checkpoint.optimizer, checkpoint.next_epoch) == (None,) * 3 + (0,)
    with pytest.raises(CheckpointError, match="it has no state_dict"):
        read_checkpoint(tmp_path / form)


# Checkpoints of the original


@pytest.fixture
def original(tmp_path):
    """Return a model and the file that the original would have written of it."""
    model = make("test_efficientnet", LabelSpace({"color": ("blue", "red", "teal"), "gender": ("Men", "Women")}))
    save_as_original(model, tmp_path / "original.pth.tar")
    return model, tmp_path / "original.pth.tar"


def test_the_originals_checkpoint_gives_the_originals_outputs(original):
    source, path = original
    model = MultiLabelModel.from_checkpoint(path)
    assert not model.training
    assert model.label_space == LabelSpace.numbered({"color": 3, "gender": 2})
    assert same_outputs(model, source)


def test_the_originals_checkpoint_takes_class_names_of_the_same_number(original):
    source, path = original
    assert MultiLabelModel.from_checkpoint(path, label_space=source.label_space).label_space == source.label_space
    other = LabelSpace({"color": ("blue", "red"), "gender": ("Men", "Women")})
    with pytest.raises(CheckpointError, match="has 3 color, 2 gender classes but the table has 2 color, 2 gender: "):
        MultiLabelModel.from_checkpoint(path, label_space=other)


def test_class_names_in_another_order_of_attributes_keep_each_head_its_attribute(original):
    source, path = original
    turned = LabelSpace({"gender": ("Men", "Women"), "color": ("blue", "red", "teal")})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, expected = MultiLabelModel.from_checkpoint(path, label_space=turned)(images), source(images)
    assert list(logits) == ["gender", "color"]
    for name in expected:  # all heads are one product of matrices, whose rounding depends on their order
        torch.testing.assert_close(logits[name], expected[name], atol=1e-6, rtol=1e-6)


def test_a_backbone_that_the_installed_timm_builds_differently_is_one_sentence(original):
    _, path = original
    with torch.serialization.safe_globals([Namespace]):
        saved = torch.load(path, weights_only=True)
    torch.save(saved | {"arch": "test_resnet"}, path)
    with pytest.raises(CheckpointError, match="has another backbone than the installed timm's model of the same name"):
        MultiLabelModel.from_checkpoint(path)


@pytest.mark.skipif(
    not (GOLDEN / "original_checkpoint.pth.tar").is_file(), reason="its 24 MB are not in the repository"
)
def test_the_originals_own_checkpoint_gives_the_outputs_it_gave_there():
    model = MultiLabelModel.from_checkpoint(GOLDEN / "original_checkpoint.pth.tar")
    with np.load(GOLDEN / "original_outputs.npz") as file:
        expected = {name: torch.from_numpy(file[name]) for name in file.files}
    with torch.no_grad():
        for view in "ij":
            h = model.forward_features(expected[f"x_{view}"])
            torch.testing.assert_close(h, expected[f"h_{view}"], rtol=0, atol=1e-4)
            torch.testing.assert_close(model.forward_projection(h), expected[f"z_{view}"], rtol=0, atol=1e-4)
        logits = model(expected["x_i"])  # the original classified the first view alone
    assert list(logits) == ["color", "gender", "article"]
    for name, values in logits.items():
        torch.testing.assert_close(values, expected[f"logits.{name}"], rtol=0, atol=1e-4)
