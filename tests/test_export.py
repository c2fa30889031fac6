"""export.py: other tools load what it writes, without this project, and get the checkpoint's outputs."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from file_limit import file_limit
from PIL import Image
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint
from torch import Tensor

import export
from options.export import parse_export_args
from runtime.commit import commit
from runtime.errors import UsageError
from serving import export_int8, export_onnx, exporting
from serving.export_check import check_equal
from timm.models import create_model
from timm.models.multi_label import MultiLabelModel

torch.set_num_threads(1)

# run without this project: stock timm, from another folder
STOCK = """
import sys, torch
sys.path = [path for path in sys.path if path]
import timm
assert not hasattr(timm.models, "multi_label"), "this is the fork"
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
images = torch.load(sys.argv[2])
with torch.inference_mode():
    torch.save({"logits": model(images), "config": timm.data.resolve_model_data_config(model),
                "names": model.pretrained_cfg.get("label_names")}, sys.argv[3])
    headless = timm.create_model("local-dir:" + sys.argv[1], pretrained=True, num_classes=0).eval()
    torch.save(headless(images), sys.argv[4])
"""


@pytest.fixture(scope="module")
def model() -> MultiLabelModel:
    return make_model()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, model: MultiLabelModel) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = make_data(folder / "data")
    make_data(data, 12, "train")
    chosen = {"temperatures": {"color": 2.5}}
    return save_checkpoint(folder / "model_best.pth.tar", model, args={"data_dir": str(data)}, **chosen)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        export.main([*words])
    assert end.value.code == 2
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export.py: error: ")]
    return sentence.removeprefix("export.py: error: ")


@torch.inference_mode()
def logits(model: MultiLabelModel, images: Tensor) -> Tensor:
    found = model(images)
    assert isinstance(found, dict)
    return torch.cat(list(found.values()), dim=1)


def test_stock_timm_has_the_same_bits_in_logits_and_features(
    checkpoint: Path, model: MultiLabelModel, images: Tensor, tmp_path: Path
) -> None:
    folder = tmp_path / "exported"
    export.main([str(checkpoint), "--format", "timm", "-o", str(folder)])
    files = [tmp_path / name for name in ("images.pt", "logits.pt", "features.pt")]
    torch.save(images, files[0])
    words = [sys.executable, "-c", STOCK, str(folder), *map(str, files)]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=120, env={"OMP_NUM_THREADS": "1", "PATH": ""})
    found = torch.load(files[1])
    assert torch.equal(found["logits"], logits(model, images))
    with torch.inference_mode():
        assert torch.equal(torch.load(files[2]), model.forward_features(images))
    assert found["config"]["input_size"] == (3, 32, 32)
    assert found["config"]["crop_pct"] == 1.0
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"][:4] == ["color=blue", "color=green", "color=red", "size=L"]
    assert config["multi_label"]["temperatures"] == {"color": 2.5, "size": 1.0}
    assert config["multi_label"]["commit"] == commit() != ""
    assert config["num_classes"] == 9
    assert "num_classes" not in config["model_args"]  # transformers passes the number itself, and Python refuses both
    assert "| color | blue, green, red | 0 to 2 |" in (folder / "README.md").read_text()
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1  # the weights too can be read by a server


def test_a_backbone_alone_gives_the_representation(
    checkpoint: Path, model: MultiLabelModel, images: Tensor, tmp_path: Path
) -> None:
    words = [str(checkpoint), "--format", "timm", "--backbone-only", "-o", str(tmp_path / "b")]
    export.main(words)
    export.main(words)  # an earlier export is replaced
    loaded = create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.forward_features(images))


def test_an_onnx_file_has_an_output_for_each_attribute_and_takes_any_batch(
    checkpoint: Path, model: MultiLabelModel, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.onnx"
    triton = tmp_path / "triton"
    words = ["--format", "onnx", "-o", str(file), "--outputs", "z", "h", "--triton", str(triton)]
    export.main([str(checkpoint), *words])
    assert f"Exported: {file}" in capsys.readouterr().out
    run = export_onnx.load_onnx(file, threads=1)
    for count in (1, 3, 5):
        found = run(images[:count])
        assert list(found) == ["color", "size", "h", "z"]
        expected = logits(model, images[:count])
        torch.testing.assert_close(torch.cat([found["color"], found["size"]], 1), expected, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        h = model.forward_features(images)
        torch.testing.assert_close(found["h"], h, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["z"], model.forward_projection(h), atol=1e-4, rtol=1e-4)
    import onnx  # an optional extra

    saved = onnx.load(file)
    described = json.loads({entry.key: entry.value for entry in saved.metadata_props}["multi_label"])
    assert described["label_space"]["classes"] == [list(names) for names in CLASSES.values()]
    assert described["temperatures"]["color"] == 2.5
    assert described["data_config"]["input_size"] == [3, 32, 32]
    assert [entry.version for entry in saved.opset_import if entry.domain == ""] == [20]
    entry = triton / "model"
    assert (entry / "1" / "model.onnx").read_bytes() == file.read_bytes()
    assert '{ name: "size" data_type: TYPE_FP32 dims: [6] }' in (entry / "config.pbtxt").read_text()


def test_a_torch_program_runs_without_this_project(
    checkpoint: Path, model: MultiLabelModel, images: Tensor, tmp_path: Path
) -> None:
    export.main([str(checkpoint), "--format", "torch"])
    file = checkpoint.with_name("model_best.pt2")
    extra = {"multi_label.json": ""}
    program = torch.export.load(file, extra_files=extra).module()
    torch.testing.assert_close(torch.cat(program(images), 1), logits(model, images), atol=1e-5, rtol=1e-5)
    assert program(images[:1])[0].shape == (1, 3)
    assert json.loads(extra["multi_label.json"])["outputs"] == ["color", "size"]
    assert [path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")] == []


def test_int8_is_written_only_where_it_keeps_the_accuracy(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = checkpoint.parent / "data", tmp_path / "small.onnx"
    words = [str(checkpoint), "--format", "onnx", "-o", str(file), "--int8", str(data), "-j", "0"]
    words += ["--calibration-images", "8"]
    monkeypatch.setattr(export_int8, "LARGEST_LOSS", 100.0)
    export.main(words)
    log = capsys.readouterr().err
    [line] = [line for line in log.splitlines() if line.startswith("int8 in ")]
    assert re.fullmatch(r"int8 in (\d+) of \1 layers: color: .* points\)  size: .* points\)", line)
    whole = tmp_path / "whole.onnx"
    export.main([*words[:3], "-o", str(whole)])
    assert file.stat().st_size < whole.stat().st_size
    monkeypatch.setattr(export_int8, "LARGEST_LOSS", -100.0)
    file.unlink()
    sentence = refusal(capsys, *words)
    assert "even with half of the layers in float32: nothing was written" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.onnx"]


def test_int8_needs_labels_that_show_its_loss(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_int8, "_scores", lambda *_: {})
    data = checkpoint.parent / "data"
    words = [str(checkpoint), "--format", "onnx", "-o", str(tmp_path / "a.onnx"), "--int8", str(data), "-j", "0"]
    assert f"{data / 'val.csv'} has no label of color, size" in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_the_first_layers_stay_float32_where_int8_loses_too_much(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([{"color": 90.0}, {"color": 80.0}, {"color": 89.4}, {"color": 89.6}])  # float32, then int8
    monkeypatch.setattr(export_int8, "_scores", lambda *_: next(scores))
    file = tmp_path / "small.onnx"
    words = [str(checkpoint), "--format", "onnx", "-o", str(file), "--int8", str(checkpoint.parent / "data")]
    export.main([*words, "-j", "0", "--calibration-images", "8"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("int8 in ")]
    assert [line.partition("color: ")[2] for line in lines] == [
        "80.0 (-10.0 points)",
        "89.4 (-0.6 points)",
        "89.6 (-0.4 points)",
    ]
    kept = [int(count) for line in lines for count in re.findall(r"int8 in (\d+) of", line)]
    assert kept == sorted(kept, reverse=True)
    nodes = onnx.load(file).graph.node
    stored = {output: node.op_type for node in nodes for output in node.output}
    quantized = [
        any(stored.get(name) == "DequantizeLinear" for name in node.input[1:2])
        for node in nodes
        if node.op_type in ("Conv", "MatMul", "Gemm")
    ]
    assert quantized.count(True) == kept[-1]
    assert quantized == sorted(quantized)  # the layers in float32 are the first


def test_an_export_that_differs_is_refused(images: Tensor) -> None:
    expected = {"color": torch.ones(5, 3)}
    assert check_equal(lambda batch: {"color": torch.ones(len(batch), 3) + 1e-6}, expected, images, "x") < 1e-5
    with pytest.raises(UsageError, match=r"export's color differs from the model's by 0\.1"):
        check_equal(lambda batch: {"color": torch.ones(len(batch), 3) + 0.1}, expected, images, "x")
    with pytest.raises(UsageError, match="export's color differs from the model's by nan"):
        check_equal(lambda batch: {"color": torch.full((len(batch), 3), torch.nan)}, expected, images, "x")
    with pytest.raises(UsageError, match="takes only batches of 5 images"):
        check_equal(lambda batch: {"color": torch.ones(5, 3)}, expected, images, "x")


def test_a_missing_folder_for_int8_is_answered_before_the_export(
    checkpoint: Path, tmp_path: Path, mistake: Callable[..., str]
) -> None:
    words = (str(checkpoint), "--format", "onnx", "--int8", str(tmp_path / "gone"))
    assert f"no such data folder: {tmp_path / 'gone'}" in mistake(
        *words, parse=partial(parse_export_args, check_paths=True)
    )


def test_mistakes_get_one_sentence(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(checkpoint)
    assert refusal(capsys, name).startswith("--format is missing")
    assert refusal(capsys, name, "--format", "onnx", "-o", "x.pt").startswith("--output x.pt does not end in .onnx")
    assert refusal(capsys, name, "--format", "onnx", "--backbone-only").startswith("--backbone-only needs")
    assert refusal(capsys, name, "--format", "timm", "--outputs", "h").startswith("--outputs needs --format onnx or")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    sentence = refusal(capsys, name, "--format", "timm", "-o", str(tmp_path / "mine"))
    assert sentence.endswith("is there already and is no exported folder: name another")
    (tmp_path / "mine" / "config.json").write_text('{"architecture": "of somebody else"}')
    assert refusal(capsys, name, "--format", "timm", "-o", str(tmp_path / "mine")) == sentence
    (tmp_path / "mine" / "config.json").write_text('{"multi_label": {}}')
    sentence = refusal(capsys, name, "--format", "timm", "-o", str(tmp_path / "mine"))
    assert sentence.endswith("also holds thesis.txt, which no export wrote: name another folder")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no image")
    sentence = refusal(capsys, name, "--format", "timm", "--images", str(broken), "-o", str(tmp_path / "x"))
    assert f"can be read, the first being {broken} (" in sentence


def test_an_earlier_export_is_replaced_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with exporting._unfinished_folder(folder) as unfinished:
            (unfinished / name).touch()
            assert not folder.exists() or [file.name for file in folder.iterdir()] == ["first"]
    with pytest.raises(ZeroDivisionError), exporting._unfinished_folder(folder):
        1 / 0  # noqa: B018
    assert [file.name for file in folder.iterdir()] == ["second"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_classifier_of_several_layers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_checkpoint(tmp_path / "levit.pth.tar", make_model("levit_128s", 224))
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32), "red").save(image)
    sentence = refusal(capsys, str(checkpoint), "--format", "timm", "--images", str(image))
    assert sentence.startswith("--format timm: the classifier of levit_128s is more than a linear layer")


def test_a_missing_package_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sentence = refusal(capsys, str(checkpoint), "--format", "onnx", "-o", str(tmp_path / "m.onnx"))
    assert sentence == "onnxruntime is not installed: pip install -r requirements-export.txt"


@pytest.mark.parametrize(("form", "ending"), [("timm", ""), ("onnx", ".onnx"), ("torch", ".pt2")])
def test_an_export_that_cannot_be_written_is_one_sentence_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, ending: str
) -> None:
    with file_limit(20_000):
        sentence = refusal(capsys, str(checkpoint), "--format", form, "-o", f"{tmp_path / ('exported' + ending)}")
    assert sentence.startswith("cannot write ")
    assert "File too large" in sentence
    assert not [*tmp_path.iterdir()]
