"""The rank of this process among those of a distributed run, and its device."""

import os
from typing import NamedTuple

from jtm.files import InputError


class Place(NamedTuple):
    """
    The rank of this process, and the number of processes of a distributed run.

    Parameters
    ----------
    rank : int
        Its rank, from 0; only rank 0 writes and prints.
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
    Return the rank and world size that torchrun or srun set.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Environment variables; those of the process by default.

    Returns
    -------
    Place
        The place; rank 0 of 1 if neither of them started the process.

    Raises
    ------
    InputError
        If a SLURM job of several tasks was started without srun, or does not set the
        number of tasks on each machine.
    """
    found = os.environ if environment is None else environment
    if "LOCAL_WORLD_SIZE" in found:  # torchrun, also inside a SLURM job
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif int(found.get("SLURM_NTASKS", 1)) > 1:
        if found.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            return Place(0, 1, 1)  # an interactive job, whose other tasks are idle
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
    Return whether this process is the one that writes and prints.

    Returns
    -------
    bool
        Whether it has rank 0, or was started without torchrun and srun.
    """
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


def best_device():
    """
    Choose the device for inference.

    Returns
    -------
    torch.device
        A CUDA GPU if there is one, else Apple's (MPS), else the CPU. In training,
        Lightning makes the same choice.
    """
    import torch  # takes seconds, and every command imports this module

    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if backend.is_available():
            return torch.device(name)
    return torch.device("cpu")
