from collections.abc import Callable
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import skimage.data

from gramgan_plugin.training.logs import RunLog
from tests.training.tiny_runs import train_run


@pytest.fixture
def photos(tmp_path) -> Path:
    """Five photos of different sizes."""
    folder = tmp_path / "GT"
    folder.mkdir()
    for number in range(5):
        side = 32 + 8 * number
        cut = skimage.data.chelsea()[100 : 100 + side, 20 * number : 20 * number + side + 4]
        cv2.imwrite(str(folder / f"photo{number}.png"), cut)
    return folder


@pytest.fixture
def options_to_log(workdir: Path) -> dict[str, Any]:
    """What a run's log reads of resolved options, and the run's folder."""
    folder = workdir / "experiments/tiny"
    folder.mkdir(parents=True)
    return {
        "name": "tiny",
        "rank": 0,
        "world_size": 1,
        "dist": False,
        "num_gpu": 0,
        "root_path": str(workdir),
        "path": {"experiments_root": str(folder)},
        "datasets": {"train": {"batch_size_per_gpu": 4}},
        "train": {"total_iter": 100},
        "logger": {},
    }


@pytest.fixture
def run(tiny_options, workdir) -> Path:
    """A finished run of 4 iterations."""
    train_run(tiny_options)
    return workdir / "experiments/tiny"


@pytest.fixture
def after(monkeypatch) -> Callable[..., None]:
    """Does something when so many iterations of a run are done."""

    def at(count: int, action: Callable[[], object]) -> None:
        ticks = iter(range(1, 1000))
        tick = RunLog.tick

        def ticked(self: RunLog) -> None:
            tick(self)
            if next(ticks) == count:
                action()

        monkeypatch.setattr(RunLog, "tick", ticked)

    return at
