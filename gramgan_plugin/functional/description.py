"""The vectors by which patches are compared."""

from dataclasses import dataclass

from torch import Tensor

from gramgan_plugin.functional.gram import gram_matrix, gram_vectors
from gramgan_plugin.functional.gram_kernel import upper_triangle
from gramgan_plugin.functional.patches import patch_vectors
from gramgan_plugin.functional.precision import at_least_float32


@dataclass(frozen=True)
class Description:
    """What patches are compared by.

    Attributes:
        by: ``gram`` for Gram vectors, ``pixel`` for the values themselves.
        normalize: for Gram vectors, divide by the pixels of the patch.
        center: for Gram vectors, subtract each patch's mean first.
    """

    by: str = "gram"
    normalize: bool = True
    center: bool = False

    def __post_init__(self) -> None:
        if self.by not in ("gram", "pixel"):
            raise ValueError(f"patches are compared by 'gram' or 'pixel', not by {self.by!r}")

    def of_image(self, image: Tensor, patch_size: int, stride: int | None = None) -> Tensor:
        """(N, P, D) of the patches of (N, C, H, W), in row order."""
        if self.by == "pixel":
            return patch_vectors(image, patch_size, stride)
        return gram_vectors(image, patch_size, self.normalize, self.center, stride)

    def of_patches(self, patches: Tensor) -> Tensor:
        """(N, P, D) of patches (N, P, L, C)."""
        (patches,) = at_least_float32(patches)
        if self.by == "pixel":
            return patches.flatten(2)
        return upper_triangle(gram_matrix(patches, self.normalize, self.center))

    def dimensions(self, patch_size: int, channels: int) -> int:
        """D."""
        return patch_size**2 * channels if self.by == "pixel" else channels * (channels + 1) // 2


def describe_patches(
    image: Tensor,
    patch_size: int,
    by: str,
    normalize: bool = True,
    center: bool = False,
    stride: int | None = None,
) -> Tensor:
    """The vectors by which patches are compared.

    Args:
        image: (N, C, H, W).
        patch_size: side p of a patch in pixels.
        by: ``gram`` for Gram vectors, ``pixel`` for the pixel values.
        normalize: for Gram vectors, divide by the pixels of the patch.
        center: for Gram vectors, subtract each patch's mean first.
        stride: pixels from one patch to the next; None for ``patch_size``.

    Returns:
        (N, P, C * (C + 1) / 2) for ``gram``, (N, P, p * p * C) for ``pixel``.
    """
    return Description(by, normalize, center).of_image(image, patch_size, stride)
