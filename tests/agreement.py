"""A table of the deviations of the contrastive losses from their definitions and from other libraries.

    python tests/agreement.py     print a row for each loss: the largest relative deviation of its value and of its
                                  gradient, from loops in float64 and from another library if it has the loss

The suite asserts tolerances (test_contrastive_losses*.py, test_recorded_losses.py); this table shows the margins.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))

from contrastive_losses import LOSSES
from contrastive_oracle import draw_labels, two_views, with_gradients
from distributed import run_on_processes
from recorded_losses import CASES, PEERS, case
from test_contrastive_losses_on_processes import losses_and_averaged_gradients
from torch import Tensor

N, WIDTH, TEMPERATURES = 32, 16, (0.5, 0.1, 0.02)
SHARES = [20, 0, 5, 7]  # images of each of four processes

Found = tuple[Tensor, Tensor, Tensor]


def main() -> None:
    """Print the table."""
    rows = [("loss", "float64", "float32", "four processes", "peer", "from the peer")]
    labels = draw_labels(N)
    for name, (loss, loops) in LOSSES.items():
        columns = []
        for dtype in (torch.float64, torch.float32):
            z_i, z_j = two_views(N, WIDTH, dtype=dtype)
            pairs = []
            for t in TEMPERATURES:
                expected = with_gradients(loops, z_i.double(), z_j.double(), t, labels)
                pairs.append((with_gradients(loss, z_i, z_j, t, labels), expected))
            columns.append(_largest(pairs))
        columns.append(_largest(_on_processes(name, labels)))
        package, peer = PEERS.get(name, ("", None))
        if peer is not None and find_spec(package):
            columns.append(package)
            columns.append(_largest([(with_gradients(loss, *case(c)), with_gradients(peer, *case(c))) for c in CASES]))
        else:
            columns += ["", ""]
        rows.append((name, *columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _on_processes(name: str, labels: Tensor) -> list[tuple[Found, Found]]:
    z_i, z_j = two_views(N, WIDTH)
    cases = [(name, z_i, z_j, t, labels, SHARES) for t in TEMPERATURES]
    by_rank = run_on_processes(len(SHARES), losses_and_averaged_gradients, cases, 3)
    pairs = []
    for t, found in zip(TEMPERATURES, zip(*by_rank, strict=True), strict=True):
        losses, grads_i, grads_j = zip(*found, strict=True)
        joint = (losses[0], torch.cat(grads_i), torch.cat(grads_j))
        pairs.append((joint, with_gradients(LOSSES[name][1], z_i, z_j, t, labels)))
    return pairs


def _largest(pairs: list[tuple[Found, Found]]) -> str:
    """Return the largest relative deviations of (found, expected) pairs: of value and gradient norm."""
    value = max(float((found[0].double() - expected[0]).abs() / expected[0].abs()) for found, expected in pairs)
    gradient = 0.0
    for found, expected in pairs:
        ours, reference = (torch.cat(parts[1:]).double() for parts in (found, expected))
        gradient = max(gradient, float((ours - reference).norm() / reference.norm()))
    return f"{value:.0e}, {gradient:.0e}"


if __name__ == "__main__":
    main()
