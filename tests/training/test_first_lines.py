"""What the log says when training begins."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from gramgan_plugin.training.first_lines import first_lines


def _lines(size: int = 2400, iteration: int = 0, total: int = 3000, **schedule: Any) -> list[tuple[int, str]]:
    data: Any = SimpleNamespace(size=size, batch_size=8, batches_per_epoch=size // 8)
    return list(first_lines(data, {"total_iter": total, "scheduler": schedule}, iteration))


def _warnings(**options: Any) -> list[str]:
    return [line for level, line in _lines(**options) if level == logging.WARNING]


def test_progress():
    first = "2,400 training images, batch 8, 300 iterations an epoch; "
    assert _lines() == [(logging.INFO, first + "3,000 iterations")]
    assert _lines(iteration=20) == [(logging.INFO, first + "resuming from iteration 20 of 3,000")]
    assert "finished: it has come to iteration 3,000" in _lines(iteration=3000)[1][1]


def test_few_images():
    (line,) = _warnings(size=3)
    assert line.startswith("so few training images")
    assert _lines(size=1)[0][1].startswith("1 training image, batch 8")
    assert _warnings(size=10) == []
    assert _warnings(size=3, iteration=20) == []


@pytest.mark.parametrize(
    "schedule",
    [{"milestones": [5000, 8000]}, {"period": 5000}, {"periods": [5000]}, {"total_steps": 5000}, {"T_max": 5000}],
    ids=lambda schedule: next(iter(schedule)),
)
def test_a_run_shorter_than_its_schedule(schedule):
    (line,) = _warnings(**schedule)
    key = next(iter(schedule))
    assert f"after 5,000 iterations (train.scheduler.{key}), but the run ends after 3,000" in line
    assert _warnings(total=5000, **schedule) == []
    assert _warnings(iteration=20, **schedule) == [], "a resumed run has warned before"


@pytest.mark.parametrize("schedule", [{}, {"milestones": [1000, 5000]}, {"milestones": []}, {"total_steps": 3001}])
def test_a_schedule_that_falls_in_time(schedule):
    assert _warnings(**schedule) == []
