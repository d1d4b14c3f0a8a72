"""Find the device that computes, and what it has; torch is asked, since names say little."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from gramgan_plugin.errors import OptionError

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def find_device(asked: str = "auto") -> torch.device:
    """Return a device that works here.

    Args:
        asked: one of ``DEVICES``; ``auto`` is this machine's accelerator, or else the CPU.

    Raises:
        OptionError: for another name, or if torch has no such device here.
    """
    if asked not in DEVICES:
        raise OptionError(f"device: {asked!r} is not one of {', '.join(DEVICES)}")
    if asked == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None else torch.device(found.type)
    device = torch.device(asked)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"device: {asked}: torch finds none here; `device: auto` takes what there is") from error
    return device


def device_in(opt: Mapping[str, Any]) -> torch.device:
    """Return the device of resolved options: ``device``, or BasicSR's rule, by ``num_gpu``."""
    asked = opt.get("device")
    if asked is not None:
        return find_device() if asked == "auto" else torch.device(asked)
    return torch.device("cuda" if opt.get("num_gpu") != 0 else "cpu")


@cache
def finest_dtype(kind: str) -> torch.dtype:
    """Return float64, or float32 for a kind of device that lacks it (Apple's MPS).

    >>> finest_dtype("cpu")
    torch.float64
    """
    try:
        torch.zeros(1, dtype=torch.float64, device=kind)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64


def autocasts(kind: str) -> bool:
    """Return whether torch has mixed precision on a kind of device.

    >>> autocasts("cpu"), autocasts("meta")
    (True, False)
    """
    known = getattr(torch.amp, "is_autocast_available", None)  # in torch from 2.4 on
    return known is None or bool(known(kind))


def random_module(device: torch.device | None) -> Any:
    """Return torch's module of a device with random numbers of its own, or None for the CPU's."""
    if device is None or device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state") else None


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
