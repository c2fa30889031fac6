"""A table from each flag of train.py to the test that shows its effect, and runs that are ready to train.

@shows("drop")
def test_dropout_comes_before_the_heads(prepare: Prepare) -> None:
    run = prepare("--drop", 0.5)  # a run of these flags, before its first step
"""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from table_files import write_table
from torch import Tensor

import train
from options import train as options
from runtime.random_state import seed_all
from timm.utils.model import unwrap_model
from training import loop as train_loop

torch.set_num_threads(1)

SHOWN: dict[str, str] = {}  # the test that shows the effect of each option
Test = Callable[..., None]
Prepare = Callable[..., train.Run]

TINY = ["--model", "test_efficientnet", "-b", "8", "-j", "0", "--device", "cpu"]
SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "--sched", "constant"]
WIDTH, HEIGHT = 64, 48  # the size of the pictures that `draw_ramps` draws
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="shows only on a GPU")


def shows(*dests: str) -> Callable[[Test], Test]:
    """Enter a test into the table as the one that shows the effect of these options."""

    def enter(test: Test) -> Test:
        for dest in dests:
            assert dest not in SHOWN, f"{dest}: {SHOWN[dest]} shows it already"
            SHOWN[dest] = test.__name__
        return test

    return enter


def prepare(data: Path | None, output: Path, *words: object) -> train.Run:
    """Return the run that train.py prepares from a command line, before its first step.

    Args:
        data: the data folder; None where the words name it.
        output: folder for the run's folder.
        words: flags; a run is tiny and without warm-up by default.
    """
    args = options.parse_train_args(command(data, output, *words))
    with silence():
        return train.prepare(args)


def train_through(data: Path, output: Path, *words: object) -> tuple[Path, str]:
    """Train from beginning to end in this process; return the run's folder and its output on both streams."""
    before = set(output.glob("*"))
    with silence() as text:
        train.main(command(data, output, *words))
    (folder,) = set(output.glob("*")) - before
    return folder, text.getvalue()


def command(data: Path | None, output: Path, *words: object) -> list[str]:
    """Return the command line of a short run, whose defaults `words` may overrule."""
    size = [] if "--input-size" in words else ["--img-size", "32"]
    folder = [] if data is None else [str(data)]
    return [*folder, *TINY, *SHORT, *size, "--output", str(output), *map(str, words)]


@contextmanager
def silence() -> Iterator[io.StringIO]:
    """Collect the output of a run, and restore the logging."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    try:
        with redirect_stderr(text), redirect_stdout(text):
            yield text
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def model_of(run: train.Run) -> Any:
    """Return a run's model without its wrappers."""
    return unwrap_model(run.task.get_trainable_module())


def images_of(run: train.Run, loader: str = "train_loader", seed: int = 0) -> Tensor:
    """Return the images [V*B, C, H, W] of the first batch as 0-255, from the same random numbers each time."""
    seed_all(seed)
    images, _ = next(iter(getattr(run, loader)))
    mean, std = (torch.tensor(run.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
    pixels: Tensor = (images.float() * std + mean) * 255
    return pixels.round(decimals=2)


def batch_of(run: train.Run, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the first training batch, from the same random numbers each time."""
    seed_all(seed)
    images, target = next(iter(run.train_loader))
    return images, target


def gradients_of(run: train.Run) -> list[list[Tensor]]:
    """Train an epoch; return the gradients of each update, after clipping."""
    found: list[list[Tensor]] = []
    parameters = list(model_of(run).parameters())

    def note(*_: object) -> None:
        found.append([torch.zeros(0) if p.grad is None else p.grad.clone() for p in parameters])

    run.optimizer.register_step_pre_hook(note)
    seed_all(0)
    with silence():
        train_loop.train_one_epoch(run, 0, None)
    return found


def loop_through(run: train.Run) -> list[tuple[Tensor, Tensor]]:
    """Train to the end; return the images of each training batch before and after the task has changed them."""
    batches: list[tuple[Tensor, Tensor]] = []
    run.task.register_forward_pre_hook(lambda task, inputs: batches.append((inputs[0].clone(), inputs[0])))
    with silence():
        train_loop.loop(run)
    return batches


def draw_ramps(folder: Path) -> Path:
    """Write a data folder of equal pictures, in which a color marks a place.

    Red rises from left to right and green from top to bottom, each from 0 to 255; blue is stripes two pixels wide.
    """
    (folder / "images").mkdir(parents=True)
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    blue = np.where(np.arange(WIDTH) // 2 % 2, 200, 50) * np.ones((HEIGHT, 1))
    Image.fromarray(np.stack([x, y, blue], axis=2).round().astype(np.uint8)).save(folder / "images" / "ramp.png")
    labels = [{"color": color, "shape": shape} for color in ("blue", "red") for shape in ("disc", "square")] * 4
    for split in ("train", "val"):
        write_table(folder / f"{split}.csv", [{"image_path": "images/ramp.png", **row} for row in labels])
    return folder
