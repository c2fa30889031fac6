"""Training on the soft labels of a file: `test_train_flags.py` needs a test for each flag."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from flag_effects import Prepare, batch_of, shows, silence, train_through
from flag_effects import prepare as make_ready
from table_files import draw_catalog, read_rows, write_table

import inference
from catalog.label_space import UNKNOWN, LabelSpace
from reports.probabilities import write_probabilities
from runtime.errors import UsageError
from timm.models.multi_label import MultiLabelModel
from timm.models.multi_label_checkpoint import read_checkpoint

ALONE = ["-wls", 0, "-wlc", 1]
LABELED = 10


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a catalog with labels in its first ten rows only, and soft labels in soft.parquet."""
    folder = draw_catalog(tmp_path_factory.mktemp("few") / "catalog")
    rows = read_rows(folder / "train.csv")
    spaces = {name: tuple(sorted({row[name] for row in rows} - {""})) for name in ("color", "shape")}
    blanked = [*rows[:LABELED], *(row | {"color": "", "shape": ""} for row in rows[LABELED:])]
    blanked[0] |= {"shape": ""}  # a labeled row with a blank cell
    write_table(folder / "train.csv", blanked)
    # in another order, with the images of the table and others
    paths = [f"other/{index}.png" for index in range(3)] + [row["image_path"] for row in rows[::-1]]
    write_soft(folder / "soft.parquet", LabelSpace(spaces), paths)
    return folder


def write_soft(path: Path, space: LabelSpace, image_paths: list[str], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    values = {name: rng.dirichlet(np.ones(k), len(image_paths)) for name, k in space.num_classes.items()}
    paths = pa.chunked_array([image_paths], pa.large_string())
    with write_probabilities(path, space, paths) as writer:
        readable = np.ones(len(image_paths), dtype=bool)
        writer.add({name: one.astype(np.float32) for name, one in values.items()}, readable)


@pytest.fixture
def prepare(few: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, few, tmp_path)


@shows("pseudo_labels")
@pytest.mark.parametrize(
    "words",
    [
        [],
        ALONE,
        [*ALONE, "--no-prefetcher"],
        ["--views", "simclr", "--augment-on", "device"],
        ["--views", "simclr", "--augment-on", "device", "--cache", "device"],
        ["--unlabeled-ratio", 0.5],
        ["--cache", "ram", "-j", 1],
        [*ALONE, "--freeze-backbone", "--no-aug", "--initial-checkpoint", "start.pth.tar"],
        ["--contrastive", "supcon"],
    ],
)
def test_blank_cells_learn_the_soft_labels_of_their_image(
    few: Path, prepare: Prepare, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--initial-checkpoint" in words:
        monkeypatch.chdir(tmp_path)
        model = prepare().task.trainable_module
        torch.save({"state_dict": model.state_dict(), "multi_label": model.config}, "start.pth.tar")
    run = prepare(*words, "--pseudo-labels", few / "soft.parquet")
    rows = pq.read_table(few / "soft.parquet").to_pylist()
    images, target = batch_of(run)
    assert target.shape[1] == 3
    assert len(run.train_loader.dataset) == 24
    result = run.task(images, target)
    # the loss by its definition, one cell after the other
    table = run.train_loader.dataset.table
    losses = []
    for index, name in enumerate(("color", "shape")):
        logits = result["output"][name].detach().view(len(run.plan.classify), len(target), -1)
        cells = []
        for place, (*labels, row) in enumerate(target.tolist()):
            image = next(one for one in rows if one["image_path"] == table.image_path(row))
            if labels[index] == UNKNOWN:
                cells += [-(torch.tensor(image[name]) * F.log_softmax(view[place], 0)).sum() for view in logits]
            else:
                assert run.train_loader.dataset.targets[row, index] == labels[index]
        losses.append(torch.stack(cells).mean() if cells else torch.tensor(0.0))
    torch.testing.assert_close(result["pseudo_loss"].detach(), torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    result["loss"].backward()


def test_weights_scale_each_cell_and_a_null_has_no_target(few: Path, prepare: Prepare, tmp_path: Path) -> None:
    table = pq.read_table(few / "soft.parquet")
    weights = np.linspace(0, 2, len(table)).astype(np.float32)
    lists = [None if row % 5 == 0 else one for row, one in enumerate(table["shape"].to_pylist())]
    table = table.set_column(2, table.schema.field("shape"), pa.array(lists, pa.list_(pa.float32())))
    table = table.append_column("color_weight", pa.array(weights))
    pq.write_table(table, tmp_path / "soft.parquet")
    source = prepare("--pseudo-labels", tmp_path / "soft.parquet").task.soft_source
    rows = torch.arange(24).flip(0)  # the file has the table's rows in the opposite order, after three others
    target = torch.cat([torch.full((24, 2), UNKNOWN), rows[:, None]], dim=1)
    (found,) = source([(torch.empty(0), target)])
    torch.testing.assert_close(found.weights[0], torch.from_numpy(weights[3:]))
    assert found.cells[0].all()
    assert torch.equal(found.cells[1], (torch.arange(24) + 3) % 5 != 0)
    target[3, 2] = UNKNOWN  # an empty picture, in the place of images that could not be read
    assert not source([(torch.empty(0), target)])[0].cells[0][3]


def test_weight_0_is_the_run_without_soft_labels(few: Path, tmp_path: Path) -> None:
    soft = ["--pseudo-labels", few / "soft.parquet"]
    ends = []
    for index, words in enumerate(([], [*soft, "--pseudo-weight", 0], soft)):
        folder, text = train_through(few, tmp_path / f"runs{index}", *words, "--epochs", 2, "-b", 4)
        ends.append((read_checkpoint(folder / "last.pth.tar").state_dict, (folder / "summary.csv").read_text(), text))
    (plain, table, _), (off, off_table, _), (taught, taught_table, text) = ends
    assert all(torch.equal(value, off[name]) for name, value in plain.items())
    assert off_table == table
    assert not torch.equal(plain["heads.0.weight"], taught["heads.0.weight"])
    assert "pseudo_loss" in taught_table.splitlines()[0]
    assert "Pseudo: " in text
    assert "for 15 of 15 blank cells of color, 16 of 16 blank cells of shape" in text


def test_a_resumed_run_ends_as_an_uninterrupted_one(few: Path, tmp_path: Path) -> None:
    words = ["--pseudo-labels", few / "soft.parquet", "-b", 4, "--unlabeled-ratio", 1, "--epochs", 3]
    whole, _ = train_through(few, tmp_path / "whole", *words)
    first = whole / "checkpoint-0.pth.tar"
    again, _ = train_through(few, tmp_path / "again", *words, "--resume", first)
    one, other = (read_checkpoint(folder / "last.pth.tar").state_dict for folder in (whole, again))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_images_that_the_file_lacks_are_counted(few: Path, tmp_path: Path) -> None:
    table = pq.read_table(few / "soft.parquet")
    pq.write_table(table.slice(7), tmp_path / "soft.parquet")
    words = ["--pseudo-labels", tmp_path / "soft.parquet", "--pseudo-skip", "shape", "--epochs", 1]
    _, text = train_through(few, tmp_path / "runs", *words)
    assert "for 11 of 15 blank cells of color; 4 images with a blank cell are not in the file" in text


def test_mistakes_get_one_sentence(few: Path, prepare: Prepare, tmp_path: Path) -> None:
    table = pq.read_table(few / "soft.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    labeled = {row["image_path"] for row in read_rows(few / "train.csv") if row["color"] and row["shape"]}
    pq.write_table(
        table.filter(pc.is_in(table["image_path"], pa.array(sorted(labeled), pa.large_string()))),
        tmp_path / "labeled.parquet",
    )
    for name, sentence in (("empty", "the file is empty"), ("labeled", "no soft label for a blank cell")):
        with pytest.raises(UsageError, match=sentence):
            prepare("--pseudo-labels", tmp_path / f"{name}.parquet")


def test_a_small_student_learns_from_a_large_teacher(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three commands: a teacher of another backbone and image size labels images, and a student starts anew."""
    monkeypatch.chdir(tmp_path)
    more = draw_catalog(tmp_path / "more")
    words = ["--model", "test_resnet", "--img-size", 48, *ALONE, "--epochs", 2]
    teacher, _ = train_through(few, tmp_path / "teacher", *words)
    temperatures = read_checkpoint(teacher / "last.pth.tar").chosen["temperatures"]
    checkpoint = ["--checkpoint", teacher / "last.pth.tar", "--tta", 2, "--device", "cpu", "-j", 0]
    soft = ["--probabilities", "soft.parquet", "-o", "p.csv"]
    with silence():
        inference.main([str(word) for word in (few / "train.csv", "more/images", *checkpoint, *soft)])
    student = [*ALONE, "--views", "simclr", "--unlabeled", more / "images", "--pseudo-labels", "soft.parquet"]
    run = make_ready(few, tmp_path / "student", *student)
    labels, table = run.task.soft_source, run.train_loader.dataset.table
    assert (labels.row_of >= 0).all()
    assert len(labels.row_of) == 24 + len(list((more / "images").iterdir()))
    paths = pq.read_table("soft.parquet")["image_path"].to_pylist()
    assert table.image_path(30).endswith(paths[int(labels.row_of[30])])
    # the targets are the teacher's calibrated probabilities
    model = MultiLabelModel.from_checkpoint(teacher / "last.pth.tar")
    assert model.temperatures == temperatures
    assert set(temperatures) == {"color", "shape"}
    folder, _ = train_through(few, tmp_path / "runs", *student, "--epochs", 2)
    assert "pseudo_loss" in (folder / "summary.csv").read_text()
