"""Run the training loop: everything but the step, which the model does."""

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.resume import find_resume_state, is_of_run, load_resume_state, restore
from gramgan_plugin.checkpoints.retain import Checkpoints
from gramgan_plugin.checkpoints.rng import preserve_rng
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.loaders import TrainingData, build_test_loaders
from gramgan_plugin.errors import OptionError, Preempted, TrainingStopped
from gramgan_plugin.models.build import build_model, fetch_weights
from gramgan_plugin.models.measured_speed import recorded_speed
from gramgan_plugin.training.first_lines import first_lines
from gramgan_plugin.training.logs import RunLog, run_logging
from gramgan_plugin.training.provenance import place_in_data, recorded_seed, run_facts
from gramgan_plugin.training.reproducible import seed_everything, torch_settings
from gramgan_plugin.training.run_folder import open_run_folder, record_data, record_run, recorded_results
from gramgan_plugin.training.signals import StopRequest, stop_signals
from gramgan_plugin.training.together import together
from gramgan_plugin.training.validation import validate
from gramgan_plugin.utils import distributed
from gramgan_plugin.utils.devices import device_in
from gramgan_plugin.utils.sections import section

logger = logging.getLogger("basicsr")


def train(opt: dict[str, Any]) -> None:
    """Train as the options say, from the start or from a checkpoint.

    Args:
        opt: resolved options.

    Raises:
        UserError: for what the user can correct: options, data, checkpoints, a run folder in use, a full disk.
        TrainingStopped: if the run has stopped itself; the state of the last iteration is saved.
        Preempted: if a signal has asked the run to stop; its state is saved.
    """
    with distributed.joined(opt["launcher"], use_gpus=opt["num_gpu"] > 0) as (opt["rank"], opt["world_size"]):
        # Only rank 0 searches, and draws a seed if none is given, so that all processes have the same.
        first, found = opt["rank"] == 0, list[tuple[int, str]]()
        if first:  # before an older run of this name is archived: without them this one cannot begin
            fetch_weights(opt)

        def report(level: int, line: str) -> None:  # there is no log yet
            found.append((level, line))

        state, opt["manual_seed"] = distributed.gather(
            (find_resume_state(opt, report) if first else None, opt["manual_seed"])
        )[0]
        folder, resumed = Path(opt["path"]["experiments_root"]), is_of_run(state, opt)
        with (
            open_run_folder(folder, keep=resumed, report=report) if first else nullcontext(),
            run_logging(folder / "train.log", opt["rank"]),
            torch_settings(opt),
            stop_signals(announce=first) as request,
        ):
            for level, line in found:
                logger.log(level, line)
            run = Run(opt, state, request)
            try:
                run.train()
            finally:
                run.close()


class Run:
    """A run, from its first or resumed iteration to its last.

    Args:
        opt: resolved options, with ``rank`` and ``world_size``.
        state: the training state to resume from.
        request: records the signal that asks the run to stop.
    """

    def __init__(self, opt: dict[str, Any], state: Path | None, request: StopRequest) -> None:
        self.opt, self.request = opt, request
        self.total = _whole(opt, "train", "total_iter")
        self.print_freq = _whole(opt, "logger", "print_freq", 100)
        self.save_freq = _whole(opt, "logger", "save_checkpoint_freq", 5000)
        given = dict(opt["path"])  # without the networks of a checkpoint
        content = load_resume_state(state, opt) if state is not None else None
        if content is not None and opt.get("manual_seed_drawn"):
            seed = recorded_seed(content)
            opt["manual_seed"] = opt["manual_seed"] if seed is None else seed
        self.folder = Path(opt["path"]["experiments_root"])
        if opt["rank"] == 0:
            record_run(self.folder, {**opt, "path": given}, int(content["iter"]) if content is not None else 0)
        seed_everything(opt["manual_seed"] + opt["rank"])
        self.data = TrainingData(opt)
        self.facts = run_facts(opt, self.data.facts())
        if opt["rank"] == 0:
            databases = {key: self.facts[key] for key in ("patch_databases",) if key in self.facts}
            record_data(self.folder, {**self.facts["data"], **databases})
        self.val_loaders = build_test_loaders(opt, "val")
        self.val_freq = _whole(opt, "val", "val_freq", 5000) if opt.get("val") and self.val_loaders else 0
        train = recorded_speed(opt["train"], section(content, "own", "speed"), device_in(opt).type)
        self.model = build_model({**opt, "train": train})
        self.checkpoints = Checkpoints(self.model, opt)
        # The last finished iteration, and the position in the data of the batch after it.
        self.iteration, self.place, self.epoch = 0, (0, 0), 0
        if content is not None and state is not None:
            self.iteration = restore(self.model, content, state)
            self.place = place_in_data(content, self.facts, self.data)
            self.epoch = self.place[0]
        # The iteration whose checkpoint was last written or attempted.
        self.saved = self.iteration if is_of_run(state, opt) else 0
        results = self._recorded_results() if self.saved else None
        self.validated = self.iteration if results is not None else 0
        if results is not None:  # the run may have been killed before they were compared with the best
            self.checkpoints.validated(self.iteration, results)
        self.batches: Any = self.data.batches(*self.place)  # a generator, which can be closed
        self.clock = _Clock()
        self.log = RunLog(opt, self.iteration)

    def train(self) -> None:
        """Train the remaining iterations."""
        for level, line in first_lines(self.data, self.opt["train"], self.iteration):
            logger.log(level, line)
        try:
            self._iterate()
        except (Preempted, TrainingStopped):
            self._save_before_leaving()
            raise
        logger.info(f"Trained {self.iteration:,d} iterations; the networks are in {self.opt['path']['models']}")

    def close(self) -> None:
        """End the processes that load data, and write buffered logs."""
        try:
            self.batches.close()
        finally:
            self.log.close()

    def _iterate(self) -> None:
        warmup = self.opt["train"].get("warmup_iter", -1)
        if self.saved and self.val_freq and self.iteration % self.val_freq == 0 and self.validated != self.iteration:
            self._validate()  # the run stopped after the checkpoint and before this
        self.clock.restart()
        while self.iteration < self.total:
            with together():
                epoch, index, batch = next(self.batches)
                self._stop_if_asked()
            batch = to_model_batch(batch, self.model.device)
            self.clock.data_ready()
            iteration = self.iteration + 1
            self.model.update_learning_rate(iteration, warmup_iter=warmup)
            self.model.feed_data(batch)
            self.model.optimize_parameters(iteration)
            self.clock.iteration_done()
            self.log.tick()
            self.iteration, self.epoch = iteration, epoch
            self.place = (epoch, index + 1) if index + 1 < self.data.batches_per_epoch else (epoch + 1, 0)
            if iteration % self.print_freq == 0:
                self._log()
            if iteration % self.save_freq == 0:
                self._save()
            if self.val_freq and iteration % self.val_freq == 0:
                self._validate()
        if self.saved != self.iteration:
            self._save()
        self.model.save(-1, -1)  # the networks under the name `latest`, where upstream's users look for them
        if self.val_freq and self.validated != self.iteration:
            self._validate()

    def _stop_if_asked(self) -> None:
        if self.request.signal is not None:
            done = f"after iteration {self.iteration:,d}, whose state is saved" if self.iteration else "at iteration 0"
            raise Preempted(
                f"stopped by {self.request.signal} {done}; run the same command again with --auto_resume to resume"
            )

    def _stop_between_images(self) -> None:
        with together():
            self._stop_if_asked()

    def _log(self) -> None:
        with together():  # the model stops a run whose losses are non-finite
            values = self.model.get_current_log()
        self.log.training(self.epoch, self.iteration, self.model.get_current_learning_rate(), self.clock.take(), values)

    def _save(self, *, temporary: bool = False) -> None:
        # A process that cannot write exits at once, and that ends the others, which wait for it.
        logger.info(f"Saving the checkpoint of iteration {self.iteration:,d}")
        self.saved = self.iteration
        place = {"epoch": self.place[0], "batch": self.place[1]}
        self.model.run_facts = {**self.facts, "place": place, **({"passing": True} if temporary else {})}
        self.checkpoints.save(self.epoch, self.iteration, temporary=temporary)

    def _save_before_leaving(self) -> None:
        if self.saved == self.iteration:
            return
        try:
            self._save()
        except TrainingStopped as error:
            logger.warning(f"The state of iteration {self.iteration:,d} cannot be saved: {error}")

    def _recorded_results(self) -> dict[str, dict[str, float]] | None:
        datasets = [loader.dataset.opt["name"] for loader in self.val_loaders]  # type: ignore[attr-defined]
        found: dict[str, dict[str, float]] | None = distributed.gather(
            recorded_results(self.folder, self.iteration, datasets) if datasets else None
        )[0]
        return found

    def _validate(self) -> None:
        if self.saved != self.iteration:  # an error in validation must not lose training
            self._save(temporary=True)
        # A model may draw random numbers in validation; training must not depend on val.val_freq.
        with preserve_rng(self.model.device):
            results = validate(
                self.model, self.val_loaders, self.iteration, self.opt, self.log, self._stop_between_images
            )
        self.validated = self.iteration
        with together():
            self.checkpoints.validated(self.iteration, results)
        self.clock.restart()


class _Clock:
    """The mean seconds per iteration, and those spent waiting for data, since the last ``take``."""

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


def _whole(opt: dict[str, Any], section: str, key: str, default: int | None = None) -> int:
    """Return a positive whole number from the options; upstream's files write some as floats (``5e3``)."""
    value = (opt.get(section) or {}).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise OptionError(f"{section}.{key}: expected a whole number of at least 1, not {value!r}")
    return int(value)
