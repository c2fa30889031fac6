"""Nothing that a checkpoint claims is believed: damage and impossible entries are one sentence."""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoint import make_data, make_model, save_checkpoint

import train
from timm.models.multi_label import MultiLabelModel
from timm.models.multi_label_checkpoint import CheckpointError, read_checkpoint

torch.set_num_threads(1)

Content = dict[str, Any]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    path = save_checkpoint(tmp_path_factory.mktemp("run") / "last.pth.tar", make_model())
    saved: Content = torch.load(path, weights_only=True)
    files = [("checkpoint-3.pth.tar", 70.0), ("checkpoint-1.pth.tar", math.nan), ("checkpoint-2.pth.tar", None)]
    saver = {"checkpoint_files": files, "best_epoch": 3, "best_metric": 70.0, "pending": (3, None)}
    return saved | {"saver": saver, "progress": {"epoch": 4, "batch": 0}, "temperatures": {"color": 1.5}}


def refusal(folder: Path, content: Content) -> str:
    torch.save(content, folder / "a.pth.tar")
    with pytest.raises(CheckpointError, match="cannot be used") as caught:
        MultiLabelModel.from_checkpoint(folder / "a.pth.tar")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_what_a_run_writes_is_believed(tmp_path: Path, content: Content) -> None:
    torch.save(content, tmp_path / "a.pth.tar")
    found = read_checkpoint(tmp_path / "a.pth.tar")
    assert found.saver is not None
    assert found.saver["checkpoint_files"][::2] == content["saver"]["checkpoint_files"][::2]  # without the NaN
    assert found.chosen_for(False, "temperatures") == {"color": 1.5}


ENTRIES = {
    "epoch": [-1, "3", 2.5, True, 10**12],
    "version": ["2"],
    "arch": [3],
    "state_dict": [{"a": 3}, {3: torch.zeros(1)}],
    "state_dict_ema": [[torch.zeros(1)], 7],
    "multi_label": ["x", 3],
    "optimizer": [5],
    "args": ["-b 3"],
    "progress": ["x", {"epoch": "4"}, {"batch": -2}],
    "plateau": [3],
    "early_stop": [3],
    "thresholds": [{"color": 2.0}, {"color": "x"}, [0.5]],
    "temperatures": [{"color": 0.0}, {"color": math.nan}, {3: 1.0}],
    "pseudo": [[1]],
    "saver": [
        "x",
        {"checkpoint_files": 5},
        {"checkpoint_files": [("a", 1.0)]},
        {"checkpoint_files": [("../checkpoint-1.pth.tar", 1.0)]},
        {"checkpoint_files": [("/etc/passwd", 1.0)]},
        {"checkpoint_files": [("checkpoint-1.pth.tar", "x")]},
        {"checkpoint_files": [("checkpoint-1.pth.tar",)]},
        {"pending": ("x", 1.0)},
        {"pending": 3},
        {"best_epoch": "y"},
        {"best_metric": [1]},
    ],
}
CONFIG = {
    "arch": ["hf-hub:user/model", "local-dir:/tmp", "../x", 3, None],
    "image_size": [[3, 20000, 20000], [3, 0, 32], [3, 32], "32", None, [3, 32.0, 32]],
    "model_kwargs": [
        {"checkpoint_path": "/x"},
        {"pretrained": True},
        {"pretrained_cfg": {}},
        {"depth": 10**9},
        {"act_layer": torch.zeros(1)},
        {"depths": [2] * 5000},
        None,
        3,
    ],
    "head_kwargs": [{"projection_dim": 10**9}, {"projection_layers": 0}, {"drop_rate": 2}, {"other": 1}, "x"],
    "label_space": ["x", {"attributes": ["a"], "classes": [["x"] * 10_001]}],
    "batch_norm": [{"eps": "x"}],
    "data_config": [
        {"input_size": [3, 10**6, 10**6]},
        {"mean": torch.zeros(3)},
        {"mean": "x"},
        {"mean": []},
        {"std": [0.2, 0.0, 0.2]},
        {"std": [math.nan]},
        {"crop_pct": {}},
        {"crop_pct": 0},
        {"crop_mode": "x"},
        {"interpolation": 3},
        {"interpolation": "x"},
        7,
    ],
}


@pytest.mark.parametrize("key", ENTRIES)
def test_an_impossible_entry_is_named(tmp_path: Path, content: Content, key: str) -> None:
    for value in ENTRIES[key]:
        assert f"its entry {key} is " in refusal(tmp_path, content | {key: value})


@pytest.mark.parametrize("key", CONFIG)
def test_an_impossible_setting_of_the_model_is_named(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("timm.models.checkpoint_claims._MAX_CLASSES", 10_000)  # ten million take seconds to save
    for value in CONFIG[key]:
        sentence = refusal(tmp_path, content | {"multi_label": content["multi_label"] | {key: value}})
        assert f"its entry multi_label.{key} is " in sentence


@pytest.mark.parametrize("key", ["state_dict", "state_dict_ema"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, content: Content, key: str, value: float) -> None:
    weights = {name: weight.clone() for name, weight in content["state_dict"].items()}
    weights["backbone.conv_stem.weight"][0, 0, 0, 0] = value
    assert "backbone.conv_stem.weight are not finite" in refusal(tmp_path, content | {key: weights})


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(1).expand(10**6, 10**6), torch.zeros(3, device="meta")],
    ids=["expanded", "meta"],
)
def test_a_tensor_that_the_file_does_not_hold_is_refused_before_it_takes_memory(
    tmp_path: Path, content: Content, weight: torch.Tensor
) -> None:
    wrong = content | {"state_dict": content["state_dict"] | {"a": weight}}
    assert "state_dict" in refusal(tmp_path, wrong)


def test_damaged_bytes_are_found_by_the_checksums(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "a.pth.tar"
    torch.save(content, path)
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = [item for item in archive.infolist() if "/data/" in item.filename]
    damages: list[Callable[[bytearray, int, int], None]] = [_zero, _flip]
    for part in sorted(weights, key=lambda item: -item.file_size)[:3]:
        for damage in damages:
            data = bytearray(sound)
            begin = part.header_offset + 30 + int.from_bytes(data[part.header_offset + 26 :][:2], "little")
            begin += int.from_bytes(data[part.header_offset + 28 :][:2], "little")
            damage(data, begin, part.file_size)
            path.write_bytes(data)
            with pytest.raises(CheckpointError, match="is damaged"):
                read_checkpoint(path)


def _zero(data: bytearray, begin: int, size: int) -> None:
    data[begin : begin + size] = bytes(size)


def _flip(data: bytearray, begin: int, size: int) -> None:
    data[begin + size // 2] ^= 1


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path: Path, content: Content) -> None:
    torch.save(content, tmp_path / "a.pth.tar")
    with (
        zipfile.ZipFile(tmp_path / "a.pth.tar") as stored,
        zipfile.ZipFile(tmp_path / "b.pth.tar", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for item in stored.infolist():
            packed.writestr(item.filename, stored.read(item))
    with pytest.raises(CheckpointError, match=r"is compressed, which torch\.save never does"):
        read_checkpoint(tmp_path / "b.pth.tar")


def test_a_resumed_checkpoint_of_somebody_else_deletes_no_file(
    tmp_path: Path, content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, data = tmp_path / "victim.txt", make_data(tmp_path / "data", 8, "train")
    victim.write_text("precious")
    make_data(data, 8)
    saver = {"checkpoint_files": [("last.pth.tar", 1e9)] * 9 + [(str(victim), -1e9)], "pending": (None, None)}
    torch.save(content | {"saver": saver}, tmp_path / "last.pth.tar")
    flags = "--model test_efficientnet --img-size 32 -b 4 -wls 0 -wlc 1 --epochs 9 --device cpu -j 0"
    with pytest.raises(SystemExit):
        train.main([str(data), *flags.split(), "--resume", str(tmp_path / "last.pth.tar")])
    assert (
        "its entry saver is a dict: it must be a history of files called checkpoint-N.pth.tar"
        in capsys.readouterr().err
    )
    assert victim.read_text() == "precious"


def test_a_network_far_larger_than_the_weights_is_refused_before_it_takes_memory(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = content["multi_label"] | {"arch": "vit_giant_patch14_224", "model_kwargs": {}}
    torch.save(content | {"multi_label": config}, tmp_path / "a.pth.tar")
    monkeypatch.setattr(MultiLabelModel, "load_state_dict", None)  # a model with memory would come here
    with pytest.raises(CheckpointError, match=r"vit_giant_patch14_224 needs 1,01[\d,]+ weights, and it has "):
        MultiLabelModel.from_checkpoint(tmp_path / "a.pth.tar")


def test_a_part_whose_name_is_no_text_is_damage(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "a.pth.tar"
    torch.save(content, path)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the first of the directory at the end
    data[entry + 9] |= 0x08  # its name is in UTF-8
    data[entry + 46] = 0xF2
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="it is damaged"):
        read_checkpoint(path)
