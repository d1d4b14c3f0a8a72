"""Joining the other processes of a run, where there are any."""

import os

import torch
from torch import distributed

from gramgan_plugin.errors import UserError


def start(launcher: str) -> tuple[int, int]:
    """Join the process group that ``--launcher`` names.

    Args:
        launcher: ``none``; ``pytorch``, whose torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; or ``slurm``. GPUs
            talk over nccl, CPUs over gloo.

    Returns:
        (rank, world size).

    Raises:
        UserError: if the launcher's environment variables are missing.
    """
    if launcher == "none":
        return 0, 1
    environment = os.environ
    if launcher == "slurm":
        names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
        for ours, theirs in names.items():
            if theirs in environment:
                environment.setdefault(ours, environment[theirs])
        environment.setdefault("MASTER_PORT", "29500")
        environment.setdefault("MASTER_ADDR", environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        how = "torchrun" if launcher == "pytorch" else "srun"
        raise UserError(f"--launcher {launcher}: {', '.join(missing)} not set; start the command with {how}")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def stop() -> None:
    """Leave the process group, if one was joined."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
