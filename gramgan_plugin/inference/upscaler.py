"""Upscale images of any size with a network, in tiles, within a bounded amount of memory."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.checkpoints.foreign_networks import ForeignNetwork
from gramgan_plugin.checkpoints.networks import Network, load_network
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.errors import UserError, is_out_of_memory
from gramgan_plugin.functional.padding import pad_to_multiple
from gramgan_plugin.inference.engines import ENGINES, PRECISIONS, Engine, build_engine, choose_engine
from gramgan_plugin.inference.resize import resized, scaled_size
from gramgan_plugin.inference.strips import number_of_values, reach
from gramgan_plugin.inference.tiles import tiles
from gramgan_plugin.utils.devices import find_device
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.system import available_memory, memory_kept
from gramgan_plugin.utils.text import first_line, shortened

logger = logging.getLogger("gramgan_plugin")

Pixels = NDArray[Any]  # uint8 or uint16, (H, W, C)

MOST_OVERLAP = 32  # pixels of LQ; deep networks depend on more, but hardly
SMALLEST_TILE = 32
LARGEST_TILE = 1024
MEMORY_SHARE, MOST_MEMORY = 0.4, 3 * 2**30  # of the available memory, for a tile; on a CPU at most these bytes
TIMED_SIDE = 64
# The network runs twice for scales from so many times its own, if that is at most the second number.
TWICE_FROM, LARGEST_TWICE = 1.5, 8


class Upscaler:
    """A network that upscales images.

    Args:
        model: a file of weights in any format, a name of ``basicsr weights list``, or a `Network`.
        scale: side of the result divided by side of the image; None for the network's own. From 1.5 times
            that on the network runs twice; the result is then resized by Lanczos.
        tile: sides of the tiles in pixels of LQ, without their overlap; 0 for none, "auto" for as large as
            memory allows.
        engine: "auto", "torch", "openvino" or "onnx" (ONNX Runtime).
        precision: "auto", "fp32", "bf16" or "fp16".
        device: such as "cpu" or "cuda:1"; None for a GPU if there is one.
        tta: average the results of the eight flips and turns of an image; eight times as slow.
        images: how many images like the first are expected, which decides whether timing the engines pays.
        show: report the progress within an image of many tiles on stderr.
        param_key: the key of the weights in the file; None prefers averaged weights.

    Raises:
        UserError: if the model cannot be used, or an option has a wrong value.
    """

    def __init__(
        self,
        model: str | Path | Network,
        *,
        scale: float | None = None,
        tile: int | str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        device: str | None = None,
        tta: bool = False,
        param_key: str | None = None,
        images: int = 1,
        show: bool = False,
    ) -> None:
        _check_options(scale, tile, engine, precision)
        self.network = model if isinstance(model, Network) else load_network(resolve_weights(model), param_key)
        channels = (self.network.in_channels, self.network.out_channels)
        if channels not in ((1, 1), (3, 3)):
            raise UserError(f"the network makes {channels[1]} channels of {channels[0]}; pictures have 1 or 3")
        self.device = device_of(device)
        self.scale = float(scale if scale is not None else self.network.scale)
        self.tile = tile
        self.tta = tta
        self.allowed = (engine, precision)
        self.images, self.show = images, show
        self.engine: Engine | None = None
        self.overlap = min(MOST_OVERLAP, reach(self.network.net))
        self._smaller: int | None = None  # the tile that memory allowed, after it was short

    def __call__(self, image: Pixels) -> Pixels:
        """Return the upscaled image.

        Args:
            image: (H, W), (H, W, 1) or (H, W, 3), uint8 or uint16, RGB.

        Returns:
            The same type and channels, (round(scale H), round(scale W), ...).

        Raises:
            ValueError: for another type or shape.
            UserError: if the memory is too small for the smallest tile, or a result is non-finite.
        """
        (result,) = self.upscale([image])
        return result

    def upscale(self, images: Sequence[Pixels]) -> list[Pixels]:
        """Upscale images; those of equal shape are computed together where a device gains by that.

        Args:
            images: see ``__call__``.

        Returns:
            A result for each, in their order.

        Raises:
            ValueError, UserError: see ``__call__``.
        """
        images = [np.asarray(image) for image in images]  # also Pillow's
        for image in images:
            _check_image(image)
        results: list[Pixels] = [np.empty(0)] * len(images)
        groups: dict[Any, list[int]] = {}
        for place, image in enumerate(images):
            single = self.device.type == "cpu"
            groups.setdefault(place if single else (image.shape, image.dtype), []).append(place)
        for places in groups.values():
            stack = np.stack([images[place] for place in places])
            for place, result in zip(places, self._upscale_stack(stack), strict=True):
                results[place] = result
        return results

    def upscale_tensor(self, lq: Tensor) -> Tensor:
        """Return SR (N, C', s H, s W), float32 on the CPU, of LQ (N, C, H, W) in [0, 1], by the network's own scale.

        Nothing is rounded or clamped.

        Raises:
            ValueError: for another number of channels than the network's, or integers.
            UserError: if the memory is too small for the smallest tile, or a result is non-finite.
        """
        if lq.ndim != 4 or lq.shape[1] != self.network.in_channels or not lq.is_floating_point():
            expected = f"floats (N, {self.network.in_channels}, H, W) in [0, 1]"
            raise ValueError(f"lq: expected {expected}, got {tuple(lq.shape)} {lq.dtype}")
        n, _, height, width = lq.shape
        sr = torch.empty(n, self.network.out_channels, self.network.scale * height, self.network.scale * width)
        self._prepare(lq, height * width)
        channels_last = lq.permute(0, 2, 3, 1)
        self._over_tiles(
            sr.permute(0, 2, 3, 1),
            lambda rows, columns: self._run(channels_last[:, rows, columns].permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        )
        return sr

    def _upscale_stack(self, stack: Pixels) -> list[Pixels]:
        """Upscale (N, H, W[, C]) images of one shape."""
        flat = stack.ndim == 3
        images = stack[..., None] if flat else stack
        height, width = images.shape[1:3]
        size = scaled_size((height, width), self.scale)
        own = self.network.scale
        for _ in range(2 if self.scale >= TWICE_FROM * own and 1 < own <= LARGEST_TWICE else 1):
            images = self._one_pass(images)
        results = [resized(image, size[0], size[1]) for image in images]
        return [result[..., 0] for result in results] if flat else results

    def _one_pass(self, images: Pixels) -> Pixels:
        """Upscale (N, H, W, C) by the network's scale; images and results stay in host memory as integers."""
        n, height, width, channels = images.shape
        result = np.empty((n, self.network.scale * height, self.network.scale * width, channels), images.dtype)
        self._prepare(self._floats(images[:1, :LARGEST_TILE, :LARGEST_TILE]), height * width)
        self._over_tiles(result, lambda rows, columns: self._integers(images[:, rows, columns]))
        return result

    def _over_tiles(self, result: Any, upscale: Callable[[slice, slice], Any]) -> None:
        """Fill ``result`` (N, s H, s W, C) tile by tile; smaller tiles are used where the memory is short.

        Args:
            result: an array or tensor.
            upscale: takes rows and columns of LQ, returns their (n, s h, s w, C).
        """
        scale = self.network.scale
        n, height, width = result.shape[0], result.shape[1] // scale, result.shape[2] // scale
        while True:
            try:
                plan = list(tiles(height, width, self._tile(n), self.overlap, self.network.side_multiple))
                with memory_kept():
                    for rows, columns in tracked(plan, "tile", self.show and len(plan) > 1):
                        sr = upscale(slice(rows.begin, rows.end), slice(columns.begin, columns.end))
                        top, left = scale * (rows.first - rows.begin), scale * (columns.first - columns.begin)
                        high, wide = scale * (rows.last - rows.first), scale * (columns.last - columns.first)
                        place = result[:, scale * rows.first :, scale * columns.first :][:, :high, :wide]
                        place[:] = sr[:, top : top + high, left : left + wide]
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not self.network.may_tile:
                    raise
            # Outside of `except`: the error keeps the tensors of the failed call alive.
            self._take_smaller_tiles(max(height, width), n)

    def _integers(self, part: Pixels) -> Pixels:
        """Upscale a part (N, h, w, C) and round the result, on the device, so that integers are moved alone."""
        sr = self._as_image_has(self._run(self._floats(part)), part.shape[0], part.shape[3])
        sr = sr.clamp_(0, 1).mul_(np.iinfo(part.dtype).max).round_()
        levels = sr.to(torch.uint8 if part.dtype == np.uint8 else torch.int32).permute(0, 2, 3, 1)
        return levels.contiguous().cpu().numpy().astype(part.dtype, copy=False)

    def _floats(self, images: Pixels) -> Tensor:
        """Return (N, H, W, C) integers as the network takes them: gray repeated, or colours one by one in a batch."""
        levels = images.astype(np.int32) if images.dtype == np.uint16 else np.ascontiguousarray(images)
        lq = torch.from_numpy(levels).to(self.device).permute(0, 3, 1, 2) / np.iinfo(images.dtype).max
        own, given = self.network.in_channels, lq.shape[1]
        if own == given:
            return lq
        return lq.expand(-1, own, -1, -1) if given == 1 else lq.reshape(-1, 1, *lq.shape[2:]).expand(-1, own, -1, -1)

    def _as_image_has(self, sr: Tensor, count: int, channels: int) -> Tensor:
        if sr.shape[:2] == (count, channels):
            return sr
        return sr.mean(dim=1, keepdim=True).reshape(count, channels, *sr.shape[2:])

    def _run(self, lq: Tensor) -> Tensor:
        """Run the network on one tile, padded to sides that it takes: float32 on the engine's device."""
        assert self.engine is not None
        if not self.tta:
            return self._padded_run(lq)
        height, width = lq.shape[-2:]
        lq = pad_to_multiple(lq, self.network.side_multiple)  # before it is flipped, so that its grid stays
        total: Tensor | None = None
        for turned in (False, True):
            for flips in ((), (2,), (3,), (2, 3)):
                image = (lq.transpose(2, 3) if turned else lq).flip(flips)
                sr = self._padded_run(image).flip(flips)
                sr = sr.transpose(2, 3) if turned else sr
                total = sr if total is None else total.add_(sr)
        assert total is not None
        return total.div_(8)[..., : self.network.scale * height, : self.network.scale * width]

    def _padded_run(self, lq: Tensor) -> Tensor:
        network, (height, width) = self.network, lq.shape[-2:]
        lq = pad_to_multiple(lq, network.side_multiple, network.least_side)
        sr = self._engine_run(lq)
        return sr[..., : network.scale * height, : network.scale * width]

    def _engine_run(self, lq: Tensor) -> Tensor:
        """Run the engine; torch, and float32, where another engine or precision fails that nobody asked for."""
        assert self.engine is not None
        try:
            sr = self.engine.run(lq)
            if bool(torch.isfinite(sr).all()):
                return sr
            problem = "its result is not finite"
        except Exception as error:  # of a network of spandrel, or an engine; each has its own kinds
            ours = self.engine.name == "torch" and not isinstance(self.network.net, ForeignNetwork)
            if ours or is_out_of_memory(error):
                raise
            problem = shortened(first_line(error), 160)
        height, width = lq.shape[-2:]
        what = f"{self.network.architecture} fails on {width}x{height} pixels with {self.engine}: {problem}"
        name, precision = ("torch" if self.allowed[0] == "auto" else self.engine.name, self.allowed[1])
        other = (name, "fp32" if precision == "auto" else precision)
        if other == (self.engine.name, self.engine.precision):
            raise UserError(what if precision in ("auto", "fp32") else f"{what}; use --precision fp32")
        logger.warning(f"{what}; {' '.join(other)} is used")
        self.engine = build_engine(self.network, self.device, *other)
        return self._engine_run(lq)

    def _tile(self, batch: int) -> int:
        if not self.network.may_tile:
            return 0
        if self._smaller is not None:
            return self._smaller
        if self.tile != "auto":
            return int(self.tile) + 2 * self.overlap if self.tile else 0
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else available_memory()
        budget = MEMORY_SHARE * (free if free is not None else MOST_MEMORY)
        if self.device.type == "cpu":
            budget = min(budget, MOST_MEMORY)
        width = 2 if self.engine is not None and self.engine.precision != "fp32" else 4
        pixels = budget / (batch * width * number_of_values(self.network.net))
        side = int(math.sqrt(pixels)) // 16 * 16
        return max(SMALLEST_TILE + 2 * self.overlap, min(LARGEST_TILE, side))

    def _take_smaller_tiles(self, side: int, batch: int) -> None:
        """Halve the tiles after the memory was short for an image of this side."""
        now = self._tile(batch)
        smaller = (side if now == 0 else min(now, side)) // 2
        if smaller < SMALLEST_TILE + 2 * self.overlap:
            raise UserError("not enough memory for the smallest tile; close other programs, or use the CPU")
        logger.warning(f"not enough memory for tiles of {now or side} pixels: {smaller} are used")
        self._smaller = smaller
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, lq: Tensor, pixels: int) -> None:
        """Choose the engine by a part from the middle of the first image, if none is chosen yet."""
        if self.engine is not None:
            return
        side = max(TIMED_SIDE, self.network.least_side)
        top, left = (max(0, length - side) // 2 for length in lq.shape[-2:])
        part = pad_to_multiple(lq[:1, :, top : top + side, left : left + side], self.network.side_multiple)
        times = self.images * pixels / part[0, 0].numel()
        self.engine = choose_engine(self.network, self.device, *self.allowed, part, times)


def device_of(name: str | None) -> torch.device:
    if name is None:
        return find_device()
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("a device without data")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here; `basicsr doctor` shows which there are") from error
    return device


def check_scale(scale: float | None) -> None:
    """Raise a `UserError` for a scale that is not from 0.1 to 64; None is the network's own."""
    if scale is not None and not (isinstance(scale, int | float) and 0.1 <= scale <= 64):
        raise UserError(f"scale: expected a number from 0.1 to 64, got {scale!r}")


def _check_options(scale: float | None, tile: int | str, engine: str, precision: str) -> None:
    check_scale(scale)
    if tile != "auto" and not (isinstance(tile, int) and (tile == 0 or tile >= SMALLEST_TILE)):
        raise UserError(f"tile: expected auto, 0 or at least {SMALLEST_TILE}, got {tile}")
    for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise UserError(f"{name}: expected {', '.join(known)}, got {value!r}")


def _check_image(image: Pixels) -> None:
    fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
    if not fits or not image.size or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"image: expected (H, W), (H, W, 1) or (H, W, 3) of uint8 or uint16, got {image.shape} {image.dtype}"
        )
