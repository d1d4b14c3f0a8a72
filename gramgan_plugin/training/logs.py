"""What a run says while it lives: console and train.log, metrics.jsonl, TensorBoard, W&B, a progress bar."""

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
from gramgan_plugin.training.health import Health
from gramgan_plugin.training.wandb_log import WandbRun, project_of
from gramgan_plugin.utils.io import JsonLines
from gramgan_plugin.utils.text import printable

FORMAT = "%(asctime)s %(levelname)s: %(message)s"
# Left out of the log line, which is to be read while it goes by; metrics.jsonl and TensorBoard have them.
DIAGNOSTICS = ("grad_", "gram_", "mask_share", "sr_contrast", "loss_scale", "loss_peak")


@contextmanager
def run_logging(file: Path, rank: int = 0) -> Iterator[logging.Logger]:
    """BasicSR's logger on the console and, for rank 0, appended to ``file``; other ranks report errors only."""
    from basicsr.utils import logger as basicsr_logger

    logger = logging.getLogger("basicsr")
    before = logger.handlers[:], logger.level, logger.propagate
    # Keeps BasicSR's classes, which ask for the logger by get_root_logger, from adding handlers of their own.
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
            with suppress(OSError):  # each record was flushed, and its error told
                handler.close()


@contextmanager
def _no_traceback_of_tensorboard() -> Iterator[None]:
    """TensorBoard writes in a thread, which hands an error to the next call and prints its traceback besides."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if getattr(thread, "exception", None) is not None:  # its traceback may still be on the way
                thread.join(timeout=1)
        threading.excepthook = before


class _Escaping(logging.Formatter):
    """Names and keys in messages come out of files: no control characters to a terminal, nor into the log."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, in which lines stay lines (BasicSR logs tables of options)."""
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


class _LogFile(logging.FileHandler):
    """A log file whose full disk ends the run; logging prints such an error with its traceback and goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Raise what `emit` has caught."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            with file_errors(self.baseFilename):
                raise error
        super().handleError(record)


class RunLog:
    """The numbers of a run: a line in the log, a line of JSON, points in TensorBoard and W&B, the progress bar.

    Only rank 0 writes; on the others every method does nothing.

    Args:
        opt: resolved options.
        start: the iteration that the run begins after.

    Raises:
        UserError: if a file cannot be written, or a package that the options ask for is missing.
    """

    def __init__(self, opt: dict[str, Any], start: int) -> None:
        self.logger = logging.getLogger("basicsr")
        self.total = int(opt["train"]["total_iter"])
        self.start, self.started = start, time.perf_counter()
        self.images = images_per_iteration(opt)
        self.writes = opt["rank"] == 0
        self.health = Health()
        self.reported: set[str] = set()
        self.file: JsonLines | None = None
        self.board: Any = None
        self.wandb: WandbRun | None = None
        self.bar: ProgressBar | None = None
        if not self.writes:
            return
        self.wandb = WandbRun(opt) if project_of(opt) else None
        self.file = JsonLines(Path(opt["path"]["experiments_root"]) / "metrics.jsonl")
        if opt["logger"].get("use_tb_logger") and not opt["name"].startswith("debug"):
            # Where upstream's users look for it.
            self.events = Path(opt["root_path"]) / "tb_logger" / opt["name"]
            self.board = _tensorboard(self.events, start)
        if sys.stderr.isatty():
            self.bar = ProgressBar(opt["name"], self.total, start)

    def tick(self) -> None:
        """Count an iteration on the progress bar. No value is read, so that no device is waited for."""
        if self.bar is not None:
            self.bar.tick()

    def training(
        self, epoch: int, iteration: int, rates: list[float], seconds: Mapping[str, float], log: Mapping[str, Any]
    ) -> None:
        """Record an iteration's learning rates, times per iteration and values, and warn where they are bad."""
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
        self.logger.info(message + " ".join(f"{key}: {value:.4e}" for key, value in for_the_line(values).items()))
        for warning in self.health.look(iteration, values):
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
        for metric, value in values.items():
            count = len(result.per_image[metric])
            share = f" ({count} of {count + left_out[metric]} images)" if metric in left_out else ""
            shown.append(f"{metric} {value:.4f}{share}")
        self.logger.info(f"Validation {dataset}, iter {iteration:,d}: {', '.join(shown)}")
        record = {"iter": iteration, "dataset": dataset, "metrics": values}
        self._line(record | ({"left_out": left_out} if left_out else {}))
        self._points({f"metrics/{dataset}/{metric}": value for metric, value in values.items()}, iteration)

    def close(self) -> None:
        """Write out what is buffered, and tell W&B of the error that is on its way up, if one is."""
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


def for_the_line(values: Mapping[str, float]) -> dict[str, float]:
    """What the log line shows: losses, D's accuracy or else its mean logits, and what a model of others logs.

    >>> list(for_the_line({"l_g_pix": 1, "grad_g_pix": 1, "out_d_real": 1, "d_accuracy": 1, "skipped_steps": 1}))
    ['l_g_pix', 'd_accuracy', 'skipped_steps']
    """
    hidden = (*DIAGNOSTICS, "out_d_") if "d_accuracy" in values else DIAGNOSTICS
    return {key: value for key, value in values.items() if not key.startswith(hidden)}


def images_per_iteration(opt: Mapping[str, Any]) -> int:
    """How many images all processes together take in an iteration."""
    options = opt["datasets"].get("train") or {}
    devices = opt["world_size"] if opt.get("dist") else max(1, int(opt.get("num_gpu") or 0))
    return int(options.get("batch_size_per_gpu", 1)) * int(devices)


def _tensorboard(events: Path, start: int) -> Any:
    """A writer of events, in a folder of its own if the run starts anew."""
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
