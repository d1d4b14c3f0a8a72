"""The patch-wise texture loss by loops over patches and candidates, in float64: what the tests compare with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from gramgan_plugin.building.resources import open_resources
from gramgan_plugin.functional import Targets, choose_targets
from gramgan_plugin.losses import GramPatchLoss


def opened(**options: Any) -> GramPatchLoss:
    """The loss of an option block: what it names as files is opened."""
    return GramPatchLoss(**open_resources(GramPatchLoss, options))


def targets_of(
    loss: GramPatchLoss,
    sr: torch.Tensor,
    gt: torch.Tensor,
    theta: torch.Tensor | None = None,
    draw: torch.Tensor | None = None,
    measure: bool = False,
) -> Targets:
    """What the loss chooses."""
    return choose_targets(
        sr,
        gt,
        loss.options,
        theta=theta,
        draw=draw,
        features=loss.features,
        database=loss.database,
        measure=measure,
    )


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
    options = loss.options
    p, stride = options.patch_size, options.stride or options.patch_size

    def patches_of(image):
        height, width = image.shape[1:]
        for top in range(0, height - p + 1, stride):
            for left in range(0, width - p + 1, stride):
                patch = image[:, top : top + p, left : left + p].reshape(image.shape[0], -1).numpy().T
                yield patch, ((top + p / 2) / height, (left + p / 2) / width)  # (pixels, channels), centre in [0, 1]

    def describe(patch, by):
        if by == "pixel":
            return patch
        if options.center:
            patch = patch - patch.mean(axis=0)
        gram = patch.T @ patch
        return gram / len(patch) if options.normalize else gram

    chosen, differences = [], []
    for n in range(len(sr)):
        one = gt[n : n + 1]
        copies = [one]
        for factor in options.downsample:
            size = [side // factor for side in one.shape[2:]]
            copies.append(F.interpolate(one, size=size, mode="bicubic", antialias=options.antialias))
        for copy in range(options.affine_copies):
            grid = F.affine_grid(theta[n, copy][None].double(), list(one.shape), align_corners=False)
            copies.append(F.grid_sample(one, grid, options.affine_sampling, "reflection", align_corners=False))
        copies = [embed(copy)[0] for copy in copies]
        sides = copies[0].shape[1:]
        candidates = [pair for image in copies for pair in patches_of(image)]
        candidates += [(patch.reshape(p * p, -1), None) for patch in (() if database is None else database)]
        by = np.stack([describe(patch, options.select_by) for patch, _ in candidates])
        places = np.array([(np.nan, np.nan) if centre is None else centre for _, centre in candidates])
        own = zip(patches_of(embed(sr[n : n + 1])[0]), patches_of(copies[0]), strict=True)
        for i, ((e, at), (g, _)) in enumerate(own):
            costs = options.alpha * np.square(by - describe(e, options.select_by)).sum(axis=(1, 2))
            costs += options.beta * np.square(by - describe(g, options.select_by)).sum(axis=(1, 2))
            if options.radius is not None:
                offset = (np.abs(places - at) * sides).max(axis=1) / p
                costs[offset > options.radius + 1e-9] = np.inf  # not where there is no place
            if loss.database is not None and options.database_use == "only":
                costs[~np.isnan(places[:, 0])] = np.inf
            nearest = [j for j in np.argsort(costs, kind="stable")[: options.top_k] if np.isfinite(costs[j])]
            chosen.append(nearest[0 if draw is None else int(float(draw[n, i]) * len(nearest))])
            difference = describe(e, options.loss_on) - describe(candidates[chosen[-1]][0], options.loss_on)
            differences.append(np.mean(np.abs(difference) if options.criterion == "l1" else difference**2))
    return float(np.mean(differences)), np.array(chosen).reshape(len(sr), -1)
