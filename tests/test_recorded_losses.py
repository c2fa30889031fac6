"""Our losses against other libraries: their recorded results, and the libraries themselves if installed."""

from functools import cache

import numpy as np
import pytest
import torch
from contrastive_losses import LOSSES
from contrastive_oracle import with_gradients
from recorded_losses import CASES, FILE, PEERS, case

every_case = pytest.mark.parametrize("name", CASES)
every_peer = pytest.mark.parametrize("loss", PEERS)


@cache
def recorded() -> dict[str, torch.Tensor]:
    with np.load(FILE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@every_case
@every_peer
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)], ids=str)
def test_values_and_gradients_equal_the_recorded_ones(loss, name, dtype, tolerance) -> None:
    z_i, z_j, labels = (recorded()[f"{name}.{part}"] for part in ("z_i", "z_j", "labels"))
    temperature = CASES[name][2]
    found = with_gradients(LOSSES[loss][0], z_i.to(dtype), z_j.to(dtype), temperature, labels)
    for part, value in zip(("loss", "grad_i", "grad_j"), found, strict=True):
        reference = recorded()[f"{loss}.{name}.{part}"]
        # An entry of a gradient is a sum whose rounding error is relative to the largest entry.
        assert (value - reference).abs().max() <= tolerance / min(temperature * 10, 1) * reference.abs().max()


@every_case
@every_peer
def test_other_libraries_give_the_same_value_and_gradients(loss, name) -> None:
    package, peer = PEERS[loss]
    pytest.importorskip(package)
    args = case(name)
    for value, reference in zip(with_gradients(LOSSES[loss][0], *args), with_gradients(peer, *args), strict=True):
        assert (value - reference).abs().max() <= 1e-9 * reference.abs().max()
