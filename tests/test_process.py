"""The device of a run, alone and as one of several processes, and who logs."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes

from runtime.errors import UsageError
from runtime.process import Process, set_up_process

LAUNCHER = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as from a shell, whatever runs the tests."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_the_first_of_one() -> None:
    process = set_up_process("cpu")
    assert process == Process(torch.device("cpu"), rank=0, local_rank=0, world_size=1, distributed=False)
    assert process.is_primary


@pytest.mark.parametrize("device", [None, ""])
def test_the_default_device_is_the_gpu_where_there_is_one(device: str | None) -> None:
    assert set_up_process(device).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"^device {device}: PyTorch finds no GPU .*leave it out"):
        set_up_process(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_takes_tensors_and_its_number_must_exist() -> None:
    device = set_up_process("cuda:0").device
    assert torch.ones(1, device=device).item() == 1
    with pytest.raises(UsageError, match=r"^device cuda:99: this machine has"):
        set_up_process("cuda:99")


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [
        (
            "cuda",
            "4",
            "cuda: this machine has 2 GPUs, too few for 4 processes: start 2, one per GPU, or use device cpu",
        ),
        ("cuda:2", None, "cuda:2: this machine has 2 GPUs, the last of them cuda:1"),
    ],
)
def test_more_processes_than_gpus_and_a_gpu_too_many_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, processes: str | None, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    with pytest.raises(UsageError) as raised:
        set_up_process(device)
    assert str(raised.value) == f"device {message}"


@pytest.mark.parametrize("device", ["toaster", "vulkan", "npu", "cpu:one"])
def test_a_device_that_pytorch_cannot_use_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"^device {device}: "):
        set_up_process(device)


def test_an_incomplete_launch_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"^WORLD_SIZE is 2, but RANK is not set"):
        set_up_process("cpu", dist_backend="gloo")


def test_a_run_logs_plain_messages_and_a_second_one_logs_them_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        set_up_process("cpu")
    logging.getLogger("train").info("Epoch 1")
    logging.getLogger("train").debug("detail")
    assert capsys.readouterr().err == "Epoch 1\n"


def test_a_log_line_shows_control_characters_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_process("cpu")
    logging.getLogger("train").warning("Unreadable image: %s", "a\x1b[2J\r\nEpoch 9: 100%.jpg")
    assert capsys.readouterr().err == "Unreadable image: a\\x1b[2J\\r\\nEpoch 9: 100%.jpg\n"


def _join(folder: Path) -> dict[str, Any]:
    """Set up a process as torchrun launches it; return its fields, a sum over all processes, and its log levels."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    dist.barrier()  # else the group might end for one while another still joins it
    dist.destroy_process_group()  # the caller's: a launched process starts without one, and ends with its own
    launched = {"WORLD_SIZE": str(processes), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    url = f"file://{folder}/store?rank={rank}&world_size={processes}"
    root = logging.getLogger()
    before = root.handlers[:], root.level
    os.environ.update(launched)
    try:
        process = set_up_process("cpu", dist_url=url)
        levels = [level for level in (logging.INFO, logging.WARNING, logging.ERROR) if root.isEnabledFor(level)]
    finally:
        for name in launched:
            del os.environ[name]
        root.handlers[:], level = before
        root.setLevel(level)
    total = torch.tensor(float(rank + 1))
    dist.all_reduce(total)
    return vars(process) | {"total": total.item(), "levels": levels}


def test_several_processes_know_their_ranks_and_only_the_first_logs_more_than_errors(tmp_path: Path) -> None:
    for rank, joined in enumerate(run_on_processes(2, _join, tmp_path)):
        assert (joined["rank"], joined["local_rank"], joined["world_size"]) == (rank, rank, 2)
        assert joined["distributed"]
        assert joined["device"].type == "cpu"
        assert joined["total"] == 3
        everything = [logging.INFO, logging.WARNING, logging.ERROR]
        assert joined["levels"] == (everything if rank == 0 else [logging.ERROR])
