"""An exported model in its checkpoint's place: the same labels and scores, and one sentence where it has a limit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import export
import validate
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving import MultiLabel
from serving.exported import read_model
from timm.models.multi_label import build_model, create_multi_label_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a checkpoint, and what export.py makes of it; beside them is the data folder."""
    folder = tmp_path_factory.mktemp("exported")
    data = make_data(folder / "data")
    model = make_model()
    checkpoint = save_checkpoint(
        folder / "a.pth.tar", model, args={"data_dir": str(data)}, temperatures={"color": 2.5, "size": 0.5}
    )
    found = {"checkpoint": checkpoint, "timm": folder / "timm", "onnx": folder / "a.onnx"}
    export.main([str(checkpoint), "--format", "timm", "-o", str(found["timm"])])
    export.main([str(checkpoint), "--format", "onnx", "-o", str(found["onnx"]), "--outputs", "h"])
    return found


@pytest.mark.parametrize("kind", ["timm", "onnx"])
def test_an_exported_model_labels_embeds_and_scores_as_its_checkpoint(sources: dict[str, Path], kind: str) -> None:
    data = sources["checkpoint"].parent / "data"
    first, other = MultiLabel(sources["checkpoint"], batch_size=3), MultiLabel(sources[kind], batch_size=3)
    assert other.label_space == first.label_space
    assert other.temperatures == first.temperatures == [{"color": 2.5, "size": 0.5}]
    expected, found = (model.predict(data / "val.csv").to_pydict() for model in (first, other))
    for column, values in expected.items():
        if column.endswith("_probability"):
            np.testing.assert_allclose(found[column], values, rtol=0 if kind == "timm" else 1e-4)
        else:
            assert found[column] == values
    np.testing.assert_allclose(other.embed(data / "val.csv"), first.embed(data / "val.csv"), rtol=1e-3, atol=1e-5)
    assert other.evaluate(data) == pytest.approx(first.evaluate(data), rel=1e-4)


def test_a_folder_rebuilds_the_model_bit_for_bit(sources: dict[str, Path]) -> None:
    expected, found = (build_model(read_model(sources[kind])).state_dict() for kind in ("checkpoint", "timm"))
    assert {name for name in expected if not name.startswith("projector.")} == found.keys()
    assert all(torch.equal(values, expected[name]) for name, values in found.items())


def test_validate_scores_a_file_and_a_folder_and_says_what_it_cannot_count(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    data = sources["checkpoint"].parent / "data"
    rows = {}
    for kind, source in sources.items():
        results = tmp_path / f"{kind}.json"
        validate.main([str(data), "--checkpoint", str(source), "-j", "0", "--results-file", str(results)])
        rows[kind] = json.loads(results.read_text())
    assert rows["timm"]["top1"] == rows["onnx"]["top1"] == rows["checkpoint"]["top1"]
    assert rows["onnx"]["param_count"] == rows["checkpoint"]["param_count"]
    assert rows["onnx"]["gmacs"] is None
    assert rows["onnx"]["latency_ms"] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_ema": True}, "use_ema has no effect on the exported model"),
        ({"compiler": "eager"}, "torchcompile has no effect on the exported model"),
        ({"number_format": {"amp": True}}, "amp has no effect on the exported model"),
        ({"preprocessing": {"img_size": 64}}, "takes only images of 32 x 32 pixels: leave img_size out"),
    ],
)
def test_what_an_onnx_file_has_fixed_is_refused(sources: dict[str, Path], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MultiLabel(sources["onnx"], **settings)


def test_an_output_that_was_not_exported_is_named(sources: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="has no output z: export the checkpoint again with --outputs z"):
        MultiLabel(sources["onnx"]).embed(sources["checkpoint"].parent / "data" / "val.csv", projection=True)


def test_a_model_of_another_origin_is_one_sentence(sources: dict[str, Path], tmp_path: Path) -> None:
    foreign = onnx.load(sources["onnx"])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "torn.onnx").write_bytes(sources["onnx"].read_bytes()[:1000])
    for name in ("no attributes", "huge", "torn"):
        shutil.copytree(sources["timm"], tmp_path / name)
    config = json.loads((sources["timm"] / "config.json").read_text())
    (tmp_path / "no attributes" / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    config["multi_label"]["data_config"]["input_size"] = [3, 10**9, 10**9]
    (tmp_path / "huge" / "config.json").write_text(json.dumps(config))
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"\xff" * 100)
    for name, words in {
        "foreign.onnx": "has no names of attributes and classes, which export.py of this project writes",
        "no attributes": "has no names of attributes and classes, which export.py of this project writes",
        "torn.onnx": "onnxruntime cannot run",
        "huge": "cannot be used: its entry multi_label.image_size",
        "torn": "model.safetensors cannot be read",
        "gone.onnx": "no model at",
    }.items():
        with pytest.raises(UsageError, match=words):
            MultiLabel(tmp_path / name)


def test_a_model_is_exported_from_python(sources: dict[str, Path], tmp_path: Path) -> None:
    model = MultiLabel(sources["checkpoint"])
    with pytest.raises(UsageError, match="format 'keras': give one of timm, onnx, torch"):
        model.export("keras")
    folder = model.export("timm", tmp_path / "again")
    assert (folder / "model.safetensors").read_bytes() == (sources["timm"] / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="is exported, so its weights are out of reach: name the checkpoint"):
        MultiLabel(sources["onnx"]).export("timm", tmp_path / "third")


@pytest.mark.parametrize("form", ["timm", "onnx"])
def test_an_attribute_with_several_values_keeps_its_threshold_and_separator(tmp_path: Path, form: str) -> None:
    data = make_data(tmp_path / "data")
    plain = make_model()
    space = LabelSpace({"tags": CLASSES["color"], "size": CLASSES["size"]}, ["tags"], ";")
    model = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32), projection_dim=8)
    model.load_state_dict(plain.state_dict())
    model.config["data_config"] = plain.config["data_config"]
    chosen = {"thresholds": {"tags": 0.3}, "temperatures": {"tags": 3.0}}
    checkpoint = save_checkpoint(tmp_path / "tags.pth.tar", model.eval(), args={"data_dir": str(data)}, **chosen)
    output = tmp_path / {"timm": "folder", "onnx": "tags.onnx"}[form]
    export.main([str(checkpoint), "--format", form, "-o", str(output)])
    first, other = MultiLabel(checkpoint, device="cpu"), MultiLabel(output, device="cpu")
    assert other.label_space == first.label_space
    assert other.ready.thresholds == first.ready.thresholds == {"tags": 0.3}
    expected, found = (model.predict(data / "val.csv").to_pydict() for model in (first, other))
    assert found["tags"] == expected["tags"]
    counts = {text.count(";") + bool(text) for text in expected["tags"]}
    assert {1, 2} <= counts  # some images have one value, and others two
    assert found["size"] == expected["size"]
