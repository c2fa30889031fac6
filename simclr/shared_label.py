"""How far the labels of two images agree, a block of pairs at a time.

An image has a label, or a blank, for each of A attributes. The agreement of two images is the share of equal labels
among the attributes that are known in both, and 0 where there is none such:

    agreement_ik = sum over a of [label_ia = label_ka, both known] / max(1, sum over a of [both known])

A blank is thus evidence neither for nor against. With one attribute the agreement is 1 for images of one class and
else 0. Two projections of the same image agree fully whatever is known of it, as they have the same labels.
"""

import torch
from torch import Tensor

MOST_ATTRIBUTES = 255  # what a byte counts to


class Agreement:
    """The agreement of every pair of projections: [m, m], of which only blocks are ever made.

    Args:
        labels: those of the images of the projections, [m, A], below 0 where unknown.
        own: where this process's projections begin and end among them; the first half is view 0 of its images, the
            second half view 1 of the same images.
        dtype: of the blocks.
    """

    def __init__(self, labels: Tensor, own: tuple[int, int], dtype: torch.dtype) -> None:
        blank = labels < 0
        self.known = (~blank).to(dtype)
        # A row of codes for each attribute; the blanks of rows and of columns are two codes that nothing equals.
        self.of_rows = labels.masked_fill(blank, -1).T.contiguous()
        self.of_columns = labels.masked_fill(blank, -2).T.contiguous()
        self.own = own

    def block(self, rows: slice, columns: slice) -> Tensor:
        """Returns the agreement of some projections of this process and some others, [r, c].

        Args:
            rows: of this process's projections.
            columns: all of them this process's, or all of them others'.
        """
        equal = torch.zeros(
            rows.stop - rows.start, columns.stop - columns.start, dtype=torch.uint8, device=self.known.device
        )
        for of_rows, of_columns in zip(self.of_rows, self.of_columns, strict=True):
            equal += (of_rows[rows, None] == of_columns[columns]).view(torch.uint8)
        shares = self.known[rows] @ self.known[columns].T
        shares = equal.to(shares.dtype).div_(shares.clamp_(min=1))
        fill_same_image(shares, rows, columns, self.own, 1)
        return shares


def fill_same_image(block: Tensor, rows: slice, columns: slice, own: tuple[int, int], value: float) -> None:
    """Writes a value where a block's row and column are the two views of one image.

    Args:
        block: of rows and columns, [r, c]; changed in place.
        rows: as in `Agreement.block`.
        columns: as in `Agreement.block`.
        own: as in `Agreement`.
        value: what to write.
    """
    start, stop = own
    if start <= columns.start and columns.stop <= stop:
        images = (stop - start) // 2  # from view 0 of an image to its view 1
        for distance in (images, -images):
            block.diagonal(rows.start - columns.start + distance).fill_(value)
