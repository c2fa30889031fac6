"""Properties of every contrastive loss, with and without labels: oracles, precision, memory and errors."""

import math

import pytest
import torch
from contrastive_losses import LOSSES, MODULES, LargestTensor, assert_all_close, blocks_of, every_loss, sup_con
from contrastive_oracle import UNKNOWN, dcl_loop, draw_labels, sup_con_loop, two_views, with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr import chance_level, dcl_chance_level, dcl_loss, nt_xent_loss

# Values and gradients


@every_loss
@settings(max_examples=25)
@given(
    n=st.integers(2, 6),
    width=st.integers(1, 5),
    temperature=st.floats(0.02, 5),
    classes=st.lists(st.integers(1, 4), max_size=4).map(tuple).filter(bool),
    blank=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    block=st.sampled_from([1, 2, 3, 5, 256]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batch_labels_and_block_size_equal_the_papers_loops(
    name, n, width, temperature, classes, blank, block, seed
):
    ours, oracle = LOSSES[name]
    z_i, z_j = two_views(n, width, seed)
    args = z_i, z_j, temperature, draw_labels(n, classes, blank, seed)
    with blocks_of(block):
        found = with_gradients(ours, *args)
    assert_all_close(found, with_gradients(oracle, *args), 1e-9)


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.002])
def test_the_gradient_is_that_of_finite_differences(name, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(5, 3).requires_grad_()
    labels = draw_labels(5)
    with blocks_of(3):
        assert torch.autograd.gradcheck(lambda a, b: ours(a, b, temperature, labels) * temperature, (z_i, z_j))


@every_loss
def test_the_second_derivative_is_that_of_finite_differences(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(4, 3).requires_grad_()
    labels = draw_labels(4)
    assert torch.autograd.gradgradcheck(lambda a, b: ours(a, b, 0.2, labels), (z_i, z_j))


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01])
@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_similarities_give_the_chance_level(name, temperature, n):
    ours, _ = LOSSES[name]
    same = torch.full((n, 4), 0.3)
    labels = draw_labels(n, blank=0.2)
    level = dcl_chance_level(n) if name.startswith("dcl") else chance_level(n)
    loss = ours(same, same, temperature, labels).item()
    if "masked" in name:
        assert loss <= level + 1e-6
        labels = torch.arange(n)[:, None]  # no two agree
        loss = ours(same, same, temperature, labels).item()
    assert loss == pytest.approx(level, rel=1e-5)


@every_loss
def test_swapping_views_permuting_images_and_scaling_projections_change_nothing(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(7)
    labels = draw_labels(7)
    loss = ours(z_i, z_j, 0.2, labels)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    scale = torch.logspace(-3, 3, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(ours(z_j, z_i, 0.2, labels), loss)
    torch.testing.assert_close(ours(z_i[order], z_j[order], 0.2, labels[order]), loss)
    torch.testing.assert_close(ours(z_i * scale, z_j / scale, 0.2, labels), loss)
    assert (ours(z_i[order], z_j, 0.2, labels) - loss).abs() > 1e-3


@every_loss
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_other_class_indices_blanks_and_integer_dtypes_change_nothing(name, dtype):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(7)
    labels = draw_labels(7)
    other = torch.where(labels < 0, torch.arange(7)[:, None] - 9, (labels + 5) * 7).to(dtype)
    torch.testing.assert_close(ours(z_i, z_j, 0.2, other), ours(z_i, z_j, 0.2, labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ntxent, masked", "supcon"])
@pytest.mark.parametrize("labels", [torch.full((6, 2), UNKNOWN), torch.zeros(6, 0, dtype=torch.int64)], ids=str)
def test_without_known_labels_the_loss_is_nt_xent(name, labels):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(6)
    found = with_gradients(ours, z_i, z_j, 0.2, labels)
    torch.testing.assert_close(found, with_gradients(nt_xent_loss, z_i, z_j, 0.2), rtol=1e-12, atol=1e-14)


# Precision and extreme inputs


@every_loss
@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_is_computed_in_float32(name, dtype, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(8, 16, dtype=dtype)
    labels = draw_labels(8)
    loss, *gradients = with_gradients(ours, z_i, z_j, temperature, labels)
    reference, *expected = with_gradients(ours, z_i.double(), z_j.double(), temperature, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    for gradient, exact in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        assert (gradient - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max() / min(temperature, 0.1)


@every_loss
@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_does_not_lower_the_precision(name, autocast):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(8, 16, dtype=torch.float32)

    def under_autocast(z_i, z_j, *args):  # only the forward pass, as in training
        with torch.autocast("cpu", dtype=autocast):
            return ours(z_i, z_j, *args)

    args = z_i, z_j, 0.05, draw_labels(8)
    expected = with_gradients(ours, *args)
    torch.testing.assert_close(with_gradients(under_autocast, *args), expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=autocast):  # the backward pass too, as in other training loops
        torch.testing.assert_close(with_gradients(ours, *args), expected, rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_vectors_of_zeros_have_equal_similarities_and_no_gradient(name, dtype, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(5, 4, dtype=dtype)
    z_i[2] = z_j[2] = z_j[4] = 0
    loss, grad_i, grad_j = with_gradients(ours, z_i, z_j, temperature, draw_labels(5, (2, 2), 0.2))
    assert loss.isfinite()
    assert grad_i[2].count_nonzero() == grad_j[2].count_nonzero() == grad_j[4].count_nonzero() == 0
    assert max(grad_i.abs().max(), grad_j.abs().max()) <= 10 / temperature  # also false for NaN


@every_loss
def test_a_nan_projection_gives_a_nan_loss(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(4, 3)
    z_i[1, 1] = math.nan
    assert ours(z_i, z_j, 0.5, torch.arange(4)[:, None]).isnan()


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.002])
@pytest.mark.parametrize("loss", [nt_xent_loss, dcl_loss])
def test_images_of_one_class_without_negatives_have_no_loss_and_no_gradient(loss, temperature):
    labels = torch.zeros(4, 1, dtype=torch.int64)
    found, *gradients = with_gradients(loss, *two_views(4), temperature, labels)
    assert found.item() == pytest.approx(0, abs=1e-12)
    for gradient in gradients:
        assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [0.5, 0.002])
def test_an_anchor_without_negatives_leaves_the_others_as_they_are(temperature):
    """One image agrees with all others, and the others remain negatives of each other."""
    z_i, z_j = two_views(3)
    labels = torch.tensor([[0, UNKNOWN], [0, 1], [0, 2]])
    for block in (1, 2, 256):
        with blocks_of(block):
            found = with_gradients(dcl_loss, z_i, z_j, temperature, labels)
        if temperature > 0.01:
            assert_all_close(found, with_gradients(dcl_loop, z_i, z_j, temperature, labels), 1e-10)
        assert all(value.isfinite().all() for value in found)
        assert found[1][0].count_nonzero() == 0
        assert found[1][1].count_nonzero() > 0


@pytest.mark.parametrize("temperature", [0.5, 0.002])
@pytest.mark.parametrize("loss", [nt_xent_loss, dcl_loss])
def test_without_negatives_create_graph_gives_the_same_gradient(loss, temperature):
    labels = torch.tensor([[0, UNKNOWN], [0, 1], [0, 2]])
    z_i, z_j = two_views(3).requires_grad_()
    plain, again = (
        torch.autograd.grad(loss(z_i, z_j, temperature, labels), z_i, create_graph=create_graph)[0]
        for create_graph in (False, True)
    )
    torch.testing.assert_close(again, plain, rtol=1e-7, atol=1e-9)
    (second,) = torch.autograd.grad(again.square().sum(), z_i)
    assert second.isfinite().all()


# Compilation, modules and memory


@pytest.mark.parametrize("name", MODULES)
def test_a_compiled_loss_is_one_graph_with_the_same_result(name):
    loss = MODULES[name](0.1)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)  # .item() would break the graph
    for n, labels in ((6, [draw_labels(6)]), (9, [draw_labels(9)]), (9, [])):
        if name == "supcon" and not labels:
            continue  # it requires labels
        args = *two_views(n), *labels
        torch.testing.assert_close(with_gradients(compiled, *args), with_gradients(loss, *args), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODULES)
def test_the_module_shows_its_temperature_has_no_state_and_calls_the_function(name):
    loss = MODULES[name](0.1)
    assert repr(loss) == f"{MODULES[name].__name__}(temperature=0.1)"
    assert loss.state_dict() == {}
    assert MODULES[name]().temperature == 0.5
    args = *two_views(5), draw_labels(5)
    function, _ = LOSSES["supcon" if name == "supcon" else f"{name}, masked"]
    assert loss(*args) == function(*args[:2], 0.1, args[2])


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_no_tensor_is_larger_than_a_block_or_the_projections_and_labels(name, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(250, 4, dtype=torch.float32)
    with blocks_of(32), LargestTensor() as largest:
        with_gradients(ours, z_i, z_j, temperature, draw_labels(250))
    assert 32 * 32 <= largest.numel <= 500 * 4


@every_loss
def test_tensors_saved_for_the_backward_pass_are_no_larger_than_the_projections(name):
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    ours, _ = LOSSES[name]
    z_i, z_j = two_views(60, 4).requires_grad_()
    labels = draw_labels(60)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours(z_i, z_j, 0.1, labels)
    assert max(kept) <= 120 * 4


@every_loss
def test_the_inputs_are_not_modified(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(6)
    labels = draw_labels(6)
    copies = z_i.clone(), z_j.clone(), labels.clone()
    with_gradients(ours, z_i, z_j, 0.1, labels)
    torch.testing.assert_close((z_i, z_j, labels), copies, rtol=0, atol=0)


# Invalid inputs


@every_loss
def test_wrong_projections_and_temperatures_raise(name):
    ours, _ = LOSSES[name]
    one = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least 2 images over all processes, got 1: there are no negatives"):
        ours(torch.ones(1, 2), torch.ones(1, 2), 0.5, one)
    with pytest.raises(ValueError, match=r"one shape \[n, P\], got \[3, 2\] and \[4, 2\]"):
        ours(torch.zeros(3, 2), torch.zeros(4, 2), 0.5, one)
    with pytest.raises(ValueError, match="expected a finite temperature above 0, got"):
        ours(*two_views(3), 0, draw_labels(3))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_a_temperature_below_zero_raises(name):
    with pytest.raises(ValueError, match="expected a finite temperature above 0, got -1"):
        MODULES[name](-1)


@pytest.mark.parametrize("name", ["ntxent, masked", "dcl, masked", "supcon"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4, 1).long(), r"labels of shape \[n, A\] for n = 3 images, got \[4, 1\]"),
        (torch.zeros(3).long(), r"labels of shape \[n, A\] for n = 3 images, got \[3\]"),
        (torch.zeros(3, 1), "labels of a signed integer dtype, got torch.float32"),
        (torch.zeros(3, 1, dtype=torch.uint8), "labels of a signed integer dtype, got torch.uint8"),
        (torch.zeros(3, 1, dtype=torch.bool), "labels of a signed integer dtype, got torch.bool"),
        (torch.zeros(3, 256).long(), "labels of at most 255 attributes, got 256"),
        (torch.zeros(3, 1, device="meta").long(), "labels on the projections' device, got meta and cpu"),
    ],
    ids=str,
)
def test_labels_of_wrong_shape_dtype_number_or_device_raise(name, labels, message):
    ours, _ = LOSSES[name]
    with pytest.raises(ValueError, match=message):
        ours(*two_views(3), 0.5, labels)


def test_the_largest_number_of_attributes_is_counted_without_overflow():
    z_i, z_j = two_views(4)
    labels = draw_labels(4, (2,) * 255, 0.1)
    labels[1] = labels[0]  # the largest number of equal labels
    torch.testing.assert_close(sup_con(z_i, z_j, 0.5, labels), sup_con_loop(z_i, z_j, 0.5, labels))


@pytest.mark.parametrize("n", [0, 1])
def test_the_chance_level_needs_two_images(n):
    with pytest.raises(ValueError, match=f"expected at least 2 images, got {n}"):
        dcl_chance_level(n)
