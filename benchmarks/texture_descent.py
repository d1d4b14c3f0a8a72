"""Measure how much texture the patch-wise texture loss alone restores, with centred and uncentred Gram matrices.

A crop of a photo is downsampled x1/4 and enlarged again, both bicubic; then Adam descends on its pixels with
the texture loss alone. Reported is the variance of values within 4x4 patches, as a fraction of GT's, before
and after.

    python benchmarks/texture_descent.py
"""

import argparse

import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional import extract_patches, random_theta
from gramgan_plugin.losses import GramPatchLoss

PHOTOS = ("astronaut", "chelsea", "coffee")


def photo_crop(photo: str, size: int) -> Tensor:
    """Return (1, 3, size, size) in [0, 1] from the centre of one of scikit-image's photos."""
    image = torch.from_numpy(getattr(skimage.data, photo)()).permute(2, 0, 1)[None].float() / 255
    top, left = (image.shape[2] - size) // 2, (image.shape[3] - size) // 2
    return image[:, :, top : top + size, left : left + size]


def bicubic_enlarged(gt: Tensor, scale: int = 4) -> Tensor:
    """Return GT downsampled x1/scale and enlarged to its size again."""
    lq = F.interpolate(gt, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return F.interpolate(lq, size=gt.shape[2:], mode="bicubic").clamp(0, 1)


def in_patch_variance(image: Tensor, patch_size: int = 4) -> float:
    """Return the mean over patches and channels of the variance within a patch."""
    return float(extract_patches(image, patch_size).var(dim=2, correction=0).mean())


def descend(
    center: bool, steps: int = 150, size: int = 128, photo: str = "astronaut", learning_rate: float = 0.01
) -> dict[str, float]:
    """Descend on a bicubic enlargement's pixels with the texture loss alone.

    Args:
        center: whether the Gram matrices are centred.
        steps: iterations of Adam.
        size: side of the crop in pixels.
        photo: one of `PHOTOS`.
        learning_rate: Adam's, in units of the pixel values.

    Returns:
        ``variance_start`` and ``variance_end``, in-patch variance as a fraction of GT's; ``loss_start`` and
        ``loss_end``.
    """
    gt = photo_crop(photo, size)
    sr = bicubic_enlarged(gt).requires_grad_()
    loss_fn = GramPatchLoss(center=center)
    optimizer = torch.optim.Adam([sr], lr=learning_rate)
    start, losses = in_patch_variance(sr.detach()), []
    for step in range(steps):
        loss = loss_fn(sr, gt, random_theta(1, 1, loss_fn.options.affine_magnitude, seed=(0, step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    target = in_patch_variance(gt)
    return {
        "variance_start": start / target,
        "variance_end": in_patch_variance(sr.detach()) / target,
        "loss_start": losses[0],
        "loss_end": losses[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="In-patch variance, relative to GT's, after descent on L_PT alone.")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    print(f"{'photo':<12}{'center':<8}{'variance: start':>16}{'end':>8}{'loss: start':>16}{'end':>10}")
    for photo in PHOTOS:
        for center in (False, True):
            row = descend(center, args.steps, args.size, photo)
            print(
                f"{photo:<12}{center!s:<8}{row['variance_start']:>16.3f}{row['variance_end']:>8.3f}"
                f"{row['loss_start']:>16.6f}{row['loss_end']:>10.6f}"
            )


if __name__ == "__main__":
    main()
