"""Compute the two divergences of SuRGe (arXiv 2404.06294) between images.

The Gromov-Wasserstein distance is a minimum over plans T of sum_ijkl (A_ik - B_jl)^2 T_ij T_kl. With the sums of T's
rows and columns fixed, T enters only by -2 tr(A T B T'). Matrices of Euclidean distances are conditionally negative
definite (Schoenberg 1938), so this is concave in T, and a vertex is a minimum: for two batches of one size and equal
shares, a permutation.
"""

import torch
from torch import Tensor

from gramgan_plugin.utils.precision import at_least_float32, autocast_off

LEAST = 1e-8  # is added to each value of an image before it is normalised
LEAST_BATCH = 4


def jensen_shannon(sr: Tensor, gt: Tensor) -> Tensor:
    """Return the mean over the batch of JS(P, Q) = KL(P, M) / 2 + KL(Q, M) / 2, M = (P + Q) / 2, in nats.

    P and Q are an image's values + 1e-8 divided by their sum. So they do not change if all values are multiplied by one
    factor. SuRGe names the divergence; this normalisation is a decision of this project.

    Args:
        sr: (N, C, H, W) in [0, 1]; negative values count as 0.
        gt: of the same shape and range; no gradient flows into it.

    Returns:
        A scalar between 0 and log 2, in at least float32.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> jensen_shannon(torch.eye(2).view(1, 1, 2, 2), torch.eye(2).flip(0).view(1, 1, 2, 2))
        tensor(0.6931)
    """
    if sr.shape != gt.shape:
        raise ValueError(f"expected images of one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}")
    p, q = (_distributions(x) for x in at_least_float32(sr, gt.detach()))
    mean = (p + q) / 2
    return ((p * (p / mean).log() + q * (q / mean).log()).sum(dim=1) / 2).mean()


def _distributions(images: Tensor) -> Tensor:
    values = images.clamp_min(0).flatten(1) + LEAST
    return values / values.sum(dim=1, keepdim=True)


def gromov_wasserstein(lq: Tensor, sr: Tensor) -> Tensor:
    """Return the Gromov-Wasserstein distance, with the square loss, between a batch of LQ and one of SR.

    It compares the distances of LQ's images from one another with those of SR's; the images' sizes may differ. Each
    matrix of Euclidean distances is divided by its maximum, a constant in the backward; each image has the same share.
    The plan is a permutation (`best_permutation`), constant in the backward. SuRGe names the distance; how it is
    computed is a decision of this project.

    Args:
        lq: (N, ...), a batch of at least 4; no gradient flows into it.
        sr: (N, ...).

    Returns:
        A scalar between 0 and 1 in at least float32: the mean of (A - B)^2 over the two matrices. No value is read
        back from the device.

    Raises:
        ValueError: for batches of different sizes, or of less than 4.

    Example:
        >>> import torch
        >>> lq = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> round(float(gromov_wasserstein(lq, 2 * lq.flip(0))), 6)
        0.0
    """
    if len(lq) != len(sr):
        raise ValueError(f"expected as many images of LQ as of SR, got {len(lq)} and {len(sr)}")
    if len(sr) < LEAST_BATCH:
        raise ValueError(
            f"the Gromov-Wasserstein distance needs a batch of at least {LEAST_BATCH} images, got {len(sr)}"
        )
    lq, sr = at_least_float32(lq.detach(), sr)
    with autocast_off(sr.device):
        ours, theirs = image_distances(lq), image_distances(sr)
        permutation = best_permutation(ours, theirs.detach())
        return (ours - theirs[permutation][:, permutation]).square().mean()


def image_distances(images: Tensor) -> Tensor:
    """Return the Euclidean distances (N, N) between the images of a batch (N, ...), divided by the largest.

    The largest is a constant in the backward. They are computed from differences, so that equal images have distance 0.
    """
    flat = images.flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / distances.detach().amax().clamp_min(torch.finfo(distances.dtype).tiny)


@torch.no_grad()
def best_permutation(first: Tensor, second: Tensor) -> Tensor:
    """Return a permutation s for which the mean of (first_ij - second_s(i)s(j))^2 is small, for most batches smallest.

    The search starts from N + 1 permutations at once: the cyclic shifts, and the first step of a conditional gradient
    from the uniform plan, which pairs images in the order of their mean distances. Each then takes 2 N times the
    exchange of two images that gains most, if one does; the best is returned.

    Args:
        first: symmetric (N, N), zero on the diagonal.
        second: likewise.

    Returns:
        (N,), int64, on the same device.
    """
    n = len(first)
    places = torch.arange(n, device=first.device)
    by_mean = torch.empty_like(places).scatter(0, first.mean(dim=1).argsort(), second.mean(dim=1).argsort())
    shifts = (places + places[:, None]) % n
    found = torch.cat([shifts, by_mean[None]])  # (S, N)
    for _ in range(2 * n):
        there = second[found[:, :, None], found[:, None, :]]  # (S, N, N)
        sums = first @ there
        own = sums.diagonal(dim1=1, dim2=2)
        gains = sums + sums.mT - own[:, :, None] - own[:, None, :] + 2 * first * there
        most, pair = gains.flatten(1).max(dim=1, keepdim=True)  # (S, 1)
        one = pair // n
        other = torch.where(most > torch.finfo(first.dtype).eps * n, pair % n, one)
        exchanged = torch.where(places == one, other, torch.where(places == other, one, places))
        found = found.gather(1, exchanged)
    losses = (first - second[found[:, :, None], found[:, None, :]]).square().mean(dim=(1, 2))
    return found.index_select(0, losses.argmin(keepdim=True)).squeeze(0)
