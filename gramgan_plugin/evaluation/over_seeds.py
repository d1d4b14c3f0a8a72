"""Summarise the results of trainings that differ only in their seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gramgan_plugin.evaluation.measure import SetResult


@dataclass(frozen=True)
class OverSeeds:
    """A metric of a variant on a set, over seeds.

    Attributes:
        variant, dataset, metric: what was measured.
        per_seed: seed -> mean over the set's images.
        mean: of these means.
        std: their standard deviation, with n - 1 in the denominator; None for one seed.
    """

    variant: str
    dataset: str
    metric: str
    per_seed: dict[int, float]
    mean: float
    std: float | None


def over_seeds(results: Sequence[SetResult], members: Mapping[str, tuple[str, int]]) -> list[OverSeeds]:
    """Return mean and standard deviation over the seeds, for each variant, set and metric.

    Args:
        results: of all trained networks.
        members: model of a result -> variant and seed.

    >>> results = [SetResult("a", "Set5", {"psnr": {"baby": 30.0}}), SetResult("b", "Set5", {"psnr": {"baby": 32.0}})]
    >>> (row,) = over_seeds(results, {"a": ("full", 0), "b": ("full", 1)})
    >>> row.mean, round(row.std, 3)
    (31.0, 1.414)
    """
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for result in results:
        variant, seed = members[result.model]
        for metric, mean in result.means().items():
            found.setdefault((result.dataset, variant, metric), {})[seed] = mean
    rows = []
    for (dataset, variant, metric), per_seed in found.items():
        values = list(per_seed.values())
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        std = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
        rows.append(OverSeeds(variant, dataset, metric, per_seed, mean, std))
    return rows


def averaged_results(results: Sequence[SetResult], members: Mapping[str, tuple[str, int]]) -> list[SetResult]:
    """Return a result for each variant and set: each image's mean over the seeds, of the images that all seeds have.

    Args:
        results: of all trained networks.
        members: model of a result -> variant and seed.
    """
    groups: dict[tuple[str, str], list[SetResult]] = {}
    for result in results:
        groups.setdefault((members[result.model][0], result.dataset), []).append(result)
    averaged = []
    for (variant, dataset), own in groups.items():
        one = SetResult(variant, dataset, lq=own[0].lq)
        for metric in dict.fromkeys(metric for result in own for metric in result.per_image):
            columns = [result.per_image.get(metric, {}) for result in own]
            common = [image for image in columns[0] if all(image in column for column in columns)]
            values = {image: math.fsum(column[image] for column in columns) / len(columns) for image in common}
            if values:
                one.per_image[metric] = values
        averaged.append(one)
    return averaged
