"""One pass over a table gives what predict and embed give, and held-out cells are judged as the loops say."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import CLASSES, ROWS, make_data, make_model, save_checkpoint

from catalog.table import read_table
from serving import MultiLabel
from serving.cell_reading import held_out_cells, image_dataset, read_cells


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MultiLabel:
    folder = tmp_path_factory.mktemp("run")
    return MultiLabel(save_checkpoint(folder / "a.pth.tar", make_model(), temperatures={"color": 2.0}), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    (folder / "images" / "val-5.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("tta", [0, 2])
def test_cells_are_those_of_predict_and_features_those_of_embed(model: MultiLabel, data: Path, tta: int) -> None:
    table = read_table(data / "val.csv")
    rows = np.arange(1, ROWS)
    settings = {"tta": tta, "loading": model.loading}
    found = read_cells(model.ensemble, image_dataset(table, rows), "Test", topk=5, with_features=True, **settings)
    model.tta = tta
    predicted = model.predict(data / "val.csv", topk=5).slice(1).to_pylist()
    embedded = model.embed(data / "val.csv")[1:]
    model.tta = 0
    assert found.features == pytest.approx(embedded, nan_ok=True, rel=1e-5)
    assert list(found.errors) == [4]
    for name, names in CLASSES.items():
        cells = found.cells[name]
        for place, row in enumerate(predicted):
            kept = range(1, min(5, len(names)) + 1)
            if row["error"]:
                assert (cells.codes[place] == -1).all()
                assert np.isnan(cells.confidence[place])
                continue
            assert [names[code] for code in cells.codes[place]] == [row[f"{name}_{rank}"] for rank in kept]
            probabilities = [row[f"{name}_{rank}_probability"] for rank in kept]
            assert cells.probabilities[place] == pytest.approx(probabilities, rel=1e-5)
            assert cells.confidence[place] == cells.probabilities[place, 0]
            assert cells.doubt[place] == pytest.approx(1 - probabilities[0] + probabilities[1], abs=1e-5)


def test_held_out_cells_are_the_labeled_and_readable_ones(model: MultiLabel, data: Path) -> None:
    found = held_out_cells(model.ensemble, read_table(data / "val.csv"), tta=0, loading=model.loading)
    predicted = model.predict(data / "val.csv").to_pylist()
    with (data / "val.csv").open(newline="", encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    for name, names in CLASSES.items():
        pairs = [(one, row[name]) for one, row in zip(predicted, labels, strict=True) if row[name] and one[name]]
        cells = found[name]
        assert cells.right.tolist() == [one[name] == label for one, label in pairs]
        assert [names[code] for code in cells.predicted] == [one[name] for one, _ in pairs]
        assert cells.confidence == pytest.approx([one[f"{name}_probability"] for one, _ in pairs], rel=1e-5)
