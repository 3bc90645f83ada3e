"""The rank of this process in a distributed run, its device, and its memory."""

import contextlib
import ctypes
import os
from typing import NamedTuple

from jtm.files import InputError


class _ProcessInfo(NamedTuple):
    """The values that :func:`process_info` returns."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1


def process_info():
    """
    Return the rank and world size that torchrun or srun set.

    Returns
    -------
    ProcessInfo
        Its rank; 0 of 1 if neither of them started the process.

    Raises
    ------
    InputError
        If a SLURM job of several tasks was started without srun, or does not set the
        number of tasks on each machine.
    """
    variables = os.environ
    if "LOCAL_WORLD_SIZE" in variables:  # torchrun, also inside a SLURM job
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif int(variables.get("SLURM_NTASKS", 1)) > 1:
        if variables.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            return _ProcessInfo()  # an interactive job; its other tasks are idle
        if not {"SLURM_STEP_ID", "SLURM_STEPID"} & variables.keys():
            raise InputError(
                f"this SLURM job has {variables['SLURM_NTASKS']} tasks, but only one "
                "process was started; put srun before the command, or request one task"
            )
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
        if names[2] not in variables:
            raise InputError(
                f"SLURM runs {variables['SLURM_NTASKS']} tasks; specify their number "
                "per machine, with --ntasks-per-node instead of --ntasks"
            )
    else:
        return _ProcessInfo()
    return _ProcessInfo(*(int(variables[name]) for name in names))


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


def computes_bf16(device):
    """
    Return whether a device has instructions for bfloat16.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    bool
        True for GPUs. A CPU without the instructions emulates them, which takes many
        times as long as float32.
    """
    import torch

    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type != "cpu" or supported()


def return_memory():
    """Return freed memory to the system; glibc would retain most of it."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
