"""Choose ``train.precision: auto`` and ``train.channels_last: auto`` from timings of the run's own networks.

A CPU's list of features does not show what is fast: with AVX-512's bf16 but without AMX, networks in bf16 take longer
than in float32.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.building.mixed_precision import DTYPES
from gramgan_plugin.checkpoints.rng import preserve_rng
from gramgan_plugin.models.layout import set_layout
from gramgan_plugin.utils.devices import autocasts, wait_for
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.system import bf16_instructions
from gramgan_plugin.utils.text import first_line

logger = logging.getLogger("basicsr")

AUTO_KEYS = ("precision", "channels_last")
# Lower precision must be at least so many times as fast.
LEAST_GAIN = 1.1
# The number of rounds, and the seconds after which no other starts.
ROUNDS, SECONDS = 3, 2.0
# A pass that takes more seconds is timed on fewer or smaller images.
LONGEST_PASS = 0.3
SMALLEST_SIDE = 16
CROP = 128  # of GT, if the options name none

Variant = tuple[str, bool]  # precision, channels-last


@dataclass(frozen=True)
class Speed:
    """The precision and memory layout of a run.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: the memory layout.
        device: type of the device that was timed.
        seconds: of the networks' forward and backward passes in one iteration; 0 if they were not timed.
    """

    precision: str
    channels_last: bool
    device: str
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint records, so that a resumed run computes in the same way."""
        return {"precision": self.precision, "channels_last": self.channels_last, "device": self.device}


def recorded_speed(train: Mapping[str, Any], facts: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the section ``train`` with ``auto`` replaced by what a checkpoint recorded.

    Args:
        train: the section.
        facts: of ``Speed.facts``; skipped if damaged, or of another type of device.
        device: type of the current device.
    """
    fits = (
        isinstance(facts.get("precision"), str)
        and facts["precision"] in DTYPES
        and isinstance(facts.get("channels_last"), bool)
    )
    if not fits or facts.get("device") != device:
        return dict(train)
    return {key: facts[key] if key in AUTO_KEYS and value == "auto" else value for key, value in train.items()}


def choose_speed(opt: Mapping[str, Any], device: torch.device) -> Speed:
    """Time the variants that ``auto`` allows, for a second or two, and return the fastest of rank 0 on all processes.

    New G and D with random weights run forward and backward over a batch of the run's shape, or over a part of it if
    they are large. The run's random generators are not used.

    Args:
        opt: resolved options.
        device: where the model will be.

    Returns:
        The choice, which is also logged with the figures.
    """
    train = section(opt, "train")
    precision, layout = train.get("precision", "fp32"), train.get("channels_last", False)
    precisions = _precisions(device) if precision == "auto" else [str(precision)]
    variants = [(one, last) for one in precisions for last in ((False, True) if layout == "auto" else (bool(layout),))]
    seconds = dict.fromkeys(variants[:1], 0.0)
    if len(variants) > 1:
        try:
            seconds = time_variants(opt, device, variants)
        except Exception as error:  # wrong networks or sizes are reported where the model uses them
            logger.warning(f"train.precision, train.channels_last: auto could not be timed ({first_line(error)})")
    best = fastest(seconds)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        agreed = [best]
        torch.distributed.broadcast_object_list(agreed)
        best = agreed[0]
    if len(seconds) > 1:
        figures = ", ".join(f"{_label(variant)} {value:.3f} s" for variant, value in seconds.items())
        keys = " and ".join(f"train.{key}" for key in AUTO_KEYS if train.get(key) == "auto")
        logger.info(f"{keys}: auto takes {_label(best)} (the networks' passes of one iteration: {figures})")
    return Speed(best[0], best[1], device.type, seconds.get(best, 0.0))


def fastest(seconds: Mapping[Variant, float]) -> Variant:
    """Return the fastest variant; one of lower precision only if it is ``LEAST_GAIN`` times as fast.

    >>> fastest({("fp32", False): 2.0, ("fp32", True): 1.9, ("bf16", True): 1.8})
    ('fp32', True)
    """
    whole = [variant for variant in seconds if variant[0] == "fp32"]
    best = min(seconds, key=lambda variant: seconds[variant])
    if not whole or best in whole:
        return best
    best_whole = min(whole, key=lambda variant: seconds[variant])
    return best if seconds[best] * LEAST_GAIN <= seconds[best_whole] else best_whole


def time_variants(
    opt: Mapping[str, Any],
    device: torch.device,
    variants: list[Variant],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Variant, float]:
    """Return the seconds that the networks' passes of one iteration take in each variant.

    The variants take turns, and the fastest round of each counts, so that other processes affect all equally.

    Args:
        opt: resolved options.
        device: of the networks.
        variants: what to time.
        clock: returns seconds.
    """
    with preserve_rng(device), torch.enable_grad():
        torch.manual_seed(0)
        passes = _passes(opt, device)
        for one in passes:
            one.reduce_to_short(device, clock)
        start, best = clock(), dict.fromkeys(variants, float("inf"))
        for number in range(ROUNDS):
            for variant in variants:
                spent = sum(one.seconds(variant, device, clock, first=number == 0) for one in passes)
                best[variant] = min(best[variant], spent)
            if clock() - start > SECONDS:
                break
    return best


class _Pass:
    """A network's forward and backward passes over images.

    Args:
        net: the network.
        images: its input.
        times: how often an iteration runs it.
        shrinks: whether it takes images of other sizes.
    """

    def __init__(self, net: nn.Module, images: Tensor, times: int, *, shrinks: bool) -> None:
        self.net, self.images, self.times, self.shrinks = net, images, times, shrinks
        self.whole = images.numel()

    def reduce_to_short(self, device: torch.device, clock: Callable[[], float]) -> None:
        """Reduce the number and the size of the images until a pass is short; keep at least one image."""
        whole, self.images = self.images, self.images[:1]
        self._time("fp32", device, clock)  # the first pass includes preparations of torch
        while (spent := self._time("fp32", device, clock)) > LONGEST_PASS:
            side = self.images.shape[-1] // 2
            if not self.shrinks or side < SMALLEST_SIDE:
                return
            self.images = self.images[..., :side, :side]
        side, count = self.images.shape[-1], int(LONGEST_PASS / max(spent, 1e-6))
        self.images = whole[:count, :, :side, :side]

    def seconds(self, variant: Variant, device: torch.device, clock: Callable[[], float], *, first: bool) -> float:
        """Return the seconds of an iteration's passes over the whole batch; ``first`` runs an untimed pass before."""
        precision, channels_last = variant
        set_layout(self.net, channels_last)
        if first:
            self._time(precision, device, clock)
        return self._time(precision, device, clock) * self.times * self.whole / self.images.numel()

    def _time(self, precision: str, device: torch.device, clock: Callable[[], float]) -> float:
        dtype = DTYPES[precision]
        wait_for(device)
        start = clock()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            out = self.net(self.images)
        out.float().sum().backward()
        wait_for(device)
        spent = clock() - start
        self.net.zero_grad(set_to_none=True)
        return spent


def _passes(opt: Mapping[str, Any], device: torch.device) -> list[_Pass]:
    from basicsr.archs import build_network

    data, scale = section(opt, "datasets", "train"), int(opt.get("scale") or 1)
    crop = int(data.get("gt_size") or opt.get("gt_size") or CROP)
    batch = max(1, int(data.get("batch_size_per_gpu") or 1) // int(section(opt, "train").get("accumulate") or 1))
    channels = int(section(opt, "network_g").get("num_in_ch", 3))
    side = max(1, crop // scale)
    g = build_network(dict(opt["network_g"])).to(device).train()
    passes = [_Pass(g, torch.rand(batch, channels, side, side, device=device), 1, shrinks=True)]
    if opt.get("network_d"):
        d = build_network(dict(opt["network_d"])).to(device).train()
        channels_d = int(section(opt, "network_d").get("num_in_ch", 3))
        passes.append(_Pass(d, torch.rand(batch, channels_d, crop, crop, device=device), 2, shrinks=False))
    return passes


def _precisions(device: torch.device) -> list[str]:
    """Return the precisions to time: float32, and bf16 or else fp16 if the hardware has them."""
    if device.type == "cuda":
        # Ampere, of compute capability 8, is the first with bf16 in hardware; Volta and Turing have fp16.
        major, _ = torch.cuda.get_device_capability(device)
        return ["fp32", *(["bf16"] if major >= 8 else ["fp16"] if major >= 7 else [])]
    if device.type == "cpu" and bf16_instructions() == []:
        return ["fp32"]  # bf16 would be emulated
    return ["fp32", "bf16"] if autocasts(device.type) else ["fp32"]


def _label(variant: Variant) -> str:
    return f"{variant[0]}{', channels-last' if variant[1] else ''}"
