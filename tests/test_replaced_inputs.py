"""No command replaces a file that it reads."""

from pathlib import Path
from types import ModuleType

import pytest
from tiny_checkpoint import make_data, make_model, save_checkpoint

import embed
import fill
import inference
import refit
import search
import validate

CPU = ("--device", "cpu", "-j", "0")
# each command, its words with DATA, INDEX and MODEL, and the file that it must leave alone
CASES: list[tuple[ModuleType, list[str], str]] = [
    (inference, ["DATA/val.csv", "--checkpoint", "MODEL", "-o", "DATA/val.csv"], "val.csv"),
    (validate, ["DATA", "--checkpoint", "MODEL", "--results-file", "DATA/val.csv"], "val.csv"),
    (validate, ["DATA", "--checkpoint", "MODEL", "--calibrate", "DATA/train.csv"], "train.csv"),
    (refit, ["MODEL", "DATA", "-o", "DATA/train.csv"], "train.csv"),
    (search, ["DATA/images/val-0.png", "--index", "INDEX", "-o", "DATA/images/val-0.png"], "images/val-0.png"),
    (fill, ["DATA/train.csv", "--checkpoint", "MODEL", "-o", "DATA/val.csv"], "val.csv"),
    (fill, ["DATA/train.csv", "--checkpoint", "MODEL", "--queue", "DATA/val.csv"], "val.csv"),
    (fill, ["DATA/train.csv", "--checkpoint", "MODEL", "--queue", "DATA/train-filled.csv"], "train.csv"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = make_data(tmp_path / "data", 12)
    make_data(folder, 12, "train")
    lines = (folder / "train.csv").read_text().splitlines()
    lines[1] = f"{lines[1].partition(',')[0]},,"  # a blank cell to fill
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    save_checkpoint(tmp_path / "model.pth.tar", make_model(), args={"data_dir": str(folder), "val_split": "val"})
    embed.main(
        [str(folder / "val.csv"), "--checkpoint", f"{tmp_path / 'model.pth.tar'}", "-o", f"{tmp_path / 'index'}", *CPU]
    )
    return folder


@pytest.mark.parametrize(("module", "words", "name"), CASES)
def test_a_command_does_not_replace_what_it_reads(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], module: ModuleType, words: list[str], name: str
) -> None:
    before = (data / name).read_bytes()
    places = {"DATA": str(data), "INDEX": str(tmp_path / "index"), "MODEL": str(tmp_path / "model.pth.tar")}
    typed = ["/".join(places.get(part, part) for part in word.split("/")) for word in words]
    with pytest.raises(SystemExit) as end:
        module.main([*typed, *(CPU if module is not search else CPU[:2])])
    assert end.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "name another" in errors[0]
    assert (data / name).read_bytes() == before


def test_results_of_an_earlier_run_may_be_replaced(data: Path, tmp_path: Path) -> None:
    words = [str(data), "--checkpoint", f"{tmp_path / 'model.pth.tar'}", "--no-latency", *CPU]
    for _ in range(2):
        validate.main([*words, "--results-file", str(data / "results.csv")])
    assert (data / "results.csv").is_file()
