import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from gramgan_plugin.data import PairedSRDataset
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset, SeededSampler
from gramgan_plugin.prepare.pack import Report


class Draws(Dataset[tuple[int, float, float, float]]):
    """What the three generators give for a sample."""

    def __init__(self) -> None:
        self.opt = {"name": "draws"}

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


class TestSeededSampler:
    @pytest.mark.parametrize("replicas", [1, 2, 3, 5])
    @pytest.mark.parametrize("ratio", [1, 3])
    def test_cardinality(self, replicas: int, ratio: int) -> None:
        samplers = [SeededSampler(7, 0, num_replicas=replicas, rank=r, ratio=ratio) for r in range(replicas)]
        drawn = [list(sampler) for sampler in samplers]
        assert {len(d) for d in drawn} == {len(s) for s in samplers} == {-(-7 * ratio // replicas)}
        together = sorted((sample for d in drawn for sample in d), key=lambda s: s.position)
        assert [s.position for s in together] == list(range(len(together)))
        assert sorted(s.index for s in together[: 7 * ratio]) == sorted([*range(7)] * ratio)

    def test_feature_order_is_the_same_for_any_number_of_replicas(self) -> None:
        one = [s.index for s in SeededSampler(12, 3)]
        first, second = (list(SeededSampler(12, 3, num_replicas=2, rank=r)) for r in range(2))
        assert one[::2] == [s.index for s in first]
        assert one[1::2] == [s.index for s in second]

    def test_feature_seeds_and_epochs_give_orders(self) -> None:
        orders = set()
        for seed in range(3):
            sampler = SeededSampler(50, seed)
            for epoch in range(3):
                sampler.set_epoch(epoch)
                drawn = list(sampler)
                assert drawn == list(sampler)
                assert {s.epoch for s in drawn} == {epoch}
                orders.add(tuple(s.index for s in drawn))
        assert len(orders) == 9

    @pytest.mark.parametrize("rank", [0, 1])
    def test_feature_resume(self, rank: int) -> None:
        sampler = SeededSampler(11, 0, num_replicas=2, rank=rank)
        sampler.set_epoch(4)
        whole = list(sampler)
        for start in range(len(sampler) + 1):
            sampler.set_epoch(4, start=start)
            assert list(sampler) == whole[start:]
            assert len(sampler) == len(whole)
        sampler.set_epoch(5)
        assert len(list(sampler)) == len(whole)

    @pytest.mark.parametrize(
        "changes",
        [{"length": 0}, {"manual_seed": -1}, {"ratio": 0}, {"rank": 1}, {"rank": -1}, {"num_replicas": 0}],
    )
    def test_exception(self, changes: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="SeededSampler needs"):
            SeededSampler(**{"length": 3, "manual_seed": 0, **changes})

    @pytest.mark.parametrize("place", [(0, 4), (0, -1), (-1, 0)])
    def test_exception_set_epoch(self, place: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="start must be in"):
            SeededSampler(3, 0).set_epoch(*place)


class TestSeededDataset:
    def test_smoke(self) -> None:
        dataset = SeededDataset(Draws(), 0)
        assert len(dataset) == 7
        assert dataset.opt == {"name": "draws"}
        assert dataset[SampleIndex(0, 1, 5)][0] == 5

    def test_feature_every_number_counts(self) -> None:
        draws = [
            SeededDataset(Draws(), seed)[SampleIndex(epoch, position, 0)][1:]
            for seed in range(2)
            for epoch in range(2)
            for position in range(2)
        ]
        for generator in range(3):
            assert len({d[generator] for d in draws}) == 8

    def test_feature_independent_of_history_and_leaves_the_generators(self) -> None:
        dataset = SeededDataset(Draws(), 0)
        first = dataset[SampleIndex(2, 3, 4)]
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        dataset[SampleIndex(9, 9, 1)]
        assert (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ) == states
        for generator in (random.random, np.random.rand, lambda: torch.rand(3)):
            generator()
        assert dataset[SampleIndex(2, 3, 4)] == first

    def test_exception(self) -> None:
        with pytest.raises(TypeError, match="SeededSampler"):
            SeededDataset(Draws(), 0)[3]  # type: ignore[index]
        with pytest.raises(ValueError, match="manual_seed"):
            SeededDataset(Draws(), -1)


def batches(report: Report, manual_seed: int, **loader: Any) -> list[dict[str, Any]]:
    opt = {
        "phase": "train",
        "scale": 4,
        "gt_size": 32,
        "dataroot_gt": str(report.gt),
        "dataroot_lq": str(report.lq),
    }
    dataset = SeededDataset(PairedSRDataset(opt), manual_seed)
    sampler = SeededSampler(len(dataset), manual_seed)
    sampler.set_epoch(1, start=3)
    return list(DataLoader(dataset, batch_size=5, sampler=sampler, **loader))


class TestLoader:
    def test_feature_any_workers_give_the_same_batches(self, prepared: Report) -> None:
        expected = batches(prepared, 0)
        assert sum(len(batch["gt_path"]) for batch in expected) == prepared.sub_images - 3
        for method in ("fork", "spawn"):
            for batch, plain in zip(
                batches(prepared, 0, num_workers=2, multiprocessing_context=method), expected, strict=True
            ):
                assert batch["gt_path"] == plain["gt_path"]
                assert torch.equal(batch["gt"], plain["gt"])
                assert torch.equal(batch["lq"], plain["lq"])

    def test_feature_two_seeds_are_two_runs(self, prepared: Report) -> None:
        one, two = batches(prepared, 0), batches(prepared, 1)
        assert [b["gt_path"] for b in one] != [b["gt_path"] for b in two]
        crops = [
            {path: gt for part in run for path, gt in zip(part["gt_path"], part["gt"], strict=True)}
            for run in (one, two)
        ]
        common = crops[0].keys() & crops[1].keys()
        assert len(common) > 5
        assert sum(not torch.equal(crops[0][path], crops[1][path]) for path in common) > len(common) // 2
