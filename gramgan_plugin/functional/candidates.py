"""Make the candidates of a crop: patches of GT, of downsampled GT and of slightly warped GT."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional.gram import describe_patches
from gramgan_plugin.functional.patches import check_image, extract_patches, patch_centres, patch_grid
from gramgan_plugin.utils.precision import at_least_float32, autocast_off

KINDS = ("original", "downsampled", "affine", "database")
ORIGINAL, DOWNSAMPLED, AFFINE, DATABASE = range(4)


def random_theta(
    n: int, copies: int, magnitude: float, seed: Sequence[int], first_index: int = 0, stride: int = 1
) -> Tensor:
    """Return random affine matrices near the identity, in coordinates in which the image spans -1 to 1.

    The numbers of sample i depend only on ``(*seed, first_index + stride * i)``: they are the same for a whole batch,
    for its parts, and over several processes.

    Args:
        n: number of samples N.
        copies: number of matrices for each sample.
        magnitude: standard deviation of the noise added to the identity's six entries (0.003 in Song et al.,
            Gram-GAN, Sensors 2023, 23(4), 2098; Gaussian noise is a decision of this project).
        seed: non-negative integers, for example (manual_seed, iteration).
        first_index: the index of the first sample in the global batch.
        stride: the distance from one sample to the next in the global batch, such as the number of processes.

    Returns:
        (N, copies, 2, 3), float32, on the CPU.

    Raises:
        ValueError: if a seed or an index is negative, or the stride below 1.

    Example:
        >>> whole = random_theta(4, 1, 0.003, seed=(0, 7))
        >>> bool((random_theta(2, 1, 0.003, seed=(0, 7), first_index=2) == whole[2:]).all())
        True
        >>> bool((random_theta(2, 1, 0.003, seed=(0, 7), first_index=1, stride=2) == whole[1::2]).all())
        True
    """
    noise = torch.empty(n, copies, 2, 3)
    for i, (generator, _) in enumerate(_generators(n, seed, first_index, stride)):
        noise[i] = torch.randn(copies, 2, 3, generator=generator)
    return torch.eye(2, 3) + magnitude * noise


def random_draw(n: int, count: int, seed: Sequence[int], first_index: int = 0, stride: int = 1) -> Tensor:
    """Return uniform numbers that draw one of the nearest candidates; see `random_theta` for what they depend on.

    Args:
        n: number of samples N.
        count: numbers for each sample.
        seed: non-negative integers; the numbers are independent of those that `random_theta` draws for the same.
        first_index: the index of the first sample in the global batch.
        stride: the distance from one sample to the next in the global batch.

    Returns:
        (N, count) in [0, 1), float32, on the CPU.

    Raises:
        ValueError: as `random_theta`.
    """
    drawn = torch.empty(n, count)
    for i, (_, generator) in enumerate(_generators(n, seed, first_index, stride)):
        drawn[i] = torch.rand(count, generator=generator)
    return drawn


def _generators(
    n: int, seed: Sequence[int], first_index: int, stride: int
) -> Iterator[tuple[torch.Generator, torch.Generator]]:
    """Yield two generators for each sample."""
    if min((*seed, first_index), default=0) < 0:
        raise ValueError(f"seeds and indices must not be negative, got seed={tuple(seed)}, first_index={first_index}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    for i in range(n):
        # SeedSequence mixes the numbers, so that similar seeds and indices give independent streams.
        state = np.random.SeedSequence([*seed, first_index + stride * i]).generate_state(2, np.uint64)
        first, second = (torch.Generator().manual_seed(int(number) >> 1) for number in state)
        yield first, second


def affine_warp(image: Tensor, theta: Tensor, sampling: str = "bicubic") -> Tensor:
    """Warp each image by its affine matrix, reflecting it at its borders.

    Args:
        image: (N, C, H, W).
        theta: (N, 2, 3) in normalised coordinates, from output to input, as
            `torch.nn.functional.affine_grid`.
        sampling: ``bicubic`` or ``bilinear``.

    Returns:
        (N, C, H, W) in at least float32; bicubic values may lie slightly outside the range of ``image``.
    """
    (image,) = at_least_float32(image)
    theta = theta.to(image)
    height, width = image.shape[2:]
    y = (2 * torch.arange(height, device=image.device, dtype=image.dtype) + 1) / height - 1
    x = (2 * torch.arange(width, device=image.device, dtype=image.dtype) + 1) / width - 1
    # Not affine_grid: it is a matrix product, which autocast and TF32 would round.
    t = theta[:, :, :, None, None]  # (N, 2, 3, 1, 1)
    grid = t[:, :, 0] * x + t[:, :, 1] * y[:, None] + t[:, :, 2]  # (N, 2, H, W)
    with autocast_off(image.device):
        return F.grid_sample(
            image, grid.permute(0, 2, 3, 1), mode=sampling, padding_mode="reflection", align_corners=False
        )


def downsampled(image: Tensor, factor: int, antialias: bool = True) -> Tensor:
    """Return (N, C, H, W) downsampled bicubically by ``factor``, sides rounded down, in at least float32."""
    (image,) = at_least_float32(image)
    size = (image.shape[2] // factor, image.shape[3] // factor)
    with autocast_off(image.device):
        return F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=antialias)


@dataclass(frozen=True)
class CandidateSet:
    """The images whose patches are the candidates of a crop.

    Candidates are numbered image by image, in row order.

    Attributes:
        images: GT and its copies, each (N, C, h, w) and at least one patch large; GT is the first. Feature maps if
            features are compared.
        kinds: for each image, its index in `KINDS`.
        patch_size: side of a patch in pixels, the same in all images.
        stride: pixels from one patch to the next; None for ``patch_size``.
    """

    images: tuple[Tensor, ...]
    kinds: tuple[int, ...]
    patch_size: int
    stride: int | None = None

    def counts(self) -> list[int]:
        """Return the number of candidates in each image."""
        grids = [patch_grid(image.shape[2], image.shape[3], self.patch_size, self.stride) for image in self.images]
        return [rows * columns for rows, columns in grids]

    def describe(self, by: str, normalize: bool = True, center: bool = False) -> Tensor:
        """Return the descriptions (N, K, D) of all candidates, see `describe_patches`."""
        vectors = [describe_patches(x, self.patch_size, by, normalize, center, self.stride) for x in self.images]
        return torch.cat(vectors, dim=1)

    def take(self, index: Tensor) -> Tensor:
        """Return the pixels of some candidates.

        Args:
            index: (N, P), int64.

        Returns:
            (N, P, p * p, C).
        """
        taken = []
        for n in range(len(index)):
            own = [extract_patches(image[n : n + 1], self.patch_size, self.stride)[0] for image in self.images]
            taken.append(torch.cat(own).index_select(0, index[n]))
        return torch.stack(taken)

    def kind(self) -> Tensor:
        """Return each candidate's index in `KINDS`: (K,), int64."""
        return torch.cat(
            [
                torch.full((count,), kind, device=self.images[0].device)
                for kind, count in zip(self.kinds, self.counts(), strict=True)
            ]
        )

    def centres(self) -> Tensor:
        """Return each candidate's centre (y, x) in GT's pixels, without the warp: (K, 2), float64, on the CPU."""
        height, width = self.images[0].shape[2:]
        return torch.cat(
            [
                patch_centres(image.shape[2], image.shape[3], self.patch_size, height, width, self.stride)
                for image in self.images
            ]
        )


def candidate_set(
    gt: Tensor,
    theta: Tensor | None = None,
    patch_size: int = 4,
    downsample: Sequence[int] = (2,),
    antialias: bool = True,
    affine_sampling: str = "bicubic",
    stride: int | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    reduction: int = 1,
) -> CandidateSet:
    """Return the candidates of GT crops (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    Args:
        gt: (N, C, H, W), at least one patch large.
        theta: (N, copies, 2, 3), one warped copy of GT for each matrix; None for no copy.
        patch_size: side of a patch in pixels.
        downsample: integer factors, a bicubic x1/factor copy for each; copies smaller than a patch are
            left out.
        antialias: whether the downsampling filters first (a decision of this project; Beby-GAN does not).
        affine_sampling: ``bicubic`` or ``bilinear`` (bicubic is a decision of this project: it blurs less).
        stride: pixels from one patch to the next; None for ``patch_size``.
        embed: maps each of the images to the features that are compared; None to compare the images themselves.
        reduction: sides of the images divided by those of the feature maps, which are rounded down.

    Returns:
        The images in at least float32, without gradient.

    Raises:
        ValueError: if ``gt`` is not 4-D or smaller than a patch, or ``theta`` has another shape.
    """
    check_image(gt, "gt")
    (gt,) = at_least_float32(gt.detach())
    sides = [side // reduction for side in gt.shape[2:]]
    if min(patch_grid(sides[0], sides[1], patch_size, stride)) == 0:
        raise ValueError(f"gt of {gt.shape[2]}x{gt.shape[3]} px holds no patch of {patch_size * reduction} px")
    if theta is not None and (theta.dim() != 4 or theta.shape[0] != gt.shape[0] or theta.shape[2:] != (2, 3)):
        raise ValueError(f"theta: expected ({gt.shape[0]}, copies, 2, 3), got {tuple(theta.shape)}")
    images, kinds = [gt], [ORIGINAL]
    for factor in downsample:
        if min(gt.shape[2:]) // factor // reduction >= patch_size:
            images.append(downsampled(gt, factor, antialias))
            kinds.append(DOWNSAMPLED)
    for copy in range(0 if theta is None else theta.shape[1]):
        assert theta is not None
        images.append(affine_warp(gt, theta[:, copy], affine_sampling))
        kinds.append(AFFINE)
    if embed is not None:
        with torch.no_grad():
            images = [at_least_float32(embed(image))[0] for image in images]
    return CandidateSet(tuple(images), tuple(kinds), patch_size, stride)
