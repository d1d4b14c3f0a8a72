"""What a run says while it lives: console and train.log, metrics.jsonl, TensorBoard, a progress bar."""

import datetime
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gramgan_plugin.errors import file_errors

FORMAT = "%(asctime)s %(levelname)s: %(message)s"


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
        handler.setFormatter(logging.Formatter(FORMAT))
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
    """The numbers of a run: a line in the log, a line of JSON, points in TensorBoard, a tick of the progress bar.

    Only rank 0 writes; on the others every method does nothing.

    Args:
        opt: resolved options.
        start: the iteration that the run begins after.
    """

    def __init__(self, opt: dict[str, Any], start: int) -> None:
        self.logger = logging.getLogger("basicsr")
        self.total = int(opt["train"]["total_iter"])
        self.start, self.started = start, time.perf_counter()
        self.writes = opt["rank"] == 0
        self.file: Any = None
        self.board: Any = None
        self.bar: Any = None
        if not self.writes:
            return
        self.path = Path(opt["path"]["experiments_root"]) / "metrics.jsonl"
        with file_errors(self.path):
            self.file = self.path.open("a", encoding="utf-8")
        if opt["logger"].get("use_tb_logger") and not opt["name"].startswith("debug"):
            from torch.utils.tensorboard import SummaryWriter

            # Where upstream's users look for it.
            self.events = Path(opt["root_path"]) / "tb_logger" / opt["name"]
            with file_errors(self.events):
                if start == 0 and self.events.exists():
                    archive = f"{self.events.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
                    self.events.rename(self.events.with_name(archive))
                self.board = SummaryWriter(str(self.events), purge_step=start + 1)
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.total, initial=start, unit="it", desc=opt["name"], dynamic_ncols=True)

    def tick(self) -> None:
        """Count an iteration on the progress bar."""
        if self.bar is not None:
            self.bar.update()

    def training(self, epoch: int, iteration: int, rates: list[float], seconds: dict[str, float], log: Any) -> None:
        """Record an iteration's learning rates, times per iteration and losses."""
        if not self.writes:
            return
        spent = time.perf_counter() - self.started
        left = spent / (iteration - self.start) * (self.total - iteration)
        lrs = ",".join(f"{rate:.3e}" for rate in rates)
        message = (
            f"[epoch:{epoch:3d}, iter:{iteration:8,d}, lr:({lrs})] "
            f"[eta: {datetime.timedelta(seconds=int(left))}, "
            f"time (data): {seconds['time']:.3f} ({seconds['data_time']:.3f})] "
        )
        with self._console():
            self.logger.info(message + " ".join(f"{key}: {value:.4e}" for key, value in log.items()))
        self._line({"iter": iteration, "epoch": epoch, "lr": rates[0], **seconds, **log})
        points = {f"losses/{key}" if key.startswith("l_") else key: value for key, value in log.items()}
        self._points(points | {"lr": rates[0]}, iteration)

    def validation(self, iteration: int, dataset: str, values: dict[str, float]) -> None:
        """Record the mean of each metric over a validation set."""
        if not self.writes or not values:
            return
        with self._console():
            shown = ", ".join(f"{metric} {value:.4f}" for metric, value in values.items())
            self.logger.info(f"Validation {dataset}, iter {iteration:,d}: {shown}")
        self._line({"iter": iteration, "dataset": dataset, "metrics": values})
        self._points({f"metrics/{dataset}/{metric}": value for metric, value in values.items()}, iteration)

    def close(self) -> None:
        """Write out what is buffered."""
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            with file_errors(self.events):
                self.board.close()
        if self.file is not None:
            with file_errors(self.path):
                self.file.close()

    def _line(self, record: dict[str, Any]) -> None:
        with file_errors(self.path):
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def _points(self, values: dict[str, float], iteration: int) -> None:
        if self.board is None:
            return
        with file_errors(self.events):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)

    @contextmanager
    def _console(self) -> Iterator[None]:
        if self.bar is None:
            yield
            return
        with logging_redirect_tqdm([self.logger]):
            yield
