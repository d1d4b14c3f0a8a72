"""Seed the random generators and set torch's global settings during a run, so that one seed gives one run."""

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

logger = logging.getLogger("basicsr")

# cuBLAS is deterministic only with a workspace of fixed size, which it reads from this variable when it starts.
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_DETERMINISTIC = ":4096:8"


def seed_everything(seed: int) -> None:
    """Seed ``random``, numpy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def torch_settings(opt: dict[str, Any]) -> Iterator[None]:
    """Apply torch's settings from the options inside a block, and log them.

    ``deterministic: true`` makes torch refuse operations that can differ between two runs, and cuDNN choose its
    algorithms without timing them; otherwise cuDNN times them and takes the fastest. ``train.tf32`` (on unless the
    options say otherwise) lets GPUs multiply float32 in TF32.

    Args:
        opt: resolved options.
    """
    deterministic = bool(opt.get("deterministic", False))
    tf32 = bool((opt.get("train") or {}).get("tf32", True))
    before = _settings(), os.environ.get(CUBLAS)
    try:
        if deterministic:
            os.environ.setdefault(CUBLAS, CUBLAS_DETERMINISTIC)
        _set(deterministic=deterministic, warn_only=False, benchmark=not deterministic, matmul=tf32, convolution=tf32)
        logger.info(_statement(opt, deterministic, tf32))
        yield
    finally:
        _set(**before[0])
        if before[1] is None:
            os.environ.pop(CUBLAS, None)


def _settings() -> dict[str, bool]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "convolution": torch.backends.cudnn.allow_tf32,
    }


def _set(
    *, deterministic: bool, warn_only: bool, benchmark: bool, matmul: bool, convolution: bool, cudnn: bool | None = None
) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.deterministic = deterministic if cudnn is None else cudnn
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolution


def _statement(opt: dict[str, Any], deterministic: bool, tf32: bool) -> str:
    def state(on: bool) -> str:
        return "on" if on else "off"

    devices = "CPU"
    if opt["num_gpu"] > 0 and torch.cuda.is_available():
        count = opt["world_size"] if opt["dist"] else opt["num_gpu"]
        devices = f"{count} x {torch.cuda.get_device_name()}"
    elif opt.get("device") not in (None, "cpu"):
        devices = str(opt["device"])
    elif opt["world_size"] > 1:
        devices = f"CPU in {opt['world_size']} processes"
    return (
        f"{devices}, torch {torch.__version__}, {torch.get_num_threads()} threads, TF32 {state(tf32)}, "
        f"cudnn.benchmark {state(not deterministic)}, deterministic {state(deterministic)}"
    )
