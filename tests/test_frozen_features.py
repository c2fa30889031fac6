"""Features that a frozen backbone makes once."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from distributed import run_on_processes
from picture import picture
from PIL import Image
from torch import Tensor

from catalog.build_label_space import build_label_space
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.multi_label_loader import LoaderSettings, ViewSource, create_eval_loader, create_train_loader
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from timm.data.view_plan import plan_views
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from training.frozen_features import feature_loaders

MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of seven images."""
    lines = ["image_path,kind"]
    for index in range(7):
        Image.fromarray(picture(40, 44, seed=index)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{'abc'[index % 3]}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "train.csv"


def loaders_of(table: Path, prefetch: bool = True) -> tuple[MultiLabelModel, TwoViewDataset, object, object]:
    """Return a model with a frozen backbone, the training dataset, and loaders of features."""
    torch.manual_seed(0)
    read = read_table(table)
    space = build_label_space(read)
    targets = encode_targets(read, space, strict=True)
    train_set, eval_set = TwoViewDataset(read, targets, plan_views(False)), TwoViewDataset(read, targets)
    model = create_multi_label_model("test_resnet", space, image_size=(3, 32, 32), projection_dim=0)
    model.freeze_backbone()
    config = resolve_preprocessing({}, {"input_size": (3, 32, 32)})
    settings = LoaderSettings(use_prefetcher=prefetch)
    train_loader = create_train_loader(train_set, config, 3, ViewSource(Augmentation(no_aug=True)), settings)
    eval_loader = create_eval_loader(eval_set, config, 3, settings)
    features = feature_loaders(model, train_loader, eval_loader, nullcontext, lambda images: images)
    return model, train_loader.dataset, *features


@pytest.mark.parametrize("prefetch", [True, False])
def test_each_row_has_the_features_of_its_image_and_its_target(table: Path, prefetch: bool) -> None:
    model, dataset, train_loader, _ = loaders_of(table, prefetch)
    features, targets = dataset.features, dataset.targets
    assert targets[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    dataset.features = None
    with torch.no_grad():
        for row in range(7):
            pixels = dataset[row][0].float()
            if prefetch:
                mean, std = (
                    torch.tensor(values).view(3, 1, 1) * 255
                    for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
                )
                pixels = (pixels - mean) / std
            torch.testing.assert_close(features[row], model.forward_features(pixels[None])[0], atol=1e-4, rtol=1e-4)
    dataset.features = features
    batches = list(train_loader)
    assert [len(images) for images, _ in batches] == [3, 3], "the last batch is left out, as of images"
    seen = {tuple(row.tolist()) for images, _ in batches for row in images}
    assert len(seen) == 6
    assert seen <= {tuple(row.tolist()) for row in features}


def test_the_validation_images_are_read_in_the_first_pass_alone(table: Path) -> None:
    _, _, _, eval_loader = loaders_of(table)
    first = list(eval_loader)
    assert sum(len(images) for images, _ in first) == 7
    eval_loader.dataset.load = None  # reading one more would fail
    again = list(eval_loader)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) for a, b in zip(a, b, strict=True))
    assert len(eval_loader) == len(first)


def shared_features(table: str) -> tuple[Tensor, Tensor]:
    _, dataset, *_ = loaders_of(Path(table))
    return dataset.features, dataset.targets


def test_several_processes_share_the_work_and_have_all_features(table: Path) -> None:
    expected = shared_features(str(table))
    for results in run_on_processes(2, shared_features, str(table)):
        for found, alone in zip(results, expected, strict=True):
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
