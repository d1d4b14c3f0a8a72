"""Weights & Biases, for runs whose ``logger.wandb.project`` asks for it. The package is imported only then."""

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
    """The project that a run is sent to, or None. As upstream, debug runs are not sent."""
    project = ((opt.get("logger") or {}).get("wandb") or {}).get("project")
    return project if project and not str(opt.get("name")).startswith("debug") else None


def is_installed() -> bool:
    """Whether the package is there; a folder ``wandb/`` of earlier runs in the working directory is not it."""
    try:
        spec = importlib.util.find_spec("wandb")
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


class WandbRun:
    """A run on Weights & Biases: resolved options as its config, the run's name, a point for each logged iteration.

    Its id is kept in the run's folder, so that a run that goes on goes on there, too. What W&B stores on this machine
    lies in the run's folder. Local paths, git remotes, code and the console's text are not sent.

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
        own_id = options.get("resume_id") or _kept_id(folder / ID_FILE) or secrets.token_hex(4)
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
        except Exception as error:  # its own classes, those of its network libraries, of its settings
            raise OptionError(
                f"logger.wandb.project: Weights & Biases says: {first_line(error)}; log in with `wandb login`, or set "
                "WANDB_MODE=offline and send the run later with `wandb sync`"
            ) from error
        save_json({"id": own_id, "project": options["project"]}, folder / ID_FILE)
        # Its own count of steps cannot go back, as a run does that goes on from its last checkpoint.
        self.run.define_metric("iter")
        self.run.define_metric("*", step_metric="iter")

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send an iteration's values; if that fails, the run goes on without W&B."""
        if self.run is None:
            return
        try:
            self.run.log({"iter": iteration, **values})
        except Exception as error:
            self.run = None
            logger.warning(f"Weights & Biases is given up for the rest of this run: {type(error).__name__}: {error}")

    def close(self, error: BaseException | None = None) -> None:
        """Send what is left and end the run there: as done, as failed by ``error``, or as one that will go on."""
        if self.run is None:
            return
        try:
            if isinstance(error, Preempted):
                self.run.mark_preempting()
            self.run.finish(exit_code=0 if error is None else getattr(error, "exit_code", 1))
        except Exception as problem:
            logger.warning(f"Weights & Biases did not end well: {type(problem).__name__}: {problem}")


def shareable(value: Any) -> Any:
    """Options in plain types and without local paths, of which the last name is left.

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


def _kept_id(file: Path) -> str | None:
    """The id under which the run was begun; None if it never was, or the file is damaged."""
    try:
        kept = parse_json(file.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, str) and kept else None
