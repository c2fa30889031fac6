"""Hostile checkpoints: entries of other types and shapes, damaged bytes, pickles with code, archives that lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hostile.case import SERVE, TINY, TRAIN, Case, copy_data, link_index, on_data
from hostile.odd import TEXTS, damaged
from hostile.tables import THINGS

FILE = "in/run/last.pth.tar"


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a command on a hostile checkpoint, in a run's folder of its own."""
    copy_data(sound, place)
    link_index(sound, place)
    folder = place / "in" / "run"
    folder.mkdir()
    for name in ("summary.csv", "args.yaml"):
        shutil.copy(sound / "out" / "run" / name, folder)
    file = place / FILE
    # a checkpoint after an epoch, or one inside it, with random states and sums
    shutil.copy(sound / "out" / "run" / rng.choice(("last.pth.tar", "last.pth.tar", "recovery-0-1.pth.tar")), file)
    way = rng.choice((_entries, _entries, _entries, _entries, _weights, _damage, _pack, _code, _strange, _beside))
    about = way(file, rng)
    name = next((f"in/run/{other.name}" for other in folder.glob("last.safetensors")), FILE)
    words = rng.choice(USES)(name)
    if way is _beside:
        words = USES[0](name)
    # A resumed run continues in its folder.
    return Case(words, about, inside=("out", "in/run") if "--resume" in words else ("out",), draws=rng.random() < 0.1)


_RESUMED = [word for word in TRAIN if word not in ("--output", "out", "--experiment", "run")]
_RESUMED[_RESUMED.index("--epochs") + 1] = "2"
USES: tuple[Callable[[str], list[str]], ...] = (
    lambda file: ["train.py", "in/data", *_RESUMED, "--model-ema", "--resume", file],
    lambda file: ["train.py", "in/data", *_RESUMED, "--resume", file],
    lambda file: ["train.py", "in/data", *TRAIN, "--resume", file, "--no-resume-opt"],
    lambda file: ["train.py", "in/data", *TRAIN, "--initial-checkpoint", file],
    lambda file: ["train.py", "in/data", *TRAIN, "--pretrained-path", file],
    lambda file: ["inference.py", "in/data/images", "--checkpoint", file, *SERVE, "-o", "out/p.csv"],
    lambda file: ["inference.py", "in/data/images", "--checkpoint", file, "--use-ema", *SERVE, "-o", "out/p.json"],
    lambda file: ["validate.py", "in/data", "--checkpoint", file, *SERVE, "--no-latency", "--calibrate", "out/c.pth"],
    lambda file: ["validate.py", "in/data", "--checkpoint", "in/run", *SERVE, "--results-file", "out/r.csv"],
    lambda file: ["refit.py", file, "in/data", *SERVE, "-o", "out/refitted.pth.tar"],
    lambda file: ["choose.py", "in/data", *TINY, "--model", "test_resnet", "--budget", "4s", "--output", "out",
                  "--initial-checkpoint", file],
    *(lambda file, command=command: on_data(command, "in/data", file)
      for command in ("fill.py", "embed.py", "search.py", "report.py", "export.py")),
)  # fmt: skip


def _load(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return content


def _entries(file: Path, rng: random.Random) -> str:
    """Change one to three entries, at any depth, each to a value of another type or range."""
    content = _load(file)
    abouts = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parent, key, path = _anywhere(content, rng)
        change = rng.choice(CHANGES)
        abouts.append(f"{path}: {change(parent, key, rng)}")
    torch.save(content, file)
    return "; ".join(abouts)


def _anywhere(content: Any, rng: random.Random) -> tuple[Any, Any, str]:
    """Return a container within the content, a key of it, and their place as a text."""
    parent, key, path = content, rng.choice(list(content)), ""
    while True:
        path += f"[{str(key)[:40]!r}]"
        child = parent[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.25:
            return parent, key, path
        parent, key = child, rng.choice(list(child) if isinstance(child, dict) else range(len(child)))


def _delete(parent: Any, key: Any, rng: random.Random) -> str:
    del parent[key]
    return "deleted"


def _set(parent: Any, key: Any, rng: random.Random) -> str:
    value = rng.choice(VALUES)()
    parent[key] = value
    return f"= {str(value)[:40]!r} of {type(value).__name__}"


def _near(parent: Any, key: Any, rng: random.Random) -> str:
    """Change a value within its type."""
    old = parent[key]
    if isinstance(old, torch.Tensor):
        parent[key] = rng.choice(TENSORS)(old)
    elif isinstance(old, bool):
        parent[key] = not old
    elif isinstance(old, int | float):
        parent[key] = rng.choice(
            (0, -1, 1, old + 1, old * 2**20, -old, 2**31, 2**63, 10**30, 1e-300, float("nan"), float("inf"))
        )
    elif isinstance(old, str):
        parent[key] = rng.choice(TEXTS)
    elif isinstance(old, dict) and old:
        old[rng.choice((rng.choice(TEXTS), 7, None, ("a",)))] = old[rng.choice(list(old))]
    elif isinstance(old, list | tuple):
        parent[key] = rng.choice((list(old) * 2, list(old)[:-1], [*old, None], [list(old)], list(reversed(old))))
    else:
        return _set(parent, key, rng)
    return f"near: {str(parent[key])[:40]!r}"


CHANGES = (_delete, _set, _near, _near)
VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: -1, lambda: 10**30, lambda: float("nan"), lambda: "x", lambda: "",
    lambda: b"x", list, dict, lambda: (), lambda: [None], lambda: {"x": {}}, lambda: {1: 2},
    lambda: set(), lambda: 1j, lambda: torch.zeros(()), lambda: torch.zeros(3, 0),
    lambda: torch.zeros(2, dtype=torch.complex64), lambda: [[[[1]]]], lambda: "x" * 100_000,
    lambda: list(range(100_000)), lambda: torch.float32, lambda: torch.Size([1]), lambda: _nested(200),
    lambda: Namespace(x=1), lambda: torch.device("cuda:7"), lambda: torch.nn.Parameter(torch.ones(2)),
    lambda: {"": ""},
)  # fmt: skip
TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda t: t * float("nan"), lambda t: t / 0, lambda t: t[None], lambda t: t.flatten()[:1],
    lambda t: t.reshape(-1)[:0], lambda t: t.half(), lambda t: t.double(), lambda t: t.long(), lambda t: t.bool(),
    lambda t: t.to(torch.complex64), lambda t: t.transpose(0, -1) if t.ndim else t,
    lambda t: torch.zeros(1).expand(10**6, 10**6), lambda t: t.to("meta"), lambda t: t.to_sparse() if t.ndim else t,
    lambda t: t.flatten().tolist()[:9], lambda t: torch.zeros(1).expand(t.shape),
    lambda t: torch.cat([t, t]) if t.ndim else t, lambda t: t.to(torch.bfloat16), lambda t: t * 1e38,
    lambda t: torch.nn.Parameter(t.float()), lambda t: t.to(torch.float8_e4m3fn),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
)  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"x": value}
    return value


def _weights(file: Path, rng: random.Random) -> str:
    """Change or rename weights alone, or write them as safetensors or as a bare dict."""
    content = _load(file)
    weights = content[rng.choice(("state_dict", "state_dict_ema"))]
    names = rng.sample(sorted(weights), rng.choice((1, 2, 20)))
    about = rng.choice(("renamed", "removed", "changed", "prefixed"))
    for name in names:
        old = weights.pop(name)
        if about == "changed":
            weights[name] = rng.choice(TENSORS)(old)
        elif about != "removed":
            weights[
                f"module.{name}" if about == "prefixed" else rng.choice((name[1:], rng.choice(TEXTS), f"{name}.x"))
            ] = old
    form = rng.choice(("whole", "whole", "bare", "safetensors"))
    if form == "safetensors" and all(
        isinstance(w, torch.Tensor) and w.layout == torch.strided for w in weights.values()
    ):
        raw = io.BytesIO()
        try:
            raw.write(
                safetensors.torch.save(
                    {n: w.detach().clone().contiguous() for n, w in weights.items() if w.numel() < 10**8}
                )
            )
        except Exception:  # a dtype or a name that this format lacks
            raw.write(b"\x10" + bytes(30))
        data = raw.getvalue()
        file.with_name("last.safetensors").write_bytes(rng.choice((data, damaged(data, rng), _false_header(rng))))
    else:
        torch.save(weights if form == "bare" else content, file)
    return f"{about} weights {names[:2]}, {form}"


def _false_header(rng: random.Random) -> bytes:
    """Return a safetensors file whose header claims what the file does not hold."""
    entry = {
        "dtype": rng.choice(("F32", "X", "F64")),
        "shape": rng.choice(([2**40], [-1], [2], "x")),
        "data_offsets": [0, rng.choice((8, 2**50, -1))],
    }
    header = json.dumps({rng.choice(("a", "__metadata__", "")): entry}).encode()
    return struct.pack("<Q", rng.choice((len(header), 2**63, 0))) + header + bytes(8)


def _damage(file: Path, rng: random.Random) -> str:
    """Damage bytes anywhere, or the pickle, or the archive's directory."""
    data = file.read_bytes()
    part = rng.choice(("anywhere", "the beginning", "the end"))
    cut = {"anywhere": len(data), "the beginning": 20_000, "the end": len(data) - 20_000}[part]
    pieces = (data[:cut], data[cut:])
    file.write_bytes(pieces[0] + damaged(pieces[1], rng) if part == "the end" else damaged(pieces[0], rng) + pieces[1])
    return f"damaged bytes, {part}"


def _pack(file: Path, rng: random.Random) -> str:
    """Write the archive anew, in a way that torch does not."""
    with zipfile.ZipFile(file) as archive:
        parts = {item.filename: archive.read(item) for item in archive.infolist()}
    name = rng.choice(list(parts))
    about = rng.choice(list(PACKS))
    PACKS[about](parts, name)
    way = zipfile.ZIP_DEFLATED if about in ("compressed", "a bomb") else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", way) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return f"archive: {about} ({name})"


PACKS: dict[str, Callable[[dict[str, bytes], str], object]] = {
    "compressed": lambda parts, name: None,
    "a bomb": lambda parts, name: parts.update({name: bytes(100 << 20)}),
    "a part is missing": lambda parts, name: parts.pop(name),
    "a part is short": lambda parts, name: parts.update({name: parts[name][:-1]}),
    "a part is long": lambda parts, name: parts.update({name: parts[name] + bytes(4096)}),
    "a part is empty": lambda parts, name: parts.update({name: b""}),
    "a name leads outside": lambda parts, name: parts.update({f"../../{name}": b"x"}),
    "an absolute name": lambda parts, name: parts.update({"/tmp/canary": b"x"}),
    "20,000 parts": lambda parts, name: parts.update({f"last/data/x{i}": b"" for i in range(20_000)}),
    "the byte order": lambda parts, name: parts.update({next(iter(parts)).partition("/")[0] + "/byteorder": b"big"}),
    "another version": lambda parts, name: parts.update({next(iter(parts)).partition("/")[0] + "/version": b"999\n"}),
    "TorchScript": lambda parts, name: parts.update(
        {"last/constants.pkl": b"\x80\x02]q\0.", "last/code/x.py": b"import os"}
    ),
}


class Code:
    """An object whose unpickling would make a file."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == "system":
            return os.system, ("touch canary-checkpoint",)
        if self.how == "open":
            return open, ("canary-checkpoint", "w")
        return eval, ("__import__('os').system('touch canary-checkpoint')",)


def _code(file: Path, rng: random.Random) -> str:
    """Hide code in the file: as an entry, as all of it, or in torch's older formats."""
    code, form = (
        Code(rng.choice(("system", "open", "eval"))),
        rng.choice(("entry", "whole", "legacy", "pickle", "module")),
    )
    content = _load(file)
    if form == "entry":
        content[rng.choice(list(content))] = code
        torch.save(content, file)
    elif form == "legacy":
        torch.save(content | {"args": code}, file, _use_new_zipfile_serialization=False)
    elif form == "module":
        torch.save(torch.nn.Linear(2, 2), file)
    elif form == "whole":
        torch.save(code, file)
    else:
        file.write_bytes(rng.choice((b"", b"\x80\x04")) + pickle.dumps(code, rng.choice((0, 2, 4))))
    return f"code by {code.how}, {form}"


def _strange(file: Path, rng: random.Random) -> str:
    """Put something else where the checkpoint was."""
    kind = rng.choice([kind for kind in THINGS if kind not in ("two tables", "a folder of files", "a picture")])
    if rng.random() < 0.4:
        kind = rng.choice(list(CONTENTS))
        torch.save(CONTENTS[kind](_load(file)), file, _use_new_zipfile_serialization=rng.random() < 0.7)
        return kind
    file.unlink()
    THINGS[kind](file)
    return kind


CONTENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a sound one of the older format": lambda c: c,
    "weights alone": lambda c: c["state_dict"],
    "a list": lambda c: [c],
    "a tensor": lambda c: torch.zeros(3),
    "an empty dict": lambda c: {},
    "no weights": lambda c: c | {"state_dict": {}},
    "timm's": lambda c: {"state_dict": c["state_dict"], "arch": "test_resnet", "epoch": 3},
    "the original's": lambda c: {
        "state_dict": {f"base_model.{n}": w for n, w in c["state_dict"].items()},
        "arch": "test_resnet",
        "args": Namespace(),
    },
    "of another model": lambda c: c | {"multi_label": c["multi_label"] | {"arch": "test_vit"}},
    "of a huge model": lambda c: c | {"multi_label": c["multi_label"] | {"arch": "vit_giant_patch14_224"}},
    "of no model": lambda c: c | {"multi_label": c["multi_label"] | {"arch": "hf-hub:x/y"}},
    "of deep settings": lambda c: c | {"multi_label": c["multi_label"] | {"model_kwargs": {"act_layer": "os.system"}}},
}


def _beside(file: Path, rng: random.Random) -> str:
    """Damage the files beside the checkpoint that a resumed run continues."""
    beside = file.with_name(rng.choice(("summary.csv", "summary.csv", "args.yaml")))
    if rng.random() < 0.6:
        beside.write_bytes(damaged(beside.read_bytes(), rng))
        return f"damaged {beside.name}"
    beside.unlink()
    kind = rng.choice([kind for kind in THINGS if kind not in ("two tables", "a folder of files", "a picture")])
    THINGS[kind](beside)
    return f"{beside.name} is {kind}"
