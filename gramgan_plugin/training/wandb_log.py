"""Log to Weights & Biases if ``logger.wandb.project`` is set. The package is imported only then."""

import importlib
import importlib.util
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import OptionError, Preempted
from gramgan_plugin.utils.io import parse_json, save_json
from gramgan_plugin.utils.text import first_line

logger = logging.getLogger("basicsr")

ID_FILE = "wandb.json"
NOT_INSTALLED = "the package wandb is not installed: pip install wandb, or take logger.wandb out"
LOCAL_PATH = re.compile(r"(/|~|[A-Za-z]:[\\/]).*", re.DOTALL)


def project_of(opt: Mapping[str, Any]) -> str | None:
    """Return the project that a run is sent to, or None. As in upstream, debug runs are not sent."""
    project = ((opt.get("logger") or {}).get("wandb") or {}).get("project")
    return project if project and not str(opt.get("name")).startswith("debug") else None


def is_installed() -> bool:
    """Return whether the package is installed; a folder ``wandb/`` in the working directory does not count."""
    try:
        spec = importlib.util.find_spec("wandb")
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


class WandbRun:
    """A run on Weights & Biases: resolved options as its config, the run's name, a point for each logged iteration.

    Its id is kept in the run's folder, so that a resumed run is resumed there, too. W&B's local files are in the run's
    folder as well. Local paths, git remotes, code and the console's text are not sent.

    Args:
        opt: resolved options, with ``logger.wandb.project`` and perhaps ``resume_id``.

    Raises:
        OptionError: if the package is missing, or W&B refuses (not logged in, no network).
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        if not is_installed():
            raise OptionError(f"logger.wandb.project: {NOT_INSTALLED}")
        wandb = importlib.import_module("wandb")
        options, folder = opt["logger"]["wandb"], Path(opt["path"]["experiments_root"])
        own_id = options.get("resume_id") or _saved_id(folder / ID_FILE) or secrets.token_hex(4)
        try:
            self.run: Any = wandb.init(
                project=options["project"],
                name=opt["name"],
                id=own_id,
                resume="allow",
                dir=str(folder),
                config=shareable(opt),
                settings=wandb.Settings(disable_git=True, disable_code=True, console="off"),
            )
        except Exception as error:  # of wandb, its network libraries or its settings
            raise OptionError(
                f"logger.wandb.project: Weights & Biases says: {first_line(error)}; log in with `wandb login`, or set "
                "WANDB_MODE=offline and send the run later with `wandb sync`"
            ) from error
        save_json({"id": own_id, "project": options["project"]}, folder / ID_FILE)
        # W&B's own step counter cannot decrease, as the iteration of a resumed run does.
        self.run.define_metric("iter")
        self.run.define_metric("*", step_metric="iter")

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send an iteration's values; if that fails, the run continues without W&B."""
        if self.run is None:
            return
        try:
            self.run.log({"iter": iteration, **values})
        except Exception as error:
            self.run = None
            logger.warning(f"Weights & Biases is given up for the rest of this run: {type(error).__name__}: {error}")

    def close(self, error: BaseException | None = None) -> None:
        """Send the rest, and mark the run on W&B as finished, failed by ``error``, or preempted."""
        if self.run is None:
            return
        try:
            if isinstance(error, Preempted):
                self.run.mark_preempting()
            self.run.finish(exit_code=0 if error is None else getattr(error, "exit_code", 1))
        except Exception as problem:
            logger.warning(f"Weights & Biases did not end well: {type(problem).__name__}: {problem}")


def shareable(value: Any) -> Any:
    """Return options in plain types and with only the last name of each local path.

    >>> shareable({"dataroot_gt": "/home/me/sets/GT.lmdb", "betas": (0.9, 0.99), "type": "Adam"})
    {'dataroot_gt': 'GT.lmdb', 'betas': [0.9, 0.99], 'type': 'Adam'}
    """
    if isinstance(value, Mapping):
        return {str(key): shareable(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(member) for member in value]
    if isinstance(value, str) and LOCAL_PATH.fullmatch(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _saved_id(file: Path) -> str | None:
    """Return the id under which the run was started; None if there is none, or the file is damaged."""
    try:
        kept = parse_json(file.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, str) and kept else None
