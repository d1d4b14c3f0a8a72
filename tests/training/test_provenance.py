import json
from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.training.provenance import place_in_data, recorded_seed, run_facts
from tests.messages import assert_message

DATA = {
    "images": 10,
    "batch": 4,
    "world_size": 1,
    "ratio": 1,
    "fingerprint": {"roots": {"dataroot_gt": [{"kind": "folder", "files": 10}]}, "options": {"gt_size": 64}},
}
FACTS = {"data": DATA, "seed": 3, "torch": torch.__version__}


class Data:
    """The place by the iteration, in epochs of 2 batches."""

    batches_per_epoch = 2

    def place(self, iteration: int) -> tuple[int, int]:
        return divmod(iteration, 2)


def _state(place: tuple[int, int] = (5, 1), **changes: Any) -> dict[str, Any]:
    """What a checkpoint of iteration 9 says of a run whose facts differ from ``FACTS``."""
    run = deepcopy(FACTS) | {"place": {"epoch": place[0], "batch": place[1]}}
    for key, value in changes.items():
        (run if key in run else run["data"])[key] = value
    return {"iter": 9, "run": run}


class TestPlaceInData:
    @pytest.fixture
    def lines(self, caplog):
        caplog.set_level("INFO", "basicsr")

        def find() -> list[tuple[str, str]]:
            return [(record.levelname, record.message) for record in caplog.records]

        return find

    @pytest.mark.parametrize("place", [(5, 1), (6, 0), (0, 0)])
    def test_the_same_run(self, lines, place):
        assert place_in_data(_state(place), FACTS, Data()) == place
        assert lines() == []

    @pytest.mark.parametrize(
        "content",
        [
            {"iter": 9},
            {"iter": 9, "run": {}},
            {"iter": 9, "run": None},
            {"iter": 9, "run": {"place": {"epoch": 3}, "data": DATA}},
            {"iter": 9, "run": {"place": {"epoch": 3, "batch": 0}}},
            {"iter": 9, "run": {"place": {"epoch": 3, "batch": -1}, "data": DATA}},
            {"iter": 9, "run": {"place": {"epoch": 10**400, "batch": 0}, "data": DATA}},
            {"iter": 9, "run": {"place": {"epoch": 3, "batch": 10**9}, "data": DATA}},
        ],
    )
    def test_a_state_without_facts(self, lines, content):
        assert place_in_data(content, FACTS, Data()) == (4, 1)
        assert recorded_seed(content) is None
        assert lines() == []

    @pytest.mark.parametrize(
        ("changes", "where", "kind"),
        [
            ({"images": 8}, "datasets.train", "10 images, were 8"),
            (
                {"fingerprint": {"roots": {}, "options": {"gt_size": 32}}},
                "datasets.train",
                "other data (gt_size: 64, was 32)",
            ),
            (
                {"fingerprint": {"roots": {"dataroot_gt": [{"kind": "folder", "files": 9}]}}},
                "datasets.train",
                "other data (dataroot_gt: 10 files, were 9)",
            ),
            ({"batch": 8}, "datasets.train.batch_size_per_gpu", "4 images a batch over all processes, were 8"),
            ({"ratio": 5}, "datasets.train.dataset_enlarge_ratio", "1, was 5"),
            ({"seed": 4}, "manual_seed", "3, was 4"),
        ],
    )
    def test_what_has_changed(self, lines, changes, where, kind):
        assert place_in_data(_state((5, 1), **changes), FACTS, Data()) == (6, 0)
        ((level, line),) = lines()
        assert level == "WARNING"
        assert_message(line, where, kind, "the start of epoch 6")

    def test_an_epoch_that_has_not_begun_is_gone_through(self, lines):
        assert place_in_data(_state((6, 0), batch=8), FACTS, Data()) == (6, 0)
        assert len(lines()) == 1

    def test_each_thing_is_reported(self, lines):
        place_in_data(_state(images=8, batch=8, ratio=2, seed=9), FACTS, Data())
        assert [message.split(":")[0] for _, message in lines()] == [
            "datasets.train",
            "datasets.train.batch_size_per_gpu",
            "datasets.train.dataset_enlarge_ratio",
            "manual_seed",
        ]

    def test_as_many_images_a_batch_on_other_processes(self, lines):
        assert place_in_data(_state(world_size=2), FACTS, Data()) == (5, 1)
        ((level, line),) = lines()
        assert level == "INFO"
        assert line.startswith("1 processes instead of 2: ")

    def test_another_torch(self, lines):
        assert place_in_data(_state(torch="2.6.0"), FACTS, Data()) == (5, 1)
        assert f"torch {torch.__version__} instead of 2.6.0: " in lines()[0][1]

    def test_facts_are_plain(self):
        facts = run_facts({"manual_seed": 3}, DATA)
        assert facts == FACTS
        assert json.loads(json.dumps(facts)) == facts
