"""The targets [B, C] of a batch by attribute: codes of classes, or the sets of a multi-valued attribute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from catalog.label_space import BITS, UNKNOWN, LabelSpace

_ODD = 0x9E3779B97F4A7C15 >> 2  # 2^62 over the golden ratio: spreads the bits of sets that differ little


class ValueSets(NamedTuple):
    """The sets of one multi-valued attribute.

    Attributes:
        values: bool [B, K], whether an image has each of the K values; False if the set is unknown.
        known: bool [B], whether an image's set is known.
        unseen: bool [B], whether it has a value outside the label space.
    """

    values: Tensor
    known: Tensor
    unseen: Tensor


def value_sets(words: Tensor, count: int) -> ValueSets:
    """Return the sets that an attribute's columns hold.

    Args:
        words: int64 [B, W], the columns of a multi-valued attribute.
        count: K, the number of its values.
    """
    positions = torch.arange(count + 1, device=words.device)
    bits = (words.clamp(min=0)[:, positions // BITS] >> positions % BITS) & 1
    return ValueSets(bits[:, :count].bool(), words[:, 0] != UNKNOWN, bits[:, count].bool())


def by_attribute(target: Tensor, label_space: LabelSpace) -> Iterator[Tensor]:
    """Yield each attribute's targets: codes [B], or the columns [B, W] of a multi-valued attribute.

    Args:
        target: int64 [B, C].
        label_space: the attributes and their classes.
    """
    for name, columns in label_space.columns.items():
        yield target[:, columns] if name in label_space.multi_valued else target[:, columns.start]


def label_codes(target: Tensor, label_space: LabelSpace) -> Tensor:
    """Return one code per attribute, [B, A], equal for equal labels and negative for unknown ones.

    Args:
        target: int64 [B, C].
        label_space: the attributes and their classes.

    Returns:
        int32 if all are codes of classes, else int64. The code of a set with more than 61 values is a hash of 62 bits.
    """
    if not label_space.multi_valued:
        return target.to(torch.int32)
    codes = [_one_code(words) if words.ndim == 2 else words for words in by_attribute(target, label_space)]
    return torch.stack(codes, dim=1)


def _one_code(words: Tensor) -> Tensor:
    """Return a code [B] for sets [B, W]."""
    code = words[:, 0]
    for word in words.unbind(1)[1:]:
        code = torch.where(code < 0, code, ((code ^ (code >> 31)) * _ODD + word) & (2**BITS - 1))
    return code
