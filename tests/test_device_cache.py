"""Images that are decoded once onto the device, and training views made of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from picture import picture
from PIL import Image

from catalog.build_label_space import build_label_space
from catalog.label_space import UNKNOWN
from catalog.table import read_table
from catalog.targets import encode_targets
from runtime.errors import UsageError
from runtime.random_state import seed_all
from timm.data import device_cache
from timm.data.device_cache import load_onto_device
from timm.data.multi_label_loader import LoaderSettings, ViewSource, create_train_loader
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from timm.data.view_plan import plan_views

CPU = torch.device("cpu")
AUGMENTATION = Augmentation(scale=(0.2, 1.0), ratio=(0.75, 1.33), interpolation="random", color_jitter=None)
POLICY = {"strength": 1.0, "keep_color": False}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of eight rows and six images of different sizes; two rows share one, and one is no image."""
    lines = ["image_path,kind"]
    for index in range(6):
        Image.fromarray(picture(20 + 3 * index, 40 - 2 * index, seed=index)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{'ab'[index % 2]}")
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "train.csv").write_text("\n".join([*lines, "3.png,a", "broken.png,b"]) + "\n")
    return tmp_path / "train.csv"


def dataset_of(table: Path, classify: str = "first") -> TwoViewDataset:
    read = read_table(table)
    return TwoViewDataset(read, encode_targets(read, build_label_space(read), strict=True), plan_views(True, classify))


def loader_of(dataset: TwoViewDataset, workers: int = 0, cached: bool = True, batch: int = 8) -> Any:
    config = resolve_preprocessing({}, {"input_size": (3, 24, 24)})
    cache = load_onto_device(dataset, CPU, workers, 1) if cached else None
    source = ViewSource(AUGMENTATION, POLICY, on_device=True, device_cache=cache)
    return create_train_loader(dataset, config, batch, source, LoaderSettings(num_workers=workers))


@pytest.mark.parametrize("classify", ["first", "weak"])
def test_cached_images_give_the_views_of_decoded_ones(table: Path, classify: str) -> None:
    rows = table.read_text().splitlines()[:-1]  # without the broken one, whose replacement is drawn
    table.write_text("\n".join(rows) + "\n")
    batches = []
    for cached in (True, False):
        seed_all(0)
        loader = loader_of(dataset_of(table, classify), cached=cached, batch=7)
        seed_all(1)
        batches.append(next(iter(loader)))
    torch.testing.assert_close(batches[0][0], batches[1][0])
    assert torch.equal(batches[0][1], batches[1][1])
    assert len(batches[0][0]) == 7 * (3 if classify == "weak" else 2)


def test_an_unreadable_image_is_marked_and_replaced(table: Path) -> None:
    dataset = dataset_of(table)
    loader = loader_of(dataset, workers=1)
    assert dataset.unreadable.tolist() == [0] * 7 + [1]
    images, targets = next(iter(loader))
    assert images.isfinite().all()
    assert len(images) == 16
    assert (targets != UNKNOWN).all()


def test_only_one_copy_of_a_shared_image_is_kept(table: Path) -> None:
    store, sizes = load_onto_device(dataset_of(table), CPU, 0, 1)
    assert len(store.first) == 7
    assert sizes.image_of_row[3] == sizes.image_of_row[6]
    assert len(store.pixels) == sum((20 + 3 * index) * (40 - 2 * index) for index in range(6))


def test_images_that_do_not_fit_are_refused_with_a_way_out(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_cache, "available_memory", lambda: 1000)
    with pytest.raises(UsageError, match=r"cache device: 7 decoded images take .*, more than 50% .* use cache ram"):
        load_onto_device(dataset_of(table), CPU, 0, 1)
