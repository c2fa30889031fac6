"""Joining the process group of a run: who started this process, and where the others are."""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch.distributed as dist

from runtime.errors import LostRank, UsageError, first_line
from runtime.rank_watch import RankWatch, listed, meet, start_watch, this_rank
from runtime.slurm import works_alone_in_slurm
from timm.utils.distributed import is_distributed_env, world_info_from_env

_PATIENCE = 300.0  # seconds until all processes have started
_WAIT = 1800.0  # seconds that a process waits for the others in an operation
_SLOW = 10  # seconds until the log says what this process waits for
_NUMBERS = (  # the environment variables that timm reads
    *("RANK", "PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
    *("LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    *("WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
)
_BACKENDS = {"cuda": "nccl", "xpu": "ccl", "hpu": "hccl", "npu": "hccl"}  # other devices use gloo


class Place(NamedTuple):
    """The place of this process in the run.

    Attributes:
        local_rank: index among the processes of its machine.
        rank: index among all.
        world_size: number of processes.
    """

    local_rank: int
    rank: int
    world_size: int


def launched_place() -> Place | None:
    """Return the place that a launcher has given this process; None if it runs alone.

    Raises:
        UsageError: the environment speaks of several processes, but nothing has started them together.
    """
    if "WORLD_SIZE" not in os.environ:
        _check_mpi()
    try:
        if works_alone_in_slurm() or not is_distributed_env():
            return None
        place = Place(*world_info_from_env())
    except ValueError as error:
        names = (*_NUMBERS, "SLURM_STEP_NUM_TASKS")
        name = next((name for name in names if not _is_whole(os.environ.get(name, "0"))), "WORLD_SIZE")
        raise UsageError(
            f"the launcher's environment variable {name} is {os.environ.get(name)!r}, not a number: correct or unset it"
        ) from error
    if "SLURM_PROCID" not in os.environ and "RANK" not in os.environ:
        raise UsageError(
            f"WORLD_SIZE is {place.world_size}, but RANK is not set: start with distributed_train.sh or torchrun, or "
            "unset WORLD_SIZE for a single process"
        )
    if not 0 <= place.rank < place.world_size:
        raise UsageError(
            f"RANK is {place.rank}, but WORLD_SIZE is {place.world_size}: set RANK from 0 to {place.world_size - 1}"
        )
    return place


def processes_here() -> int:
    """Return the number of the run's processes on this machine, as torchrun says; 1 without it."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(text)) if _is_whole(text) else 1


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def check_single(reason: str) -> None:
    """Refuse to be one of several processes.

    Args:
        reason: what several would do wrong.

    Raises:
        UsageError: a launcher has started several, or the environment speaks of several.
    """
    if launched_place() is not None:
        raise UsageError(f"{reason}: start a single process, without torchrun, or with srun --ntasks=1")


def _check_mpi() -> None:
    """Refuse to be one of several processes that mpirun has started, which would not know each other."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"):
        if "SLURM_PROCID" not in os.environ and os.environ.get(name, "1") != "1":
            raise UsageError(
                f"an MPI launcher has started {os.environ[name]} processes ({name}), which would not work together: "
                "start with distributed_train.sh, torchrun or srun"
            )


def join_process_group(place: Place, device_type: str, backend: str | None, url: str | None, wait: float | None) -> str:
    """Join the process group, and watch the other ranks from then on; return the backend.

    Args:
        place: the place of this process.
        device_type: kind of the device, which determines the usual backend.
        backend: PyTorch's backend; None for the usual one.
        url: where the processes meet; None for the launcher's environment variables.
        wait: seconds that this process waits for others in an operation, as the user has set them; None for 30 minutes.

    Raises:
        LostRank: other processes are missing.
        UsageError: the environment is incomplete.
    """
    timeout = timedelta(seconds=wait or _WAIT)
    backend = backend or _BACKENDS.get(device_type, "gloo")
    ends: dict[str, Any] = {"backend": backend, "rank": place.rank, "world_size": place.world_size, "timeout": timeout}
    if url and not url.startswith(("tcp://", "env://")):  # a file has no connection to watch
        if "rank=" in url:  # the address says it all
            ends = {"backend": backend, "timeout": timeout}
        dist.init_process_group(init_method=url, **ends)
        return backend
    host, port = _meeting_place(url)
    for name, value in zip(("LOCAL_RANK", "RANK", "WORLD_SIZE"), place, strict=True):
        os.environ[name] = str(value)  # from Slurm's variables, for what reads these
    attempt = f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    hosts = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    patience = min(_PATIENCE, wait or _WAIT)
    store = dist.PrefixStore(f"watch {attempt}", _connect(host, port, place, hosts, patience))
    me = this_rank(place.rank)
    ranks = meet(store, me, place.world_size, patience)
    group = dist.PrefixStore(f"group {attempt}", _connect(host, port, place, False, patience))
    dist.init_process_group(store=group, **ends)
    minutes = f"{timeout.total_seconds() / 60:.3g} minutes"
    start_watch(RankWatch(store, me, ranks, f"{minutes}: raise dist_timeout if it needs longer" if wait else minutes))
    return backend


def _meeting_place(url: str | None) -> tuple[str, int]:
    """Return the host and the port of the first process.

    Raises:
        UsageError: the launcher has not set them.
    """
    if url and url.startswith("tcp://"):
        parts = urlsplit(url)
        return parts.hostname or "127.0.0.1", parts.port or 0
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not host or not port or not port.isdecimal():
        raise UsageError(
            "MASTER_ADDR and MASTER_PORT are not set: start with distributed_train.sh or torchrun, or set them to the "
            "first machine and to a free port, such as 29500"
        )
    return host, int(port)


def _connect(host: str, port: int, place: Place, hosts: bool, patience: float) -> Any:
    """Return a connection to the store of the first process, which hosts it, after `patience` seconds at most.

    Raises:
        LostRank: the first process does not answer.
        UsageError: the port is taken.
    """
    if not hosts:
        _wait_for_port(host, port, place, patience)
    timeout = timedelta(seconds=_PATIENCE)
    try:
        return dist.TCPStore(host, port, place.world_size, hosts, timeout, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        reason, remedy = first_line(error), "correct the address and the port"
        if "EADDRINUSE" in str(error):
            reason, remedy = "another program uses this port", "choose another port"
        raise UsageError(f"MASTER_ADDR {host}, MASTER_PORT {port} cannot be used ({reason}): {remedy}") from error


def _wait_for_port(host: str, port: int, place: Place, patience: float) -> None:
    """Wait until the first process listens: torch's own connection would print pages about each failure."""
    begin, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            waited = time.monotonic() - begin
            if waited > patience:
                raise LostRank(
                    f"{listed([place.rank])} of {place.world_size} processes could not reach rank 0 at {host}:{port} "
                    f"for {patience:.0f} seconds ({error.strerror or error}): check that rank 0 has started there, and "
                    "that MASTER_ADDR and MASTER_PORT name its machine and port"
                ) from error
            if waited > _SLOW and not said:
                print(f"Rank {place.rank} waits for rank 0 at {host}:{port}", file=sys.stderr, flush=True)
                said = True
            time.sleep(0.2)
        else:
            return
