"""The flags of train.py about soft targets: `test_train_flags.py` needs a test for each."""

from functools import partial
from pathlib import Path

import pytest
import torch
from flag_effects import Prepare, batch_of, images_of, shows, train_through
from flag_effects import prepare as make_ready
from table_files import draw_catalog, read_rows, write_table

from catalog.label_space import UNKNOWN
from runtime.errors import UsageError
from timm.models.multi_label_checkpoint import read_checkpoint

TEACHER = ["--pseudo", "ema", "--model-ema"]
ALONE = ["-wls", 0, "-wlc", 1]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a catalog with labels in its first ten rows only."""
    folder = draw_catalog(tmp_path_factory.mktemp("few") / "catalog")
    rows = read_rows(folder / "train.csv")
    write_table(folder / "train.csv", [*rows[:10], *(row | {"color": "", "shape": ""} for row in rows[10:])])
    return folder


@pytest.fixture
def prepare(few: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, few, tmp_path)


@shows("pseudo")
@pytest.mark.parametrize(
    "words", [[], ALONE, [*ALONE, "--no-prefetcher"], ["--views", "simclr", "--augment-on", "device"]]
)
def test_a_teacher_labels_a_light_view_of_images_without_labels(prepare: Prepare, words: list[object]) -> None:
    run = prepare(*TEACHER, *words, "--unlabeled-ratio", 0.5)
    views = 2 if "-wls" in words else 3
    images, target = batch_of(run)
    assert run.plan.kinds[-1] == "light"
    assert len(images) == views * 12
    assert (target[8:] == UNKNOWN).all()
    result = run.task(images, target)
    result["loss"].backward()
    assert result["pseudo_loss"] > 0
    assert all(p.grad is None for p in run.task.trainable_module_ema.parameters())
    assert len(result["output"]["color"]) == (views - 1) * 12


def test_without_a_contrastive_loss_rows_without_labels_stay_only_with_a_teacher(prepare: Prepare) -> None:
    assert len(prepare(*ALONE).train_loader.dataset) == 10
    assert len(prepare(*ALONE, *TEACHER).train_loader.dataset) == 24


def test_the_teachers_view_is_not_erased_and_the_students_are(prepare: Prepare) -> None:
    words = [*TEACHER, "--views", "simclr", "--seed", 3]
    plain, erased = (images_of(prepare(*words, "--reprob", p)) for p in (0, 1))
    assert torch.equal(plain[-8:], erased[-8:])
    assert all((plain[row] != erased[row]).any() for row in range(16))


@shows("pseudo_weight")
def test_the_weight_scales_the_loss_and_0_is_the_run_without_a_teacher(few: Path, tmp_path: Path) -> None:
    for weight in (0.5, 2.0):
        run = make_ready(few, tmp_path, *TEACHER, "--pseudo-weight", weight, "--pseudo-warmup", 0)
        result = run.task(*batch_of(run))
        rest = 0.5 * result["simclr_loss"] + 0.5 * result["classification_loss"]
        torch.testing.assert_close(result["loss"], rest + weight * result["pseudo_loss"])
    ends = []
    for index, words in enumerate((["--model-ema"], [*TEACHER, "--pseudo-weight", 0], TEACHER)):
        folder, _ = train_through(few, tmp_path / f"runs{index}", *words, "--epochs", 2, "-b", 4)
        ends.append((read_checkpoint(folder / "last.pth.tar"), (folder / "summary.csv").read_text()))
    (plain, table), (off, off_table), (taught, taught_table) = ends
    for name, value in plain.state_dict.items():
        assert torch.equal(value, off.state_dict[name])
        assert torch.equal(plain.weights(ema=True)[name], off.weights(ema=True)[name])
    assert off_table == table
    assert not torch.equal(plain.state_dict["heads.0.weight"], taught.state_dict["heads.0.weight"])
    assert "pseudo_loss" in taught_table.splitlines()[0]
    assert (off.pseudo, plain.pseudo) == (None, None)
    assert taught.pseudo is not None


@shows("pseudo_skip")
def test_a_skipped_attribute_gets_no_soft_target(prepare: Prepare) -> None:
    for words, taught in ([], [True, True]), (["--pseudo-skip", "color"], [False, True]):
        run = prepare(*TEACHER, *words)
        [soft] = run.task.soft_targets([batch_of(run)])
        assert [bool(cells.any()) for cells in soft.cells] == taught


@shows("pseudo_warmup")
def test_the_weight_rises_over_a_fraction_of_the_run(prepare: Prepare) -> None:
    for share, steps in (0.5, 12), (0.25, 6), (0, 0):  # 4 epochs of 6 steps
        run = prepare(*TEACHER, "--pseudo-warmup", share, "--epochs", 4, "-b", 4)
        assert run.task.soft_source.warmup_steps == steps
        batch = batch_of(run)
        factors = [run.task.soft_targets([batch]) and run.task.soft_source.factor() for _ in range(15)]
        assert factors == pytest.approx([min(1, step / steps) if steps else 1 for step in range(1, 16)])


def test_the_log_and_the_summary_say_what_was_used(few: Path, tmp_path: Path) -> None:
    folder, text = train_through(few, tmp_path, *TEACHER, "--epochs", 2, "-b", 4, "--unlabeled-ratio", 1)
    assert "Soft targets for cells without a label: 15 of color, 15 of shape; the teacher is the moving average" in text
    assert text.count("Teacher: color: ") == 2
    assert "of known labels predicted" in text
    assert "  Pseudo: " in text
    assert (
        "color is about color, but soft targets are learned on views that change color: use --pseudo-skip color" in text
    )
    rows = read_rows(folder / "summary.csv")
    assert all(0 < float(row["pseudo_loss"]) < 5 for row in rows)
    assert all(0 <= float(row[f"{name}_pseudo_used"]) <= 100 for row in rows for name in ("color", "shape"))


def test_names_of_skipped_attributes_are_checked(prepare: Prepare) -> None:
    with pytest.raises(UsageError, match="--pseudo-skip: there is no attribute 'size', only color, shape"):
        prepare(*TEACHER, "--pseudo-skip", "size")
    with pytest.raises(UsageError, match="--pseudo-skip names every attribute, so --pseudo has none left"):
        prepare(*TEACHER, "--pseudo-skip", "color", "shape")


def test_a_table_without_a_blank_cell_is_refused(tmp_path: Path) -> None:
    folder = draw_catalog(tmp_path / "full", blanks=False)
    with pytest.raises(
        UsageError, match=r"--pseudo: .*train.csv has no blank cell to fill: add images without labels by"
    ):
        make_ready(folder, tmp_path, *TEACHER)
