import csv
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import run_script_on_processes
from PIL import Image
from tiny_checkpoint import CLASSES, ROWS, make_data, make_model, save_checkpoint

import validate
from catalog.label_space import LabelSpace
from timm.models.multi_label import create_multi_label_model

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.pth.tar", make_model())


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[Any, str]:
    """Run the script in this process; return what follows --result, and its log."""
    validate.main([*map(str, argv), "--device", "cpu", "-j", "0", "-b", "8", "--no-latency"])
    out, err = capsys.readouterr()
    return json.loads(out.partition("--result\n")[2]), err


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run the script on something wrong; return its one sentence."""
    with pytest.raises(SystemExit) as end:
        run(capsys, *argv)
    assert end.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def plain(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result without further flags."""
    results = tmp_path_factory.mktemp("plain") / "r.json"
    command = [str(data), "--checkpoint", str(checkpoint), "--device", "cpu", "-j", "0", "-b", "8", "--no-latency"]
    validate.main([*command, "--results-file", str(results)])
    found: dict[str, Any] = json.loads(results.read_text())
    return found


def predictions(data: Path, checkpoint: Path) -> tuple[list[dict[str, str]], dict[str, list[str]]]:
    """Return the table's rows and what the model predicts for each, by the simplest code."""
    from timm.data import create_transform
    from timm.models.multi_label import MultiLabelModel

    model = MultiLabelModel.from_checkpoint(checkpoint)
    config = model.config["data_config"]
    transform = create_transform(
        **{key: config[key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
    )
    rows = read(data / "val.csv")
    images = torch.stack([transform(Image.open(data / row["image_path"]).convert("RGB")) for row in rows])
    with torch.no_grad():
        logits = model(images)
    return rows, {name: [CLASSES[name][i] for i in values.argmax(1).tolist()] for name, values in logits.items()}


def test_untrained_heads_are_named(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    saved = torch.load(checkpoint, weights_only=False)
    for weight, named in (0.0, True), (0.5, False):
        torch.save(saved | {"args": {"classification_loss_weight": weight}}, tmp_path / "last.pth.tar")
        _, text = run(capsys, data, "--checkpoint", tmp_path / "last.pth.tar")
        assert ("its heads learned nothing in that run and guess" in text) == named


def test_metrics_equal_scikit_learn(capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    result, log = run(capsys, data, "--checkpoint", checkpoint)
    rows, predicted = predictions(data, checkpoint)
    right = [True] * len(rows)
    for name in CLASSES:
        pairs = [(row[name], guess) for row, guess in zip(rows, predicted[name], strict=True) if row[name]]
        labels, guesses = zip(*pairs, strict=True)
        assert len(set(guesses)) > 1  # otherwise the comparison proves little
        assert result[f"{name}_labels"] == len(labels)
        assert result[f"{name}_top1"] == pytest.approx(100 * metrics.accuracy_score(labels, guesses))
        assert result[f"{name}_macro_f1"] == pytest.approx(100 * metrics.f1_score(labels, guesses, average="macro"))
        recall = metrics.recall_score(labels, guesses, average="macro", labels=sorted(set(labels)))
        assert result[f"{name}_balanced_accuracy"] == pytest.approx(100 * recall)
        right = [ok and row[name] in ("", g) for ok, row, g in zip(right, rows, predicted[name], strict=True)]
    labeled = [any(row[name] for name in CLASSES) for row in rows]
    exact = sum(ok and has for ok, has in zip(right, labeled, strict=True)) / sum(labeled)
    assert result["exact_match"] == pytest.approx(100 * exact)
    assert result["top1"] == pytest.approx(np.mean([result[f"{name}_top1"] for name in CLASSES]))
    assert result["model"] == "test_efficientnet"
    assert result["epoch"] == 3
    assert result["images"] == ROWS
    assert result["split"] == "val"
    assert f" * Acc@1 {result['top1']:.3f}" in log
    assert "Test: [   1/3]" in log
    assert "color " in log
    assert "exact match" in log


def test_the_tables_of_classes_equal_scikit_learn(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    run(capsys, data, "--checkpoint", checkpoint, "--per-class", tmp_path / "classes")
    rows, predicted = predictions(data, checkpoint)
    for name, classes in CLASSES.items():
        pairs = [(row[name], guess) for row, guess in zip(rows, predicted[name], strict=True) if row[name]]
        labels, guesses = zip(*pairs, strict=True)
        with (tmp_path / "classes" / f"{name}-confusion.csv").open(newline="") as file:
            counts = [row[1:] for row in csv.reader(file)][1:]
        expected = metrics.confusion_matrix(labels, guesses, labels=classes)
        np.testing.assert_array_equal(np.array(counts, dtype=int), expected)
        table = read(tmp_path / "classes" / f"{name}.csv")
        precision, recall, f1, support = metrics.precision_recall_fscore_support(
            labels, guesses, labels=classes, zero_division=np.nan
        )
        assert [row["class"] for row in table] == list(classes)
        assert [int(row["support"]) for row in table] == support.tolist()
        for column, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            shown = [float(row[column] or "nan") for row in table]
            np.testing.assert_allclose(shown, 100 * values, atol=1e-4)
        with Image.open(tmp_path / "classes" / f"{name}-confusion.png") as picture:
            assert min(picture.size) > 300


def test_tables_of_classes_lie_beside_the_checkpoint_or_the_results(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run(capsys, data, "--checkpoint", checkpoint, "--per-class")
    assert (checkpoint.parent / "last-val-per-class" / "color.csv").exists()
    run(capsys, data, "--checkpoint", checkpoint, "--per-class", "--results-file", tmp_path / "new" / "r.csv")
    assert (tmp_path / "new" / "last-val-per-class" / "color.csv").exists()


def test_a_folder_is_scored_best_first_and_a_bad_file_is_skipped(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        save_checkpoint(tmp_path / "runs" / f"{seed}" / f"checkpoint-{seed}.pth.tar", make_model(seed=seed))
    os.link(tmp_path / "runs" / "2" / "checkpoint-2.pth.tar", tmp_path / "runs" / "2" / "model_best.pth.tar")
    (tmp_path / "runs" / "1" / "bad.pth.tar").write_text("no checkpoint")
    with pytest.raises(SystemExit) as end:
        run(
            capsys,
            data,
            "--checkpoint",
            tmp_path / "runs",
            "--results-file",
            tmp_path / "r.csv",
            "--per-class",
            tmp_path / "pc",
        )
    assert end.value.code == 1
    out, err = capsys.readouterr()
    results = json.loads(out.partition("--result\n")[2])
    assert len(results) == 2
    assert results[0]["top1"] >= results[1]["top1"]
    assert [row["checkpoint"] for row in read(tmp_path / "r.csv")] == [result["checkpoint"] for result in results]
    assert len([line for line in err.splitlines() if "bad.pth.tar cannot be read as a checkpoint" in line]) == 1
    assert "1 of 3 checkpoints could not be scored" in err
    assert sorted(path.name for path in (tmp_path / "pc").iterdir()) == ["1-checkpoint-1", "2-checkpoint-2"]


def test_the_reason_why_one_of_several_is_not_scored_names_flags(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path
) -> None:
    with pytest.raises(SystemExit):
        run(capsys, data, "--checkpoint", checkpoint.parent, "--use-ema")
    assert (
        f"Not scored: {checkpoint} was trained without --model-ema, so it has no averaged weights: leave --use-ema out"
        in (capsys.readouterr().err.splitlines())
    )


def test_a_model_pattern_selects_and_a_contradiction_is_refused(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pth.tar", make_model("test_resnet"))
    save_checkpoint(tmp_path / "b.pth.tar", make_model())
    results, log = run(capsys, data, "--checkpoint", tmp_path / "*.pth.tar", "--model", "*_resnet")
    assert [result["model"] for result in results] == ["test_resnet"]
    assert "b.pth.tar holds a model test_efficientnet" in log
    sentence = refusal(capsys, data, "--checkpoint", checkpoint, "--model", "resnet18")
    assert sentence.startswith("validate.py: error: --model resnet18 contradicts")
    assert "none of the 2 checkpoints" in refusal(capsys, data, "--checkpoint", tmp_path, "--model", "vit*")


def test_averaged_weights_are_scored_where_there_are_any(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    other = make_model(seed=5)
    path = save_checkpoint(tmp_path / "c.pth.tar", make_model(), state_dict_ema=other.state_dict())
    alone, _ = run(capsys, data, "--checkpoint", save_checkpoint(tmp_path / "o.pth.tar", other))
    averaged, _ = run(capsys, data, "--checkpoint", path, "--use-ema")
    assert averaged["use_ema"] is True
    assert averaged["loss"] == alone["loss"]
    assert "without --model-ema" in refusal(capsys, data, "--checkpoint", checkpoint, "--use-ema")


@pytest.mark.parametrize("kind", [dict, Namespace])
def test_means_are_weighted_as_in_training(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, kind: Callable[..., object]
) -> None:
    path = save_checkpoint(tmp_path / "c.pth.tar", make_model(), args=kind(attribute_weights={"size": 3.0}))
    result, log = run(capsys, data, "--checkpoint", path)
    assert result["top1"] == pytest.approx((result["color_top1"] + 3 * result["size_top1"]) / 4)
    assert "color 1, size 3" in log


def test_an_unreadable_image_counts_in_nothing(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    make_data(tmp_path, rows=12)
    before, _ = run(capsys, tmp_path, "--checkpoint", checkpoint)
    with (tmp_path / "val.csv").open("a") as file:
        file.write("images/missing.png,red,S\n")
    after, log = run(capsys, tmp_path, "--checkpoint", checkpoint)
    assert after["color_labels"] == before["color_labels"]
    assert after["top1"] == before["top1"]
    (line,) = (line for line in log.splitlines() if line.startswith("Unreadable image: "))
    assert "images/missing.png" in line


def test_a_split_without_any_readable_image_is_an_error(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    make_data(tmp_path, rows=3)
    for path in (tmp_path / "images").iterdir():
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0")
    sentence = refusal(capsys, tmp_path, "--checkpoint", checkpoint)
    assert "3 of the 3 images could not be read so far" in sentence
    assert "it is EPS, a format that is not read: save it as JPEG or PNG" in sentence


def test_a_class_that_the_model_does_not_know_is_wrong_and_has_a_row(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    make_data(tmp_path, rows=12, split="test")
    text = (tmp_path / "test.csv").read_text()
    (tmp_path / "test.csv").write_text(text.replace("blue", "crimson"))
    result, log = run(capsys, tmp_path, "--split", "test", "--checkpoint", checkpoint, "--per-class", tmp_path / "pc")
    assert result["split"] == "test"
    assert "crimson" in log
    with (tmp_path / "pc" / "color-confusion.csv").open(newline="") as file:
        last = list(csv.reader(file))[-1]
    assert last[0] == "(not in the label space)"
    assert sum(map(int, last[1:])) == text.count("blue")


def test_preprocessing_comes_from_the_checkpoint_unless_a_flag_changes_it(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path
) -> None:
    plain, _ = run(capsys, data, "--checkpoint", checkpoint)
    assert (plain["img_size"], plain["crop_pct"], plain["interpolation"]) == (32, 1.0, "bicubic")
    same, _ = run(capsys, data, "--checkpoint", checkpoint, "--img-size", 32, "--crop-pct", 1)
    assert same["loss"] == plain["loss"]
    for flags in (
        ["--img-size", 48],
        ["--crop-pct", 0.5],
        ["--mean", 0.1],
        ["--std", 1, 1, 1],
        ["--input-size", 3, 32, 48],
    ):
        other, _ = run(capsys, data, "--checkpoint", checkpoint, *flags)
        assert other["loss"] != plain["loss"], flags
    sentence = refusal(capsys, data, "--checkpoint", checkpoint, "--input-size", 1, 32, 32)
    assert "give 3 as the first number, for the channels that" in sentence


def test_statistics_of_other_channels_than_the_checkpoints_are_refused(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    gray = create_multi_label_model("test_efficientnet", LabelSpace(CLASSES), image_size=(1, 32, 32))
    path = save_checkpoint(tmp_path / "gray.pth.tar", gray)
    sentence = refusal(capsys, data, "--checkpoint", path, "--std", 1, 1, 1)
    assert sentence.endswith(f"--std has 3 values: give one value, or one for each channel of {path} (1)")


@pytest.mark.parametrize(
    "flags",
    ["--no-prefetcher", "--no-channels-last", "--torchcompile eager", "--tta 2", "--amp", "--model-dtype bfloat16",
     "--model-dtype bfloat16 --no-prefetcher", "--model-dtype float16", "--pin-mem", "-j 1"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_execution_settings_change_the_scores_little(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, flags: str
) -> None:
    plain, _ = run(capsys, data, "--checkpoint", checkpoint)
    validate.main(
        [
            str(data),
            "--checkpoint",
            str(checkpoint),
            "--device",
            "cpu",
            "-j",
            "0",
            "-b",
            "8",
            "--no-latency",
            *flags.split(),
        ]
    )
    other = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    assert other["color_labels"] == plain["color_labels"]
    exact = flags in ("--no-prefetcher", "--no-channels-last", "--torchcompile eager", "--pin-mem", "-j 1")
    assert other["loss"] == pytest.approx(plain["loss"], rel=1e-4 if exact else 0.3)
    assert (other["loss"] == plain["loss"]) <= exact  # the other settings do change the loss


def test_latency_is_measured_unless_a_flag_disables_it(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path
) -> None:
    plain, _ = run(capsys, data, "--checkpoint", checkpoint)
    assert plain["latency_ms"] is None
    validate.main([str(data), "--checkpoint", str(checkpoint), "--device", "cpu", "-j", "0"])
    out, err = capsys.readouterr()
    timed = json.loads(out.partition("--result\n")[2])
    assert 0 < timed["latency_ms"] <= timed["latency_p95_ms"]
    assert timed["gmacs"] > 0
    assert timed["param_count"] == pytest.approx(sum(p.numel() for p in make_model().parameters()) / 1e6, abs=1e-4)
    assert "ms for one image on cpu" in err


def test_several_processes_count_like_one(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    one, _ = run(capsys, data, "--checkpoint", checkpoint, "--per-class", tmp_path / "one")
    command = [data, "--checkpoint", checkpoint, "--device", "cpu", "-j", "0", "-b", "5", "--no-latency"]
    command += ["--per-class", tmp_path / "two", "--results-file", tmp_path / "two.json"]
    ends = run_script_on_processes(2, "validate.py", *command)
    assert "--result" in ends[0][0]
    assert ends[1][0] == ""
    two = json.loads((tmp_path / "two.json").read_text())
    for name, value in one.items():
        if name.endswith(("loss", "ece")):
            assert two[name] == pytest.approx(value, rel=1e-5)
        elif name != "images_per_second":
            assert two[name] == value, name
    for file in (tmp_path / "one").glob("*.csv"):
        assert (tmp_path / "two" / file.name).read_text() == file.read_text()


def test_a_checkpoint_without_attributes_is_refused(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    model = create_multi_label_model("test_efficientnet", LabelSpace({}), image_size=(3, 32, 32))
    path = save_checkpoint(tmp_path / "c.pth.tar", model)
    assert "trained without attributes" in refusal(capsys, data, "--checkpoint", path)


def test_a_transformer_is_fitted_to_another_image_size(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path / "c.pth.tar", make_model("test_vit", size=32))
    result, _ = run(capsys, data, "--checkpoint", path, "--img-size", 64)
    assert result["img_size"] == 64
    assert "cannot take images of 40 x 40" in refusal(capsys, data, "--checkpoint", path, "--img-size", 40)


def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pth.tar").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "strange.pth.tar")
    cases = [
        ([data, "--checkpoint", tmp_path / "nothing"], "no checkpoint at"),
        ([data, "--checkpoint", tmp_path / "empty"], "has no checkpoint"),
        ([data, "--checkpoint", tmp_path / "bad.pth.tar"], "cannot be read as a checkpoint"),
        ([data, "--checkpoint", tmp_path / "strange.pth.tar"], "names no attributes"),
        ([data, "--checkpoint", checkpoint, "--split", "test"], "has no test.csv"),
        ([tmp_path / "nowhere", "--checkpoint", checkpoint], "no such data folder"),
        (
            [data, "--checkpoint", checkpoint, "--results-file", "r.txt"],
            "--results-file r.txt does not end in .csv or .json",
        ),
        ([data, "--checkpoint", checkpoint, "--amp", "--amp-dtype", "float16"], "--amp-dtype float16 needs a GPU"),
    ]
    for argv, words in cases:
        sentence = refusal(capsys, *argv)
        assert sentence.startswith("validate.py: error: ")
        assert words in sentence
