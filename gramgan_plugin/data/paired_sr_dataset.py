"""A dataset of GT and LQ pairs for training and validation, as 8-bit tensors."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gramgan_plugin.data.fingerprint import WITHOUT_EFFECT
from gramgan_plugin.data.image_cache import ImageCache, ImageSizeError
from gramgan_plugin.data.images import Image, decode, decode_deep, mod_crop
from gramgan_plugin.data.pairs import LQ_MADE, FolderImages, Pair, Source, depth_mistake, find_pairs, option
from gramgan_plugin.data.photos import PhotoError, decode_photo
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC
from gramgan_plugin.utils.text import did_you_mean

# Options read here; the loaders read those that do not change samples.
KNOWN = WITHOUT_EFFECT | {
    *("type", "scale", "dataroot_gt", "dataroot_lq", "lq", "meta_info_file", "filename_tmpl", "color"),
    *("gt_size", "use_hflip", "use_rot", "cache", "bit_depth"),
}
NOT_HERE = dict.fromkeys(("mean", "std"), "images stay in [0, 1] and are not normalised")
LUMA = np.array([24.966, 128.553, 65.481]) / 255  # of BGR; ITU-R BT.601, as MATLAB's rgb2ycbcr
MARGIN_IN_SCALES = 4  # context around a GT crop for making its LQ


class PairedSRDataset(Dataset[dict[str, Any]]):
    """BasicSR's ``PairedImageDataset`` with bytes instead of floats, and optionally without stored LQ.

    In the phase ``train`` an item is a random crop, flipped and rotated, the same for GT and LQ, drawn from Python's
    ``random``; its corner is at a multiple of the scale. In other phases it is a whole image, with GT cut to ``scale``
    times LQ.

    With ``lq: bicubic`` an item has no ``lq`` but ``scale``, and in training ``gt_margin``: GT then has that many
    pixels of context on every side (mirrored at the photo's border), from which
    :func:`gramgan_plugin.data.batch.to_model_batch` makes the same LQ as shrinking the whole photo would. With
    ``lq: bicubic-uint8`` it also has ``lq_kind``, and in training ``gt_transposed`` (whether rows and columns were
    swapped), since that kind shrinks the photo's columns first.

    Args:
        opt: ``phase`` (``train``, ``val``, ``test``), ``scale``, ``dataroot_gt`` (a path or a list),
            ``dataroot_lq`` (likewise) or ``lq`` (``bicubic``, ``bicubic-uint8``); for training ``gt_size``,
            ``use_hflip``, ``use_rot`` (true by default); ``io_backend`` (``type: lmdb | disk``, by default from the
            path's suffix), ``filename_tmpl`` (an LQ file's name, ``'{}x4'``; folders only), ``meta_info_file`` (lists
            the GT images to use), ``color`` (``y``: luma only; ``rgb`` by default), ``cache`` (keep decoded
            images in memory, see :class:`gramgan_plugin.data.image_cache.ImageCache`; false by default),
            ``bit_depth`` (8 by default; 16 in training: stored GT and LQ keep their 16 bits, as float32 in [0, 1]).

    Raises:
        OptionError: if an option is missing, wrong or unknown, or GT and LQ do not have the same names.

    Example:
        >>> dataset = PairedSRDataset(
        ...     {"phase": "train", "scale": 4, "gt_size": 192, "lq": "bicubic", "dataroot_gt": "photos"}
        ... )  # doctest: +SKIP
        >>> dataset[0]["gt"].shape  # 192 and a margin of 16 on every side # doctest: +SKIP
        torch.Size([3, 224, 224])
    """

    deep = False

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        check_known(opt, KNOWN, "PairedSRDataset")
        self._read_options()
        self.pairs = find_pairs(opt)
        self.cache = self._build_cache() if opt.get("cache") else None
        mistake = depth_mistake(opt, self.train)
        if mistake is not None:
            raise OptionError(f"{option(opt, 'bit_depth')}: {mistake}")
        self.deep = opt.get("bit_depth") == 16

    def _read_options(self) -> None:
        """Read the options of crops and colours."""
        opt = self.opt
        self.luma = self._color() == "y"
        self.train = opt.get("phase", "train") == "train"
        self.scale = self._positive_int("scale")
        if self.train:
            self.gt_size = self._positive_int("gt_size")
            if self.gt_size % self.scale:
                raise OptionError(f"{option(opt, 'gt_size')}: {self.gt_size} is no multiple of scale {self.scale}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pair.

        Returns:
            ``gt`` and ``lq``: (3, H, W) uint8, RGB; with ``color: y`` (1, H, W) float32 in [0, 1], BasicSR's luma
            (16 to 235 of 255), not rounded; ``gt_path`` and ``lq_path``: an LMDB's key or a file's
            path; where LQ is made, see the class.

        Raises:
            UserError: if an image cannot be decoded, is too small, or does not fit its partner.
        """
        pair = self.pairs[index]
        gt = self._image(index, pair.gt, pair.gt_key)
        if pair.lq is None:
            item: dict[str, Any] = self._bicubic_item(gt, pair)
        else:
            item = self._paired_item(gt, self._image(index + len(self), pair.lq, pair.lq_key), pair.gt_key, pair.lq_key)
        return {**item, "gt_path": pair.gt_key, "lq_path": pair.lq_key}

    def _image(self, number: int, source: Source, key: str) -> Any:
        """Return an image; GT images are numbered from 0, LQ images from ``len(self)``."""
        # Only photos whose LQ is made in training are converted: stored LQ and benchmarks use GT as it is stored.
        manage_colours = self.train and self.opt.get("lq") is not None
        if self.deep:
            deep = decode_deep(_read_bytes(source, key))
            if deep is None:
                raise UserError(f"{_name(source, key)} cannot be decoded as an image of 8 or 16 bits")
            return deep
        if self.cache is None:
            return _read(source, key, manage_colours)
        try:
            return self.cache.image(number, lambda: _read(source, key, manage_colours))
        except ImageSizeError as error:
            raise UserError(f"{_name(source, key)} {error}") from error

    def _build_cache(self) -> ImageCache:
        try:
            sizes: dict[Source, dict[str, tuple[int, int]]] = {}
            for pair in self.pairs:
                for source in (pair.gt, pair.lq):
                    if source is not None and source not in sizes:
                        sizes[source] = source.sizes()
            wanted = [sizes[pair.gt][pair.gt_key] for pair in self.pairs]
            wanted += [sizes[pair.lq][pair.lq_key] for pair in self.pairs if pair.lq is not None]
            return ImageCache(wanted)
        except UserError as error:
            raise OptionError(f"{option(self.opt, 'cache')}: {error}") from error

    def _paired_item(self, gt: Image, lq: Image, key: str, lq_key: str = "") -> dict[str, Any]:
        scale, (height, width) = self.scale, lq.shape[:2]
        fits = gt.shape[0] >= height * scale and gt.shape[1] >= width * scale
        if not fits or (self.train and gt.shape[:2] != (height * scale, width * scale)):
            raise UserError(f"{key}: GT of {_size(gt)} is not {scale} times its LQ of {_size(lq)} ({lq_key or key})")
        if not self.train:
            return {"gt": self._to_tensor(gt[: height * scale, : width * scale]), "lq": self._to_tensor(lq)}
        top, left = self._draw_corner(height, width, key)
        side = self.gt_size // scale
        lq = lq[top : top + side, left : left + side]
        gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        turn = self._draw_turn()
        return {"gt": self._to_tensor(_turned(gt, turn)), "lq": self._to_tensor(_turned(lq, turn))}

    def _bicubic_item(self, gt: Image, pair: Pair) -> dict[str, Any]:
        scale, gt = self.scale, mod_crop(gt, self.scale)
        if min(gt.shape[:2]) == 0:
            raise UserError(f"{pair.gt_key}: is smaller than the scale {scale}; remove it")
        # The default kind of `to_model_batch` is left out.
        kind = LQ_MADE[self.opt["lq"]]
        made: dict[str, Any] = {"scale": scale} if kind == MATLAB_BICUBIC else {"scale": scale, "lq_kind": kind}
        if not self.train:
            return {"gt": self._to_tensor(gt), **made}
        top, left = self._draw_corner(gt.shape[0] // scale, gt.shape[1] // scale, pair.gt_key)
        margin = MARGIN_IN_SCALES * scale
        rows = _mirrored(top * scale - margin, top * scale + self.gt_size + margin, gt.shape[0])
        columns = _mirrored(left * scale - margin, left * scale + self.gt_size + margin, gt.shape[1])
        turn = self._draw_turn()
        if "lq_kind" in made:
            made["gt_transposed"] = turn[2]
        return {"gt": self._to_tensor(_turned(gt[np.ix_(rows, columns)], turn)), "gt_margin": margin, **made}

    def _to_tensor(self, image: Any) -> Tensor:
        """Convert (H, W, 3) BGR to (3, H, W) RGB, or to (1, H, W) luma."""
        if self.deep:
            image = image.astype(np.float32) * (255 / np.iinfo(image.dtype).max)  # in 8-bit levels, not rounded
        if self.luma:
            return torch.from_numpy(((image @ LUMA + 16) / 255).astype(np.float32))[None]
        rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        return rgb / 255 if self.deep else rgb

    def _color(self) -> str:
        value = self.opt.get("color") or "rgb"
        if value not in ("y", "rgb"):
            raise OptionError(f"{option(self.opt, 'color')}: {value!r} is not known; take 'y' or 'rgb'")
        return str(value)

    def _draw_corner(self, lq_height: int, lq_width: int, key: str) -> tuple[int, int]:
        """Draw the top left corner (y, x) of a random crop, in LQ pixels."""
        side = self.gt_size // self.scale
        if min(lq_height, lq_width) < side:
            size = f"{lq_width * self.scale}x{lq_height * self.scale}"
            raise UserError(f"{key}: GT of {size} is smaller than gt_size {self.gt_size}; remove it")
        return random.randint(0, lq_height - side), random.randint(0, lq_width - side)

    def _draw_turn(self) -> tuple[bool, bool, bool]:
        """Draw whether to flip horizontally, flip vertically, and transpose, in upstream's order."""
        hflip = bool(self.opt.get("use_hflip", True)) and random.random() < 0.5
        rot = bool(self.opt.get("use_rot", True))
        vflip = rot and random.random() < 0.5
        return hflip, vflip, rot and random.random() < 0.5

    def _positive_int(self, key: str) -> int:
        value = self.opt.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(f"{option(self.opt, key)}: expected a whole number above 0, got {value!r}")
        return value


def check_known(opt: dict[str, Any], known: frozenset[str], name: str) -> None:
    """Refuse options that would be ignored; BasicSR's own loop does not check them.

    Args:
        opt: a dataset's options.
        known: those that it reads.
        name: its class.

    Raises:
        OptionError: naming the option.
    """
    for key, value in opt.items():
        if value is not None and key not in known:
            hint = did_you_mean(key, known, "; remove it")
            raise OptionError(f"{option(opt, key)}: {NOT_HERE.get(key, f'not known to {name}')}{hint}")


def _read(source: Source, key: str, manage_colours: bool) -> Image:
    """Decode an image. Files may be any photos; an LMDB's images were written by a program and need no photo checks."""
    data = _read_bytes(source, key)
    if isinstance(source, FolderImages):
        try:
            return decode_photo(data, manage_colours=manage_colours)
        except PhotoError as error:
            raise UserError(f"{key}: {error}") from error
    image = decode(data)
    if image is None:
        raise UserError(f"{_name(source, key)} cannot be decoded as an image; prepare it again")
    return image


def _read_bytes(source: Source, key: str) -> bytes:
    try:
        return source.read(key)
    except OSError as error:
        raise UserError(f"{key}: cannot be read: {error.strerror}") from error


def _name(source: Source, key: str) -> str:
    return key if isinstance(source, FolderImages) else f"{source.path}: {key}"


def _mirrored(start: int, stop: int, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the indices start ... stop - 1 of a side continued by mirroring, with the edge pixel repeated."""
    position = np.arange(start, stop) % (2 * length)
    return np.minimum(position, 2 * length - 1 - position)


def _turned(image: Image, turn: tuple[bool, bool, bool]) -> Image:
    hflip, vflip, transpose = turn
    image = image[:, ::-1] if hflip else image
    image = image[::-1] if vflip else image
    return image.transpose(1, 0, 2) if transpose else image


def _size(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
