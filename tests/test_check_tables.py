"""Mistakes in tables and in flags that name columns are answered without torch, in the words of the command itself."""

import logging
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from commands import check_tables
from commands.check_tables import CHECKS
from commands.early_mistakes import report_table_mistakes
from options.choose import parse_choose_args
from options.embed import parse_embed_args
from options.fill import parse_fill_args
from options.inference import parse_inference_args
from options.refit import parse_refit_args
from options.train import parse_train_args
from options.train_kwargs import data_kwargs
from options.validate import parse_validate_args
from runtime.errors import UsageError
from timm.data.view_plan import plan_views
from timm.task.contrastive_loss import KINDS, reads_labels
from training.data import read_data
from training.label_tables import DataSettings

ROOT = Path(__file__).resolve().parent.parent
ROWS = "".join(f"{i}.jpg,{'Red' if i % 2 else 'Blue'},{'Bag' if i % 3 else 'Shoe'}\n" for i in range(9))

# What is wrong in the folder, by name: the file, and its content; None deletes it.
FAULTS: dict[str, tuple[str, str | None]] = {
    "whole": ("other.txt", ""),
    "no train": ("train.csv", None),
    "no val": ("val.csv", None),
    "empty": ("train.csv", ""),
    "no rows": ("train.csv", "image_path,color\n"),
    "no images": ("train.csv", "image,color\na.jpg,Red\n"),
    "twice": ("train.csv", "image_path,color,color\na.jpg,Red,Red\n"),
    "ragged": ("train.csv", "image_path,color,article\na.jpg,Red\n"),
    "one class": ("train.csv", "image_path,color\na.jpg,Red\nb.jpg,Red\n"),
    "no labels": ("train.csv", "image_path\na.jpg\n"),
    "val without images": ("val.csv", "file,color\na.jpg,Red\n"),
    "ragged val": ("val.csv", "image_path,color,article\na.jpg,Red\n"),
    "no photographs": ("train.csv", "image_path,color\nx.jpg,Red\ny.jpg,Blue\n"),
    "classes elsewhere": ("all.csv", "image_path,color\na.jpg,Red\nb.jpg,Blue\n"),
}

# the fault, the flags, and a part of the sentence
TRAIN = [
    ("whole", ["--attributes", "colour"], "train.csv has no attribute 'colour'; did you mean 'color'?"),
    ("whole", ["--attribute-weights", "colour=2"], "--attribute-weights: there is no attribute 'colour', only color, "),
    ("whole", ["--attribute-weights", "color=0", "article=0"], "--attribute-weights are all 0"),
    ("whole", ["--multi-valued", "tags"], "has no attribute 'tags', which --multi-valued names"),
    ("whole", ["--pseudo", "ema", "--model-ema", "--pseudo-skip", "size"], "--pseudo-skip: there is no attribute 'si"),
    ("whole", ["--train-split", "nosuch"], "has no nosuch.csv"),
    ("whole", ["--val-split", "nosuch"], "has no nosuch.csv"),
    ("no train", [], "has no train.csv"),
    ("no val", [], "split train.csv with: python split.py"),
    ("empty", [], "train.csv is empty"),
    ("no rows", [], "train.csv has a header and no rows"),
    ("no images", [], "has no column image_path: rename 'image' to it"),
    ("twice", [], "column 'color' is there twice"),
    ("ragged", [], "train.csv line 2 has 2 cells, the header has 3"),
    ("one class", [], "column 'color' has one class only"),
    ("no labels", [], "train.csv has no attribute to learn"),
    ("val without images", [], "val.csv line 1 has no column image_path"),
    ("ragged val", [], "val.csv line 2 has 2 cells"),
    ("no photographs", [], "name the folder that they are relative to with --image-root"),
    ("no photographs", ["--image-root", "nosuch"], "--image-root"),
    ("classes elsewhere", [], "all.csv has no column 'article', which train.csv has"),
]
NEED_ROWS = {"no rows", "ragged", "one class", "ragged val", "no photographs"}


def folder(place: Path, fault: str) -> Path:
    """Write a folder of tables with a fault."""
    data = place / "data"
    data.mkdir()
    for name in ("train.csv", "val.csv"):
        (data / name).write_text("image_path,color,article\n" + ROWS)
    for index in range(9):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(data / f"{index}.jpg")
    file, content = FAULTS[fault]
    (data / file).unlink() if content is None else (data / file).write_text(content)
    return data


def sentence(check: Callable[[Namespace], object], args: Namespace) -> str:
    with pytest.raises(UsageError) as error:
        check(args)
    return str(error.value)


@pytest.mark.parametrize(("fault", "words", "part"), TRAIN, ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_a_mistake_has_one_sentence_early_and_late(
    tmp_path: Path, fault: str, words: list[str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = parse_train_args([str(folder(tmp_path, fault)), *words])
    early = sentence(CHECKS["train.py"], args)
    assert part in early
    late = sentence(lambda args: read_data(DataSettings(**data_kwargs(args)), plan_views(True), None), args)
    assert early == late
    # only the header of a large table is read
    monkeypatch.setattr(check_tables, "SMALL", -1)
    if fault not in NEED_ROWS:
        assert sentence(CHECKS["train.py"], args) == late
    else:
        CHECKS["train.py"](args)


def test_the_sentences_come_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    data = folder(tmp_path, "ragged val")
    weights = tmp_path / "weights"
    weights.write_text("")
    table, model = str(data / "val.csv"), ["--checkpoint", str(weights)]
    for script, *words in (
        ("train.py", str(data)),
        ("validate.py", str(data), *model),
        ("inference.py", table, *model),
        ("embed.py", table, *model, "-o", str(tmp_path / "index")),
        ("fill.py", table, *model),
        ("refit.py", str(weights), str(data)),
        ("choose.py", str(data), "--budget", "1m", "--train-split", "val", "--model", "resnet18"),
    ):
        code = (
            "import runpy, sys; sys.modules['torch'] = None; sys.argv[0] = sys.argv.pop(1);"
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", code, script, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == (
            f"{script}: error: val.csv line 2 has 2 cells, the header has 3: write the delimiter of blank cells too\n"
        )
        assert done.returncode == 2


def test_help_reads_no_table() -> None:
    code = (
        "import sys, commands.early_mistakes, options.train;"
        "print({'torch', 'timm', 'numpy', 'pyarrow'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_header_is_read_without_pandas(tmp_path: Path) -> None:
    data = folder(tmp_path, "whole")
    code = (
        f"import sys; from catalog.table import read_header; print(read_header({str(data / 'train.csv')!r}));"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "False"


@pytest.mark.parametrize("limit", [check_tables.SMALL, -1])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-wlc", "0", "--val-split", "nosuch"],  # nothing is scored by labels of one class
        ["--attributes", "color", "--attribute-weights", "color=2", "--multi-valued", "color"],
        ["--resume", "auto", "--experiment", "mine", "--attribute-weights", "other=2"],  # the checkpoint may have it
    ],
)
def test_what_training_accepts_passes(
    tmp_path: Path, words: Sequence[str], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path, "whole")
    if "nosuch" in words:
        (data / "train.csv").write_text("image_path,color\n1.jpg,Red\n2.jpg,Red\n")
    monkeypatch.setattr(check_tables, "SMALL", limit)
    CHECKS["train.py"](parse_train_args([str(data), *words]))


def test_a_large_table_of_another_format_is_checked_by_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path, "no train")
    pq.write_table(pa.table({"image_path": ["a.jpg"], "color": [["Red"]]}), data / "train.parquet")
    monkeypatch.setattr(check_tables, "SMALL", -1)
    args = parse_train_args([str(data), "--attributes", "colors"])
    assert sentence(CHECKS["train.py"], args).startswith(
        "train.parquet has no attribute 'colors'; did you mean 'color'"
    )


def test_other_commands_name_the_wrong_column_or_table(tmp_path: Path) -> None:
    data, weights = folder(tmp_path, "no val"), str(tmp_path / "model")
    table = str(data / "train.csv")
    refit = parse_refit_args([weights, str(data), "--attributes", "colour", "--val-split", "none"])
    assert sentence(CHECKS["refit.py"], refit).startswith("train.csv has no attribute 'colour'; did you mean 'color'?")
    refit = parse_refit_args([weights, str(data)])
    assert sentence(CHECKS["refit.py"], refit).endswith("; or choose by cross-validation with --val-split none")
    CHECKS["refit.py"](parse_refit_args([weights, str(data), "--val-split", "none"]))

    choose = ["--budget", "1m", "--model", "resnet18"]
    args = parse_choose_args([str(data), *choose, "--group", "articles"])
    assert sentence(CHECKS["choose.py"], args) == (
        "train.csv has no column 'articles' for the groups; did you mean 'article'?"
    )
    CHECKS["choose.py"](parse_choose_args([str(data), *choose, "--attributes", "color", "--group", "article"]))

    validate = parse_validate_args([str(data), "--checkpoint", weights, "--split", "test"])
    assert "has no test.csv" in sentence(CHECKS["validate.py"], validate)
    for parse, script in ((parse_inference_args, "inference.py"), (parse_embed_args, "embed.py")):
        places = ["--checkpoint", weights, "-o", str(tmp_path / "out.csv")]
        CHECKS[script](parse([table, str(data), *places]))  # folders are not walked
    fill = parse_fill_args([table, "--checkpoint", weights, "-o", str(tmp_path / "filled.parquet")])
    assert sentence(CHECKS["fill.py"], fill).startswith("--output filled.parquet is another format than train.csv")
    CHECKS["fill.py"](parse_fill_args([table, "--checkpoint", weights]))


def test_warnings_wait_for_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder(tmp_path, "whole")
    (data / "train.csv").write_text("image_path,color\n1.jpg,Red\n2.jpg,red\n3.jpg,Blue\n")
    args = parse_train_args([str(data)])
    CHECKS["train.py"](args)
    assert "differ only in case" in caplog.text
    caplog.clear()
    report_table_mistakes("train.py", args)
    assert not caplog.text
    assert not logging.root.manager.disable


def test_a_mistake_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path, "empty")
    with pytest.raises(SystemExit) as ended:
        report_table_mistakes("train.py", parse_train_args([str(data)]))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("train.py: error: train.csv is empty")
    assert not logging.root.manager.disable


def test_both_lists_of_losses_that_read_labels_agree() -> None:
    settings = data_kwargs(parse_train_args(["data"]))
    for name in (*KINDS, "none"):
        assert DataSettings(**settings | {"contrastive": name}).contrast_reads_labels == reads_labels(name, False)
