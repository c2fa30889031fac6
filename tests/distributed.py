"""Run a function on several local gloo processes, for tests that compare several processes with one.

    from distributed import run_on_processes

    def rank_and_sum(x):  # at module level, so the processes can import it
        dist.all_reduce(x)
        return dist.get_rank(), x

    results = run_on_processes(2, rank_and_sum, torch.ones(3))  # [result of rank 0, result of rank 1]

A call starts the processes that it lacks, and they serve all later calls, so a second test costs milliseconds. Each
call has its own process group. After a failure all processes are stopped, and the next call starts new ones.
"""

import atexit
import multiprocessing
import os
import pickle
import runpy
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
# Forking this process can hang, since torch has started threads in it. Spawning imports torch once in each process. A
# fork server that has only imported modules forks in no time.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([
    "torch",
    "torch._dynamo",  # DistributedDataParallel imports it
    "timm.models.multi_label",
    "training.run",
    "hypothesis",
    "pytest",
    "sklearn.linear_model",
])  # fmt: skip
_workers: list[tuple[BaseProcess, Connection]] = []


def run_on_processes(world_size: int, function: Callable[..., Any], *args: Any, timeout: float = 60) -> list[Any]:
    """Call `function(*args)` on each of `world_size` processes, inside an initialized gloo process group.

    Args:
        world_size: number of processes.
        function: function at module level, which gets its rank from torch.distributed. Each process runs one thread,
            and warnings are errors.
        *args: picklable arguments, tensors included; each process gets its own copy.
        timeout: seconds before processes that wait for each other are stopped.

    Returns:
        The results of the function, by rank. Detach tensors, since a graph cannot be pickled.

    Raises:
        RuntimeError: A process failed, and the message has its traceback; or the timeout passed.
    """
    if not all(process.is_alive() for process, _ in _workers):  # a command that ends early in this process ends them
        stop_processes()
    while len(_workers) < world_size:
        _start_worker()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank, (_, connection) in enumerate(_workers[:world_size]):
                job = (rank, world_size, str(Path(folder, "store")), timeout, function, args)
                connection.send_bytes(pickle.dumps(job))
            return _collect(world_size, time.monotonic() + timeout)
        except BaseException:
            stop_processes()  # the other processes may wait in a collective for the failed one
            raise


def stop_processes() -> None:
    """Stop all processes."""
    for process, connection in _workers:
        connection.close()
        process.kill()
    for process, _ in _workers:
        process.join()
    _workers.clear()


atexit.register(stop_processes)


def _start_worker() -> None:
    parent_end, child_end = _context.Pipe()
    process = _context.Process(target=_serve, args=(child_end,), daemon=True)
    process.start()
    child_end.close()  # so the death of the process ends the pipe
    _workers.append((process, parent_end))


def _collect(world_size: int, deadline: float) -> list[Any]:
    ranks = {connection: rank for rank, (_, connection) in enumerate(_workers[:world_size])}
    results: dict[int, Any] = {}
    while len(results) < world_size:
        waiting = [connection for connection, rank in ranks.items() if rank not in results]
        ready = wait(waiting, timeout=max(0, deadline - time.monotonic()))
        if not ready:
            late = sorted(set(range(world_size)) - set(results))
            raise RuntimeError(f"ranks {late} of {world_size} processes did not finish in time")
        for connection in ready:
            rank = ranks[connection]
            try:
                succeeded, result = pickle.loads(connection.recv_bytes())
            except EOFError:
                raise RuntimeError(f"the process of rank {rank} of {world_size} died") from None
            if not succeeded:
                raise RuntimeError(f"rank {rank} of {world_size} failed:\n{result}")
            results[rank] = result
    return [results[rank] for rank in range(world_size)]


def _serve(connection: Connection) -> None:
    """Run jobs in a worker process until the pipe is closed."""
    torch.set_num_threads(1)
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        try:
            answer = pickle.dumps((True, _run_job(*pickle.loads(message))))
        except BaseException:  # pytest's failures are BaseExceptions
            answer = pickle.dumps((False, traceback.format_exc()))
        connection.send_bytes(answer)


def _run_job(
    rank: int, world_size: int, store: str, timeout: float, function: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(*args)
    finally:
        dist.destroy_process_group()


def run_script_on_processes(world_size: int, *words: object, timeout: float = 120) -> list[tuple[str, str]]:
    """Run a script of the checkout as a launcher would, and return each rank's stdout and stderr.

    Args:
        world_size: number of processes.
        words: the script and its arguments.
        timeout: seconds that all processes may take.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": f"{world_size}", "MASTER_ADDR": "localhost", "MASTER_PORT": f"{port}"}
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder, f"{rank}.out"), Path(folder, f"{rank}.err")) for rank in range(world_size)]
        processes = []
        for rank, streams in enumerate(files):
            environment = world | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
            job = (list(map(str, words)), environment, streams)
            processes.append(_context.Process(target=_run_script, args=job))
            processes[-1].start()
        end = time.monotonic() + timeout
        for process in processes:
            process.join(max(0, end - time.monotonic()))
            process.kill()
        ends = [(out.read_text(), err.read_text()) for out, err in files]
    assert [process.exitcode for process in processes] == [0] * world_size, ends
    return ends


def _run_script(words: list[str], environment: dict[str, str], streams: tuple[Path, Path]) -> None:
    """Run a script in this process, with its stdout and stderr in two files."""
    for number, file in enumerate(streams, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
