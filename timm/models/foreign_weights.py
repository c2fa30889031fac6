"""Finding a backbone in the checkpoint of another program: MoCo, DINO, lightly, solo-learn, PyTorch Lightning.

These keep the backbone below a prefix, beside a projector, a momentum encoder and more:

    {"state_dict": {"module.encoder_q.conv1.weight": ..., "module.encoder_k.conv1.weight": ..., "module.queue": ...}}
    {"teacher": {"backbone.patch_embed.proj.weight": ..., "head.mlp.0.weight": ...}, "student": ...}

A prefix is taken off where all tensors of the backbone are below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

StateDict = dict[str, Tensor]

_DEPTH = 3  # dicts in dicts
_NAMED = 8  # groups of tensors that a sentence names
_PART = 0.5  # share of the tensors from which a file is meant to hold this backbone
_STEPS = ".num_batches_tracked"  # older files lack it
# Copies that trail behind another one, or are the worse of two.
_SECOND = re.compile(r"momentum|encoder_k|_k\.|key|target|student|ema_old")
# lightly's examples make torchvision's ResNet a Sequential, whose children have numbers.
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class ForeignBackbone:
    """A backbone in a file.

    Attributes:
        weights: its tensors by the names of the model, and the tensors that the model lacks.
        prefix: what was taken off the names.
        found: how many of the model's tensors the file has.
        wanted: how many the model has.
        missing: the first one that the file lacks, or "".
        left_out: groups of other tensors in the file, as in "encoder_k (320)".
    """

    weights: StateDict
    prefix: str
    found: int
    wanted: int
    missing: str
    left_out: str

    @property
    def fits(self) -> bool:
        """Whether the file has all of the model's tensors."""
        return self.found == self.wanted

    def line(self) -> str:
        """Return the line for the log."""
        left_out = f"; left out: {self.left_out}" if self.left_out else ""
        return f"took the {self.found} tensors below '{self.prefix}' for the backbone{left_out}"

    def refusal(self) -> str:
        """Return why a backbone that fits in part is refused."""
        return (
            f"below '{self.prefix}' it has {self.found} of the backbone's {self.wanted} tensors, and lacks "
            f"{self.missing}: set arch to the architecture of the file"
        )


def foreign_backbone(content: Any, weights: Mapping[str, Any], wanted: Collection[str]) -> ForeignBackbone | None:
    """Return the backbone in a file of another program; None if its tensors have their own names, or are not there.

    Args:
        content: the content of the file.
        weights: the tensors that timm finds in it, without the prefixes of wrappers.
        wanted: names of the model's tensors.
    """
    if all(name in weights for name in wanted if not name.endswith(_STEPS)):
        return None
    found = find_backbone(content, wanted)
    return None if found is None or found.weights.keys() & weights.keys() else found


def find_backbone(content: Any, wanted: Collection[str]) -> ForeignBackbone | None:
    """Return the backbone below the prefix that fits best; None if no prefix has half of its tensors.

    Args:
        content: the content of the file: tensors by name, in dicts of dicts.
        wanted: names of the model's tensors.
    """
    tensors = dict(_flat(content))
    needed = [name for name in wanted if not name.endswith(_STEPS)]
    best: tuple[tuple[int, int, int], str, dict[str, str]] | None = None
    for naming in ({}, {model: number for number, model in _SEQUENTIAL.items()}):
        spelled = {name: _renamed(name, naming) for name in needed}
        for prefix in _prefixes(tensors, list(spelled.values())):
            found = sum(prefix + name in tensors for name in spelled.values())
            rank = (found, -len(_SECOND.findall(prefix)), -len(prefix))
            if found >= _PART * len(needed) and (best is None or rank > best[0]):
                best = rank, prefix, naming
    if best is None:
        return None
    (found, _, _), prefix, naming = best
    back = {number: model for model, number in naming.items()}
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    layers = {name.partition(".")[0] for name in wanted}
    weights = {name: tensor for old, tensor in inside.items() if _layer(name := _renamed(old, back)) in layers}
    missing = next((name for name in needed if name not in weights), "")
    others = [name for name in tensors if not name.startswith(prefix)]
    heads = [prefix + old for old in inside if _layer(_renamed(old, back)) not in layers]
    return ForeignBackbone(weights, prefix, found, len(needed), missing, _groups(heads, others, prefix))


def _flat(content: Any, before: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in dicts of dicts, with their keys joined by dots."""
    if not isinstance(content, Mapping) or not depth:
        return
    for key, value in content.items():
        if not isinstance(key, str) or key.startswith("optimizer"):
            continue
        if isinstance(value, Tensor):
            yield before + key, value
        else:
            yield from _flat(value, f"{before}{key}.", depth - 1)


def _prefixes(tensors: Collection[str], names: list[str]) -> list[str]:
    """Return what stands before the first or the last of these names in a file."""
    ends = {name for name in (names[0], names[-1]) if name} if names else set()
    found = {tensor.removesuffix(end) for end in ends for tensor in tensors if tensor.endswith(f".{end}")}
    return sorted(found)


def _renamed(name: str, naming: Mapping[str, str]) -> str:
    layer, dot, rest = name.partition(".")
    return naming.get(layer, layer) + dot + rest


def _layer(name: str) -> str:
    return name.partition(".")[0]


def _groups(heads: list[str], others: list[str], prefix: str) -> str:
    """Return the tensors that are left out, grouped by their layer or by what stands before it."""
    below = Counter(prefix + _layer(name.removeprefix(prefix)) for name in heads)
    shared = prefix.split(".")
    for name in others:
        words = name.split(".")
        same = next((index for index, word in enumerate(words) if word != shared[min(index, len(shared) - 1)]), 0)
        below[".".join(words[: same + 1])] += 1
    groups = [f"{name} ({count})" if count > 1 else name for name, count in below.items()]
    return ", ".join(groups[:_NAMED]) + (f" and {len(groups) - _NAMED} more groups" if groups[_NAMED:] else "")
