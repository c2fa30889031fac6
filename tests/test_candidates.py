"""The candidates are recipes that train.py accepts, and their sizes follow the rows."""

import math
from pathlib import Path

import pytest
import yaml

from options.candidates import CANDIDATES, fitted, images_trained, usable, work
from options.choose import labeling_words, parse_choose_args, recipes, trial
from options.train import parse_train_args
from options.yaml_file import recipe_text

COLUMNS = {"attributes": ["color", "a b"], "multi-valued": []}
START = ["--initial-checkpoint", "start.pth.tar"]


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("rows", [(4, 30), (300, 2000), (2000, 2000)])
def test_each_stage_is_a_recipe_of_train_py(tmp_path: Path, name: str, rows: tuple[int, int]) -> None:
    start = START if CANDIDATES[name].from_weights else []
    args = parse_choose_args(
        ["data", "--budget", "1h", "--model", "resnet18", "--img-size", "64", "--steps", "7", *start]
    )
    candidate = CANDIDATES[name]
    for index, stage in enumerate(recipes(args, COLUMNS, 96, name, *rows)):
        file = tmp_path / "recipe.yaml"
        file.write_text(recipe_text(trial(args, stage, "tables", "trial")))
        assert yaml.safe_load(file.read_text())["attributes"] == COLUMNS["attributes"]
        later = ["--initial-checkpoint", "first.pth.tar"] if index and not candidate.teaches else []
        trained = parse_train_args(["-c", str(file), *later])
        assert (trained.data_dir, trained.train_split, trained.val_split) == ("tables", "trial", "trial-validation")
        size = 96 if candidate.teaches and not index else 64
        assert (trained.model, trained.img_size, trained.multi_valued) == ("resnet18", size, [])
        assert trained.initial_checkpoint == (later or start or ["", ""])[1]


def test_the_weights_and_the_images_decide_which_candidates_can_be_tried() -> None:
    for weights in (True, False):
        chosen, reasons = usable(None, weights, unlabeled=True)
        assert chosen == {name: one for name, one in CANDIDATES.items() if one.from_weights == weights}
        assert reasons == []
        few, _ = usable(None, weights, unlabeled=False)
        assert few == {name: one for name, one in chosen.items() if not one.reads_unlabeled}
    assert list(usable(["fine-tune"], True, True)[0]) == ["fine-tune"]
    assert usable(["fine-tune"], False, True)[1][0].startswith("--candidates fine-tune: it starts from trained weights")
    assert usable(["labels"], True, True)[1][0].startswith("--candidates labels: it starts from random weights")
    assert "no image" not in usable(["joint"], False, False)[1][0]
    assert usable(["joint"], False, False)[1][0].endswith("add some with --unlabeled")


def test_a_stage_is_fitted_to_the_rows() -> None:
    joint = CANDIDATES["joint"].stages[0]
    assert fitted(joint, None, 1000, 1000) == joint
    assert fitted(joint, 50, 1000, 1000) == joint | {"steps": 50}
    assert fitted(joint, None, 9, 1000) == joint | {"batch-size": 9}
    assert "unlabeled-ratio" not in fitted(joint, None, 1000, joint["batch-size"] - 1)
    assert fitted(joint, None, 32000, math.inf)["steps"] == 10000  # ten epochs
    student = CANDIDATES["self-train"].stages[1]
    assert fitted(student, None, 340, 2700) == student | {"steps": 106}
    assert fitted(student, None, 340, 27000) == student | {"steps": 843}  # two visits
    assert fitted(student, None, 340, math.inf) == student | {"steps": 106}
    pretrain = CANDIDATES["pretrain"].stages[0]
    assert fitted(pretrain, 50, 9, 1000) == pretrain  # it reads no label
    frozen = CANDIDATES["frozen"].stages[0]
    assert fitted(frozen, 50, 9, 0) == frozen


def test_steps_are_rounded_up_to_epochs_as_train_py_does() -> None:
    stage = {"batch-size": 32, "steps": 100, "simclr-loss-weight": 0, "classification-loss-weight": 1}
    assert images_trained(stage, labeled=100, rows=500) == 102 * 32  # 3 steps an epoch, 34 epochs
    assert images_trained(stage, labeled=32000, rows=32000) == 1000 * 32  # one epoch is longer
    mixed = stage | {"simclr-loss-weight": 0.1, "unlabeled-ratio": 2}
    assert images_trained(mixed, labeled=100, rows=500) == 102 * 96
    simclr = stage | {"simclr-loss-weight": 1, "classification-loss-weight": 0}
    assert images_trained(simclr, labeled=100, rows=500) == 105 * 32
    assert images_trained(CANDIDATES["frozen"].stages[0], labeled=100, rows=500) == 100
    assert work(stage, 100, 500) == 3 * 102 * 32
    assert work(mixed, 100, 500) == 2 * 3 * 102 * 96


def test_a_student_sees_the_unlabeled_images_and_its_teacher_labels_more_folders() -> None:
    stage = CANDIDATES["self-train"].stages[1]
    assert images_trained({"unlabeled-ratio": 0} | stage, labeled=340, rows=3400) == 100 * 96
    args = parse_choose_args(["data", "--budget", "1h", "--unlabeled", "more", "other", "-j", "3", "--amp"])
    assert labeling_words(args, "t.csv") == ["t.csv", "more", "other", "-j", "3", "--amp"]
    first, second = recipes(args, COLUMNS, 96, "self-train", 340, 3400)
    assert "unlabeled" not in first
    assert second["unlabeled"] == ["more", "other"]
    assert second["pseudo-labels"] == "output/choose/soft.parquet"
