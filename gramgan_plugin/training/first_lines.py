"""What the log says when training begins: how much there is, and what cannot be meant."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.utils.sections import section

FEW = 10  # images
# Options of schedules that say when the rate has fallen, or falls for the first time.
FALLS = ("milestones", "period", "periods", "T_max", "step_size", "total_steps")


def first_lines(data: TrainingData, train: Mapping[str, Any], iteration: int) -> Iterator[tuple[int, str]]:
    """Yield level and text of each line.

    Args:
        data: the training images.
        train: the section ``train``.
        iteration: the last one before this start, 0 for a new run.
    """
    total = train["total_iter"]
    progress = f"resuming from iteration {iteration:,d} of {total:,d}" if iteration else f"{total:,d} iterations"
    images = f"{data.size:,d} training image{'s' if data.size != 1 else ''}"
    epoch = f"{data.batches_per_epoch:,d} iterations an epoch"
    yield logging.INFO, f"{images}, batch {data.batch_size}, {epoch}; {progress}"
    if iteration == 0 and data.size < FEW:  # a resumed run has warned before
        learnt = "G learns them by heart, and becomes no better for others"
        yield logging.WARNING, f"so few training images that {learnt}; add photos, or take care to stop early"
    late = _late_fall(train)
    if iteration == 0 and late is not None:
        yield logging.WARNING, late
    if iteration >= total:
        finished = f"it has come to iteration {iteration:,d}, and train.total_iter is {total:,d}"
        yield logging.INFO, f"This run is finished: {finished}; raise that to train on"


def _late_fall(train: Mapping[str, Any]) -> str | None:
    """Return a warning if the rate has not fallen when the run ends, as in a run that was shortened alone."""
    total, options = train["total_iter"], section(train, "scheduler")
    for key in FALLS:
        value = options.get(key)
        first = min(value, default=0) if isinstance(value, list) else value
        if isinstance(first, int) and first > total + 1:
            falls = f"the learning rate falls after {first:,d} iterations (train.scheduler.{key})"
            return f"{falls}, but the run ends after {total:,d}; shorten the schedule, too"
    return None
