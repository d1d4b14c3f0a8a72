"""Cut an image into square patches in row order, side by side or overlapping."""

import torch
from torch import Tensor

from gramgan_plugin.utils.precision import at_least_float32


def check_image(image: Tensor, name: str = "image") -> None:
    """Raise ValueError unless ``image`` is (N, C, H, W)."""
    if image.dim() != 4:
        raise ValueError(f"{name}: expected (N, C, H, W), got a tensor of shape {tuple(image.shape)}")


def patch_grid(height: int, width: int, patch_size: int, stride: int | None = None) -> tuple[int, int]:
    """Return the number of rows and columns of whole patches in an image.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        patch_size: side of a patch in pixels.
        stride: pixels from one patch to the next; None for ``patch_size``, patches side by side.

    Returns:
        (rows, columns).

    Raises:
        ValueError: if ``patch_size`` or ``stride`` is below 1.
    """
    step = patch_size if stride is None else stride
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    if step < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    return max(0, (height - patch_size) // step + 1), max(0, (width - patch_size) // step + 1)


def split_patches(image: Tensor, patch_size: int, stride: int | None = None) -> Tensor:
    """View an image as a grid of patches, without the remainder at the right and the bottom.

    Args:
        image: (N, C, H, W).
        patch_size: side p of a patch in pixels.
        stride: see `patch_grid`.

    Returns:
        (N, C, rows, p, columns, p).
    """
    check_image(image)
    rows, columns = patch_grid(image.shape[2], image.shape[3], patch_size, stride)
    if rows and columns and stride not in (None, patch_size):
        return image.unfold(2, patch_size, stride).unfold(3, patch_size, stride).transpose(3, 4)
    whole = image[:, :, : rows * patch_size, : columns * patch_size]
    return whole.reshape(*image.shape[:2], rows, patch_size, columns, patch_size)


def extract_patches(image: Tensor, patch_size: int, stride: int | None = None) -> Tensor:
    """Cut an image into patches (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098: 4x4, non-overlapping).

    Args:
        image: (N, C, H, W); a remainder of less than a patch at the right and the bottom is dropped.
        patch_size: side p of a patch in pixels.
        stride: see `patch_grid`.

    Returns:
        (N, P, p * p, C): patches in row order, pixels of a patch in row order.

    Raises:
        ValueError: if ``image`` is not 4-D or ``patch_size`` is below 1.

    Example:
        >>> import torch
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> extract_patches(image, 2)[0, 1, :, 0].tolist()
        [2.0, 3.0, 6.0, 7.0]
        >>> extract_patches(image, 2, stride=1)[0, 1, :, 0].tolist()
        [1.0, 2.0, 5.0, 6.0]
    """
    grid = split_patches(image, patch_size, stride)  # (N, C, h, p, w, p)
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # -> (N, h * w, p * p, C)


def patch_vectors(image: Tensor, patch_size: int, stride: int | None = None) -> Tensor:
    """Return each patch's pixel values as one vector, in at least float32.

    Args:
        image: (N, C, H, W).
        patch_size: side p of a patch in pixels.
        stride: see `patch_grid`.

    Returns:
        (N, P, p * p * C), patches in row order.
    """
    (image,) = at_least_float32(image)
    return extract_patches(image, patch_size, stride).flatten(2)


def patch_centres(
    height: int, width: int, patch_size: int, gt_height: int, gt_width: int, stride: int | None = None
) -> Tensor:
    """Return the positions in GT of the patches of a (resized) copy of GT.

    Pixel i covers the interval from i to i + 1, so that positions scale with the sides.

    Args:
        height: height of the copy in pixels.
        width: width of the copy in pixels.
        patch_size: side p of a patch in the copy's pixels.
        gt_height: height of GT in pixels.
        gt_width: width of GT in pixels.
        stride: see `patch_grid`.

    Returns:
        (P, 2), float64: the (y, x) of each patch's centre in GT's pixels, in row order.
    """
    step = patch_size if stride is None else stride
    rows, columns = patch_grid(height, width, patch_size, stride)
    y = (torch.arange(rows, dtype=torch.float64) * step + patch_size / 2) * (gt_height / height)
    x = (torch.arange(columns, dtype=torch.float64) * step + patch_size / 2) * (gt_width / width)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
