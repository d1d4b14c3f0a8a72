"""Show a run's progress, speed, remaining time, learning rate and main losses on one line of a terminal."""

import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LONGEST_NAME = 20
WITH_BAR = "{l_bar}{bar}{r_bar}"
# On a terminal too narrow for both, the values are shown instead of the bar.
WITHOUT_BAR = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
SHORTEST_BAR = 5
SLACK = 4  # the times and the rate may grow by some characters before the next update
MOST_LOSSES = 5
# Shown first, in this order; D's two losses are added.
MAIN_LOSSES = ("l_g_pix", "l_g_gram", "l_g_dp", "l_g_gan", "l_d", "l_g_percep")


class ProgressBar:
    """tqdm's bar on stderr, with log lines above it.

    Args:
        name: the run's name.
        total: iterations of the whole run.
        start: the iteration that it starts after.
    """

    def __init__(self, name: str, total: int, start: int) -> None:
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 2]}.."
        self.bar = tqdm(total=total, initial=start, unit="it", desc=short, dynamic_ncols=True)
        self.stack = ExitStack()
        # While the bar is shown, any log line would break it, not only those of logging iterations.
        self.stack.enter_context(logging_redirect_tqdm([logging.getLogger("basicsr")]))

    def tick(self) -> None:
        """Count an iteration."""
        self.bar.update()

    def show(self, rate: float, log: Mapping[str, float]) -> None:
        """Show the learning rate, and as many of the losses as the terminal has room for."""
        parts = [f"lr {rate:.2g}", *(f"{key} {value:.2g}" for key, value in main_losses(log).items())]
        room = self._room(WITH_BAR) - SHORTEST_BAR
        self.bar.bar_format = WITH_BAR if len(", ".join(parts)) <= room else WITHOUT_BAR
        if self.bar.bar_format == WITHOUT_BAR:
            room = self._room(WITHOUT_BAR)
        # tqdm would cut the line inside a number, which would show a wrong value.
        while parts and len(", ".join(parts)) > room:
            parts.pop()
        self.bar.set_postfix_str(", ".join(parts))

    def close(self) -> None:
        """End the line, and restore the log's handlers."""
        self.bar.close()
        self.stack.close()

    def _room(self, bar_format: str) -> float:
        """Return how many characters are free for values; infinity if the terminal's width is unknown."""
        width = self.bar.format_dict["ncols"]
        if not width:
            return math.inf
        format_without = {"postfix": None, "bar_format": bar_format.replace("{bar}", ""), "ncols": None}
        return int(width) - len(self.bar.format_meter(**self.bar.format_dict | format_without)) - len(", ") - SLACK


def main_losses(log: Mapping[str, float]) -> dict[str, float]:
    """Return the most important losses under short names.

    >>> main_losses({"l_g_pix": 0.1, "l_g_x": 0.2, "l_d_real": 0.25, "l_d_fake": 0.5, "grad_g_pix": 1.0})
    {'pix': 0.1, 'd': 0.75, 'x': 0.2}
    """
    losses = {key: value for key, value in log.items() if key.startswith("l_")}
    if {"l_d_real", "l_d_fake"} <= losses.keys():
        losses["l_d"] = losses.pop("l_d_real") + losses.pop("l_d_fake")
    order = [*(key for key in MAIN_LOSSES if key in losses), *(key for key in losses if key not in MAIN_LOSSES)]
    return {key.removeprefix("l_").removeprefix("g_"): losses[key] for key in order[:MOST_LOSSES]}
