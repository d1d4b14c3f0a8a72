"""Save checkpoints and retain the newest N and the best, with a pointer to the latest."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from gramgan_plugin.checkpoints.resume import damage
from gramgan_plugin.utils.io import parse_json, save_json
from gramgan_plugin.utils.metric_direction import lower_is_better
from gramgan_plugin.utils.sections import section

logger = logging.getLogger("basicsr")

# The list of files of a checkpoint being removed: it no longer counts, and its remaining files are removed as well.
REMOVING = re.compile(r"\.(\d+)\.json\.removing")
# A file that a killed process was writing, see `checkpoints.tensor_files`.
UNFINISHED = re.compile(r"\.[\w.-]+\.(state|json|pth|safetensors)\.tmp-\d+")


class Checkpoints:
    """Save a run's checkpoints and remove those that ``logger.keep_last`` and ``logger.keep_best`` do not keep.

    Only files of this run's own checkpoints are ever removed, as their ``N.json`` lists them. Also written are
    ``latest.json`` (``{"iter": N, "state": "training_states/N.state"}``) in the run's folder and, with
    ``keep_best``, ``models/best.json`` (``{"iter", "metric", "value", "sets"}``) and the networks as
    ``models/net_*_best.pth``. Every process has an instance; only that of rank 0 writes.

    Args:
        model: to save.
        opt: resolved options; this process holds the lock of the run's folder.
    """

    def __init__(self, model: Any, opt: dict[str, Any]) -> None:
        self.model = model
        self.writes = opt["rank"] == 0
        path, options = opt["path"], opt["logger"]
        self.run, self.states, self.models = (
            Path(path[key]) for key in ("experiments_root", "training_states", "models")
        )
        self.keep_last: int | None = options.get("keep_last")
        self.metric: str | None = options.get("keep_best")
        self.lower = False
        self.best: float | None = None
        self._temporary: set[int] = set()
        if not self.writes:
            return
        self._clean_up()
        self._temporary = {number for number in self._numbers() if self._is_temporary(number)}
        if self.metric is not None:
            self.lower = lower_is_better(section(opt, "val", "metrics", self.metric))
            self.best = self._read_best()

    def save(self, epoch: int, iteration: int, *, temporary: bool = False) -> None:
        """Save the checkpoint of an iteration, point to it, and remove the oldest. Every process must call it.

        Args:
            epoch: for the state.
            iteration: for the state and the names.
            temporary: remove it once there is a later one.

        Raises:
            TrainingStopped: if a weight or a moment is not finite; earlier checkpoints are untouched.
            UserError: if it cannot be written (a full disk); earlier checkpoints are untouched.
        """
        self.model.save(epoch, iteration)
        if not self.writes:
            return
        state = f"{self.states.name}/{iteration}.state"
        save_json({"iter": iteration, "state": state}, self.run / "latest.json")
        for number in self._temporary - {iteration}:
            self._remove(self.states / f"{number}.json", number)
        self._temporary = {iteration} if temporary else set()
        if self.keep_last is not None and not temporary:
            self._prune(iteration, self.keep_last)

    def validated(self, iteration: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """Save the networks as the best so far, if their validation is the best.

        Args:
            iteration: of the validation.
            results: set -> metric -> mean over its images. The mean over the sets is compared.
        """
        if self.metric is None or not self.writes:
            return
        sets = {name: float(values[self.metric]) for name, values in results.items() if self.metric in values}
        if not sets:
            logger.warning(f"logger.keep_best: this validation gives no '{self.metric}', so no best is kept")
            return
        value = fmean(sets.values())
        if not math.isfinite(value) or not self._is_better(value):
            return
        self.model.save(-1, "best")
        # Written last: until then the older value is valid.
        record = {"iter": iteration, "metric": self.metric, "value": value, "sets": sets}
        save_json(record, self.models / "best.json")
        before = "" if self.best is None else f", before {self.best:.4f}"
        logger.info(f"Best {self.metric} so far: {value:.4f} (iter {iteration:,d}{before}), kept as net_*_best.pth")
        self.best = value

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best if self.lower else value > self.best

    def _read_best(self) -> float | None:
        path = self.models / "best.json"
        try:
            record = parse_json(path.read_text(encoding="utf-8"))
            metric, value = str(record["metric"]), float(record["value"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning(f"{path}: not readable; the next validation counts as the best")
            return None
        if metric != self.metric:
            logger.warning(f"{path}: of the metric '{metric}'; the next validation counts as the best '{self.metric}'")
            return None
        return value if math.isfinite(value) else None

    def _prune(self, iteration: int, keep_last: int) -> None:
        """Remove the checkpoints before the ``keep_last`` newest whole ones.

        Those of later iterations, which exist after resuming from an older state, neither count nor are removed.
        """
        numbers = [number for number in self._numbers() if number <= iteration]
        # Sizes suffice: reading all files again at each save would take longer than writing one.
        whole = [n for n in numbers if damage(self.states / f"{n}.state", contents=False) is None]
        if len(whole) < keep_last:
            return
        for number in numbers:
            if number < whole[-keep_last]:
                self._remove(self.states / f"{number}.json", number)

    def _numbers(self) -> list[int]:
        """Return the iterations of the checkpoints that have a list of their files."""
        return sorted(int(path.stem) for path in self.states.glob("*.json") if path.stem.isdecimal())

    def _is_temporary(self, number: int) -> bool:
        """Return whether the checkpoint was written for a validation alone."""
        try:
            return (
                section(parse_json((self.states / f"{number}.json").read_text("utf-8")), "run").get("passing") is True
            )
        except (OSError, ValueError):
            return False

    def _remove(self, manifest: Path, number: int) -> None:
        """Remove a checkpoint: first its list is renamed, so that it no longer counts, then its files are removed."""
        removing = self.states / f".{number}.json.removing"
        try:
            networks = self._networks(manifest, number)
            manifest.replace(removing)
            for path in (self.states / f"{number}.state", *networks):
                path.unlink(missing_ok=True)
            removing.unlink()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # It takes up space, but the run can continue.
            logger.warning(f"{manifest}: this checkpoint cannot be removed ({error})")

    def _networks(self, manifest: Path, number: int) -> list[Path]:
        """Return the networks that a checkpoint's list names, without names that this run would not write."""
        listed = parse_json(manifest.read_text(encoding="utf-8"))["files"]
        folder, endings = self.models.name, (f"_{number}.pth", f"_{number}.safetensors")
        parts = [PurePosixPath(name).parts for name in listed]
        names = [name[1] for name in parts if len(name) == 2 and name[0] == folder]
        return [self.models / name for name in names if name.endswith(endings)]

    def _clean_up(self) -> None:
        """Remove what a killed run left: unfinished files, and the rest of checkpoints that it was removing."""
        for folder in (self.run, self.states, self.models):
            for path in folder.iterdir() if folder.is_dir() else ():
                if UNFINISHED.fullmatch(path.name) and not path.is_symlink():
                    path.unlink(missing_ok=True)
        for path in self.states.glob(".*.removing"):
            match = REMOVING.fullmatch(path.name)
            if match:
                self._remove(path, int(match[1]))
