"""Every flag of train.py changes what its help says. The first test fails for a flag that no test shows.

Flags about images are in test_train_flags_image.py. Flags about the loop, processes and devices are in
test_train_flags_run.py. Refused flags are in test_options.py.
"""

import csv
import math
import re
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import test_train_flags_image  # noqa: F401  enters its tests into the table
import test_train_flags_pseudo  # noqa: F401
import test_train_flags_run  # noqa: F401
import test_train_flags_soft_labels  # noqa: F401
import torch
from flag_effects import (
    ON_GPU,
    SHOWN,
    TINY,
    Prepare,
    batch_of,
    gradients_of,
    loop_through,
    model_of,
    shows,
    silence,
    train_through,
)
from flag_effects import prepare as make_ready
from huggingface_hub import constants
from safetensors.torch import save_file
from table_files import draw_catalog, read_rows, write_table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import timm
import train
from catalog.data_error import DataError
from commands.start_log import log_frozen_statistics
from options.train import parse_train_args, train_parser
from options.train_optimizer import DECAYS
from runtime.errors import UsageError
from simclr import dcl_loss, nt_xent_loss, sup_con_loss
from timm.models.multi_label import MultiLabelModel
from timm.task.head_solver import HeadProblem
from timm.task.refit import extract_features
from timm.utils.model import unwrap_model
from training.epoch_scores import evaluate_epoch
from training.refit import probe_first

CALM = ["--weight-decay", 0, "--lr", 0.1]  # what moves a weight is its gradient alone
STILL = ["--weight-decay", 0, "--lr", 1e-9]  # nothing moves


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture
def prepare(data: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, data, tmp_path)


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the last checkpoint of a run of one epoch."""
    folder, _ = train_through(data, tmp_path_factory.mktemp("run"), "--seed", 7)
    return folder / "last.pth.tar"


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(dict(one), dict(other), rtol=0, atol=0)


def test_every_flag_of_train_has_a_test_that_shows_its_effect() -> None:
    rules = train_parser().rules.declared
    assert set(SHOWN) == {dest for dest, rule in rules.items() if not rule.refused}


# Data


@shows("config")
def test_a_recipe_gives_flags_and_typed_ones_win(prepare: Prepare, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("batch-size: 2\nopt: adamw\n")
    run = prepare("-c", recipe)  # and -b 8 with the other flags of a short run
    assert isinstance(run.optimizer, torch.optim.AdamW)
    assert len(batch_of(run)[1]) == 8


@shows("data_dir")
def test_the_data_folder_may_be_a_flag(tmp_path: Path) -> None:
    folder = draw_catalog(tmp_path / "data", train=9, val=3)
    run = make_ready(None, tmp_path, "--data-dir", folder)
    assert (len(run.train_loader.dataset), len(run.eval_loader.dataset)) == (9, 3)


@shows("train_split", "val_split")
def test_splits_are_chosen(prepare: Prepare) -> None:
    run = prepare("--train-split", "val", "--val-split", "train")
    assert run.train_loader.dataset.table.path.name == "val.csv"
    assert run.eval_loader.dataset.table.path.name == "train.csv"


@shows("max_unreadable")
def test_more_unreadable_images_than_tolerated_end_a_run(tmp_path: Path) -> None:
    folder = draw_catalog(tmp_path / "data")
    for path in list((folder / "images").glob("train-*"))[:12]:
        path.write_text("no picture")
    for share, error in ((0.4, DataError), (0.6, None)):
        dataset = make_ready(folder, tmp_path, "--max-unreadable", share).train_loader.dataset
        _ = [dataset[row] for row in range(24)]
        if error:
            with pytest.raises(error, match="12 of the 24 images could not be read"):
                dataset.check_readable()
        else:
            dataset.check_readable()


@shows("attributes")
def test_only_the_chosen_attributes_get_a_head(prepare: Prepare) -> None:
    assert list(model_of(prepare()).label_space.attributes) == ["color", "shape"]
    run = prepare("--attributes", "shape")
    assert list(run.task(*batch_of(run))["output"]) == ["shape"]
    assert batch_of(run)[1].shape == (8, 1)


@shows("separator")
def test_the_separator_splits_cells_into_several_values(tmp_path: Path) -> None:
    folder = draw_catalog(tmp_path / "tagged")
    rows = read_rows(folder / "train.csv")
    write_table(folder / "train.csv", [row | {"tags": "a;b" if n % 2 else "a"} for n, row in enumerate(rows)])
    assert model_of(make_ready(folder, tmp_path)).label_space.classes["tags"] == ("a", "a;b")
    space = model_of(make_ready(folder, tmp_path, "--separator", ";")).label_space
    assert space.classes["tags"] == ("a", "b")
    assert (space.multi_valued, space.separator) == ({"tags"}, ";")


@shows("image_root")
def test_the_image_root_is_the_folder_of_the_images(data: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text((data / f"{split}.csv").read_text())
    run = make_ready(tmp_path, tmp_path, "--image-root", data)
    assert run.train_loader.dataset.roots == (data.resolve(),)
    with pytest.raises(UsageError, match=r"is not in .*images; --image-root must be the folder that the paths are"):
        make_ready(tmp_path, tmp_path, "--image-root", data / "images")


@shows("attribute_weights")
def test_attributes_weigh_in_the_classification_loss(prepare: Prepare) -> None:
    for words, weight in ([], 1), (["--attribute-weights", "color=3"], 3):
        run = prepare(*words)
        result = run.task(*batch_of(run))
        expected = (weight * result["color_loss"] + result["shape_loss"]) / (weight + 1)
        torch.testing.assert_close(result["classification_loss"], expected)


# Model


@shows("model")
def test_the_backbone_is_the_one_that_is_named(prepare: Prepare) -> None:
    assert type(model_of(prepare("--model", "test_resnet")).backbone).__name__ == "ResNet"
    assert type(model_of(prepare()).backbone).__name__ == "EfficientNet"


@shows("pretrained")
def test_pretrained_weights_come_from_the_hub_and_its_cache(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UsageError, match="weights of test_efficientnet cannot be downloaded"):
        prepare("--pretrained")
    published = timm.create_model("test_efficientnet")
    name = published.pretrained_cfg["hf_hub_id"].replace("/", "--")
    for folder in ("refs", "snapshots/0000"):
        (tmp_path / "hub" / f"models--{name}" / folder).mkdir(parents=True)
    (tmp_path / "hub" / f"models--{name}" / "refs" / "main").write_text("0000")
    save_file(published.state_dict(), tmp_path / "hub" / f"models--{name}" / "snapshots" / "0000" / "model.safetensors")
    backbone = model_of(prepare("--pretrained")).backbone.state_dict()
    assert_same_weights(backbone, {name: published.state_dict()[name] for name in backbone})


@shows("pretrained_path")
def test_pretrained_weights_may_lie_on_disk(prepare: Prepare, tmp_path: Path) -> None:
    published = timm.create_model("test_efficientnet").state_dict()
    torch.save(published, tmp_path / "weights.pth")
    backbone = model_of(prepare("--pretrained-path", tmp_path / "weights.pth")).backbone.state_dict()
    assert_same_weights(backbone, {name: published[name] for name in backbone})


@shows("initial_checkpoint")
def test_a_run_starts_from_the_weights_of_another(prepare: Prepare, checkpoint: Path) -> None:
    run = prepare("--initial-checkpoint", checkpoint)
    assert_same_weights(model_of(run).state_dict(), torch.load(checkpoint)["state_dict"])
    assert not run.optimizer.state
    assert run.outputs.saver.best_metric is None
    assert run.outputs.folder != checkpoint.parent


@shows("freeze_backbone")
@pytest.mark.parametrize("features", [[], ["--no-aug"]], ids=["anew", "once"])
def test_a_frozen_backbone_keeps_its_weights_and_its_statistics(
    prepare: Prepare, checkpoint: Path, features: list[str]
) -> None:
    run = prepare("--initial-checkpoint", checkpoint, "--freeze-backbone", "-wls", 0, *features)
    before = {name: value.clone() for name, value in model_of(run).state_dict().items()}
    gradients_of(run)
    after = model_of(run).state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("heads.") for name in moved)
    evaluated, _ = evaluate_epoch(run)
    seen = next(iter(run.train_loader))[0].ndim
    assert seen == (2 if features else 4)
    again, _ = evaluate_epoch(run)  # with --no-aug from the features that the first pass made
    assert evaluated == again


@shows("refit_heads")
def test_heads_are_refitted_after_the_last_epoch_and_scored_in_a_row_of_their_own(data: Path, tmp_path: Path) -> None:
    folder, log = train_through(data, tmp_path, "--refit-heads", "--lr", 1e-6)
    rows = read_rows(folder / "summary.csv")
    assert [(row["epoch"], bool(row["train_loss"])) for row in rows] == [("0", True), ("1", False)]
    assert float(rows[1]["eval_top1"]) > float(rows[0]["eval_top1"])  # heads that hardly learned
    assert "Refit: color: top1" in log
    best = MultiLabelModel.from_checkpoint(folder / "model_best.pth.tar")
    last = MultiLabelModel.from_checkpoint(folder / "checkpoint-1.pth.tar")
    assert_same_weights(best.state_dict(), last.state_dict())


def test_a_probe_is_solved_in_one_pass_unless_a_flag_is_about_training(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    probe = ["--img-size", 32, "--model", "test_efficientnet", "--initial-checkpoint", checkpoint, "--freeze-backbone"]
    alone = [data, "-j", 0, "--device", "cpu", "-b", 8, *probe, "--no-aug", "-wls", 0, "-wlc", 1]
    words = [str(word) for word in [*alone, "--output", tmp_path]]
    args = parse_train_args(words)
    assert (args.epochs, args.refit_heads) == (0, True)
    again = parse_train_args([*words, "--lr", "0.1"])
    assert (again.epochs, again.refit_heads) == (200, False)
    with silence() as text:
        train.main(words)
    (folder,) = tmp_path.iterdir()
    (row,) = read_rows(folder / "summary.csv")
    assert row["epoch"] == "0"

    # the heads are solved on the features of the clean images
    model = MultiLabelModel.from_checkpoint(folder / "last.pth.tar")
    first = MultiLabelModel.from_checkpoint(checkpoint)
    run = make_ready(data, tmp_path, *probe, "-wls", 0, "--refit-heads")
    features = extract_features(first, run.clean_loader, nullcontext, run.to_device)
    problem = HeadProblem(features.h, features.target[:, 0], model.label_space.num_classes["color"])
    (strength,) = re.findall(r"Refit: color: top1 [\d.]+, strength ([\d.]+)", text.getvalue())
    head = next(problem.solve([float(strength)]))
    torch.testing.assert_close(model.heads[0].weight.double(), head.weight, atol=1e-3, rtol=1e-3)


@shows("probe_first")
def test_fine_tuning_starts_from_solved_heads_and_a_resumed_run_does_not(
    prepare: Prepare, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    start = ["--initial-checkpoint", checkpoint, "--probe-first", "--model-ema", "--lr", 1e-9, "--weight-decay", 0]
    run = prepare(*start)
    before = model_of(run).heads[0].weight.clone()
    probe_first(run)
    solved = model_of(run).heads[0].weight
    assert not torch.allclose(before, solved, atol=1e-2)
    assert torch.equal(unwrap_model(run.task.get_trainable_module(ema=True)).heads[0].weight, solved)
    folder, log = train_through(data, tmp_path / "whole", *start)
    trained = MultiLabelModel.from_checkpoint(folder / "last.pth.tar").heads[0].weight
    torch.testing.assert_close(trained, solved, atol=1e-5, rtol=1e-3)
    assert "Probe: color: top1" in log
    assert not prepare("--resume", folder / "last.pth.tar", *start, "--epochs", 2).settings.probe_first


@shows("class_weights", "logit_adjustment")
def test_rare_classes_weigh_more_in_training_and_the_same_in_scoring(prepare: Prepare) -> None:
    losses, logits = [], []
    for words in ([], ["--class-weights", "inverse"], ["--class-weights", "effective"], ["--logit-adjustment", 1]):
        run = prepare(*words)
        images, target = batch_of(run)
        result = run.task(images, target)
        losses.append(result["classification_loss"].item())
        logits.append(result["output"])
    assert len(set(losses)) == 4
    assert all(torch.equal(one["color"], logits[0]["color"]) for one in logits)


@shows("multi_valued", "multi_valued_loss")
def test_an_attribute_may_have_several_classes_an_image(prepare: Prepare) -> None:
    assert not prepare().task.label_space.multi_valued
    losses = []
    for kind in ("bce", "asl"):
        run = prepare("--multi-valued", "color", "--multi-valued-loss", kind)
        assert run.task.label_space.multi_valued == {"color"}
        losses.append(run.task(*batch_of(run))["color_loss"].item())
    assert losses[0] != losses[1]


@shows("balance")
def test_the_weights_of_the_attributes_are_learned(prepare: Prepare, data: Path, tmp_path: Path) -> None:
    run = prepare("--balance", "uncertainty", "--lr", 0.5)
    named = dict(model_of(run).named_parameters())
    assert named["log_variances"].tolist() == [0, 0]
    (group,) = [
        group for group in run.optimizer.param_groups if any(p is named["log_variances"] for p in group["params"])
    ]
    assert group["weight_decay"] == 0
    gradients_of(run)
    assert (named["log_variances"] != 0).all()
    assert "log_variances" not in dict(model_of(prepare()).named_parameters())
    weights = run.task.weights()
    assert weights["color_weight"] == pytest.approx(0.5 * math.exp(-named["log_variances"][0].item()))
    folder, text = train_through(data, tmp_path / "runs", "--balance", "uncertainty", "--model-ema")
    assert "Weights: simclr: 0.500  classification: 0.500  " in text
    (row,) = read_rows(folder / "summary.csv")
    assert row["simclr_weight"] == "0.5"
    saved = torch.load(folder / "last.pth.tar", weights_only=True)
    assert float(row["color_weight"]) == pytest.approx(0.5 * math.exp(-saved["state_dict"]["log_variances"][0]))
    assert MultiLabelModel.from_checkpoint(folder / "last.pth.tar").log_variances.shape == (2,)
    prepare("--initial-checkpoint", folder / "last.pth.tar")  # without a balance the variances are left out


@shows("gradient_centralization")
def test_gradients_are_centered_before_an_update(prepare: Prepare) -> None:
    for words, centered in ([], False), (["--gradient-centralization"], True):
        run = prepare(*words)
        images, target = batch_of(run)
        run.task(images, target)["loss"].backward()
        run.optimizer.step()
        means = [p.grad.flatten(1).mean(dim=1).abs().max() for p in model_of(run).parameters() if p.ndim > 1]
        assert (max(means) < 1e-6) == centered


@shows("head_grad")
def test_detached_heads_do_not_train_the_backbone(prepare: Prepare) -> None:
    moved = {}
    for words in ("joint", "detach"):
        run = prepare("--head-grad", words, "-wls", 1e-30, "-wlc", 1, "--weight-decay", 0)
        before = {name: value.clone() for name, value in model_of(run).named_parameters()}
        gradients_of(run)
        after = model_of(run).named_parameters()
        moved[words] = {name.split(".")[0] for name, value in after if (value - before[name]).abs().max() > 1e-6}
    assert moved == {"joint": {"backbone", "heads"}, "detach": {"heads"}}


@shows("resume", "no_resume_opt")
def test_resuming_restores_weights_and_optimizer_or_the_weights_alone(
    prepare: Prepare, data: Path, checkpoint: Path
) -> None:
    saved = torch.load(checkpoint)
    run = make_ready(data, Path(), "--resume", checkpoint, "--output", "")
    assert_same_weights(model_of(run).state_dict(), saved["state_dict"])
    momenta = run.optimizer.state_dict()["state"]
    assert momenta
    assert_same_weights(momenta[0], saved["optimizer"]["state"][0])
    assert run.outputs.saver.best_metric == saved["saver"]["pending"][1]
    assert run.outputs.folder == checkpoint.parent
    bare = prepare("--resume", checkpoint, "--no-resume-opt")
    assert_same_weights(model_of(bare).state_dict(), saved["state_dict"])
    assert not bare.optimizer.state


@shows("gp")
def test_features_are_pooled_as_asked(prepare: Prepare) -> None:
    images = torch.randn(4, 3, 96, 96)
    for words, pool in ([], torch.mean), (["--gp", "max"], torch.amax):
        model = model_of(prepare(*words)).eval()
        expected = pool(model.backbone.forward_features(images), dim=(2, 3))
        torch.testing.assert_close(model.forward_features(images), expected)


@shows("model_kwargs")
def test_more_arguments_reach_the_architecture(prepare: Prepare) -> None:
    def activations(run: train.Run) -> set[str]:
        return {type(module).__name__ for module in model_of(run).backbone.modules()} & {"SiLU", "GELU"}

    assert activations(prepare()) == {"SiLU"}
    assert activations(prepare("--model-kwargs", "act_layer=gelu")) == {"GELU"}


@shows("grad_checkpointing")
def test_activations_are_recomputed_in_the_backward_pass(prepare: Prepare) -> None:
    gradients, calls = [], []
    for words in ([], ["--grad-checkpointing"]):
        run = prepare(*words)
        calls.append(0)
        model_of(run).backbone.blocks[1][0].register_forward_pre_hook(lambda *_: calls.__setitem__(-1, calls[-1] + 1))
        run.task(*batch_of(run))["loss"].backward()
        gradients.append([p.grad for p in model_of(run).parameters()])
    assert calls == [1, 2]
    torch.testing.assert_close(gradients[0], gradients[1])


# SimCLR


@shows("temperature")
def test_similarities_are_divided_by_the_temperature(prepare: Prepare) -> None:
    for words, temperature in ([], 0.5), (["-t", 0.1], 0.1):
        run = prepare(*words)
        images, target = batch_of(run)
        result, (_, z) = run.task(images, target), model_of(run)(images)
        torch.testing.assert_close(result["simclr_loss"], nt_xent_loss(*z.chunk(2), temperature))


@shows("contrastive", "mask_false_negatives")
def test_views_are_contrasted_as_asked(prepare: Prepare) -> None:
    for words, loss, labeled in (
        ("", nt_xent_loss, False),
        ("--contrastive ntxent", nt_xent_loss, False),
        ("--mask-false-negatives", nt_xent_loss, True),
        ("--contrastive dcl", dcl_loss, False),
        ("--contrastive dcl --mask-false-negatives", dcl_loss, True),
        ("--contrastive supcon", sup_con_loss, True),
    ):
        run = prepare("-t", 0.2, *words.split())
        images, target = batch_of(run)
        result, (_, z) = run.task(images, target), model_of(run)(images)
        labels = {"labels": target} if labeled else {}
        torch.testing.assert_close(result["simclr_loss"], loss(*z.chunk(2), temperature=0.2, **labels))
    none = prepare("--contrastive", "none")
    assert model_of(none).projector is None
    assert len(batch_of(none)[0]) == 8  # a single view
    assert "simclr_loss" not in none.task(*batch_of(none))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--contrastive ntxent", f"simclr_loss at chance is ln(2N-1) = {math.log(15):.4f} for N = 8 images"),
        ("--contrastive dcl", f"simclr_loss at chance is ln(2N-2) = {math.log(14):.4f} for N = 8 images"),
        ("--contrastive supcon", f"simclr_loss at chance is ln(2N-1) = {math.log(15):.4f} for N = 8 images"),
        ("--contrastive none", None),
        (
            "--contrastive dcl --mask-false-negatives",
            f"at chance is at most ln(2N-2) = {math.log(14):.4f} for N = 8 images, less where false negatives are mask",
        ),
    ],
)
def test_a_run_says_what_its_loss_is_at_chance_and_logs_it(
    data: Path, tmp_path: Path, words: str, sentence: str | None
) -> None:
    folder, text = train_through(data, tmp_path, *words.split())
    with (folder / "summary.csv").open() as file:
        [row] = csv.DictReader(file)
    if sentence is None:
        assert "at chance" not in text
        assert not row.get("simclr_loss")
    else:
        assert sentence in text
        assert math.isfinite(float(row["simclr_loss"]))


@pytest.mark.parametrize("words", ["--contrastive supcon", "--mask-false-negatives"])
def test_a_loss_that_reads_labels_is_refused_where_there_are_none(tmp_path: Path, words: str) -> None:
    folder = draw_catalog(tmp_path / "data")
    rows = read_rows(folder / "train.csv")
    write_table(folder / "all.csv", rows)
    write_table(folder / "train.csv", [{**row, "color": "", "shape": ""} for row in rows])
    make_ready(folder, tmp_path)
    with pytest.raises(UsageError, match=rf"train.csv has no labels for {words} to read: label some of its rows"):
        make_ready(folder, tmp_path, *words.split())


@shows("simclr_loss_weight", "classification_loss_weight")
def test_the_losses_are_weighed(prepare: Prepare) -> None:
    run = prepare("-wls", 0.3, "-wlc", 2)
    result = run.task(*batch_of(run))
    torch.testing.assert_close(result["loss"], 0.3 * result["simclr_loss"] + 2 * result["classification_loss"])
    alone = prepare("-wls", 0)
    assert model_of(alone).projector is None
    assert len(batch_of(alone)[0]) == 8  # a single view
    unlabeled = prepare("-wlc", 0)
    result = unlabeled.task(*batch_of(unlabeled))
    torch.testing.assert_close(result["loss"], 0.5 * result["simclr_loss"])


def largest_difference(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> float:
    """Return how far the gradients of two lists of updates are apart."""
    pairs = [pair for updates in zip(one, other, strict=True) for pair in zip(*updates, strict=True)]
    return max((a - b).abs().max().item() for a, b in pairs)


@shows("contrastive_batch_size")
def test_several_batches_are_contrasted_as_one(prepare: Prepare) -> None:
    still = [*STILL, "--model", "test_vit"]  # without batch norm, so images do not influence each other
    whole, alone = gradients_of(prepare(*still, "-b", 8)), gradients_of(prepare(*still, "-b", 4))
    for words in ([], ["--channels-last", "--grad-checkpointing", "--no-prefetcher"]):
        chunked = gradients_of(prepare(*still, "-b", 4, "--contrastive-batch-size", 8, *words))
        assert largest_difference(chunked, whole) < 1e-5
    assert largest_difference(alone[:1], whole[:1]) > 1e-3
    same = gradients_of(prepare(*still, "-b", 4, "--contrastive-batch-size", 4))
    assert largest_difference(same, alone) == 0


def test_the_remaining_batches_of_an_epoch_are_contrasted_too(prepare: Prepare) -> None:
    words = [*STILL, "--model", "test_vit", "-b", 8]
    first, second, third = gradients_of(prepare(*words))
    joint, rest = gradients_of(prepare(*words, "--contrastive-batch-size", 16))
    assert largest_difference([joint], [[(a + b) / 2 for a, b in zip(first, second, strict=True)]]) > 1e-3
    assert largest_difference([rest], [third]) < 1e-5
    # Each image of an update has the same weight; the pair of batches holds two thirds of them.
    update = gradients_of(prepare(*words, "--contrastive-batch-size", 16, "--grad-accum-steps", 2))
    assert largest_difference(update, [[(2 * a + b) / 3 for a, b in zip(joint, rest, strict=True)]]) < 1e-5


def test_a_step_is_one_joint_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    averaged: list[int] = []
    monkeypatch.setattr(train.SimCLRClassificationTask, "update_ema", lambda _, step: averaged.append(step))
    words = "-b 4 --contrastive-batch-size 16 --log-interval 1 --save-images --model-ema --amp --split-bn --epochs 2"
    folder, text = train_through(data, tmp_path, *words.split())
    assert f"simclr_loss at chance is ln(2N-1) = {math.log(31):.4f} for N = 16 images" in text
    for line in ("Train: 0 [   1/2 ( 50%)]", "Train: 0 [   2/2 (100%)]", "Train: 1 [   2/2 (100%)]"):
        assert line in text
    assert averaged == [1, 2, 3, 4]
    assert len(list(folder.glob("train-*.png"))) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--contrastive-batch-size 32",
            r"train.csv gives each process 24 images an epoch, fewer than .* 32: use 24 or",
        ),
        ("--contrastive-batch-size 16 --opt adahessian", "--opt adahessian: it needs second-order gradients"),
        ("-b 1 --contrastive-batch-size 2", "--batch-size 1 gives the contrastive loss no other image"),
        ("--contrastive-batch-size 16 --sync-bn --device cpu", "--sync-bn needs GPUs"),
    ],
)
def test_an_impossible_joint_batch_is_refused(prepare: Prepare, words: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        prepare(*words.split())


@shows("projection_dim", "projection_layers", "projection_norm")
def test_the_projection_head_is_built_as_asked(prepare: Prepare) -> None:
    def layers(*words: object) -> list[str]:
        return [type(layer).__name__ for layer in model_of(prepare(*words)).projector]

    assert layers() == ["Linear", "ReLU", "Linear"]
    assert layers("--projection-layers", 3, "--projection-norm", "batch") == 2 * ["Linear", "BatchNorm1d", "ReLU"] + [
        "Linear"
    ]
    assert layers("--projection-norm", "layer") == ["Linear", "LayerNorm", "ReLU", "Linear"]
    for words, length in ([], 64), (["--projection-dim", 5], 5):
        run = prepare(*words)
        assert model_of(run)(batch_of(run)[0])[1].shape == (16, length)


# Optimizer


def moves(run: train.Run, *gradients: float) -> list[float]:
    """Return how far each update moves a weight down, when all gradients equal a number."""
    weight = model_of(run).backbone.conv_stem.weight
    places = [weight[0, 0, 0, 0].item()]
    for gradient in gradients:
        for parameter in model_of(run).parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        run.optimizer.step()
        places.append(weight[0, 0, 0, 0].item())
    return [before - after for before, after in pairwise(places)]


@shows("opt")
def test_the_optimizer_is_the_one_that_is_named(prepare: Prepare) -> None:
    assert type(prepare().optimizer) is torch.optim.SGD
    assert type(prepare("--opt", "lamb").optimizer).__name__ == "Lamb"
    with pytest.raises(UsageError, match="--opt nosuch: Optimizer nosuch not found"):
        prepare("--opt", "nosuch")


@shows("momentum", "opt_kwargs")
def test_momentum_makes_longer_steps(prepare: Prepare) -> None:
    # Nesterov's first step adds the gradient and the momentum that this gradient starts.
    assert moves(prepare(*CALM), 1) == pytest.approx([0.19], rel=1e-4)
    assert moves(prepare(*CALM, "--momentum", 0.5), 1) == pytest.approx([0.15], rel=1e-4)
    plain = prepare(*CALM, "--momentum", 0.5, "--opt-kwargs", "nesterov=False")
    assert moves(plain, 1, 1) == pytest.approx([0.1, 0.15], rel=1e-4)


@shows("opt_eps", "opt_betas")
def test_adam_takes_epsilon_and_betas(prepare: Prepare) -> None:
    adam = [*CALM, "--opt", "adam"]
    assert moves(prepare(*adam), 1) == pytest.approx([0.1], rel=1e-4)
    assert moves(prepare(*adam, "--opt-eps", 1), 1) == pytest.approx([0.1 / 2], rel=1e-4)
    for words, first, second in ([], 0.9, 0.999), (["--opt-betas", 0.5, 0.6], 0.5, 0.6):
        average = first * (1 - first) / (1 - first**2)  # over the gradients 1 and 0, bias corrected
        square = second * (1 - second) / (1 - second**2)
        assert moves(prepare(*adam, *words), 1, 0)[1] == pytest.approx(0.1 * average / square**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--opt-eps 1", "--opt sgd: it has no epsilon: leave --opt-eps out"),
        ("--opt-betas 0.9 0.99", "--opt sgd: it has no betas: leave --opt-betas out"),
        ("--opt adamw --opt-betas 0.9", "--opt adamw: it has 2 betas, not 1"),
        ("--opt adamw --momentum 0.5", "--opt adamw: it has no momentum: leave --momentum out"),
        ("--opt lookahead_adan --opt-betas 0.9 0.99", "--opt lookahead_adan: it has 3 betas, not 2"),
        ("--opt adamp --opt-foreach", "--opt adamp: .*foreach"),
        ("--momentum 0", "--opt sgd: Nesterov momentum requires a momentum"),
        ("--opt-kwargs color=1", "--opt sgd: .*color"),
    ],
)
def test_a_setting_that_the_optimizer_lacks_is_refused(prepare: Prepare, words: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        prepare(*words.split())


@shows("weight_decay")
def test_weights_decay_and_biases_do_not(prepare: Prepare) -> None:
    for words, decay in ([], 1e-4), (["--weight-decay", 0.5], 0.5):
        run = prepare("--lr", 0.1, "--momentum", 0.5, *words)
        head = model_of(run).heads[0]
        nn.init.ones_(head.bias)
        before = head.weight.detach().clone()
        moves(run, 0)
        torch.testing.assert_close(head.weight.detach(), before * (1 - 0.1 * 1.5 * decay))
        assert torch.equal(head.bias, torch.ones_like(head.bias))


@shows("clip_grad", "clip_mode")
def test_gradients_are_limited_in_three_ways(prepare: Prepare) -> None:
    free = gradients_of(prepare(*STILL))[0]
    norm = gradients_of(prepare(*STILL, "--clip-grad", 0.01))[0]
    value = gradients_of(prepare(*STILL, "--clip-grad", 0.01, "--clip-mode", "value"))[0]
    run = prepare(*STILL, "--clip-grad", 0.01, "--clip-mode", "agc")
    adaptive = gradients_of(run)[0]

    def joint(gradients: list[torch.Tensor]) -> float:
        return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()

    assert joint(free) > 0.02
    assert joint(norm) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(value, [gradient.clamp(-0.01, 0.01) for gradient in free])
    assert joint(value) < joint(free)
    clipped = 0
    for (name, weight), before, after in zip(model_of(run).named_parameters(), free, adaptive, strict=True):
        if name.startswith(("heads", "projector")):
            torch.testing.assert_close(after, before)
        elif weight.ndim > 1:
            units, limits = after.flatten(1).norm(dim=1), 0.01 * weight.detach().flatten(1).norm(dim=1).clamp(1e-3)
            assert (units <= limits * 1.001).all()
            clipped += int((before.flatten(1).norm(dim=1) > limits).sum())
    assert clipped


def rates_by_name(run: train.Run) -> dict[str, float]:
    rates = {id(p): group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in model_of(run).named_parameters() if id(p) in rates}


@shows("layer_decay", "layer_decay_min_scale", "layer_decay_no_opt_scale")
def test_earlier_layers_learn_more_slowly_or_not_at_all(prepare: Prepare) -> None:
    decayed = [*CALM, "--layer-decay", 0.5]
    assert set(rates_by_name(prepare(*CALM)).values()) == {0.1}
    rates = rates_by_name(prepare(*decayed))
    order = ["heads.0.weight", "backbone.blocks.4.0.conv_pw.weight", "backbone.blocks.2.0.conv_exp.weight"]
    assert rates["heads.0.weight"] == rates["projector.0.weight"] == 0.1
    assert rates[order[0]] > rates[order[1]] > rates[order[2]] > rates["backbone.conv_stem.weight"]
    assert all(math.log2(0.1 / rate) == pytest.approx(round(math.log2(0.1 / rate))) for rate in rates.values())
    floored = rates_by_name(prepare(*decayed, "--layer-decay-min-scale", 0.3))
    assert floored == {name: pytest.approx(max(rate, 0.03)) for name, rate in rates.items()}
    run = prepare(*decayed, "--layer-decay-no-opt-scale", 0.3)
    assert set(rates_by_name(run)) == {name for name, rate in rates.items() if rate >= 0.03}
    before = {name: p.detach().clone() for name, p in model_of(run).named_parameters()}
    gradients_of(run)
    moved = {name for name, p in model_of(run).named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(rates_by_name(run))
    assert "heads.0.weight" in moved


@shows("backbone_lr_scale")
def test_the_backbone_has_its_own_learning_rate(prepare: Prepare) -> None:
    rates = rates_by_name(prepare(*CALM, "--backbone-lr-scale", 0.1))
    assert rates == {name: pytest.approx(0.01 if name.startswith("backbone.") else 0.1) for name in rates}
    both = rates_by_name(prepare(*CALM, "--backbone-lr-scale", 0.1, "--layer-decay", 0.5))
    decayed = rates_by_name(prepare(*CALM, "--layer-decay", 0.5))
    assert both["heads.0.weight"] == 0.1
    assert both["backbone.conv_stem.weight"] == pytest.approx(0.1 * decayed["backbone.conv_stem.weight"])


class Names(TorchDispatchMode):
    """A context that records the names of PyTorch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@shows("opt_foreach")
def test_tensors_are_updated_many_at_a_time_or_one_by_one(prepare: Prepare) -> None:
    for words, many in (["--opt-foreach"], True), (["--no-opt-foreach"], False):
        with Names() as done:
            moves(prepare(*words), 1)
        assert any(name.startswith("_foreach_add_") for name in done.names) == many


# Schedule


def rates(run: train.Run, score: float = 50.0) -> list[float]:
    """Return the learning rate of each epoch."""
    values = []
    for epoch in range(run.num_epochs):
        if epoch and run.scheduler is not None:
            run.scheduler.step(epoch, score)
        values.append(run.optimizer.param_groups[0]["lr"])
    return values


COSINE = ["--sched", "cosine", "--epochs", 4, "--lr", 1, "--min-lr", 0]
HALF_COSINE = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]


@shows("sched")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cosine --min-lr 0.2", [0.2 + 0.8 * rate for rate in HALF_COSINE]),
        ("tanh --min-lr 0", [0.5 * (1 - math.tanh(-7 + 10 * t / 4)) for t in range(4)]),
        ("step --decay-epochs 3", [1, 1, 1, 0.1]),
        ("multistep --decay-milestones 2 4", [1, 0.1, 0.1, 0.01]),
        ("poly --min-lr 0 --dr 2", [(1 - t / 4) ** 2 for t in range(4)]),
        ("wsd --min-lr 0 --decay-epochs 2", [1, 1, 1, 1 - 0.5**0.5]),
        ("rsqrt --decay-epochs 1 --lr-stable-timescale 1", [1, 2**-0.5, 3**-0.5, 4**-0.5]),
        ("constant", [1, 1, 1, 1]),
        ("none", [1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_falls_as_the_schedule_says(prepare: Prepare, words: str, expected: list[float]) -> None:
    assert rates(prepare("--epochs", 4, "--lr", 1, "--sched", *words.split())) == pytest.approx(expected)


@shows("patience_epochs")
@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")
def test_the_rate_falls_after_a_plateau(prepare: Prepare) -> None:
    plateau = ["--sched", "plateau", "--epochs", 5, "--lr", 1, "--dr", 0.5]
    assert rates(prepare(*plateau)) == [1, 1, 1, 1, 1]
    assert rates(prepare(*plateau, "--patience-epochs", 1)) == [1, 1, 1, 0.5, 0.5]
    assert rates(prepare(*plateau, "--patience-epochs", 0)) == [1, 1, 0.5, 0.25, 0.125]


@shows("sched_on_updates")
def test_the_rate_falls_with_each_update(prepare: Prepare) -> None:
    for words, expected in ([], [1, 1, 1]), (["--sched-on-updates"], [1, 0.75, 0.25]):
        run = prepare("--sched", "cosine", "--epochs", 1, "--lr", 1, "--min-lr", 0, *words)
        run.optimizer.param_groups[0]["lr"] = run.scheduler.base_values[0]
        seen: list[float] = []
        run.optimizer.register_step_pre_hook(lambda *_, s=seen, r=run: s.append(r.optimizer.param_groups[0]["lr"]))
        gradients_of(run)
        assert seen == pytest.approx(expected)


@shows("steps", "warmup_steps")
@pytest.mark.parametrize(
    ("words", "epochs", "per_epoch"),
    [
        ("", 4, 3),  # 24 rows in batches of 8
        ("--grad-accum-steps 2", 5, 2),
        ("-b 4 --contrastive-batch-size 8", 4, 3),
        ("-b 16", 10, 1),
    ],
)
def test_a_run_has_a_number_of_updates(data: Path, tmp_path: Path, words: str, epochs: int, per_epoch: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 7\nwarmup-epochs: 5\ncooldown-epochs: 3\nsched: cosine\n")
    args = ["--steps", "10", "--lr", "1", "--warmup-lr", "0", "--min-lr", "0", *words.split()]
    run = ready(data, tmp_path, "-c", f"{recipe}", *args)
    assert run.num_epochs == epochs
    cosine = [0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)] + [0.0] * (epochs * per_epoch - 10)
    assert update_rates(run) == pytest.approx([0.0, *cosine[1:]])  # a tenth of the steps is warm-up
    assert run.settings.val_interval == 1
    assert ready(data, tmp_path, "--steps", "180", "-b", "64").settings.val_interval == 9
    assert ready(data, tmp_path, "--steps", "180", "-b", "64", "--val-interval", "2").settings.val_interval == 2
    run = ready(data, tmp_path, "-c", f"{recipe}", *args, "--warmup-steps", "4")
    assert update_rates(run)[:4] == pytest.approx([0, 0.25, 0.5, 0.75])


def ready(data: Path, output: Path, *words: str) -> train.Run:
    """Return the run that train.py prepares, without the length and the schedule of a short run."""
    args = parse_train_args([f"{data}", *TINY, "--img-size", "32", "--output", f"{output}", *words])
    with silence():
        return train.prepare(args)


def update_rates(run: train.Run) -> list[float]:
    """Train to the end; return the learning rate of each update."""
    found: list[float] = []
    run.optimizer.register_step_pre_hook(lambda *_: found.append(run.optimizer.param_groups[0]["lr"]))
    loop_through(run)
    return found


@shows("lr")
def test_the_learning_rate_is_the_one_given(prepare: Prepare) -> None:
    assert rates(prepare()) == [0.01]
    assert rates(prepare("--lr", 0.3)) == [0.3]


@shows("lr_base", "lr_base_size", "lr_base_scale")
def test_the_learning_rate_follows_from_the_batch(prepare: Prepare) -> None:
    base = ["--lr-base", 1, "--grad-accum-steps", 2]  # 16 images an update
    assert rates(prepare(*base)) == [16 / 256]
    assert rates(prepare(*base, "--lr-base-size", 32)) == [16 / 32]
    assert rates(prepare(*base, "-b", 4, "--contrastive-batch-size", 8)) == [16 / 256]
    assert rates(prepare(*base, "--lr-base-scale", "sqrt")) == [(16 / 256) ** 0.5]
    assert rates(prepare(*base, "--opt", "adamw")) == [(16 / 256) ** 0.5]
    assert rates(prepare(*base, "--opt", "adamw", "--lr-base-scale", "linear")) == [16 / 256]


@shows("lr_noise", "lr_noise_pct", "lr_noise_std")
def test_noise_changes_the_rate_in_its_range_and_up_to_its_limit(prepare: Prepare) -> None:
    def disturbed(*words: object) -> list[int]:
        return [epoch for epoch, rate in enumerate(rates(prepare(*flat, *words))) if rate != 1]

    flat = ["--sched", "constant", "--epochs", 10, "--lr", 1]
    assert disturbed() == []
    assert disturbed("--lr-noise", 0.5) == [5, 6, 7, 8, 9]
    assert disturbed("--lr-noise", 0.2, 0.4) == [2, 3]
    assert disturbed("--lr-noise", 0.5, "--lr-noise-std", 0) == []

    def largest(*words: object) -> float:
        return max(abs(rate - 1) for rate in rates(prepare(*flat, "--lr-noise", 0, *words)))

    assert 0.1 < largest() <= 0.67
    assert 0 < largest("--lr-noise-pct", 0.01) <= 0.01
    assert 0 < largest("--lr-noise-std", 0.01) <= 0.05


@shows("lr_cycle_limit", "lr_cycle_decay", "lr_cycle_mul")
def test_each_cycle_is_lower_and_longer(prepare: Prepare) -> None:
    twice = [*COSINE, "--lr-cycle-limit", 2]
    assert rates(prepare(*COSINE)) == pytest.approx(HALF_COSINE)
    assert rates(prepare(*twice)) == pytest.approx([*HALF_COSINE, *(0.5 * rate for rate in HALF_COSINE)])
    assert rates(prepare(*twice, "--lr-cycle-decay", 0.1))[4] == pytest.approx(0.1)
    longer = rates(prepare(*twice, "--lr-cycle-mul", 2))
    assert len(longer) == 4 + 8
    assert longer[4::2] == pytest.approx([0.5 * rate for rate in HALF_COSINE])


@shows("lr_k_decay")
def test_k_decay_keeps_the_rate_high_for_longer(prepare: Prepare) -> None:
    expected = [0.5 * (1 + math.cos(math.pi * t**2 / 4**2)) for t in range(4)]
    assert rates(prepare(*COSINE, "--lr-k-decay", 2)) == pytest.approx(expected)


@shows("lr_decay_fn")
def test_the_decay_has_the_shape_asked_for(prepare: Prepare) -> None:
    decay = ["--sched", "wsd", "--epochs", 4, "--decay-epochs", 4, "--lr", 1, "--min-lr", 0]
    shares = [0, 0.25, 0.5, 0.75]
    shapes = {
        "linear": [1 - share for share in shares],
        "1-sqrt": [1 - share**0.5 for share in shares],
        "cosine": HALF_COSINE,
        "power": [1 - share**0.5 for share in shares],
        "exp": [(0.1**share - 0.1) / 0.9 for share in shares],
    }
    assert list(shapes) == DECAYS
    for name, expected in shapes.items():
        assert rates(prepare(*decay, "--lr-decay-fn", name)) == pytest.approx(expected), name
    assert rates(prepare(*decay)) == pytest.approx(shapes["1-sqrt"])


@shows("lr_stable_timescale")
def test_rsqrt_has_a_time_scale(prepare: Prepare) -> None:
    words = ["--sched", "rsqrt", "--epochs", 5, "--decay-epochs", 1, "--lr", 1]
    assert rates(prepare(*words, "--lr-stable-timescale", 2)) == pytest.approx([(1 + t / 2) ** -0.5 for t in range(5)])
    with pytest.raises(UsageError, match=r"--sched rsqrt: .*stable_timescale"):
        prepare(*words)  # the default is the warm-up, which has no epochs here


@shows("warmup_lr", "warmup_epochs", "warmup_prefix")
def test_the_rate_rises_in_warm_up(prepare: Prepare) -> None:
    flat = ["--sched", "constant", "--epochs", 6, "--lr", 1]
    assert rates(prepare(*flat)) == [1] * 6
    warm = [*flat, "--warmup-epochs", 4]
    assert rates(prepare(*warm, "--warmup-lr", 0.2)) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert rates(prepare(*warm))[0] == 1e-4
    assert len(rates(prepare(*warm, "--warmup-prefix"))) == 4 + 6


@shows("min_lr", "cooldown_epochs")
def test_the_rate_ends_at_its_minimum_and_stays_there(prepare: Prepare) -> None:
    assert rates(prepare(*COSINE, "--min-lr", 0.3, "--cooldown-epochs", 2))[4:] == pytest.approx([0.3, 0.3])


@shows("decay_epochs", "decay_rate")
def test_the_rate_falls_by_a_factor_at_intervals(prepare: Prepare) -> None:
    step = ["--sched", "step", "--epochs", 4, "--lr", 1]
    assert rates(prepare(*step)) == [1] * 4
    assert rates(prepare(*step, "--decay-epochs", 2)) == pytest.approx([1, 1, 0.1, 0.1])
    assert rates(prepare(*step, "--decay-epochs", 1, "--decay-rate", 0.5)) == [1, 0.5, 0.25, 0.125]


@shows("decay_milestones")
def test_the_rate_falls_at_milestones(prepare: Prepare) -> None:
    words = ["--sched", "multistep", "--epochs", 4, "--lr", 1]
    assert rates(prepare(*words)) == [1] * 4
    assert rates(prepare(*words, "--decay-milestones", 3, 4)) == pytest.approx([1, 1, 0.1, 0.01])


# Regularization


@shows("smoothing")
def test_smoothing_spreads_probability_over_all_classes(prepare: Prepare) -> None:
    for words, share in ([], 0.1), (["--smoothing", 0], 0), (["--smoothing", 0.4], 0.4):
        run = prepare("-wls", 0, *words)
        images, target = batch_of(run)
        result = run.task(images, target)
        logs = result["output"]["color"].log_softmax(dim=1).tolist()
        labels = target[:, 0].tolist()
        terms = [
            -(1 - share) * row[label] - share / 3 * sum(row)
            for row, label in zip(logs, labels, strict=True)
            if label >= 0
        ]
        assert result["color_loss"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@shows("drop")
def test_dropout_comes_before_the_heads_and_in_training_alone(prepare: Prepare) -> None:
    for words, share in ([], 0), (["--drop", 0.75], 0.75):
        run = prepare(*words)
        model, read = model_of(run), []
        model.heads[0].register_forward_hook(lambda module, inputs, output, read=read: read.append(inputs[0]))
        torch.manual_seed(0)
        images = batch_of(run)[0]
        h = model.train().forward_features(images)
        model.forward_heads(h)
        kept = read[0] != 0
        assert 1 - kept.float().mean() == pytest.approx(share, abs=0.05)
        torch.testing.assert_close(read[0][kept], (h / (1 - share))[kept])
        scored = model.eval().forward_heads(h)
        for head, logits in zip(model.heads, scored.values(), strict=True):
            torch.testing.assert_close(logits, head(h))


def trained_twice(run: train.Run, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two outputs of a backbone in training for the same images, with every residual branch active."""
    backbone = model_of(run).backbone.train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm's residual branches begin at 0
    torch.manual_seed(1)
    images = torch.randn(8, 3, size, size)
    return backbone(images), backbone(images)


@shows("drop_path", "drop_connect")
def test_residual_branches_are_skipped_by_either_name(prepare: Prepare) -> None:
    outputs = {}
    for name in ("--drop-path", "--drop-connect"):
        one, other = trained_twice(prepare("--model", "test_resnet", name, 0.5), 32)
        assert not torch.equal(one, other)
        outputs[name] = one
    assert torch.equal(*outputs.values())
    one, other = trained_twice(prepare("--model", "test_resnet"), 32)
    assert torch.equal(one, other)


@shows("drop_block")
def test_blocks_of_feature_maps_are_dropped(prepare: Prepare) -> None:
    for words, same in ([], True), (["--drop-block", 0.5], False):
        one, other = trained_twice(prepare("--model", "test_resnet", "--img-size", 160, *words), 160)
        assert torch.equal(one, other) == same
    with pytest.raises(UsageError, match="test_efficientnet does not take drop_block_rate"):
        prepare("--drop-block", 0.5)


# Batch norm


def momentum_and_epsilon(run: train.Run) -> tuple[float, float]:
    """Return a batch norm's momentum and epsilon, measured from its output in training."""
    norm = model_of(run).backbone.blocks[1][0].bn2.train()  # no activation follows it
    images = torch.randn(64, norm.num_features, 8, 8, dtype=torch.float64) * 0.1 + 5
    output = norm.double()(images)
    deviation, variance = images.std(dim=(0, 2, 3), correction=0), images.var(dim=(0, 2, 3), correction=0)
    momentum = (norm.running_mean / images.mean(dim=(0, 2, 3))).mean().item()
    epsilon = ((deviation / output.std(dim=(0, 2, 3), correction=0)) ** 2 - variance).mean().item()
    return momentum, epsilon


@shows("bn_tf", "bn_momentum", "bn_eps")
def test_batch_norm_takes_tensorflows_settings_or_given_ones(prepare: Prepare) -> None:
    def settings(*words: object) -> tuple[float, float]:
        return momentum_and_epsilon(prepare(*words))

    assert settings() == pytest.approx((0.1, 1e-5))
    assert settings("--bn-tf") == pytest.approx((0.01, 1e-3))
    assert settings("--bn-momentum", 0.3, "--bn-eps", 0.01) == pytest.approx((0.3, 0.01))
    assert settings("--bn-tf", "--bn-momentum", 0.3) == pytest.approx((0.3, 1e-3))
    split = model_of(prepare("--bn-tf", "--split-bn", "--projection-norm", "batch"))
    norms = [module for module in split.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    with pytest.raises(UsageError, match="test_vit has no batch norm"):
        prepare("--model", "test_vit", "--bn-tf")


@shows("freeze_bn")
def test_a_backbone_keeps_its_statistics_while_its_weights_train(prepare: Prepare, checkpoint: Path) -> None:
    start = ["--initial-checkpoint", checkpoint, "--projection-norm", "batch", "--lr", 0.1]

    def moved(*words: object) -> set[str]:
        run = prepare(*start, *words)
        before = {name: value.clone() for name, value in model_of(run).state_dict().items()}
        gradients_of(run)
        after = model_of(run).state_dict()
        assert after.keys() == before.keys()
        return {name for name, value in after.items() if not torch.equal(value, before[name])}

    trained, kept = moved("--no-freeze-bn"), moved("--freeze-bn")
    statistics = {name for name in trained if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert trained - kept == {name for name in statistics if name.startswith("backbone.")} != set()
    assert {"backbone.bn1.weight", "backbone.bn1.bias", "projector.1.running_mean"} <= kept
    gentle = ["--opt", "adamw", "--lr", 5e-4]
    assert moved(*gentle) == kept
    assert moved(*gentle, "--no-freeze-bn") == moved() == trained
    vit = ["--model", "test_vit", "--pretrained-path", vit_weights(checkpoint.parent)]
    assert not model_of(prepare(*vit, *gentle)).keeps_statistics
    assert not model_of(prepare(*gentle)).keeps_statistics
    with pytest.raises(UsageError, match="test_vit has no batch norm"):
        prepare(*vit, "--freeze-bn")


def test_the_log_says_that_statistics_are_frozen_and_where_they_diverge(caplog: pytest.LogCaptureFixture) -> None:
    frozen = "Batch norm: the backbone keeps its running statistics"
    for words, lr, sentences in (
        ("--pretrained --opt adamw", 5e-4, [f"{frozen}, as its weights are trained and the rate is 0.0005 or less; "]),
        ("--resume a --opt sgd", 0.1, [f"{frozen}, as the resumed run did; "]),
        ("--pretrained --freeze-bn", 0.1, [f"{frozen}; "]),
        (
            "--pretrained --freeze-bn --opt adamw",
            1e-3,
            [f"{frozen}; ", "Frozen batch norm may diverge at a learning rate of 0.001 with --opt adamw: use 0.0005"],
        ),
    ):
        caplog.clear()
        with caplog.at_level("INFO"):
            log_frozen_statistics(parse_train_args(["data", *words.split()]), lr)
        assert len(caplog.messages) == len(sentences)
        for message, sentence in zip(caplog.messages, sentences, strict=True):
            assert message.startswith(sentence)


def vit_weights(folder: Path) -> Path:
    """Write the weights of a backbone without batch norm."""
    torch.save(timm.create_model("test_vit").state_dict(), folder / "vit.pth")
    return folder / "vit.pth"


@shows("split_bn")
def test_each_view_has_statistics_of_its_own(prepare: Prepare) -> None:
    model = model_of(prepare("--split-bn")).train()
    views = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32) * 2 + 3
    model(torch.cat(views))
    norm = model.backbone.bn1
    for view, statistics in zip(views, (norm, norm.aux_bn[0]), strict=True):
        mean = model.backbone.conv_stem(view).mean(dim=(0, 2, 3))
        torch.testing.assert_close(statistics.running_mean, 0.1 * mean)
    assert not hasattr(model_of(prepare()).backbone.bn1, "aux_bn")


@shows("sync_bn")
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_synchronized_batch_norm_needs_a_gpu(prepare: Prepare) -> None:
    with pytest.raises(UsageError, match="--sync-bn needs GPUs"):
        prepare("--sync-bn")


@ON_GPU
def test_batch_norm_is_synchronized_on_a_gpu(prepare: Prepare) -> None:
    model = model_of(prepare("--sync-bn", "--projection-norm", "batch", "--device", "cuda"))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert model(torch.randn(4, 3, 32, 32, device="cuda"))[1].isfinite().all()


# EMA


@shows("model_ema", "model_ema_decay", "model_ema_warmup")
def test_an_average_follows_the_weights_and_is_scored(prepare: Prepare) -> None:
    def follows(*words: object) -> float:
        """Return how far the average moves when the weights rise by 1."""
        run = prepare("--model-ema", *words)
        weight, average = (
            m.get_parameter("heads.0.weight") for m in (model_of(run), run.task.trainable_module_ema.module)
        )
        run.task.update_ema(step=1)
        before = average.detach().clone()
        weight.data += 1
        run.task.update_ema(step=2)
        return (average - before).mean().item()

    assert follows("--no-model-ema-warmup", "--model-ema-decay", 0.75) == pytest.approx(0.25, rel=1e-4)
    assert follows("--no-model-ema-warmup") == pytest.approx(0.0002, rel=0.01)
    assert follows() == pytest.approx(2 ** (-2 / 3), rel=1e-4)
    assert not prepare().task.has_ema()
    run = prepare("--model-ema")
    model_of(run).heads[0].bias.data[0] += 1
    evaluated, averaged = evaluate_epoch(run)
    assert averaged is not None
    assert averaged["loss"] != evaluated["loss"]
    assert evaluate_epoch(prepare())[1] is None
    before = run.task.trainable_module_ema.module.heads[1].weight.clone()
    gradients_of(run)
    assert not torch.equal(run.task.trainable_module_ema.module.heads[1].weight, before)


@shows("model_ema_force_cpu")
def test_the_average_is_kept_in_cpu_memory(prepare: Prepare) -> None:
    cpu = torch.device("cpu")
    assert prepare("--model-ema").task.trainable_module_ema.device is None  # the model's device
    assert prepare("--model-ema", "--model-ema-force-cpu").task.trainable_module_ema.device == cpu


@ON_GPU
def test_the_average_of_a_model_on_a_gpu_is_kept_in_cpu_memory(prepare: Prepare) -> None:
    for words, device in ([], "cuda"), (["--model-ema-force-cpu"], "cpu"):
        run = prepare("--model-ema", "--device", "cuda", *words)
        run.task.update_ema(step=1)
        assert {p.device.type for p in run.task.trainable_module_ema.parameters()} == {device}
        assert {p.device.type for p in model_of(run).parameters()} == {"cuda"}
