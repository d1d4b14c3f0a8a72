"""Training from shards: the same items as from the LMDBs, each once, in an order that resumes exactly."""

import json
import os
import pickle
import random
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.data import PairedSRDataset, StreamedSRDataset
from gramgan_plugin.data.fingerprint import changes, fingerprint
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.data.shard_order import ShardSampler
from gramgan_plugin.data.shards import Shards
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.prepare.shard_writer import write_shards
from tests.config.problems import problems
from tests.messages import assert_message
from tests.survival import in_child


@pytest.fixture(scope="module")
def shards(sample_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs of ``sample_pair``, a few in each shard."""
    folder = tmp_path_factory.mktemp("shards") / "shards"
    assert write_shards(sample_pair / "GT.lmdb", sample_pair / "LQ_x4.lmdb", folder, 40_000, progress=False) > 2
    return folder


def options(shards: Path, **more: Any) -> dict[str, Any]:
    return {"phase": "train", "scale": 4, "gt_size": 64, "dataroot_shards": str(shards)} | more


class TestItems:
    def test_they_are_those_of_the_lmdbs(self, shards: Path, sample_pair: Path) -> None:
        roots = {"dataroot_gt": str(sample_pair / "GT.lmdb"), "dataroot_lq": str(sample_pair / "LQ_x4.lmdb")}
        stored = PairedSRDataset({"phase": "train", "scale": 4, "gt_size": 64, **roots})
        streamed = StreamedSRDataset(options(shards))
        assert len(streamed) == len(stored) == 8
        for index in (0, 7, 3):
            found = []
            for dataset in (stored, streamed):
                random.seed(index)
                found.append(dataset[index])
            assert found[0].keys() == found[1].keys()
            assert found[0]["gt_path"] == found[1]["gt_path"]
            assert all(torch.equal(found[0][key], found[1][key]) for key in ("gt", "lq"))

    def test_each_process_opens_the_shards_itself(self, shards: Path) -> None:
        dataset = StreamedSRDataset(options(shards))
        expected = dataset.shards.read(5)
        opened = dataset.shards._opened[0]

        def child() -> None:
            assert dataset.shards.read(5) == expected
            assert dataset.shards._opened[0] is not opened, "its threads and maps are the parent's"

        assert in_child(child) == 0
        copy = pickle.loads(pickle.dumps(dataset))  # as a spawned process gets it
        assert copy.shards._opened == {}
        assert copy.shards.read(5) == expected

    def test_several_roots_are_numbered_through(self, shards: Path) -> None:
        dataset = StreamedSRDataset(options(shards, dataroot_shards=[str(shards), str(shards)]))
        assert len(dataset) == 16
        assert dataset[11]["gt_path"] == dataset[3]["gt_path"]


@st.composite
def sets_of_shards(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "sizes": draw(st.lists(st.integers(1, 9), min_size=1, max_size=30)),
        "lanes": draw(st.integers(1, 6)),
        "mixed": draw(st.integers(1, 4)),
        "ratio": draw(st.integers(1, 3)),
    }


class TestOrder:
    @settings(max_examples=60, deadline=None)
    @given(sets_of_shards(), st.integers(1, 5), st.integers(0, 3))
    def test_each_sample_once_and_the_same_for_any_number_of_processes(
        self, shards: dict[str, Any], replicas: int, epoch: int
    ) -> None:
        whole = ShardSampler(manual_seed=3, **shards)
        whole.set_epoch(epoch)
        order = [(sample.position, sample.index) for sample in whole]
        assert Counter(index for _, index in order) == dict.fromkeys(range(sum(shards["sizes"])), shards["ratio"])
        together = []
        for rank in range(replicas):
            own = ShardSampler(manual_seed=3, num_replicas=replicas, rank=rank, **shards)
            own.set_epoch(epoch)
            together += [(sample.position, sample.index) for sample in own]
        assert sorted(together)[: len(order)] == order

    @settings(max_examples=30, deadline=None)
    @given(sets_of_shards(), st.integers(0, 2), st.data())
    def test_it_goes_on_from_any_place(self, shards: dict[str, Any], epoch: int, data: st.DataObject) -> None:
        sampler = ShardSampler(manual_seed=1, **shards)
        sampler.set_epoch(epoch)
        whole = list(sampler)
        start = data.draw(st.integers(0, len(whole)))
        sampler.set_epoch(epoch, start)
        assert list(sampler) == whole[start:]

    def test_epochs_and_seeds_differ(self) -> None:
        orders = set()
        for seed, epoch in ((0, 0), (0, 1), (1, 0)):
            sampler = ShardSampler([5] * 8, manual_seed=seed)
            sampler.set_epoch(epoch)
            orders.add(tuple(sample.index for sample in sampler))
        assert len(orders) == 3

    def test_few_shards_are_open_at_a_time_and_a_process_reads_its_lanes_shards_alone(self) -> None:
        sizes, lanes, mixed = [50] * 64, 4, 2
        sampler = ShardSampler(sizes, 0, lanes=lanes, mixed=mixed)
        order = np.array([sample.index for sample in sampler]) // 50  # shards
        for start in range(0, len(order), 400):  # what the lanes' current groups hold
            assert len(set(order[start : start + 400])) <= lanes * mixed
        own = ShardSampler(sizes, 0, num_replicas=2, rank=1, lanes=lanes, mixed=mixed)
        assert len({sample.index // 50 for sample in own}) == 32

    def test_samples_of_a_group_are_mixed(self) -> None:
        order = np.array([sample.index for sample in ShardSampler([500] * 4, 0, lanes=1, mixed=4)])
        # Neighbours in the order are rarely neighbours in the shards: a share of 1 / 2000 by chance.
        assert np.mean(np.diff(order) == 1) < 0.01
        correlation = np.corrcoef(order, np.arange(2000))[0, 1]
        assert abs(correlation) < 0.1


class TestTraining:
    def batches(self, tiny_options: dict[str, Any], shards: Path, workers: int, **place: Any) -> list[list[str]]:
        tiny_options["datasets"]["train"] = {
            "name": "train",
            "type": "StreamedSRDataset",
            "dataroot_shards": str(shards),
            "gt_size": 64,
            "batch_size_per_gpu": 2,
            "num_worker_per_gpu": workers,
            "scale": 4,
            "phase": "train",
        }
        opt = tiny_options | {"dist": False, "rank": 0, "world_size": 1} | place.pop("opt", {})
        data = TrainingData(opt).batches(**place)
        return [(epoch, batch, item["gt_path"], item["gt"].sum().item()) for epoch, batch, item in islice(data, 6)]

    def test_a_run_resumes_within_an_epoch(self, tiny_options, shards: Path) -> None:
        whole = self.batches(tiny_options, shards, 0, epoch=0)
        assert [entry[:2] for entry in whole] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
        assert len({path for _, _, paths, _ in whole[:4] for path in paths}) == 8
        resumed = self.batches(tiny_options, shards, 0, epoch=0, batch=3)
        assert resumed[:3] == whole[3:]
        assert self.batches(tiny_options, shards, 2, epoch=0, batch=3)[:3] == whole[3:], "with loading processes"

    def test_two_processes_share_an_epoch(self, tiny_options, shards: Path) -> None:
        alone = self.batches(tiny_options, shards, 0, epoch=0)
        pairs = [
            self.batches(tiny_options, shards, 0, epoch=0, opt={"dist": True, "rank": rank, "world_size": 2})
            for rank in (0, 1)
        ]
        # Process r has the samples r, r + 2, ... of the order.
        together = [path for a, b in zip(*pairs, strict=True) for path in np.stack([a[2], b[2]], axis=1).ravel()]
        assert together[:8] == [path for _, _, paths, _ in alone[:4] for path in paths]

    def test_changed_shards_are_recognised(self, shards: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        before = fingerprint(options(shards))
        assert changes(before, fingerprint(options(copy))) == []
        index = json.loads((copy / "index.json").read_text())
        index["chunks"].pop()
        (copy / "index.json").write_text(json.dumps(index))
        assert changes(before, fingerprint(options(copy))) == ["dataroot_shards: its content is not the same"]


def spec_that_imports(index: dict[str, Any]) -> str:
    """A tree of a pair and of a dict whose factory torch would import."""
    spec = json.loads(index["config"]["data_spec"])
    context = json.dumps({"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []})
    spec[1]["children_spec"][2] = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    return json.dumps(spec)


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "where", "what"),
        [
            ({"dataroot_shards": None}, "dataroot_shards", "expected a folder or URL"),
            ({"dataroot_shards": "nowhere"}, "dataroot_shards", "index.json is missing"),
            ({"dataroot_gt": "x"}, "dataroot_gt", "not known to StreamedSRDataset"),
            ({"gt_size": 62}, "gt_size", "no multiple of scale"),
        ],
    )
    def test_options(self, shards: Path, change: dict[str, Any], where: str, what: str) -> None:
        with pytest.raises(OptionError) as caught:
            StreamedSRDataset(options(shards) | change)
        assert str(caught.value).startswith(f"datasets.train.{where}: ")
        assert what in str(caught.value)

    def test_validation_is_on_whole_images(self, shards: Path) -> None:
        with pytest.raises(OptionError, match=r"datasets\.val\.type: StreamedSRDataset is for training"):
            StreamedSRDataset(options(shards, phase="val"))

    @pytest.mark.parametrize(
        ("damage", "what"),
        [
            (lambda index: index["config"].update(data_format=["str", "pickle", "bytes"]), "is not of pairs"),
            (lambda index: index["config"].update(data_spec=spec_that_imports(index)), "is not of pairs"),
            (lambda index: index["config"].update(data_spec=None), "is damaged"),
            (lambda index: index["config"].update(data_spec="[" * 100_000), "is damaged"),
            (lambda index: index["config"].update(compression="zstd"), "is not of pairs"),
            (lambda index: index["config"].update(item_loader="ParquetLoader"), "is not of pairs"),
            (lambda index: index["config"].update(compression_level="sample"), "is not of pairs"),
            (lambda index: index["config"].update(format="mds"), "is not of pairs"),
            (lambda index: index["config"].pop("data_format"), "is not of pairs"),
            (lambda index: index["config"].pop("compression"), "is not of pairs"),
            (lambda index: index["chunks"][0].update(filename="../../secret.bin"), "is not of pairs"),
            (lambda index: index["chunks"][0].update(filename=index["chunks"][1]["filename"]), "is not of pairs"),
            (lambda index: index["chunks"][0].pop("filename"), "is damaged"),
            (lambda index: index["chunks"][0].update(chunk_size=10**18), "is not of pairs"),
            (lambda index: index["chunks"][0].update(chunk_size=-1), "is not of pairs"),
            (lambda index: index["chunks"][0].update(chunk_size=float("inf")), "is not of pairs"),
            (lambda index: index["chunks"][0].update(chunk_bytes=7), "missing, or not of the 7 bytes"),
            (lambda index: index.update(chunks=[]), "is not of pairs"),
            (lambda index: index.pop("config"), "is damaged"),
            (lambda index: index.update(chunks=3), "is damaged"),
        ],
    )
    def test_a_hostile_list_is_not_followed(self, shards: Path, tmp_path: Path, damage: Any, what: str) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        index = json.loads((copy / "index.json").read_text())
        damage(index)
        (copy / "index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match=what):
            Shards([str(copy)])

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_a_list_in_an_encoding_that_litdata_does_not_read(
        self, shards: Path, tmp_path: Path, encoding: str
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        (copy / "index.json").write_text((shards / "index.json").read_text(), encoding=encoding)
        with pytest.raises(UserError, match=r"index\.json is damaged"):
            Shards([str(copy)])

    def test_a_damaged_shard_costs_its_pairs_alone(self, shards: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        first = copy / json.loads((copy / "index.json").read_text())["chunks"][0]["filename"]
        content = first.read_bytes()
        table = 4 * (2 + int.from_bytes(content[:4], "little"))
        first.write_bytes(content[:table] + b"\xff" * (len(content) - table))
        dataset = StreamedSRDataset(options(copy))
        with pytest.raises(UserError, match="cannot be"):
            dataset[0]
        assert dataset[7]["gt"].shape == (3, 64, 64)

    def test_a_damaged_pair_costs_itself_alone(self, sample_pair: Path, tmp_path: Path) -> None:
        write_shards(sample_pair / "GT.lmdb", sample_pair / "LQ_x4.lmdb", tmp_path / "shards", 10**7, progress=False)
        (shard,) = (tmp_path / "shards").glob("*.bin")
        content = bytearray(shard.read_bytes())
        begin = int.from_bytes(content[4 + 4 * 2 : 8 + 4 * 2], "little")  # of the third pair
        content[begin + 12 : begin + 16] = b"\xff" * 4  # its key is no text
        shard.write_bytes(content)
        dataset = StreamedSRDataset(options(tmp_path / "shards"))
        for number in range(8):
            if number == 2:
                with pytest.raises(UserError, match="pair 2 cannot be read"):
                    dataset[number]
            else:
                assert dataset[number]["gt"].shape == (3, 64, 64)

    @pytest.mark.parametrize("place", [0, 1, 2, -1])  # the number of pairs, where the first and second begin, the end
    @pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
    def test_a_shard_whose_table_does_not_fit(self, shards: Path, tmp_path: Path, place: int, value: int) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        first = copy / json.loads((copy / "index.json").read_text())["chunks"][0]["filename"]
        content = bytearray(first.read_bytes())
        entry = place if place >= 0 else 1 + int.from_bytes(content[:4], "little")
        content[4 * entry : 4 * entry + 4] = value.to_bytes(4, "little")
        first.write_bytes(content)
        with pytest.raises(OptionError, match=f"{first.name} is damaged: its table"):
            StreamedSRDataset(options(copy))

    @pytest.mark.parametrize("change", ["lost", "cut short", "a device"])
    def test_a_shard_that_is_not_what_the_list_says(self, shards: Path, tmp_path: Path, change: str) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shards, copy)
        first = copy / json.loads((copy / "index.json").read_text())["chunks"][0]["filename"]
        content = first.read_bytes()
        first.unlink()
        if change == "cut short":
            first.write_bytes(content[:-1])
        elif change == "a device":
            os.mkfifo(first)
        with pytest.raises(OptionError, match=rf"dataroot_shards: .*{first.name} is missing, or not of the"):
            StreamedSRDataset(options(copy))

    def test_what_an_object_store_says_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class NoCredentialsError(Exception):
            pass

        def fails(*arguments: Any, **more: Any) -> None:
            raise NoCredentialsError("Unable to locate credentials\nmore")

        monkeypatch.setattr("litdata.StreamingDataset", fails)
        with pytest.raises(OptionError) as caught:
            StreamedSRDataset(options(Path("x"), dataroot_shards="s3://bucket/x"))
        assert_message(caught.value, "datasets.train.dataroot_shards", "s3://bucket/x", "Unable to locate credentials")
        assert "\n" not in str(caught.value)

    def test_check_reads_folders_and_no_urls(self, tiny_options, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("litdata.StreamingDataset", lambda *arguments, **more: pytest.fail("opened"))
        train = {"name": "train", "type": "StreamedSRDataset", "gt_size": 64}
        for roots, lines in (
            (["s3://bucket/x", str(shards)], []),
            ("s3://bucket/x", []),
            (["s3://bucket/x", "nowhere"], ["datasets.train.dataroot_shards: "]),
        ):
            tiny_options["datasets"]["train"] = train | {"dataroot_shards": roots}
            found = problems(tiny_options, is_train=True)
            assert [line.startswith(start) for line, start in zip(found, lines, strict=True)] == [True] * len(lines)
