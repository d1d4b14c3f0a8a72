"""Describe metrics for tables: heading, direction, decimals."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricLabel:
    """How tables show a metric.

    Attributes:
        name: its key in results.
        label: its heading.
        better: the direction of better values.
        decimals: digits after the point.
        unit: in the heading, such as "dB"; empty if it has none.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    decimals: int
    unit: str = ""

    @property
    def heading(self) -> str:
        """The label with its unit.

        >>> MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB").heading
        'PSNR-Y (dB)'
        """
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """Return a value with the metric's decimals."""
        return f"{value:.{self.decimals}f}"

    def score(self, value: float) -> float:
        """Return the value, negated where lower is better, so that a larger score is better."""
        return value if self.better == "higher" else -value
