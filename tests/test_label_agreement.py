"""Blocks of label agreements against a loop over pairs and attributes."""

from itertools import pairwise

import pytest
import torch
from contrastive_oracle import draw_labels, shared_and_known
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr.label_agreement import LabelAgreement, fill_same_image


def both_views(labels: torch.Tensor, shares: list[int]) -> torch.Tensor:
    """Repeat each process's labels for its two views."""
    return torch.cat([share for share in labels.split(shares) for _ in range(2)])


@settings(max_examples=60)
@given(
    shares=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    classes=st.lists(st.integers(1, 3), max_size=4).map(tuple).filter(bool),
    blank=st.sampled_from([0.0, 0.4, 1.0]),
    size=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_every_block_equals_a_loop_over_its_pairs(shares, classes, blank, size, seed) -> None:
    n = sum(shares)
    labels = both_views(draw_labels(n, classes, blank, seed) if n else torch.zeros(0, len(classes)).long(), shares)
    images = both_views(torch.arange(n)[:, None], shares).flatten().tolist()
    starts = [2 * sum(shares[:process]) for process in range(len(shares) + 1)]
    for local in pairwise(starts):
        agreement = LabelAgreement(labels, slice(*local), torch.float64)
        for first in range(*local, size):
            rows = slice(first, min(first + size, local[1]))
            for start, stop in ((0, local[0]), local, (local[1], 2 * n)):
                for second in range(start, stop, size):
                    columns = slice(second, min(second + size, stop))
                    block = agreement.block(rows, columns)
                    for i in range(rows.start, rows.stop):
                        for k in range(columns.start, columns.stop):
                            shared, known = shared_and_known(labels[i].tolist(), labels[k].tolist())
                            expected = shared / known if known else 0.0
                            if images[i] == images[k] and i != k:
                                expected = 1.0
                            assert block[i - rows.start, k - columns.start].item() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_full_agreement_is_exactly_one_for_any_number_of_attributes(dtype: torch.dtype) -> None:
    for attributes in range(1, 256):
        labels = torch.ones(8, attributes, dtype=torch.int64)
        labels[1, 0] = 0
        block = LabelAgreement(labels, slice(0, 8), dtype).block(slice(0, 2), slice(2, 4))
        assert (block[0] == 1).all()
        assert (block[1] < 1).all()


def test_the_labels_are_not_modified() -> None:
    labels = draw_labels(6)
    copy = labels.clone()
    LabelAgreement(labels, slice(0, 6), torch.float32).block(slice(0, 3), slice(0, 3))
    assert torch.equal(labels, copy)


def test_only_local_blocks_contain_the_two_views_of_an_image() -> None:
    block = torch.zeros(4, 4)
    fill_same_image(block, slice(4, 8), slice(4, 8), slice(4, 8), 1)
    assert block.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    other = torch.zeros(4, 4)
    fill_same_image(other, slice(4, 8), slice(0, 4), slice(4, 8), 1)
    assert other.count_nonzero() == 0
