"""Convert a loader's batch for a model: floats on the device, LQ made where it is missing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gramgan_plugin.functional.constants import unit_range
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, lq_levels

IMAGE_KEYS = ("lq", "gt")
# Of BasicSR's RealESRGANDataset: (N, 21, 21) floats, with which a model makes LQ itself.
KERNEL_KEYS = ("kernel1", "kernel2", "sinc_kernel")


def to_model_batch(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a batch to the device as float32 images in [0, 1]; make LQ from GT if the batch has none.

    uint8 images are moved as bytes and converted on the device. Without ``lq``, LQ is the MATLAB bicubic of ``gt`` by
    ``1 / scale``, rounded to 8 bits. With ``gt_margin``, GT has that many pixels of context on every side; they are
    used for the downsampling and then cut from both. ``lq_kind`` selects another kind of ``lq_levels``;
    ``gt_transposed`` marks the images whose rows and columns were swapped, which matters for some kinds. All four keys
    are removed after use, so a second call changes nothing. No LQ is made for a batch with blur kernels.

    Args:
        batch: ``lq`` and ``gt``, (N, C, H, W) or (C, H, W), uint8 levels or floats in [0, 1], either may be
            absent; ``kernel1``, ``kernel2`` and ``sinc_kernel``; ``scale`` and ``gt_margin``, an int or a tensor or
            list of equal ints; ``lq_kind``, a text or a list of equal texts; ``gt_transposed``, a flag or N of them, GT
            is square then; anything else passes through.
        device: the target device.

    Returns:
        A new dict; ``batch`` is not changed.

    Raises:
        ValueError: if LQ has to be made and ``scale`` is absent, GT's sides are not multiples of it, or one of the
            ints or texts differs within the batch.
    """
    tensors = IMAGE_KEYS + KERNEL_KEYS
    result = {key: _to_device(value, device) if key in tensors else value for key, value in batch.items()}
    if "lq" not in result and "gt" in result and not any(key in result for key in KERNEL_KEYS):
        _make_lq(result)
    for key in IMAGE_KEYS:
        if isinstance(result.get(key), Tensor) and result[key].dtype == torch.uint8:
            result[key] = unit_range(result[key])
    return result


def _to_device(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _make_lq(batch: dict[str, Any]) -> None:
    """Add ``lq`` to ``batch`` and cut the margin off its ``gt``."""
    if "scale" not in batch:
        raise ValueError("the batch has no 'lq' and no 'scale' to make it with")
    scale, margin = _one_int(batch.pop("scale"), "scale"), _one_int(batch.pop("gt_margin", 0), "gt_margin")
    kind = _one_text(batch.pop("lq_kind", MATLAB_BICUBIC), "lq_kind")
    gt, transposed = batch["gt"], batch.pop("gt_transposed", None)
    height, width = gt.shape[-2:]
    if height % scale or width % scale or margin % scale:
        raise ValueError(f"gt of {height}x{width} with a margin of {margin}: not multiples of the scale {scale}")
    levels = gt if gt.dtype == torch.uint8 else (gt * 255).round()
    lq = _as_photos_lie(
        lambda levels: lq_levels(levels, scale, kind), levels if gt.ndim == 4 else levels[None], transposed
    )
    lq = lq if gt.ndim == 4 else lq[0]
    batch["lq"], batch["gt"] = _cut(lq, margin // scale), _cut(gt, margin)


def _as_photos_lie(shrink: Callable[[Tensor], Tensor], levels: Tensor, transposed: Any) -> Tensor:
    """Shrink square images in the photos' own orientation: transposed ones are transposed back for it."""
    if transposed is None:
        return shrink(levels)
    which = torch.as_tensor(transposed, device=levels.device).view(-1, 1, 1, 1)
    lq = shrink(torch.where(which, levels.mT, levels))
    return torch.where(which, lq.mT, lq)


def _cut(image: Tensor, margin: int) -> Tensor:
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin].contiguous()


def _one_text(value: str | Sequence[str], name: str) -> str:
    texts = {value} if isinstance(value, str) else set(value)
    if len(texts) != 1:
        raise ValueError(f"{name}: one value for the whole batch is needed, got {sorted(texts)}")
    return texts.pop()


def _one_int(value: Any, name: str) -> int:
    """Return the one int of a batch; collation has made a tensor of N equal ints of it."""
    values = {int(v) for v in torch.as_tensor(value).flatten().tolist()}
    if len(values) != 1:
        raise ValueError(f"{name}: one value for the whole batch is needed, got {sorted(values)}")
    return values.pop()
