from pathlib import Path
from typing import Any

import pytest

from gramgan_plugin.config import resolve_options
from gramgan_plugin.data.loaders import TrainingData, build_dataset, build_test_loaders
from gramgan_plugin.errors import OptionError, UserError


def _opt(options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return resolve_options(options | changes, is_train=True) | {"rank": 0, "world_size": 1}


def _keys(data: TrainingData, iteration: int, count: int) -> list[tuple[int, tuple[str, ...]]]:
    batches = data.batches(iteration)
    return [(epoch, tuple(batch["gt_path"])) for epoch, batch in (next(batches) for _ in range(count))]


class TestTrainingData:
    def test_any_place_in_the_order(self, tiny_options, workdir):
        opt = _opt(tiny_options)
        assert TrainingData(opt).batches_per_epoch == 4
        whole = _keys(TrainingData(opt), 0, 12)
        assert [epoch for epoch, _ in whole] == [0] * 4 + [1] * 4 + [2] * 4
        for iteration in (1, 3, 4, 6):
            assert _keys(TrainingData(opt), iteration, 5) == whole[iteration : iteration + 5]

    def test_an_epoch_is_the_whole_set_in_an_order_of_its_own(self, tiny_options, workdir):
        keys = _keys(TrainingData(_opt(tiny_options)), 0, 8)
        first, second = ([key for _, batch in keys[part] for key in batch] for part in (slice(4), slice(4, 8)))
        assert sorted(first) == sorted(second)
        assert len(set(first)) == 8
        assert first != second

    def test_two_seeds_are_two_orders(self, tiny_options, workdir):
        orders = [_keys(TrainingData(_opt(tiny_options, manual_seed=seed)), 0, 8) for seed in (0, 1)]
        assert orders[0] != orders[1]

    def test_workers_and_enlargement(self, tiny_options, workdir):
        tiny_options["datasets"]["train"] |= {"dataset_enlarge_ratio": 3}
        alone = TrainingData(_opt(tiny_options))
        assert alone.batches_per_epoch == 12
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 2
        assert _keys(TrainingData(_opt(tiny_options)), 5, 9) == _keys(alone, 5, 9)

    def test_an_error_in_a_worker_is_one_line(self, tiny_options, workdir):
        tiny_options["datasets"]["train"] |= {"num_worker_per_gpu": 1, "gt_size": 128}
        with pytest.raises(UserError, match=r"^[^\n]*128[^\n]*$") as caught:
            next(TrainingData(_opt(tiny_options)).batches(0))
        assert "Traceback" not in str(caught.value)


class TestBuild:
    def test_a_missing_key_is_named(self):
        with pytest.raises(OptionError, match=r"^datasets\.train: PairedImageDataset needs the key 'io_backend'"):
            build_dataset("train", {"name": "x", "type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b"})

    def test_the_sets_of_a_phase(self, tiny_options, workdir):
        tiny_options["datasets"]["val_2"] = tiny_options["datasets"]["val"] | {"name": "second"}
        loaders = build_test_loaders(_opt(tiny_options), "val")
        assert [loader.dataset.opt["name"] for loader in loaders] == ["heldout", "second"]
        assert Path(next(iter(loaders[0]))["gt_path"][0]).name == "astronaut.png"
