"""The training loop: everything but the step, which is the model's."""

import logging
import time
from pathlib import Path
from typing import Any

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.loaders import TrainingData, build_test_loaders
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.build import build_model
from gramgan_plugin.training import distributed
from gramgan_plugin.training.logs import RunLog, run_logging
from gramgan_plugin.training.resume import find_resume_state, load_resume_state, restore
from gramgan_plugin.training.run_folder import open_run_folder, record_run
from gramgan_plugin.training.validation import validate


def train(opt: dict[str, Any]) -> None:
    """Train as the options say, from the start or from a checkpoint.

    Args:
        opt: resolved options.

    Raises:
        UserError: for what the user can mend: options, data, checkpoints, a busy run folder, a full disk.
    """
    opt["rank"], opt["world_size"] = distributed.start(opt["launcher"])
    try:
        folder = Path(opt["path"]["experiments_root"])
        if opt["rank"] != 0:
            with run_logging(folder / "train.log", opt["rank"]):
                _run(opt, find_resume_state(opt))
            return
        state = find_resume_state(opt)
        # Going on means the run's own folder; a state from elsewhere starts a new run.
        own = state is not None and state.parent.resolve() == Path(opt["path"]["training_states"]).resolve()
        with open_run_folder(folder, keep=own), run_logging(folder / "train.log"):
            record_run(folder, opt)
            _run(opt, state)
    finally:
        distributed.stop()


def _run(opt: dict[str, Any], state: Path | None) -> None:
    logger = logging.getLogger("basicsr")
    content = load_resume_state(state, opt) if state is not None else None
    _seed(opt["manual_seed"] + opt["rank"])
    data = TrainingData(opt)
    val_loaders = build_test_loaders(opt, "val")
    model = build_model(opt)
    iteration = restore(model, content, state) if content is not None and state is not None else 0
    total = _whole(opt, "train", "total_iter")
    logger.info(
        f"{data.size} training images, batch {data.batch_size}, {data.batches_per_epoch} iterations an epoch; "
        + (f"going on from iteration {iteration} of {total}" if iteration else f"{total} iterations")
    )
    if (opt["logger"].get("wandb") or {}).get("project"):
        logger.warning("logger.wandb.project: Weights & Biases is not supported yet; this run is not sent there")
    log = RunLog(opt, iteration)
    try:
        _iterate(opt, model, data, val_loaders, log, iteration, total)
    finally:
        log.close()


def _iterate(
    opt: dict[str, Any], model: Any, data: TrainingData, val_loaders: Any, log: RunLog, iteration: int, total: int
) -> None:
    logger = logging.getLogger("basicsr")
    print_freq = _whole(opt, "logger", "print_freq", 100)
    save_freq = _whole(opt, "logger", "save_checkpoint_freq", 5000)
    val_freq = _whole(opt, "val", "val_freq", 5000) if opt.get("val") and val_loaders else 0
    warmup = opt["train"].get("warmup_iter", -1)
    epoch, validated = 0, -1
    clock = _Clock()
    batches = data.batches(iteration)
    while iteration < total:
        epoch, batch = next(batches)
        batch = to_model_batch(batch, model.device)
        clock.data_ready()
        iteration += 1
        model.update_learning_rate(iteration, warmup_iter=warmup)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        clock.iteration_done()
        log.tick()
        if iteration % print_freq == 0:
            # Every process takes part: averaging the values over them is a collective operation.
            values = model.get_current_log()
            log.training(epoch, iteration, model.get_current_learning_rate(), clock.take(), values)
        if iteration % save_freq == 0:
            logger.info(f"Saving the checkpoint of iteration {iteration:,d}")
            model.save(epoch, iteration)
        if val_freq and iteration % val_freq == 0:
            validate(model, val_loaders, iteration, opt, log)
            validated = iteration
            clock.restart()
    if iteration % save_freq != 0:
        model.save(epoch, iteration)
    model.save(-1, -1)  # the networks under the name `latest`, where upstream's users look for them
    if val_freq and validated != iteration:
        validate(model, val_loaders, iteration, opt, log)
    logger.info(f"Trained {total:,d} iterations; the networks are in {opt['path']['models']}")


class _Clock:
    """Mean seconds per iteration, and the part of them spent waiting for data, since last asked."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.total = self.data = 0.0
        self.count = 0
        self.mark = time.perf_counter()

    def data_ready(self) -> None:
        self.data += time.perf_counter() - self.mark

    def iteration_done(self) -> None:
        self.count += 1
        now = time.perf_counter()
        self.total += now - self.mark
        self.mark = now

    def take(self) -> dict[str, float]:
        count = max(1, self.count)
        seconds = {"time": (self.total) / count, "data_time": self.data / count}
        self.restart()
        return seconds


def _seed(seed: int) -> None:
    from basicsr.utils import set_random_seed

    set_random_seed(seed)


def _whole(opt: dict[str, Any], section: str, key: str, default: int | None = None) -> int:
    """A positive whole number from the options; upstream's files write some of them as floats (``5e3``)."""
    value = (opt.get(section) or {}).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise OptionError(f"{section}.{key}: expected a whole number of at least 1, not {value!r}")
    return int(value)
