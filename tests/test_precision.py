"""Number formats: which combinations work, what autocast makes of a product, and updates against timm's scaler."""

import copy
import warnings

import pytest
import torch
from torch import nn

from runtime.errors import UsageError
from runtime.precision import PlainBackward, resolve_precision
from timm.utils import NativeScaler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _product(autocast) -> torch.dtype:
    with autocast():
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_without_amp_everything_is_float32_and_nothing_is_scaled() -> None:
    autocast, backward, dtype = resolve_precision(CPU, amp=False, amp_dtype=None, model_dtype=None)
    assert dtype is torch.float32
    assert _product(autocast) is torch.float32
    assert isinstance(backward, PlainBackward)


@pytest.mark.parametrize(("capability", "warned"), [("AVX2", True), ("AVX512", False)])
def test_amp_on_a_processor_without_bfloat16_is_warned_of(
    capability: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    resolve_precision(CPU, amp=True, amp_dtype=None, model_dtype=None)
    assert ("this processor has no bfloat16 instructions" in caplog.text) == warned


@pytest.mark.parametrize("amp_dtype", [None, "bfloat16"])
def test_amp_on_the_cpu_multiplies_in_bfloat16_and_keeps_float32_weights(amp_dtype: str | None) -> None:
    autocast, backward, dtype = resolve_precision(CPU, amp=True, amp_dtype=amp_dtype, model_dtype="float32")
    assert dtype is torch.float32
    assert _product(autocast) is torch.bfloat16
    assert _product(autocast) is torch.bfloat16  # a second step opens it anew
    assert isinstance(backward, PlainBackward)


@pytest.mark.parametrize(
    ("amp_dtype", "cast", "scaled"),
    [(None, torch.float16, True), ("float16", torch.float16, True), ("bfloat16", torch.bfloat16, False)],
)
def test_amp_on_a_gpu_is_float16_with_a_scaler_unless_bfloat16_is_asked_for(
    amp_dtype: str | None, cast: torch.dtype, scaled: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no GPU, both autocast and the scaler say so
        autocast, backward, dtype = resolve_precision(CUDA, amp=True, amp_dtype=amp_dtype, model_dtype=None)
        context = autocast()
    assert dtype is torch.float32
    assert (context.device, context.fast_dtype) == ("cuda", cast)
    assert isinstance(backward, NativeScaler if scaled else PlainBackward)


def test_a_model_type_is_that_of_the_model_and_its_images() -> None:
    autocast, backward, dtype = resolve_precision(CPU, amp=False, amp_dtype=None, model_dtype="bfloat16")
    assert dtype is torch.bfloat16
    assert _product(autocast) is torch.float32
    assert isinstance(backward, PlainBackward)


def test_a_float16_model_is_scored_but_not_trained() -> None:
    assert resolve_precision(CPU, False, None, "float16", training=False)[2] is torch.float16
    with pytest.raises(UsageError, match=r"model_dtype float16 .*use model_dtype bfloat16"):
        resolve_precision(CPU, False, None, "float16")


@pytest.mark.parametrize(
    ("amp", "amp_dtype", "model_dtype", "says"),
    [
        (False, "bfloat16", None, "amp_dtype bfloat16 needs amp"),
        (True, None, "bfloat16", "choose either amp or model_dtype bfloat16"),
        (True, None, "float16", "choose either amp or model_dtype float16"),
        (True, "float16", None, "amp_dtype float16 needs a GPU"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_combinations_that_do_not_work_are_refused(
    amp: bool, amp_dtype: str | None, model_dtype: str | None, says: str, training: bool
) -> None:
    with pytest.raises(UsageError, match=says):
        resolve_precision(CPU, amp, amp_dtype, model_dtype, training=training)


def _trained(model: nn.Module, backward, clip_grad: float | None, clip_mode: str, accumulate: int) -> nn.Module:
    """Take three updates, each from the gradients of `accumulate` batches."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    g = torch.Generator().manual_seed(1)
    for step in range(3 * accumulate):
        update = (step + 1) % accumulate == 0
        loss = model(torch.randn(8, 4, generator=g)).square().mean() / accumulate
        backward(loss, optimizer, clip_grad, clip_mode, model.parameters(), need_update=update)
        if update:
            optimizer.zero_grad()
    return model


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("clip_grad", "clip_mode"), [(None, "norm"), (0.1, "norm"), (0.01, "value"), (0.02, "agc")])
def test_updates_without_a_scaler_are_those_of_timms_with_one(
    clip_grad: float | None, clip_mode: str, accumulate: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    plain = _trained(model, PlainBackward(), clip_grad, clip_mode, accumulate)
    scaled = _trained(model, NativeScaler("cpu"), clip_grad, clip_mode, accumulate)
    free = _trained(model, PlainBackward(), None, "norm", accumulate)
    for start, mine, theirs, unclipped in zip(*(m.parameters() for m in (model, plain, scaled, free)), strict=True):
        assert not torch.equal(mine, start)
        torch.testing.assert_close(mine, theirs)
        assert torch.equal(mine, unclipped) == (clip_grad is None)


def test_gradients_wait_for_the_update() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    backward = PlainBackward()
    backward(weight.sum(), optimizer, clip_grad=1.0, parameters=[weight], need_update=False)
    assert weight.tolist() == [3, 4]
    assert weight.grad.tolist() == [1, 1]  # and are clipped only then
    backward(weight[0] * 2 + weight[1] * 3, optimizer, clip_grad=1.0, parameters=[weight])
    torch.testing.assert_close(weight.detach(), torch.tensor([3 - 0.6, 4 - 0.8]))


def test_a_second_derivative_can_be_asked_for() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns, once a process, of the cycle that the last line breaks
        PlainBackward()(weight**3, optimizer, create_graph=True, need_update=False)
    assert torch.autograd.grad(weight.grad, weight)[0].item() == pytest.approx(12)
    weight.grad = None


def test_a_scaler_has_a_state_to_save_and_what_replaces_it_has_none() -> None:
    assert hasattr(NativeScaler("cpu"), "state_dict")
    assert not hasattr(PlainBackward(), "state_dict")
    assert PlainBackward.state_dict_key == NativeScaler.state_dict_key
