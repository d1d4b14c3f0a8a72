"""Bootstrap intervals of paired differences: is one model better than another, or is it chance?"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

CONFIDENCE = 0.95
MOST_DRAWN = 2**20  # values drawn at once

Method = Literal["BCa", "percentile", "none"]


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, with its 95 % bootstrap interval.

    Attributes:
        mean: mean of first - second.
        low, high: the interval; None if there is none (one image).
        n: number of images.
        method: how the interval was computed: "BCa" (bias-corrected and accelerated), "percentile" where BCa is
            undefined, or "none".
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: Method

    @property
    def significant(self) -> bool:
        """Whether there is an interval and 0 is outside."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0, resamples: int = 9999
) -> Difference:
    """Return the mean of first - second over the images that both have, with its 95 % bootstrap interval.

    Images are resampled, not the two values of an image, so what makes an image hard for both models cancels out. The
    interval covers the choice of images only, and with fewer than about 10 images it is narrower than it should be.

    Args:
        first: image -> finite value.
        second: image -> finite value.
        seed: of the resampling; the same arguments give the same interval.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: if they have no image in common.

    >>> paired_difference({"baby": 2.0, "bird": 3.0}, {"baby": 1.0, "bird": 2.0, "head": 5.0})
    Difference(mean=1.0, low=1.0, high=1.0, n=2, method='percentile')
    """
    # In the order of the names, so that the order in which images were measured makes no difference.
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError("no image in common")
    differences = np.array([first[name] - second[name] for name in common], np.float64)
    mean = math.fsum(differences) / len(common)
    if len(common) == 1:
        return Difference(mean, None, None, 1, "none")
    method: Method = "percentile" if len(common) < 3 or np.ptp(differences) == 0 else "BCa"
    low, high = _interval(differences, method, seed, resamples)
    if not (math.isfinite(low) and math.isfinite(high)):
        method = "percentile"
        low, high = _interval(differences, method, seed, resamples)
    return Difference(mean, low, high, len(common), method)


def _interval(differences: np.ndarray[Any, Any], method: Method, seed: int, resamples: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that BCa is undefined for these values
        interval = bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, MOST_DRAWN // len(differences)),
            vectorized=True,
            confidence_level=CONFIDENCE,
            method=method,
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)
