"""The cells that compare frozen and trained batch norm statistics."""

import sys
from pathlib import Path

import pytest

from options.train import parse_train_args

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import freeze_bn


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "labeled.csv").write_text("image_path,article,kids\n" + "a.jpg,dress,kids\n" * 300)
    return tmp_path


def test_cells_differ_and_train_accepts_the_flags_of_each(tables: Path) -> None:
    cells = [*freeze_bn.tuning_cells(), *freeze_bn.grid()]
    names = [freeze_bn.cell_name(cell) for cell in cells]
    assert len(set(names)) == len(names)
    for cell in cells:
        args = parse_train_args([f"{tables}", *freeze_bn.train_words(cell, tables), "--pretrained"])
        assert args.freeze_bn == (cell["norms"] in ("frozen", "fixed"))
        assert args.bn_momentum == (0.01 if cell["norms"] == "momentum" else None)
        assert args.steps * args.batch_size == cell["photographs"]
        assert (args.simclr_loss_weight > 0) == cell["simclr"]


def test_the_report_has_a_row_for_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    freeze_bn.report()
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells = freeze_bn.read_cells()
    tuning = {freeze_bn.cell_name(cell) for cell in cells if cell["seed"] == freeze_bn.TUNING_SEED}
    others = {freeze_bn.cell_name(cell | {"seed": 0}) for cell in cells if cell["seed"] != freeze_bn.TUNING_SEED}
    assert len(rows) == len(tuning) + len(others) > 0
    known = {freeze_bn.cell_name(cell) for cell in (*freeze_bn.tuning_cells(), *freeze_bn.grid())}
    assert {freeze_bn.cell_name(cell) for cell in cells} <= known
