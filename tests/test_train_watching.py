"""Measurements during training: they do not change the run, and warn when nothing is learned."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from flag_effects import Prepare, model_of, silence, train_through
from flag_effects import prepare as make_ready
from table_files import draw_catalog, read_rows
from torch import Tensor

from training import loop as train_loop

SENTENCES = ("has been at chance", "projections have collapsed", "representations have collapsed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"), train=48, val=16)


@pytest.fixture
def prepare(data: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, data, tmp_path)


def tensors(value: object) -> list[Tensor]:
    """Return every tensor of a checkpoint, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize(
    "words",
    [
        ["-j", 1, "--drop", 0.3, "--drop-path", 0.2, "--opt", "adamw"],
        ["-b", 4, "--contrastive-batch-size", 12, "--amp", "--model-ema"],
        ["--grad-accum-steps", 2, "--split-bn", "--recovery-interval", 2],
    ],
    ids=lambda words: words[-1],
)
def test_searching_neighbors_does_not_change_a_run_by_a_bit(data: Path, tmp_path: Path, words: list[object]) -> None:
    folders = []
    for interval in (0, 1):
        folder, _ = train_through(data, tmp_path / str(interval), *words, "--knn-interval", interval, "--epochs", 2)
        folders.append(folder)
    for name in {file.name for file in folders[0].glob("*.pth.tar")}:
        # The checkpoints differ in the saved flags, but in no tensor.
        without, watched = (tensors(torch.load(folder / name, weights_only=True)) for folder in folders)
        assert len(without) == len(watched) > 20
        assert all(torch.equal(a, b) for a, b in zip(without, watched, strict=True)), name
    plain, asked = (read_rows(folder / "summary.csv") for folder in folders)
    for row, other in zip(plain, asked, strict=True):
        assert row.items() <= other.items()
        assert other["eval_knn20"]
        assert other["train_contrastive_top1"]


def test_chunks_are_measured_as_one_batch(data: Path, tmp_path: Path) -> None:
    words = ["--lr", 1e-9, "--epochs", 1, "--model", "test_vit"]  # without batch norm, chunks differ by rounding alone
    rows = []
    for sizes in (["-b", 24], ["-b", 6, "--contrastive-batch-size", 24]):
        folder, _ = train_through(data, tmp_path / str(len(sizes)), *words, *sizes)
        rows += read_rows(folder / "summary.csv")
    for column in ("alignment", "uniformity", "effective_rank_z", "false_negatives"):
        whole, chunked = (float(row[f"train_{column}"]) for row in rows)
        assert chunked == pytest.approx(whole, rel=1e-3)


@pytest.mark.usefixtures("curves")
def test_a_run_without_a_contrastive_loss_measures_neighbors_alone(data: Path, tmp_path: Path) -> None:
    folder, said = train_through(data, tmp_path, "-wls", 0, "--knn-interval", 1)
    (row,) = read_rows(folder / "summary.csv")
    assert float(row["eval_knn20"]) > 20
    assert "train_alignment" not in row
    assert "Contrastive" not in said
    assert (folder / "representation.png").exists()


Warnings = Callable[..., dict[str, int]]


@pytest.fixture
def warnings(prepare: Prepare, caplog: pytest.LogCaptureFixture) -> Warnings:
    """Return a function that trains with a collapsed part, and returns how often each warning was logged."""

    def train_and_count(*words: object, part: str = "") -> dict[str, int]:
        run = prepare("--knn-interval", 1, *words)
        model = model_of(run)
        if part == "z":  # its inputs are not negative, so each projection is a positive multiple of one vector
            column = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
            model.projector[-1].weight.data.copy_(column.expand(-1, model.num_features))
        elif part == "h":
            for parameter in model.backbone.parameters():
                parameter.data.zero_()
        caplog.clear()
        with caplog.at_level(logging.INFO), silence():
            train_loop.loop(run)
        assert ("Contrastive Acc@1" in caplog.text) == (run.plan.contrast is not None)
        return {sentence: caplog.text.count(sentence) for sentence in SENTENCES}

    return train_and_count


STILL = ["--epochs", 4, "--lr", 1e-9]


def test_collapsed_projections_give_one_warning(warnings: Warnings) -> None:
    assert list(warnings(*STILL, part="z").values()) == [1, 1, 0]


def test_collapsed_representations_give_one_warning(warnings: Warnings) -> None:
    assert list(warnings(*STILL, part="h").values()) == [1, 1, 1]
    assert list(warnings(*STILL, "-wls", 0, part="h").values()) == [0, 0, 1]


def test_warm_up_gives_no_warning(warnings: Warnings) -> None:
    assert not any(warnings(*STILL, "--warmup-epochs", 3, part="z").values())


def test_a_run_that_learns_hears_nothing(warnings: Warnings) -> None:
    words = ["--epochs", 8, "--opt", "adamw", "--lr", 0.003, "--sched", "cosine"]
    assert not any(warnings(*words).values())
