"""What the page says about a photograph, for models of several values and for the original's checkpoints."""

from pathlib import Path

import pytest
from original_checkpoint import save_as_original
from PIL import Image
from tiny_checkpoint import make_data, make_model, save_checkpoint

from catalog.label_space import LabelSpace
from serving import MultiLabel
from serving.photo import read_photo
from serving.promise import Promise


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_data(tmp_path, rows=1) / "images" / "val-0.png"


def test_several_values_are_predicted_as_predict_does(tmp_path: Path, image: Path) -> None:
    model = make_model()
    names = model.label_space.classes
    model.label_space = LabelSpace(names, ["size"])
    model.config["label_space"] = model.label_space.to_dict()
    path = save_checkpoint(tmp_path / "a.pth.tar", model, thresholds={"size": 0.3}, temperatures={"size": 2.0})
    loaded = MultiLabel(path, device="cpu")
    with Image.open(image) as picture:
        answer = read_photo(loaded, picture.convert("RGB"), {})
    color, size = answer["attributes"]
    [row] = loaded.predict(image).to_pylist()
    assert (color["several"], size["several"]) == (False, True)
    assert size["predicted"] == [value for value in row["size"].split("|") if value]
    assert 0 < len(size["predicted"]) < len(names["size"])
    probabilities = [one["probability"] for one in size["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert any(one["map"] for one in size["classes"])


def test_a_checkpoint_of_the_original_is_shown_by_the_numbers_of_its_classes(tmp_path: Path, image: Path) -> None:
    save_as_original(make_model(), tmp_path / "b.pth.tar")
    model = MultiLabel(tmp_path / "b.pth.tar", device="cpu")
    promise = Promise(model, 0.9, None)
    promise.wait()
    with Image.open(image) as picture:
        answer = read_photo(model, picture.convert("RGB"), promise.selections)
    assert {one["name"] for one in answer["attributes"][0]["classes"]} == {"0", "1", "2"}
    assert promise.state == "none"
    assert "give --data DATA" in promise.reason


def test_a_model_of_gray_images_sees_gray(tmp_path: Path, image: Path) -> None:
    from timm.models.multi_label import create_multi_label_model

    space = LabelSpace({"color": ("blue", "red")})
    model = create_multi_label_model("test_resnet", space, image_size=(1, 32, 32))
    loaded = MultiLabel(save_checkpoint(tmp_path / "c.pth.tar", model), device="cpu")
    with Image.open(image) as picture:
        answer = read_photo(loaded, picture.convert("RGB"), {})
    assert answer["seen"].startswith("data:image/jpeg;base64,")
    assert answer["size"] == [32, 32]
