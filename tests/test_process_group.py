"""Who started this process: launchers that are complete, and those that are not."""

import socket

import pytest

from options.shared import processes
from runtime import process_group
from runtime.errors import LostRank, UsageError
from runtime.process import set_up_process
from runtime.process_group import Place, join_process_group, launched_place

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE")
MEETING = ("MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS")
MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Run as from a shell, whatever runs the tests."""
    for name in (*NAMES, *MEETING, *SLURM, *MPI):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def put(environment: pytest.MonkeyPatch, words: str) -> None:
    for word in words.split():
        environment.setenv(*word.split("="))


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("", None),
        ("WORLD_SIZE=1 RANK=0", None),
        ("SLURM_NTASKS=1 SLURM_PROCID=0", None),
        ("SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0", None),  # in a batch script, or beside srun
        ("SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=1", None),
        ("WORLD_SIZE=4 RANK=3 LOCAL_RANK=1", Place(1, 3, 4)),
        ("SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0", Place(0, 0, 4)),
        ("SLURM_NTASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1", Place(1, 3, 4)),
        (
            "SLURM_NTASKS=4 SLURM_PROCID=0 WORLD_SIZE=2 RANK=1 LOCAL_RANK=1",
            Place(1, 1, 2),
        ),  # torchrun in a batch script
    ],
)
def test_a_launcher_gives_a_place(environment: pytest.MonkeyPatch, words: str, place: Place | None) -> None:
    put(environment, words)
    assert launched_place() == place


def test_a_process_that_srun_did_not_start_says_that_it_works_alone(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(environment, "SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=1")
    process = set_up_process("cpu")
    assert (process.distributed, process.world_size, processes()) == (False, 1, 1)
    sentence = "This Slurm job has 4 tasks, but srun did not start this process, so it works alone"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1", "an MPI launcher has started 2 processes"),
        ("WORLD_SIZE=2", "WORLD_SIZE is 2, but RANK is not set: start with distributed_train.sh"),
        ("WORLD_SIZE=2 RANK=2", "RANK is 2, but WORLD_SIZE is 2: set RANK from 0 to 1"),
        (
            "WORLD_SIZE=two RANK=0",
            "the launcher's environment variable WORLD_SIZE is 'two', not a number: correct or unset",
        ),
        ("SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=x", ".* SLURM_STEP_NUM_TASKS is 'x', not a number"),
        (
            "SLURM_NTASKS=four SLURM_PROCID=0",
            "the launcher's environment variable SLURM_NTASKS is 'four', not a number",
        ),
    ],
)
def test_an_incomplete_launch_is_refused_at_once(environment: pytest.MonkeyPatch, words: str, sentence: str) -> None:
    put(environment, words)
    with pytest.raises(UsageError, match=f"^{sentence}"):
        launched_place()


def test_without_a_meeting_place_nothing_waits(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^MASTER_ADDR and MASTER_PORT are not set"):
        join_process_group(Place(0, 0, 2), "cpu", None, None, None)


@pytest.mark.parametrize(
    ("rank", "sentence"),
    [
        (0, r"ranks 1 and 2 of 3 processes did not start within 0 seconds"),
        (2, r"rank 2 of 3 processes could not reach rank 0 at 127\.0\.0\.1:\d+"),
    ],
)
def test_missing_processes_are_named(environment: pytest.MonkeyPatch, rank: int, sentence: str) -> None:
    environment.setattr(process_group, "_PATIENCE", 0.4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    put(environment, f"MASTER_ADDR=127.0.0.1 MASTER_PORT={port}")
    with pytest.raises(LostRank, match=f"^{sentence}"):
        join_process_group(Place(rank, rank, 3), "cpu", None, None, None)
