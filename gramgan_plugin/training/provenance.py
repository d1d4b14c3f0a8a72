"""Collect the facts that a checkpoint records of its run, and find the position in the data for a resumed run."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.data.fingerprint import changes
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.patchdb.store import database_facts
from gramgan_plugin.utils.io import is_count
from gramgan_plugin.utils.sections import section

logger = logging.getLogger("basicsr")

MOST = 10**7  # more epochs, and more batches in one, than any training has


def run_facts(opt: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint records of a run, without the place in the data, in plain types.

    Args:
        opt: resolved options.
        data: of ``TrainingData.facts``.
    """
    facts = {"data": dict(data), "seed": int(opt["manual_seed"]), "torch": str(torch.__version__)}
    databases = patch_databases(opt)
    return facts | ({"patch_databases": databases} if databases else {})


def patch_databases(opt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the facts of each patch database that a loss term uses, by option, see ``patchdb.store.database_facts``.

    Raises:
        UserError: if one cannot be opened.
    """
    train = section(opt, "train")
    blocks = {f"train.{name}": block for name, block in train.items()}
    blocks |= {f"train.extra_terms.{name}": block for name, block in section(train, "extra_terms").items()}
    return {
        f"{where}.database": database_facts(Path(block["database"]).expanduser())
        for where, block in blocks.items()
        if isinstance(block, Mapping) and isinstance(block.get("database"), str)
    }


def recorded_seed(content: Mapping[str, Any]) -> int | None:
    """Return the seed of the run that wrote a training state, or None if the state has none."""
    seed = section(content, "run").get("seed")
    return seed if is_count(seed) and seed < 2**32 else None


def place_in_data(content: Mapping[str, Any], facts: Mapping[str, Any], data: TrainingData) -> tuple[int, int]:
    """Return the place in the data from which a run is resumed, and warn about each thing that has changed.

    With the same data, batch and seed it is the recorded place, and the run ends as it would have without a stop.
    Otherwise it is the start of the first epoch that had not begun. For a state that records no place
    (upstream's) it is computed from the iteration.

    Args:
        content: of the training state.
        facts: ``run_facts`` of this run.
        data: of this run.

    Returns:
        (epoch, batch in the epoch).
    """
    before = section(content, "run")
    was, now, place = section(before, "data"), facts["data"], section(before, "place")
    epoch, batch = place.get("epoch"), place.get("batch")
    if not was or not is_count(epoch) or not is_count(batch) or max(epoch, batch) > MOST:
        return data.place(int(content["iter"]))
    differences = [*_differences(was, now), *_other_seed(before.get("seed"), facts["seed"])]
    if differences:
        epoch, batch = epoch + (batch > 0), 0
        for difference in differences:
            logger.warning(f"{difference}; training resumes at the start of epoch {epoch}")
        return epoch, batch
    if batch > data.batches_per_epoch:
        return data.place(int(content["iter"]))
    inexact = list(_other_databases(section(before, "patch_databases"), section(facts, "patch_databases")))
    if was.get("world_size") != now["world_size"]:
        inexact.append(f"{now['world_size']} processes instead of {was.get('world_size')}")
    if before.get("torch") != facts["torch"]:
        inexact.append(f"torch {facts['torch']} instead of {before.get('torch')}")
    if inexact:
        logger.info(
            f"{' and '.join(inexact)}: the order of the data stays, but sums may be rounded differently, so the "
            "results are not the same bit for bit"
        )
    return epoch, batch


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each change of the data and of how it is put into batches."""
    if was.get("images") != now["images"]:
        yield f"datasets.train: {now['images']} images, were {was.get('images')}: this run has learnt from other data"
    else:
        lines = changes(section(was, "fingerprint"), now["fingerprint"])
        if lines:
            yield f"datasets.train: this run has learnt from other data ({'; '.join(lines)})"
    if was.get("batch") != now["batch"]:
        yield (
            f"datasets.train.batch_size_per_gpu: {now['batch']} images a batch over all processes, were "
            f"{was.get('batch')}: the learning rates were chosen for those"
        )
    if was.get("ratio") != now["ratio"]:
        yield (
            f"datasets.train.dataset_enlarge_ratio: {now['ratio']}, was {was.get('ratio')}: epochs are of another "
            "length"
        )


def _other_databases(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for option in sorted(was.keys() | now.keys()):
        before, after = section(was, option), section(now, option)
        if before.get("fingerprint") != after.get("fingerprint"):
            count, old = (facts.get("count", "no") for facts in (after, before))
            yield f"{option}: {count} patches, with other content, instead of {old}"


def _other_seed(was: Any, now: int) -> Iterator[str]:
    if was is not None and was != now:
        yield f"manual_seed: {now}, was {was}: the data comes in another order, with other crops"
