import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from serving.cost import count_macs, count_parameters, measure_latency
from timm.models import create_model


def test_multiply_adds_of_a_convolution_and_a_layer_equal_the_formula() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16 * 16, 5))
    macs = count_macs(model, torch.zeros(1, 3, 16, 16))
    assert macs.count == 16 * 16 * 8 * 3 * 9 + 8 * 16 * 16 * 5
    assert macs.uncounted == ()


def test_multiply_adds_of_fused_attention_are_counted_on_the_cpu() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    macs = count_macs(Attention(), torch.zeros(1, 2, 7, 4))
    assert macs.count == 2 * (2 * 7 * 7 * 4)  # query by key and weights by value, in each of two heads


def test_a_vision_transformer_has_nothing_uncounted() -> None:
    macs = count_macs(create_model("test_vit", num_classes=0).eval(), torch.zeros(1, 3, 160, 160))
    assert macs.count
    assert macs.uncounted == ()


def test_an_operation_without_a_formula_is_named() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spectrum: Tensor = torch.fft.fft2(x)
            return spectrum.abs()

    macs = count_macs(Spectrum(), torch.zeros(1, 3, 8, 8))
    assert macs.count == 0
    assert any("fft" in name for name in macs.uncounted)


def test_a_model_that_refuses_a_dispatch_mode_has_no_count() -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Any:
            raise RuntimeError("not under a dispatch mode")

    assert count_macs(Refuses(), torch.zeros(1)).count is None


def test_counting_leaves_no_trace_on_the_model() -> None:
    model = create_model("test_efficientnet", num_classes=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, torch.zeros(1, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_parameters_are_counted_and_none_has_none() -> None:
    assert count_parameters(nn.Linear(3, 4)) == 16
    assert count_parameters(None) == 0


def test_latency_is_the_median_without_the_warm_up() -> None:
    calls = 0

    def run() -> None:
        nonlocal calls
        calls += 1
        # Two slow runs in the warm-up, and one later, like an interruption of the machine.
        time.sleep(0.05 if calls in (1, 2, 7) else 0.002)

    latency = measure_latency(run, torch.device("cpu"), warmup=3, least=11, most=11)
    assert latency.runs == 11
    assert calls == 14
    assert 2 <= latency.median < 40
    assert latency.p95 >= latency.median


@pytest.mark.parametrize(("least", "most", "seconds", "runs"), [(5, 50, 0.0, 5), (5, 8, 60.0, 8)])
def test_latency_takes_as_many_runs_as_time_allows(least: int, most: int, seconds: float, runs: int) -> None:
    latency = measure_latency(lambda: None, torch.device("cpu"), warmup=1, least=least, most=most, seconds=seconds)
    assert latency.runs == runs
