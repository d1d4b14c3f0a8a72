"""Compute Gram matrices of small patches, and the vectors that the loss searches and compares.

The Gram matrix of a patch p, written as a (pixels x channels) matrix, is G(p) = p^T p. It describes the energy and the
correlation of the channels, and not the positions of pixels in the patch.
"""

from torch import Tensor

from gramgan_plugin.functional.constants import constant
from gramgan_plugin.functional.gram_kernel import GramVectors, channel_pairs
from gramgan_plugin.functional.patches import check_image, patch_grid, patch_vectors
from gramgan_plugin.utils.precision import at_least_float32, autocast_off


def gram_matrix(patches: Tensor, normalize: bool = True, center: bool = False) -> Tensor:
    """Return the Gram matrix over the pixels of each patch (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    Args:
        patches: (N, P, L, C): L pixels with C channels each.
        normalize: divide by L (a decision of this project: it keeps the values at the scale of squared
            pixels).
        center: subtract each patch's mean first, which makes it the covariance of the channels within the
            patch (a decision of this project; the paper's Gram matrix is not centred).

    Returns:
        (N, P, C, C), symmetric, in at least float32.

    Raises:
        ValueError: if ``patches`` is not 4-D.

    Example:
        >>> import torch
        >>> gram_matrix(torch.tensor([[[[1.0, 0.0], [3.0, 2.0]]]]))
        tensor([[[[5., 3.],
                  [3., 2.]]]])
    """
    if patches.dim() != 4:
        raise ValueError(f"patches: expected (N, P, L, C), got a tensor of shape {tuple(patches.shape)}")
    (patches,) = at_least_float32(patches)
    if center:
        patches = patches - patches.mean(dim=2, keepdim=True)
    # Products and a sum instead of a matrix product, which autocast and TF32 would round to 8 or 10 bits.
    products = (patches.unsqueeze(-1) * patches.unsqueeze(-2)).sum(dim=2)  # (N, P, L, C, C) -> (N, P, C, C)
    return products / patches.shape[2] if normalize else products


def gram_vectors(
    image: Tensor, patch_size: int, normalize: bool = True, center: bool = False, stride: int | None = None
) -> Tensor:
    """Return the upper triangle of each patch's Gram matrix as a vector.

    Off-diagonal entries are multiplied by the square root of 2, so that the Euclidean distance of two vectors
    is the Frobenius distance of the two matrices. Equal patches at any position have bitwise equal vectors. Can be
    differentiated once.

    Args:
        image: (N, C, H, W); a remainder of less than a patch at the right and the bottom is dropped.
        patch_size: side p of a patch in pixels.
        normalize: divide by the p * p pixels.
        center: subtract each patch's mean first.
        stride: pixels from one patch to the next; None for ``patch_size``.

    Returns:
        (N, P, C * (C + 1) / 2) in at least float32, patches in row order, entries (0, 0), (0, 1), ..., (1,
        1), ...

    Raises:
        ValueError: if ``image`` is not 4-D, or ``patch_size`` or ``stride`` is below 1.

    Example:
        >>> import torch
        >>> gram_vectors(torch.ones(1, 2, 4, 4), patch_size=4).tolist()
        [[[1.0, 1.4142135381698608, 1.0]]]
    """
    check_image(image)
    (image,) = at_least_float32(image)
    patch_grid(image.shape[2], image.shape[3], patch_size, stride)  # checks the two
    with autocast_off(image.device):
        vectors: Tensor = GramVectors.apply(
            image, patch_size, patch_size if stride is None else stride, normalize, center
        )
    return vectors


def describe_patches(
    image: Tensor,
    patch_size: int,
    by: str,
    normalize: bool = True,
    center: bool = False,
    stride: int | None = None,
) -> Tensor:
    """Return the vectors by which patches are compared.

    Args:
        image: (N, C, H, W).
        patch_size: side p of a patch in pixels.
        by: ``gram`` for Gram vectors, ``pixel`` for the pixel values.
        normalize: for Gram vectors, divide by the pixels of the patch.
        center: for Gram vectors, subtract each patch's mean first.
        stride: pixels from one patch to the next; None for ``patch_size``.

    Returns:
        (N, P, C * (C + 1) / 2) for ``gram``, (N, P, p * p * C) for ``pixel``, patches in row order.

    Raises:
        ValueError: for another ``by``, or as `gram_vectors`.
    """
    if by == "pixel":
        return patch_vectors(image, patch_size, stride)
    if by != "gram":
        raise ValueError(f"patches are compared by 'gram' or 'pixel', not by {by!r}")
    return gram_vectors(image, patch_size, normalize, center, stride)


def gram_difference(a: Tensor, b: Tensor, channels: int, criterion: str = "l1") -> Tensor:
    """Return the mean difference of Gram matrices over all their C * C entries, from their vectors.

    Args:
        a: (N, P, M) of `gram_vectors`.
        b: (N, P, M) of `gram_vectors`.
        channels: C, with M = C * (C + 1) / 2.
        criterion: ``l1`` for the absolute, ``mse`` for the squared difference.

    Returns:
        A scalar.
    """
    if criterion == "mse":  # the square of the root of 2 counts each off-diagonal entry twice
        total = (a - b).square().sum(dim=-1)
    else:
        # |entry| * 2 = |entry * sqrt 2| * sqrt 2
        twice = tuple(1.0 if i == j else 2.0**0.5 for i, j in channel_pairs(channels))
        total = ((a - b).abs() * constant(twice, a.dtype, a.device)).sum(dim=-1)
    return total.mean() / channels**2
