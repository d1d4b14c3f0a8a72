import gc
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from gramgan_plugin.config import resolve_options
from gramgan_plugin.data.loaders import TrainingData, build_dataset, build_test_loaders
from gramgan_plugin.errors import OptionError, UserError


def _opt(options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return resolve_options(options | changes, is_train=True) | {"rank": 0, "world_size": 1}


def _keys(data: TrainingData, iteration: int, count: int) -> list[tuple[int, tuple[str, ...]]]:
    batches = data.batches(*data.place(iteration))
    return [(epoch, tuple(batch["gt_path"])) for epoch, _, batch in (next(batches) for _ in range(count))]


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

    @pytest.mark.parametrize("workers", [0, 2])
    def test_places(self, tiny_options, workdir, workers):
        tiny_options["datasets"]["train"] |= {"num_worker_per_gpu": workers, "batch_size_per_gpu": 3}
        data = TrainingData(_opt(tiny_options))
        assert data.batches_per_epoch == 2  # 8 images: 2 of an epoch are left over
        assert [data.place(iteration) for iteration in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
        for start in [(0, 0), (0, 1), (0, 2), (7, 1)]:
            batches = data.batches(*start)
            first = start[0] * 2 + start[1]
            assert [next(batches)[:2] for _ in range(5)] == [data.place(first + step) for step in range(5)]

    @pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 5)])
    def test_a_place_that_is_none(self, tiny_options, workdir, place):
        with pytest.raises(ValueError, match="an epoch has 4 batches"):
            TrainingData(_opt(tiny_options)).batches(*place)

    def test_replicas_share_an_epoch(self, tiny_options, workdir):
        tiny_options["datasets"]["train"] |= {"batch_size_per_gpu": 1}
        alone = [keys for _, keys in _keys(TrainingData(_opt(tiny_options)), 0, 16)]
        parts = []
        for rank in range(2):
            data = TrainingData(_opt(tiny_options) | {"rank": rank, "world_size": 2})
            assert data.facts()["batch"] == data.facts()["world_size"] == 2
            parts.append([keys for _, keys in _keys(data, 0, 8)])
        assert [key for pair in zip(*parts, strict=True) for key in pair] == alone

    @pytest.mark.parametrize("end", ["closed", "forgotten", "failed", "in a circle"])
    def test_workers_end_with_their_batches(self, tiny_options, workdir, end):
        tiny_options["datasets"]["train"] |= {"num_worker_per_gpu": 2}
        data = TrainingData(_opt(tiny_options))
        batches = data.batches(0)
        next(batches)
        workers = set(multiprocessing.active_children())
        assert len(workers) == 2
        began = time.monotonic()
        if end == "closed":
            batches.close()
        elif end == "forgotten":
            del batches
        elif end == "failed":
            data.unreadable.note = lambda _: 1 / 0
            with pytest.raises(ZeroDivisionError):
                next(batches)
        else:
            circle = [batches]
            circle.append(circle)
            del batches, circle
            gc.collect()
        assert not workers & set(multiprocessing.active_children())
        assert time.monotonic() - began < 4

    def test_an_error_in_a_worker_is_one_line(self, tiny_options, workdir):
        tiny_options["datasets"]["train"] |= {"num_worker_per_gpu": 1, "gt_size": 128}
        with pytest.raises(UserError, match=r"^[^\n]*128[^\n]*$") as caught:
            next(TrainingData(_opt(tiny_options)).batches(0))
        assert "Traceback" not in str(caught.value)
        assert "UserError" not in str(caught.value)


class TestBuild:
    def test_a_missing_key_is_named(self):
        with pytest.raises(OptionError, match=r"^datasets\.train: .* needs the key 'io_backend'"):
            build_dataset("train", {"name": "x", "type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b"})

    def test_the_sets_of_a_phase(self, tiny_options, workdir):
        tiny_options["datasets"]["val_2"] = tiny_options["datasets"]["val"] | {"name": "second"}
        loaders = build_test_loaders(_opt(tiny_options), "val")
        assert [loader.dataset.opt["name"] for loader in loaders] == ["heldout", "second"]
        assert Path(next(iter(loaders[0]))["gt_path"][0]).name == "astronaut.png"
