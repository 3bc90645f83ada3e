"""Where this process runs: its place among those that train together, its device."""

import os
from typing import NamedTuple

from jtm.files import InputError


class Place(NamedTuple):
    """
    The place of this process among those that train together.

    Parameters
    ----------
    rank : int
        Its number, from 0; number 0 alone writes and prints.
    world : int
        Number of processes, on all machines.
    local : int
        Number of processes on each machine.
    """

    rank: int
    world: int
    local: int


def place(environment=None):
    """
    Find the place of this process from what torchrun or srun set.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Environment variables; those of the process by default.

    Returns
    -------
    Place
        The place; number 0 of 1 where neither of them started the process.

    Raises
    ------
    InputError
        If a SLURM job of several tasks was started without srun, or does not say
        how many tasks each machine has.
    """
    found = os.environ if environment is None else environment
    if "LOCAL_WORLD_SIZE" in found:  # torchrun, also inside a SLURM job
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif int(found.get("SLURM_NTASKS", 1)) > 1:
        if found.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            return Place(0, 1, 1)  # a shell in a job, whose other tasks are idle
        if not {"SLURM_STEP_ID", "SLURM_STEPID"} & found.keys():
            raise InputError(
                f"SLURM gave this job {found['SLURM_NTASKS']} tasks, and this is one "
                "process, which would wait for the others for ever; put srun before "
                "the command, or ask for one task"
            )
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
        if names[2] not in found:
            raise InputError(
                f"SLURM runs {found['SLURM_NTASKS']} tasks; say how many on each "
                "machine with --ntasks-per-node instead of --ntasks"
            )
    else:
        return Place(0, 1, 1)
    return Place(*(int(found[name]) for name in names))


def is_first():
    """
    Tell whether this process speaks for those that were started with it.

    Returns
    -------
    bool
        Whether torchrun or srun, if any, gave it number 0.
    """
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


def best_device():
    """
    Choose the device for networks that are used, not trained.

    Returns
    -------
    torch.device
        A CUDA GPU where there is one, else Apple's (MPS), else the CPU. Training
        leaves the choice to Lightning, which chooses alike.
    """
    import torch  # takes seconds, and every command reads this file

    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if backend.is_available():
            return torch.device(name)
    return torch.device("cpu")
