"""The patch-wise texture loss by loops over patches and candidates, in float64: what the tests compare with."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from gramgan_plugin.losses import GramPatchLoss


def reference(
    sr: torch.Tensor,
    gt: torch.Tensor,
    theta: torch.Tensor,
    loss: GramPatchLoss,
    draw: torch.Tensor | None = None,
    embed: Callable[[torch.Tensor], torch.Tensor] = lambda image: image,
    database: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """L_PT and the chosen index of each patch.

    Args:
        sr: (N, C, H, W), float64.
        gt: (N, C, H, W), float64.
        theta: (N, copies, 2, 3).
        loss: whose options count.
        draw: (N, P), where several nearest are drawn from.
        embed: maps images to the features that are compared.
        database: (M, p, p, C), float64: patches of a database.
    """
    p, stride = loss.patch_size, loss.stride or loss.patch_size

    def patches_of(image):
        height, width = image.shape[1:]
        for top in range(0, height - p + 1, stride):
            for left in range(0, width - p + 1, stride):
                patch = image[:, top : top + p, left : left + p].reshape(image.shape[0], -1).numpy().T
                yield patch, ((top + p / 2) / height, (left + p / 2) / width)  # (pixels, channels), centre in [0, 1]

    def describe(patch, by):
        if by == "pixel":
            return patch
        if loss.center:
            patch = patch - patch.mean(axis=0)
        gram = patch.T @ patch
        return gram / len(patch) if loss.normalize else gram

    chosen, differences = [], []
    for n in range(len(sr)):
        one = gt[n : n + 1]
        copies = [one]
        for factor in loss.downsample:
            size = [side // factor for side in one.shape[2:]]
            copies.append(F.interpolate(one, size=size, mode="bicubic", antialias=loss.antialias))
        for copy in range(loss.affine_copies):
            grid = F.affine_grid(theta[n, copy][None].double(), list(one.shape), align_corners=False)
            copies.append(F.grid_sample(one, grid, loss.affine_sampling, "reflection", align_corners=False))
        copies = [embed(copy)[0] for copy in copies]
        sides = copies[0].shape[1:]
        candidates = [pair for image in copies for pair in patches_of(image)]
        candidates += [(patch.reshape(p * p, -1), None) for patch in (() if database is None else database)]
        by = np.stack([describe(patch, loss.select_by) for patch, _ in candidates])
        places = np.array([(np.nan, np.nan) if centre is None else centre for _, centre in candidates])
        own = zip(patches_of(embed(sr[n : n + 1])[0]), patches_of(copies[0]), strict=True)
        for i, ((e, at), (g, _)) in enumerate(own):
            costs = loss.alpha * np.square(by - describe(e, loss.select_by)).sum(axis=(1, 2))
            costs += loss.beta * np.square(by - describe(g, loss.select_by)).sum(axis=(1, 2))
            if loss.radius is not None:
                offset = (np.abs(places - at) * sides).max(axis=1) / p
                costs[offset > loss.radius + 1e-9] = np.inf  # not where there is no place
            if loss.database_only:
                costs[~np.isnan(places[:, 0])] = np.inf
            nearest = [j for j in np.argsort(costs, kind="stable")[: loss.top_k] if np.isfinite(costs[j])]
            chosen.append(nearest[0 if draw is None else int(float(draw[n, i]) * len(nearest))])
            difference = describe(e, loss.loss_on) - describe(candidates[chosen[-1]][0], loss.loss_on)
            differences.append(np.mean(np.abs(difference) if loss.criterion == "l1" else difference**2))
    return float(np.mean(differences)), np.array(chosen).reshape(len(sr), -1)
