"""How many processes Slurm started together. Imports no torch."""

from __future__ import annotations

import os


def slurm_tasks() -> int:
    """Return the number of processes that srun started together with this one, itself included; 1 without srun.

    A batch script has the number of the job's tasks in its environment, although it is a single process. Only srun sets
    the variables of a step.

    Raises:
        ValueError: a variable of Slurm is not a number.
    """
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    is_first = int(os.environ.get("SLURM_PROCID") or 0) == 0
    alone = is_first and int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) == 1
    return 1 if alone else tasks


def works_alone_in_slurm() -> bool:
    """Return whether this is the only process of a Slurm job with several tasks."""
    return "WORLD_SIZE" not in os.environ and slurm_tasks() == 1 < int(os.environ.get("SLURM_NTASKS") or 1)
