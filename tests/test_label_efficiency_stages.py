"""The stages of the label-efficiency study as command lines."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import label_efficiency_settings as settings
import label_efficiency_stages as stages
import relabel_copies

from options.train import parse_train_args


@pytest.fixture
def place(tmp_path: Path) -> stages.Place:
    """Return a first stage from ImageNet weights with 96 images, 40 of them labeled."""
    (tmp_path / "original").mkdir()
    for name, rows in (("train", 96), ("labeled", 40)):
        lines = ["image_path,article", *(f"{i}.jpg,a" for i in range(rows))]
        for folder in (tmp_path, tmp_path / "original"):
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    weights = Path("weights.safetensors")
    return stages.Place("imagenet-128", 7, Path("DATA"), tmp_path, tmp_path / "runs" / "stage", weights, None)


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_a_first_stage_starts_from_the_weights_and_a_later_one_from_its_checkpoint(place: stages.Place) -> None:
    first = stages.command("--train-split labeled -b 32 -wls 0 -wlc 1 --steps 20", place)
    assert first.words[:2] == ["train.py", f"{place.tables}"]
    assert value(first.words, "--pretrained-path") == "weights.safetensors"
    assert (value(first.words, "--seed"), value(first.words, "--img-size")) == ("7", "128")
    assert first.product == place.folder / "last.pth.tar"
    assert (first.trained, first.scored) == (20 * 32, 0)
    later = stages.command("--train-split labeled -b 32 --steps 20", replace(place, product=first.product))
    assert value(later.words, "--initial-checkpoint") == f"{first.product}"
    assert "--pretrained-path" not in later.words
    assert "--pretrained-path" not in stages.command("-b 32 --steps 20", replace(place, start="scratch")).words


def test_a_student_of_soft_labels_starts_anew(place: stages.Place) -> None:
    teacher = place.tables / "last.pth.tar"
    labeled = stages.command("inference.py --tta 2", replace(place, product=teacher))
    assert labeled.words[:2] == ["inference.py", f"{place.tables / 'train.csv'}"]
    assert (value(labeled.words, "--checkpoint"), value(labeled.words, "--tta")) == (f"{teacher}", "2")
    assert (value(labeled.words, "--probabilities"), labeled.scored) == (f"{labeled.product}", 96)
    student = stages.command("-b 32 -wls 0 -wlc 1 --steps 20", replace(place, product=labeled.product))
    assert value(student.words, "--pseudo-labels") == f"{labeled.product}"
    assert value(student.words, "--pretrained-path") == "weights.safetensors"
    assert "--initial-checkpoint" not in student.words


def test_a_teacher_may_read_the_photographs_and_its_student_the_small_copies(place: stages.Place) -> None:
    photographs = f"{place.tables / 'original'}"
    teacher = stages.command("--train-split labeled -b 32 --steps 20 --img-size 224 --original", place)
    assert teacher.words[:2] == ["train.py", photographs]
    assert "--original" not in teacher.words
    soft = stages.command("inference.py --original", replace(place, product=teacher.product))
    assert soft.words[:2] == ["inference.py", f"{photographs}/train.csv"]
    assert "--original" not in soft.words
    copies = stages.command("relabel_copies.py", replace(place, product=soft.product))
    assert copies.words[1:3] == [f"{soft.product}", f"{place.tables / 'train.csv'}"]
    student = stages.command("-b 32 -wls 0 -wlc 1 --steps 20", replace(place, product=copies.product))
    assert student.words[:2] == ["train.py", f"{place.tables}"]
    assert value(student.words, "--pseudo-labels") == f"{copies.product}"


def test_small_copies_get_the_soft_labels_of_their_photographs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, copies = tmp_path / "soft.parquet", tmp_path / "copies.csv"
    paths = pa.array(["large/a.png", "large/b.png"], pa.large_string())  # as inference.py writes them
    table = pa.table({"image_path": paths, "article": [[0.9, 0.1], [0.2, 0.8]]})
    pq.write_table(table.replace_schema_metadata({"label_space": "kept"}), soft)
    copies.write_text("image_path,article\nsmall/a.jpg,x\nsmall/b.jpg,\n")
    arguments = ["relabel_copies.py", f"{soft}", f"{copies}", "-o", f"{tmp_path / 'new.parquet'}"]
    monkeypatch.setattr(sys, "argv", arguments)
    relabel_copies.main()
    found = pq.read_table(tmp_path / "new.parquet")
    assert found.to_pydict() == table.to_pydict() | {"image_path": ["small/a.jpg", "small/b.jpg"]}
    assert found.schema.metadata[b"label_space"] == b"kept"
    copies.write_text("image_path,article\nsmall/b.jpg,\nsmall/a.jpg,x\n")
    with pytest.raises(SystemExit, match="in the same order"):
        relabel_copies.main()


def test_two_views_and_a_teacher_cost_more(place: stages.Place) -> None:
    labels = "--train-split labeled -b 32 --unlabeled-ratio 2 --steps 20"
    joint = stages.command(f"{labels} -wls 0.1 -wlc 0.9", place)
    assert (joint.trained, joint.scored) == (20 * 32 * 3 * 2, 0)
    taught = stages.command(f"{labels} -wls 0 -wlc 1 --pseudo ema", place)
    assert (taught.trained, taught.scored) == (20 * 32 * 3, 20 * 32 * 3)


@pytest.mark.parametrize("method", settings.METHODS)
def test_train_py_takes_the_flags_of_every_setting(place: stages.Place, method: str) -> None:
    for start, tried in settings.METHODS[method].items():
        for setting in tried:
            product = None
            for stage in setting:
                found = stages.command(stage, replace(place, start=start, product=product))
                if found.words[0] == "train.py":
                    parse_train_args(found.words[1:])  # exits if a flag is refused
                product = found.product


@pytest.mark.parametrize(("size", "original"), [(128, False), (224, True)])
def test_logistic_regression_reads_photographs_that_are_large_enough(
    place: stages.Place, size: int, original: bool
) -> None:
    found = stages.command(f"logistic_regression.py --img-size {size}", place)
    assert found.words[0] == "benchmarks/logistic_regression.py"
    assert ("--photographs" in found.words) == original
    assert found.product == place.folder
    assert (found.trained, found.scored) == (0, 40)
    # features of different sizes and datasets stay apart
    assert value(found.words, "--features").endswith(f"imagenet-128-{size}.npz")


@pytest.mark.parametrize(
    ("labeled", "epochs", "mixed"),
    [(96, 54, True), (640, 8, False)],  # 162 steps of 3 and of 20 batches an epoch
)
def test_steps_become_epochs(tmp_path: Path, labeled: int, epochs: int, mixed: bool) -> None:
    rows = ["image_path,article", *(f"{i}.jpg,a" for i in range(640))]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "labeled.csv").write_text("\n".join(rows[: labeled + 1]) + "\n")
    stage = "--train-split labeled -b 32 --unlabeled-ratio 1 --steps 162 --lr 0.1"
    flags, images = stages.train_flags(stage, tmp_path)
    assert flags[-4:] == ["-b", "32", "--epochs", f"{epochs}"]
    assert ("--unlabeled" in flags) == mixed
    assert ("--warmup-epochs" in flags) == (epochs < 20)
    assert images == epochs * (labeled // 32) * 32 * (2 if mixed else 1)
    flags, _ = stages.train_flags("--train-split labeled -b 32 --steps 162 --lr 0.1 --times 3", tmp_path)
    assert flags[-2:] == ["--epochs", {96: "162", 640: "24"}[labeled]]
    flags, images = stages.train_flags("--train-split labeled -b 32 -wls 0 --steps 1 --least-epochs 5", tmp_path)
    assert (flags[-1], images) == ("5", 5 * labeled)


@pytest.mark.parametrize(
    ("stage", "view"),
    [
        ("-wls 0.5 -wlc 0.5", ["first"]),
        ("-wls 0.5 -wlc 0.5 --classify-view both", ["both"]),
        ("-wls 0 -wlc 1", []),
        ("-wls 1 -wlc 0", []),
    ],
)
def test_joint_training_classifies_the_first_view_unless_a_variant_names_another(
    tmp_path: Path, stage: str, view: list[str]
) -> None:
    (tmp_path / "train.csv").write_text("image_path,article\n" + "a.jpg,a\n" * 64)
    flags, _ = stages.train_flags(f"{stage} -b 32 --steps 20", tmp_path)
    assert [value for flag, value in itertools.pairwise(flags) if flag == "--classify-view"] == view
