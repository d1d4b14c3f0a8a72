"""Log a run: console and train.log, metrics.jsonl, TensorBoard, W&B, a progress bar."""

import datetime
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import OptionError, file_errors
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.training.bar import ProgressBar
from gramgan_plugin.training.best_so_far import BestSoFar
from gramgan_plugin.training.health import Health
from gramgan_plugin.training.wandb_log import WandbRun, project_of
from gramgan_plugin.utils.io import JsonLines
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import printable

FORMAT = "%(asctime)s %(levelname)s: %(message)s"
# Left out of the log line, to keep it short; metrics.jsonl and TensorBoard have them.
DIAGNOSTICS = ("grad_", "gram_", "weight_", "mask_share", "sr_contrast", "loss_scale", "loss_peak")


@contextmanager
def run_logging(file: Path, rank: int = 0) -> Iterator[logging.Logger]:
    """Set up BasicSR's logger: on the console and, for rank 0, in ``file``; other ranks report errors only."""
    from basicsr.utils import logger as basicsr_logger

    logger = logging.getLogger("basicsr")
    before = logger.handlers[:], logger.level, logger.propagate
    # So that get_root_logger, which BasicSR's classes call, adds no handlers.
    basicsr_logger.initialized_logger["basicsr"] = True
    console = logging.StreamHandler()
    handlers: list[logging.Handler] = [console]
    if rank == 0:
        with file_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_LogFile(file, mode="a", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(_Escaping(FORMAT))
    logger.handlers[:] = handlers
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    logger.propagate = False
    try:
        with _no_traceback_of_tensorboard():
            yield logger
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
        for handler in handlers:
            with suppress(OSError):  # each record was flushed, and its error reported
                handler.close()


@contextmanager
def _no_traceback_of_tensorboard() -> Iterator[None]:
    """Suppress the traceback of TensorBoard's writer thread; the next call raises the same error."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if getattr(thread, "exception", None) is not None:  # it may not have called the hook yet
                thread.join(timeout=1)
        threading.excepthook = before


class _Escaping(logging.Formatter):
    """Escape control characters: names and keys in messages come from files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its line breaks kept (BasicSR logs tables of options)."""
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


class _LogFile(logging.FileHandler):
    """A log file that ends the run when the disk is full; logging would print a traceback and continue."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Raise the error that `emit` caught."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            with file_errors(self.baseFilename):
                raise error
        super().handleError(record)


class RunLog:
    """Record a run's values: a line in the log, a line of JSON, points in TensorBoard and W&B, the progress bar.

    Only rank 0 writes; on other ranks every method does nothing.

    Args:
        opt: resolved options.
        start: the iteration that the run starts after.

    Raises:
        UserError: if a file cannot be written, or a package that the options ask for is missing.
    """

    def __init__(self, opt: dict[str, Any], start: int) -> None:
        self.logger = logging.getLogger("basicsr")
        self.total = int(opt["train"]["total_iter"])
        self.start, self.started = start, time.perf_counter()
        self.images = images_per_iteration(opt)
        self.writes = opt["rank"] == 0
        self.health = Health(section(opt, "train"))
        self.best = BestSoFar(section(opt, "val", "metrics"))
        self.reported: set[str] = set()
        self.file: JsonLines | None = None
        self.board: Any = None
        self.wandb: WandbRun | None = None
        self.bar: ProgressBar | None = None
        if not self.writes:
            return
        self.wandb = WandbRun(opt) if project_of(opt) else None
        file = Path(opt["path"]["experiments_root"]) / "metrics.jsonl"
        self.best.read(file, start)
        self.file = JsonLines(file)
        if opt["logger"].get("use_tb_logger") and not opt["name"].startswith("debug"):
            # The same folder as in upstream.
            self.events = Path(opt["root_path"]) / "tb_logger" / opt["name"]
            self.board = _tensorboard(self.events, start)
        if sys.stderr.isatty():
            self.bar = ProgressBar(opt["name"], self.total, start)

    def tick(self) -> None:
        """Count an iteration on the progress bar. It reads no value, so it does not wait for the device."""
        if self.bar is not None:
            self.bar.tick()

    def training(
        self, epoch: int, iteration: int, rates: list[float], seconds: Mapping[str, float], log: Mapping[str, Any]
    ) -> None:
        """Record an iteration's learning rates, times per iteration and values, and warn about bad ones."""
        if not self.writes:
            return
        values = {key: value if isinstance(value, int | float) else float(value) for key, value in log.items()}
        spent = time.perf_counter() - self.started
        left = spent / (iteration - self.start) * (self.total - iteration)
        lrs = ",".join(f"{rate:.3e}" for rate in rates)
        message = (
            f"[epoch:{epoch:3d}, iter:{iteration:8,d}, lr:({lrs})] "
            f"[eta: {datetime.timedelta(seconds=int(left))}, "
            f"time (data): {seconds['time']:.3f} ({seconds['data_time']:.3f})] "
        )
        self.logger.info(message + " ".join(f"{key}: {value:.4e}" for key, value in line_values(values).items()))
        for warning in self.health.check(iteration, values):
            self.logger.warning(f"iter {iteration:,d}: {warning}")
        speed = {"images_per_s": self.images / seconds["time"]} if seconds["time"] > 0 else {}
        self._line({"iter": iteration, "epoch": epoch, "lr": rates[0], **seconds, **speed, **values})
        points = {f"losses/{key}" if key.startswith("l_") else key: value for key, value in values.items()}
        self._points(points | speed | {"lr": rates[0]}, iteration)
        if self.bar is not None:
            self.bar.show(rates[0], values)

    def validation(self, iteration: int, result: SetResult) -> None:
        """Record the mean of each metric over a validation set, and report each image that has none, once."""
        if not self.writes:
            return
        for line in result.problems():
            if line not in self.reported:
                self.reported.add(line)
                self.logger.warning(f"Validation {line}")
        values, dataset = result.means(), result.dataset
        if not values:
            return
        left_out = {metric: len(images) for metric, images in result.left_out.items() if metric in values}
        shown = []
        best = self.best.update(dataset, iteration, values)
        for metric, value in values.items():
            count = len(result.per_image[metric])
            notes = [f"{count} of {count + left_out[metric]} images"] if metric in left_out else []
            highest, at = best[metric]
            notes += [f"best {highest:.4f} at {at:,d}"] if at != iteration else []
            shown.append(f"{metric} {value:.4f}" + (f" ({', '.join(notes)})" if notes else ""))
        self.logger.info(f"Validation {dataset}, iter {iteration:,d}: {', '.join(shown)}")
        record: dict[str, Any] = {"iter": iteration, "dataset": dataset, "metrics": values}
        record["best"] = {metric: {"value": value, "iter": at} for metric, (value, at) in best.items()}
        self._line(record | ({"left_out": left_out} if left_out else {}))
        self._points({f"metrics/{dataset}/{metric}": value for metric, value in values.items()}, iteration)

    def close(self) -> None:
        """Write what is buffered, and report the error being raised, if any, to W&B."""
        error = sys.exc_info()[1]
        if self.bar is not None:
            self.bar.close()
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            with file_errors(self.events):
                self.board.close()
        if self.wandb is not None:
            self.wandb.close(error)

    def _line(self, record: dict[str, Any]) -> None:
        if self.file is not None:
            self.file.append(record)

    def _points(self, values: dict[str, float], iteration: int) -> None:
        if self.wandb is not None:
            self.wandb.log(iteration, values)
        if self.board is None:
            return
        with file_errors(self.events):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)


def line_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values of the log line: losses, D's accuracy or else its mean logits, and unknown keys.

    >>> list(line_values({"l_g_pix": 1, "grad_g_pix": 1, "out_d_real": 1, "d_accuracy": 1, "skipped_steps": 1}))
    ['l_g_pix', 'd_accuracy', 'skipped_steps']
    """
    hidden = (*DIAGNOSTICS, "out_d_") if "d_accuracy" in values else DIAGNOSTICS
    return {key: value for key, value in values.items() if not key.startswith(hidden)}


def images_per_iteration(opt: Mapping[str, Any]) -> int:
    """Return the number of images of an iteration over all processes."""
    options = opt["datasets"].get("train") or {}
    devices = opt["world_size"] if opt.get("dist") else max(1, int(opt.get("num_gpu") or 0))
    return int(options.get("batch_size_per_gpu", 1)) * int(devices)


def _tensorboard(events: Path, start: int) -> Any:
    """Return a writer of events; the folder of an earlier run is archived if this one does not resume it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(
            "logger.use_tb_logger: the package tensorboard is not installed: pip install tensorboard, or set false"
        ) from error
    with file_errors(events):
        if start == 0 and events.exists():
            archive = f"{events.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
            events.rename(events.with_name(archive))
        return SummaryWriter(str(events), purge_step=start + 1)
