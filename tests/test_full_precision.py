"""Matrix products of the contrastive losses run without TF32, and the setting is restored."""

import contextlib
from contextlib import contextmanager

import pytest
import torch
from contrastive_losses import LOSSES, assert_all_close, every_loss
from contrastive_oracle import draw_labels, two_views, with_gradients
from flag_effects import ON_GPU
from torch.utils._python_dispatch import TorchDispatchMode

from simclr import contrastive_loss, log_sum_exp


@contextmanager
def tf32(allowed):
    """Set whether a GPU multiplies in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@ON_GPU
@every_loss
def test_a_gpu_multiplies_in_full_precision_even_if_training_allows_tf32(name):
    ours, _ = LOSSES[name]
    (z_i, z_j), labels = two_views(32, 16).cuda(), draw_labels(32).cuda()
    expected = with_gradients(ours, z_i, z_j, 0.05, labels)
    with tf32(True):
        assert_all_close(with_gradients(ours, z_i.float(), z_j.float(), 0.05, labels), expected, 1e-5)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_precision_of_gpu_products_is_restored(allowed):
    matmul = torch.backends.cuda.matmul
    with tf32(allowed):
        with contextlib.suppress(ZeroDivisionError), log_sum_exp.full_precision(torch.device("cuda")):
            assert not matmul.allow_tf32
            raise ZeroDivisionError
        assert matmul.allow_tf32 == allowed
        with log_sum_exp.full_precision(torch.device("cpu")):
            assert matmul.allow_tf32 == allowed


def test_the_new_setting_is_used_if_the_old_one_cannot_be_read(monkeypatch):
    class Matmul:
        fp32_precision = "tf32"

        @property
        def allow_tf32(self):
            raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul := Matmul())
    with log_sum_exp.full_precision(torch.device("cuda")):
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"


@pytest.mark.parametrize(("most_anchors", "sum_with"), [(0, "addmm_"), (16, "addmm")], ids=["blocks", "one matrix"])
@every_loss
def test_forward_and_backward_multiply_in_full_precision(name, most_anchors, sum_with, monkeypatch):
    ours, _ = LOSSES[name]
    monkeypatch.setattr(contrastive_loss, "most_anchors", lambda device: most_anchors)
    inside, products = [False], []

    @contextmanager
    def recording(device):
        assert device == torch.device("cpu")
        inside[0] = True
        yield
        inside[0] = False

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "mm" in func.__name__:
                products.append((func.__name__, inside[0]))
            return func(*args, **kwargs or {})

    for module in (log_sum_exp, contrastive_loss):
        monkeypatch.setattr(module, "full_precision", recording)
    with Products():
        with_gradients(ours, *two_views(8, 4), 0.5, draw_labels(8))
    assert set(products) == {("mm.default", True), (f"{sum_with}.default", True)}
