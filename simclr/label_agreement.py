"""The share of equal labels of two images, for a block of image pairs at a time.

An image has a label, or a blank, for each of A attributes. The agreement of two images is the share of equal labels
among the attributes known in both, and 0 if no attribute is known in both:

    agreement_ik = sum over a of [label_ia = label_ka, both known] / max(1, sum over a of [both known])

A blank is therefore evidence neither for nor against. With one attribute the agreement is 1 for images of the same
class, else 0. The two views of one image always have agreement 1, even if no label is known.
"""

import torch
from torch import Tensor

MAX_ATTRIBUTES = 255  # equal labels are counted in a byte


class LabelAgreement:
    """The agreement of all pairs of projections, [m, m], computed in blocks and never stored whole.

    Args:
        labels: class indices of the image of each projection, [m, A], negative where unknown.
        local: range of this process's projections among the m. Its first half is view 0 of the images, its second half
            view 1 of the same images.
        dtype: floating dtype of the blocks.
    """

    def __init__(self, labels: Tensor, local: slice, dtype: torch.dtype) -> None:
        unknown = labels < 0
        self.known = (~unknown).to(dtype)  # [m, A]
        # [A, m] each. Unknown labels become two codes that differ between rows and columns, so they equal nothing.
        self.row_codes = labels.masked_fill(unknown, -1).T.contiguous()
        self.column_codes = labels.masked_fill(unknown, -2).T.contiguous()
        self.local = local

    def block(self, rows: slice, columns: slice) -> Tensor:
        """Return the agreement of r local projections with c projections, [r, c].

        Args:
            rows: range of r local projections.
            columns: range of c projections, either all local or all of other processes.
        """
        known_in_both = self.known[rows] @ self.known[columns].T  # [r, c]
        equal = None
        for row_codes, column_codes in zip(self.row_codes, self.column_codes, strict=True):
            same = (row_codes[rows, None] == column_codes[columns]).view(torch.uint8)  # [r, c]
            equal = same if equal is None else equal.add_(same)
        if equal is None:  # there are no attributes
            equal = torch.zeros_like(known_in_both)
        agreement = equal.to(known_in_both.dtype).div_(known_in_both.clamp_(min=1))
        fill_same_image(agreement, rows, columns, self.local, 1)
        return agreement


def fill_same_image(block: Tensor, rows: slice, columns: slice, local: slice, value: float) -> None:
    """Write a value where a block's row and column are the two views of one image.

    Args:
        block: the block of rows and columns, [r, c], changed in place.
        rows: range of r local projections.
        columns: range of c projections, either all local or all of other processes.
        local: range of this process's projections: view 0 of its images, then view 1.
        value: the value to write.
    """
    if local.start <= columns.start and columns.stop <= local.stop:
        images = (local.stop - local.start) // 2  # the distance from view 0 of an image to its view 1
        for distance in (images, -images):
            block.diagonal(rows.start - columns.start + distance).fill_(value)
