"""Confident learning: given labels that are probably wrong, by probabilities from models that did not see them.

- C. Northcutt, L. Jiang, I. Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, 2021, JAIR 70,
  https://arxiv.org/abs/1911.00068

A class counts as likely where its probability reaches the mean probability of that class among the images that are
labeled with it. So a class about which the models are seldom sure has a low threshold. An image whose most probable
likely class is not the given one is off the diagonal of the confident joint, and suspect.

Many images reach no threshold, as a mean is one that half of them miss. Such an image is suspect if its most probable
class is not the given one. All suspects are ranked by normalized margin: the probability of the given class minus the
largest of another class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reports.label_errors import confidence

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

FEWEST = 5  # labels of a class below which none of them is judged


@dataclass(frozen=True, eq=False)
class Suspects:
    """Labels that are probably wrong.

    Attributes:
        rows: positions of the labels, int64 [S].
        likely: the likely class of each, int64 [S].
        margin: probability of the given class minus the largest other one, [S], -1 to 1; lower is more suspect.
    """

    rows: Codes
    likely: Codes
    margin: Floats


def confident_suspects(probabilities: Floats, given: Codes) -> Suspects:
    """Return the suspects among labels, the most suspect first.

    Labels of a class with fewer than `FEWEST` are not judged: the models that did not see one saw too few others.

    Args:
        probabilities: out-of-fold probabilities, [N, K].
        given: code of the given class, int64 [N].
    """
    counts = np.bincount(given, minlength=probabilities.shape[1])
    confident, margin = confidence(probabilities, given)
    counted = np.isfinite(confident.max(axis=1))
    likely = np.where(counted, confident.argmax(axis=1), probabilities.argmax(axis=1))
    rows = np.flatnonzero((likely != given) & (counts[given] >= FEWEST))
    rows = rows[np.argsort(margin[rows], kind="stable")]
    return Suspects(rows, likely[rows], margin[rows])
