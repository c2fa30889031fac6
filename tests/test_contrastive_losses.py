"""What every contrastive loss must hold, with labels and without: its paper's loops, any split, any precision."""

import contextlib
import math
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import torch.distributed as dist
from contrastive_oracle import (
    UNKNOWN,
    dcl_loop,
    draw_labels,
    nt_xent_loop,
    sup_con_loop,
    two_views,
    with_gradients,
)
from distributed import run_on_processes
from flag_effects import ON_GPU
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from simclr import (
    DCLLoss,
    NTXentLoss,
    SupConLoss,
    chance_level,
    dcl_chance_level,
    dcl_loss,
    log_sum_exp,
    nt_xent_loss,
    similarity_blocks,
    sup_con_loss,
)


def sup_con(z_i, z_j, temperature, labels):
    """SupCon with its arguments in the others' order."""
    return sup_con_loss(z_i, z_j, labels, temperature)


def unlabeled(loss, z_i, z_j, temperature, labels):
    """A loss that is given no labels."""
    return loss(z_i, z_j, temperature)


LOSSES = {  # ours, and the oracle
    "ntxent": (partial(unlabeled, nt_xent_loss), partial(unlabeled, nt_xent_loop)),
    "ntxent, masked": (nt_xent_loss, nt_xent_loop),
    "dcl": (partial(unlabeled, dcl_loss), partial(unlabeled, dcl_loop)),
    "dcl, masked": (dcl_loss, dcl_loop),
    "supcon": (sup_con, sup_con_loop),
}
MODULES = {"ntxent": NTXentLoss, "dcl": DCLLoss, "supcon": SupConLoss}
SHARES = [[3, 3], [5, 2], [0, 4], [1, 1], [1, 4, 2], [0, 3, 0], [2, 2, 2, 2], [1, 0, 5, 2]]
every_loss = pytest.mark.parametrize("name", LOSSES)


@contextmanager
def blocks_of(rows):
    """Sets the rows of a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarity_blocks.BLOCK_SIZE, "cpu", rows)
        yield


def assert_all_close(found, expected, tolerance):
    """Compares losses and gradients, whose entries that happen to cancel are as exact as the largest ones."""
    for value, reference in zip(found, expected, strict=True):
        bound = tolerance * max(1.0, reference.abs().max().item())
        torch.testing.assert_close(value.double(), reference.double(), rtol=0, atol=bound)


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
def test_any_batch_labels_and_block_give_what_the_papers_loops_give(
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
def test_so_is_the_gradients_own(name):
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
def test_what_codes_labels_have_and_which_blank_change_nothing(name, dtype):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(7)
    labels = draw_labels(7)
    other = torch.where(labels < 0, torch.arange(7)[:, None] - 9, (labels + 5) * 7).to(dtype)
    torch.testing.assert_close(ours(z_i, z_j, 0.2, other), ours(z_i, z_j, 0.2, labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ntxent, masked", "supcon"])
@pytest.mark.parametrize("labels", [torch.full((6, 2), UNKNOWN), torch.zeros(6, 0, dtype=torch.int64)], ids=str)
def test_without_any_known_label_it_is_nt_xent(name, labels):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(6)
    found = with_gradients(ours, z_i, z_j, 0.2, labels)
    torch.testing.assert_close(found, with_gradients(nt_xent_loss, z_i, z_j, 0.2), rtol=1e-12, atol=1e-14)


# Numbers at the edge


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

    def under_autocast(z_i, z_j, *args):  # the forward pass alone, as in training
        with torch.autocast("cpu", dtype=autocast):
            return ours(z_i, z_j, *args)

    args = z_i, z_j, 0.05, draw_labels(8)
    expected = with_gradients(ours, *args)
    torch.testing.assert_close(with_gradients(under_autocast, *args), expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=autocast):  # the backward pass too, as in many a loop
        torch.testing.assert_close(with_gradients(ours, *args), expected, rtol=0, atol=0)


@contextmanager
def tf32(allowed):
    """Lets a GPU multiply in TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@ON_GPU
@every_loss
def test_a_gpu_multiplies_in_full_precision_whatever_training_chose(name):
    ours, _ = LOSSES[name]
    (z_i, z_j), labels = two_views(32, 16).cuda(), draw_labels(32).cuda()
    expected = with_gradients(ours, z_i, z_j, 0.05, labels)
    with tf32(True):
        assert_all_close(with_gradients(ours, z_i.float(), z_j.float(), 0.05, labels), expected, 1e-5)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_precision_of_a_gpus_products_is_given_back(allowed):
    matmul = torch.backends.cuda.matmul
    with tf32(allowed):
        with contextlib.suppress(ZeroDivisionError), log_sum_exp.full_precision(torch.device("cuda")):
            assert not matmul.allow_tf32
            raise ZeroDivisionError
        assert matmul.allow_tf32 == allowed
        with log_sum_exp.full_precision(torch.device("cpu")):
            assert matmul.allow_tf32 == allowed


def test_the_precision_is_that_of_the_new_name_where_the_old_one_cannot_be_read(monkeypatch):
    class Matmul:
        fp32_precision = "tf32"

        @property
        def allow_tf32(self):
            raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul := Matmul())
    with log_sum_exp.full_precision(torch.device("cuda")):
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"


@every_loss
def test_forward_and_backward_multiply_in_full_precision(name, monkeypatch):
    ours, _ = LOSSES[name]
    inside, products = [False], []

    @contextmanager
    def noted(device):
        assert device == torch.device("cpu")
        inside[0] = True
        yield
        inside[0] = False

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "mm" in func.__name__:
                products.append((func.__name__, inside[0]))
            return func(*args, **kwargs or {})

    monkeypatch.setattr(log_sum_exp, "full_precision", noted)
    with Products():
        with_gradients(ours, *two_views(8, 4), 0.5, draw_labels(8))
    assert set(products) == {("mm.default", True), ("addmm_.default", True)}


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_vectors_of_zeros_are_as_similar_to_all_and_have_no_gradient(name, dtype, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(5, 4, dtype=dtype)
    z_i[2] = z_j[2] = z_j[4] = 0
    loss, grad_i, grad_j = with_gradients(ours, z_i, z_j, temperature, draw_labels(5, (2, 2), 0.2))
    assert loss.isfinite()
    assert grad_i[2].count_nonzero() == grad_j[2].count_nonzero() == grad_j[4].count_nonzero() == 0
    assert max(grad_i.abs().max(), grad_j.abs().max()) <= 10 / temperature  # also false for NaN


@every_loss
def test_a_projection_that_is_not_a_number_is_not_hidden(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(4, 3)
    z_i[1, 1] = math.nan
    assert ours(z_i, z_j, 0.5, torch.arange(4)[:, None]).isnan()


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.002])
@pytest.mark.parametrize("loss", [nt_xent_loss, dcl_loss])
def test_where_all_images_are_of_one_class_nothing_is_contrasted(loss, temperature):
    labels = torch.zeros(4, 1, dtype=torch.int64)
    found, *gradients = with_gradients(loss, *two_views(4), temperature, labels)
    assert found.item() == pytest.approx(0, abs=1e-12)
    for gradient in gradients:
        assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [0.5, 0.002])
def test_an_anchor_without_negatives_leaves_the_others_as_they_are(temperature):
    """One image agrees with all others, which are told from each other still."""
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
def test_without_negatives_a_gradient_made_to_be_differentiated_is_the_same(loss, temperature):
    labels = torch.tensor([[0, UNKNOWN], [0, 1], [0, 2]])
    z_i, z_j = two_views(3).requires_grad_()
    plain, again = (
        torch.autograd.grad(loss(z_i, z_j, temperature, labels), z_i, create_graph=create_graph)[0]
        for create_graph in (False, True)
    )
    torch.testing.assert_close(again, plain, rtol=1e-7, atol=1e-9)
    (second,) = torch.autograd.grad(again.square().sum(), z_i)
    assert second.isfinite().all()


# How it computes


@pytest.mark.parametrize("name", MODULES)
def test_compiled_it_is_one_graph_and_the_same(name):
    loss = MODULES[name](0.1)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)  # .item() would break the graph
    for n in (6, 9):
        args = *two_views(n), draw_labels(n)
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


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that a tensor had."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_no_tensor_is_larger_than_a_block_or_the_projections_and_labels(name, temperature):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(250, 4, dtype=torch.float32)
    with blocks_of(32), LargestTensor() as largest:
        with_gradients(ours, z_i, z_j, temperature, draw_labels(250))
    assert 32 * 32 <= largest.numel <= 500 * 4


@every_loss
def test_what_is_kept_for_the_backward_pass_grows_with_the_projections_alone(name):
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
def test_the_inputs_stay_as_they_were(name):
    ours, _ = LOSSES[name]
    z_i, z_j = two_views(6)
    labels = draw_labels(6)
    copies = z_i.clone(), z_j.clone(), labels.clone()
    with_gradients(ours, z_i, z_j, 0.1, labels)
    torch.testing.assert_close((z_i, z_j, labels), copies, rtol=0, atol=0)


# Several processes


def losses_and_averaged_gradients(cases, block):
    """For each case, this process's loss, and its slices of the gradients that DDP's averaging would make."""
    results = []
    with blocks_of(block):
        for name, z_i, z_j, temperature, labels, shares in cases:
            own_i, own_j, own_labels = (rows.split(shares)[dist.get_rank()] for rows in (z_i, z_j, labels))
            loss, *gradients = with_gradients(LOSSES[name][0], own_i, own_j, temperature, own_labels)
            results.append((loss, *(gradient / dist.get_world_size() for gradient in gradients)))
    return results


def assert_as_one_process(shares, cases, tolerance, block=3):
    """Compares what every process finds with one process that has the joint batch."""
    cases = [(*case, shares) for case in cases]
    by_rank = run_on_processes(len(shares), losses_and_averaged_gradients, cases, block)
    for case, found in zip(cases, zip(*by_rank, strict=True), strict=True):
        losses, grads_i, grads_j = zip(*found, strict=True)
        expected = with_gradients(LOSSES[case[0]][0], *case[1:5])
        assert [len(grad) for grad in grads_i] == shares
        for loss in losses:
            assert loss == losses[0]
            assert loss.dtype == expected[0].dtype
        assert_all_close((losses[0], torch.cat(grads_i), torch.cat(grads_j)), expected, tolerance)


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_several_processes_equal_one(shares):
    n = sum(shares)
    z_i, z_j = two_views(n)
    cases = [(name, z_i, z_j, t, draw_labels(n)) for name in LOSSES for t in (0.5, 0.05, 0.002)]
    assert_as_one_process(shares, cases, 1e-10)
    cases = [(name, z_i.float(), z_j.float(), 0.5, draw_labels(n).int()) for name in LOSSES]
    assert_as_one_process(shares, cases, 5e-6)


@settings(max_examples=20)
@given(
    shares=st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(lambda shares: sum(shares) >= 2),
    classes=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    block=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_split_over_processes_equals_one_process(shares, classes, block, seed):
    n = sum(shares)
    z_i, z_j = two_views(n, 3, seed)
    labels = draw_labels(n, classes, 0.3, seed)
    assert_as_one_process(shares, [(name, z_i, z_j, 0.3, labels) for name in LOSSES], 1e-9, block)


def gradient_made_to_be_differentiated(name, z_i, z_j, labels, shares):
    own_i, own_j, own_labels = (rows.split(shares)[dist.get_rank()].clone() for rows in (z_i, z_j, labels))
    own_i.requires_grad_()
    loss = LOSSES[name][0](own_i, own_j, 0.2, own_labels)
    (gradient,) = torch.autograd.grad(loss, own_i, create_graph=True)
    return gradient.detach() / dist.get_world_size()


@every_loss
@pytest.mark.parametrize("shares", [[4, 3], [0, 5], [2, 0, 3]], ids=str)
def test_with_create_graph_too_several_processes_find_what_one_finds(name, shares):
    z_i, z_j = two_views(sum(shares))
    labels = draw_labels(sum(shares))
    by_rank = run_on_processes(len(shares), gradient_made_to_be_differentiated, name, z_i, z_j, labels, shares)
    _, expected, _ = with_gradients(LOSSES[name][0], z_i, z_j, 0.2, labels)
    torch.testing.assert_close(torch.cat(by_rank), expected)


def weight_gradient_under_ddp(name, x_i, x_j, labels, shares):
    """The gradient of a linear projection head that DistributedDataParallel has averaged."""
    torch.manual_seed(0)
    head = DistributedDataParallel(torch.nn.Linear(x_i.shape[1], 3).double())
    own_i, own_j, own_labels = (rows.split(shares)[dist.get_rank()] for rows in (x_i, x_j, labels))
    z_i, z_j = head(torch.cat([own_i, own_j])).chunk(2) if len(own_i) else (head(own_i),) * 2
    LOSSES[name][0](z_i, z_j, 0.2, own_labels).backward()
    return head.module.weight.grad


@every_loss
@pytest.mark.parametrize("shares", [[6, 2], [1, 0, 7]], ids=str)
def test_under_ddp_a_parameters_gradient_is_that_of_the_joint_batch(name, shares):
    x_i, x_j = two_views(8, 4)
    labels = draw_labels(8)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 3).double()
    LOSSES[name][0](head(x_i), head(x_j), 0.2, labels).backward()
    for gradient in run_on_processes(len(shares), weight_gradient_under_ddp, name, x_i, x_j, labels, shares):
        torch.testing.assert_close(gradient, head.weight.grad, rtol=1e-11, atol=1e-12)


def refusal(labels):
    labels = labels[dist.get_rank()]
    try:
        nt_xent_loss(torch.ones(2, 2), torch.ones(2, 2), 0.5, labels)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("second", "kinds"),
    [
        (None, "widths [2, 0] and [8, 0] bytes"),
        (torch.zeros(2, 3, dtype=torch.int64), "widths [2, 3] and [8, 8] bytes"),
        (torch.zeros(2, 2, dtype=torch.int32), "widths [2, 2] and [8, 4] bytes"),
    ],
    ids=["none", "width", "dtype"],
)
def test_labels_that_differ_between_processes_are_refused_on_each(second, kinds):
    messages = run_on_processes(2, refusal, [torch.zeros(2, 2, dtype=torch.int64), second])
    for message in messages:
        assert message.startswith("expected labels of one width and dtype on every process, got, by rank, ")
        assert kinds in message


# What they refuse


@every_loss
def test_projections_and_temperatures_that_do_not_fit_are_refused(name):
    ours, _ = LOSSES[name]
    one = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least 2 images over all processes, got 1: there are no negatives"):
        ours(torch.ones(1, 2), torch.ones(1, 2), 0.5, one)
    with pytest.raises(ValueError, match=r"one shape \[n, P\], got \[3, 2\] and \[4, 2\]"):
        ours(torch.zeros(3, 2), torch.zeros(4, 2), 0.5, one)
    with pytest.raises(ValueError, match="expected a finite temperature above 0, got"):
        ours(*two_views(3), 0, draw_labels(3))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_refuses_a_temperature_that_is_not_above_zero(name):
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
def test_labels_that_do_not_fit_are_refused(name, labels, message):
    ours, _ = LOSSES[name]
    with pytest.raises(ValueError, match=message):
        ours(*two_views(3), 0.5, labels)


def test_more_attributes_than_a_byte_holds_bits_are_counted_right():
    z_i, z_j = two_views(4)
    labels = draw_labels(4, (2,) * 255, 0.1)
    labels[1] = labels[0]  # as many equal as there can be
    torch.testing.assert_close(sup_con(z_i, z_j, 0.5, labels), sup_con_loop(z_i, z_j, 0.5, labels))


@pytest.mark.parametrize("n", [0, 1])
def test_one_image_has_no_chance_level(n):
    with pytest.raises(ValueError, match=f"expected at least 2 images, got {n}"):
        dcl_chance_level(n)
