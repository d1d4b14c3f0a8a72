import errno
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from gramgan_plugin.config import resolve_options
from gramgan_plugin.config.schema_datasets import LOADER
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset
from gramgan_plugin.data.unreadable import MAX_UNREADABLE, TRIES, SkippingDataset, Unreadable, UnreadableImages, collate
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.registries import registries
from tests.messages import assert_message

REASONS = {"truncated": "cut short", "empty": "an empty file", "text": "not an image"}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "text": lambda data: b"This is no image, whatever it is called.\n",
    "small": lambda data: cv2.imencode(".png", np.zeros((20, 20, 3), np.uint8))[1].tobytes(),
}


@pytest.fixture
def folders(sample_pair: Path, tmp_path: Path) -> Path:
    """The sub-images of ``sample_pair`` as files in GT and LQ."""
    for name, source in (("GT", "GT.lmdb"), ("LQ", "LQ_x4.lmdb")):
        (tmp_path / name).mkdir()
        images = LmdbImages(sample_pair / source)
        for key in images.keys:
            (tmp_path / name / f"{key}.png").write_bytes(images.read(key))
    return tmp_path


def pack(folder: Path) -> None:
    """GT and LQ of ``folders`` as LMDBs."""
    for name in ("GT", "LQ"):
        writer = LmdbWriter(folder / f"{name}.lmdb")
        for path in sorted((folder / name).iterdir()):
            writer.put({path.stem: path.read_bytes()}, {path.stem: (96, 96, 3)}, 1)
        writer.close()


@pytest.fixture
def training_data(
    tiny_options: dict[str, Any], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainingData]:
    """Training data over ``folders``, or the LMDBs made of them."""
    monkeypatch.chdir(folders)

    def make(workers: int = 0, backend: str = "disk", **changes: Any) -> TrainingData:
        end = ".lmdb" if backend == "lmdb" else ""
        tiny_options["datasets"]["train"] |= {
            "dataroot_gt": str(folders / f"GT{end}"),
            "dataroot_lq": str(folders / f"LQ{end}"),
            "io_backend": {"type": backend},
            "num_worker_per_gpu": workers,
            "max_unreadable": 0.5,
            **changes,
        }
        block = {key: value for key, value in tiny_options["datasets"]["train"].items() if value is not None}
        tiny_options["datasets"]["train"] = block
        return TrainingData(resolve_options(tiny_options, is_train=True) | {"rank": 0, "world_size": 1})

    return make


def take(data: TrainingData, count: int, place: tuple[int, int] = (0, 0)) -> list[tuple[int, int, dict[str, Any]]]:
    batches = data.batches(*place)
    return [next(batches) for _ in range(count)]


def assert_same(some: list[Any], others: list[Any]) -> None:
    assert len(some) == len(others)
    for (*place, batch), (*other_place, other) in zip(some, others, strict=True):
        assert place == other_place
        assert batch.keys() == other.keys()
        assert batch["gt_path"] == other["gt_path"]
        assert torch.equal(batch["gt"], other["gt"])
        assert torch.equal(batch["lq"], other["lq"])


class TestTrainingData:
    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    @pytest.mark.parametrize("backend", ["disk", "lmdb"])
    @pytest.mark.parametrize("damage", list(DAMAGES))
    @pytest.mark.parametrize("side", ["GT", "LQ"])
    def test_feature_skipped(
        self, training_data: Any, folders: Path, caplog: Any, kind: str, backend: str, damage: str, side: str
    ) -> None:
        bad = sorted((folders / side).iterdir())[2]
        bad.write_bytes(DAMAGES[damage](bad.read_bytes()))
        pack(folders)
        batches = take(training_data(backend=backend, type=kind), 12)
        names = Counter(Path(path).stem for *_, batch in batches for path in batch["gt_path"])
        assert sum(names.values()) == 24
        assert bad.stem not in names
        assert all(batch.keys() == {"gt", "lq", "gt_path", "lq_path"} for *_, batch in batches)
        (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert line.startswith("Unreadable training image 1, ")
        assert (str(bad) if backend == "disk" else bad.stem) in line
        if backend == "disk" and kind == "PairedSRDataset":
            assert damage == "small" or line.endswith(f"{bad}: {REASONS[damage]}")
        elif damage != "small":
            assert "cannot be decoded" in line

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    def test_feature_removed_after_the_start(self, training_data: Any, folders: Path, caplog: Any, kind: str) -> None:
        data = training_data(type=kind)
        bad = sorted((folders / "LQ").iterdir())[5]
        bad.unlink()
        batches = take(data, 8)
        assert bad.stem not in {Path(path).stem for *_, batch in batches for path in batch["gt_path"]}
        (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert str(bad) in line
        assert line.endswith("No such file or directory")

    def test_feature_workers_and_resuming_change_nothing(self, training_data: Any, folders: Path, caplog: Any) -> None:
        for number in (1, 4, 5):
            bad = sorted((folders / "GT").iterdir())[number]
            bad.write_bytes(bad.read_bytes()[:3000])
        whole = take(training_data(), 12)
        first = [record.getMessage() for record in caplog.records]
        assert len(first) == 3
        for workers in (0, 2):
            data = training_data(workers)
            caplog.clear()
            assert_same(take(data, 12), whole)
            assert [record.getMessage() for record in caplog.records] == first
            for iteration in (1, 4, 7):
                assert_same(take(training_data(workers), 4, data.place(iteration)), whole[iteration : iteration + 4])

    def test_feature_order_is_that_of_the_whole_set(self, training_data: Any, folders: Path) -> None:
        """Only the samples that cannot be read are replaced; the others are those of the undamaged set."""
        whole = take(training_data(), 12)
        bad = min((folders / "GT").iterdir())
        bad.write_bytes(b"")
        replaced = 0
        for (*_, batch), (*_, other) in zip(whole, take(training_data(), 12), strict=True):
            for number, path in enumerate(batch["gt_path"]):
                if path == str(bad):
                    replaced += 1
                else:
                    assert other["gt_path"][number] == path
                    assert torch.equal(other["gt"][number], batch["gt"][number])
        assert replaced == 3

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize(
        ("share", "passed"), [(0, 0), (None, 0), (0.1, 0), (0.125, 1), (0.25, 2), (0.3, 2), (1, 3)]
    )
    def test_exception_too_many(
        self, training_data: Any, folders: Path, caplog: Any, workers: int, share: float | None, passed: int
    ) -> None:
        """3 of 8 images are unreadable."""
        for path in sorted((folders / "LQ").iterdir())[1:4]:
            path.write_bytes(b"")
        batches = training_data(workers, max_unreadable=share).batches(0, 0)
        if passed == 3:
            assert len([next(batches) for _ in range(8)]) == 8
            return
        with pytest.raises(TrainingStopped) as caught:
            list(islice(batches, 8))
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(lines) == passed + 1
        last = lines[-1].partition("its place: ")[2]
        limit = f"max_unreadable {0.01 if share is None else share}"
        assert_message(caught.value, "datasets.train", f"{passed + 1} of 8 images", limit, last)
        assert "\n" not in str(caught.value)

    def test_feature_names_are_shown_escaped(self, training_data: Any, folders: Path, caplog: Any) -> None:
        for name in ("GT", "LQ"):
            victim = min((folders / name).iterdir())
            victim.rename(victim.with_name("a\x1b[2J\nb\udcff.png"))
        (folders / "LQ" / "a\x1b[2J\nb\udcff.png").write_bytes(b"")
        take(training_data(), 4)
        (line,) = [record.getMessage() for record in caplog.records]
        assert "LQ/a\\x1b[2J\\nb\\udcff.png: an empty file" in line
        assert line.isprintable()

    @pytest.mark.parametrize("workers", [0, 1])
    def test_exception_all_of_upstreams(self, training_data: Any, folders: Path, workers: int) -> None:
        for path in (folders / "GT").iterdir():
            path.write_bytes(b"")
        with pytest.raises(UserError, match=r"^.*LQ/\w+\.png or .*GT/\w+\.png: cannot be decoded as an image$"):
            take(training_data(workers, type="PairedImageDataset"), 1)

    def test_feature_real_esrgan(self, training_data: Any, folders: Path, caplog: Any) -> None:
        names = sorted(path.name for path in (folders / "GT").iterdir())
        (folders / "meta.txt").write_text("\n".join(names))
        (folders / "GT" / names[6]).write_bytes(b"nothing")
        degradation = {
            f"{key}{suffix}": value
            for suffix in ("", "2")
            for key, value in {
                "blur_kernel_size": 21,
                "kernel_list": ["iso"],
                "kernel_prob": [1.0],
                "sinc_prob": 0.1,
                "blur_sigma": [0.2, 3],
                "betag_range": [0.5, 4],
                "betap_range": [1, 2],
            }.items()
        }
        data = training_data(
            type="RealESRGANDataset", meta_info=str(folders / "meta.txt"), final_sinc_prob=0.8, **degradation
        )
        batches = take(data, 8)
        assert names[6] not in {Path(path).name for *_, batch in batches for path in batch["gt_path"]}
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.endswith(f"{folders / 'GT' / names[6]}: cannot be decoded as an image")

    def test_feature_batches_that_are_no_dicts(self, training_data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Tuples(Dataset[tuple[int, float]]):
            def __init__(self, opt: dict[str, Any]) -> None:
                self.opt = opt

            def __len__(self) -> int:
                return 6

            def __getitem__(self, index: int) -> tuple[int, float]:
                if index == 2:
                    raise ValueError("no 2")
                return index, random.random()

        monkeypatch.setitem(registries()["dataset"]._obj_map, "Tuples", Tuples)
        batches = take(training_data(type="Tuples"), 6)
        assert all(isinstance(batch, list) and batch[1].dtype == torch.float64 for *_, batch in batches)
        assert {index for *_, batch in batches for index in batch[0].tolist()} == {0, 1, 3, 4, 5}

    def test_feature_pinned(self, training_data: Any, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the thread that copies batches into pinned memory makes of them."""
        from torch.utils.data._utils.pin_memory import pin_memory

        min((folders / "GT").iterdir()).write_bytes(b"")
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
        samples = [training_data().dataset[SampleIndex(0, position, position)] for position in range(8)]
        batch = collate(samples)
        assert len(batch.unreadable) == 1
        pinned = pin_memory(batch)
        assert type(pinned) is type(batch)
        assert pinned.unreadable == batch.unreadable
        assert torch.equal(pinned.data["lq"], batch.data["lq"] + 1)


class Failing(Dataset[int]):
    """Fails at some indices, counting how often it is asked."""

    def __init__(self, error: BaseException, bad: Callable[[int], bool] = lambda index: True, length: int = 50) -> None:
        self.error, self.bad, self.length, self.asked = error, bad, length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.asked += 1
        if self.bad(index):
            raise self.error
        return index


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def cv2_error() -> cv2.error:
    try:
        cv2.imdecode(np.empty(0, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return error
    raise AssertionError


def skipping(dataset: Dataset[Any], manual_seed: int = 0) -> SkippingDataset:
    return SkippingDataset(SeededDataset(dataset, manual_seed))


class TestSkippingDataset:
    @pytest.mark.parametrize(
        "error",
        [
            UserError("a.png: bad"),
            OSError(errno.EIO, "bad block", "a.png"),
            FileNotFoundError(errno.ENOENT, "gone", "a.png"),
            OSError("cannot identify image file 'a.png'"),  # Pillow
            ValueError("scale"),
            AttributeError("'NoneType' object has no attribute 'astype'"),
            TypeError("none"),
            IndexError("list index out of range"),
            AssertionError(),
            RuntimeError("image has no bytes"),
            lmdb.CorruptedError("mdb_get: MDB_CORRUPTED"),
            cv2_error(),
        ],
    )
    def test_feature_about_an_image(self, error: Exception) -> None:
        dataset = skipping(Failing(error, lambda index: index == 7))
        value, (unreadable,) = dataset[SampleIndex(0, 0, 7)]
        assert value != 7
        assert unreadable.number == 7
        assert unreadable.what
        assert unreadable.what.isprintable()

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "full"),
            OSError(errno.EMFILE, "too many"),
            OSError(errno.ENOMEM, "memory"),
            caused(UserError("a.png: cannot be read: too many"), OSError(errno.EMFILE, "too many")),
            caused(UserError("GT.lmdb: k cannot be read"), lmdb.Error("/GT.lmdb: Too many open files")),
            lmdb.Error("/GT.lmdb: Cannot allocate memory"),
            cv2.error("Failed to allocate 99 bytes in function 'OutOfMemoryError': Insufficient memory"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            MemoryError(),
            OptionError("datasets.train.scale: missing"),
            TrainingStopped("stop"),
            NameError("name 'x' is not defined"),
            ImportError("no module"),
            NotImplementedError(),
            KeyboardInterrupt(),
        ],
    )
    def test_exception_not_about_an_image(self, error: BaseException) -> None:
        failing = Failing(error, lambda index: index == 7)
        with pytest.raises(type(error)) as caught:
            skipping(failing)[SampleIndex(0, 0, 7)]
        assert caught.value is error
        assert failing.asked == 1

    @pytest.mark.parametrize("error", [KeyError("a bug"), UserError("a.png: bad"), OSError(errno.EACCES, "no", "a")])
    @pytest.mark.parametrize("length", [1, 3, 50])
    def test_exception_all_fail(self, error: Exception, length: int) -> None:
        failing = Failing(error, length=length)
        with pytest.raises(type(error)) as caught:
            skipping(failing)[SampleIndex(0, 3, 0)]
        assert caught.value is error
        assert failing.asked == min(TRIES, length)

    def test_exception_the_first_error_is_raised(self) -> None:
        class Named(Failing):
            def __getitem__(self, index: int) -> int:
                raise ValueError(index)

        with pytest.raises(ValueError, match=r"^33$"):
            skipping(Named(ValueError()))[SampleIndex(0, 3, 33)]

    def test_feature_replacements_are_a_function_of_seed_epoch_and_position(self) -> None:
        def replacement(seed: int, epoch: int, position: int) -> int:
            return skipping(Failing(ValueError(), lambda index: index == 7, 10_000), seed)[
                SampleIndex(epoch, position, 7)
            ].value

        found = {key: replacement(*key) for key in np.ndindex(3, 3, 3)}
        assert len(set(found.values())) == 27
        random.seed(9)
        np.random.seed(9)
        assert all(replacement(*key) == index for key, index in found.items())

    def test_feature_a_replacement_draws_what_it_would_draw_there(self) -> None:
        class Draws(Failing):
            def __getitem__(self, index: int) -> Any:
                drawn = random.random(), np.random.rand(), float(torch.rand(()))
                super().__getitem__(index)
                return index, drawn

        dataset = skipping(Draws(ValueError(), lambda index: index == 7))
        index, drawn = dataset[SampleIndex(4, 2, 7)].value
        assert (index, drawn) == dataset[SampleIndex(4, 2, index)].value

    def test_feature_several_fail(self) -> None:
        dataset = skipping(Failing(ValueError("odd"), lambda index: index % 2 == 1))
        samples = [dataset[SampleIndex(0, position, position)] for position in range(50)]
        assert all(sample.value % 2 == 0 for sample in samples)
        assert all(sample.unreadable == () for sample in samples[::2])
        assert all(sample.unreadable[0].number == position for position, sample in enumerate(samples) if position % 2)
        assert max(len(sample.unreadable) for sample in samples) > 1
        assert "ValueError in test_unreadable.py, line " in samples[1].unreadable[0].what
        assert samples[1].unreadable[0].what.startswith("sample 1: ")


class TestUnreadableImages:
    def test_feature_counts_distinct_images(self, caplog: Any) -> None:
        images = UnreadableImages(100, 0.29)
        for _ in range(3):
            images.note([Unreadable(index, f"{index}.png: bad") for index in range(29)])
        assert len(caplog.records) == 29
        with pytest.raises(TrainingStopped, match="30 of 100 images cannot be read") as caught:
            images.note([Unreadable(3, "3.png: bad"), Unreadable(70, "70.png: worse")])
        assert "the last: 70.png: worse. " in str(caught.value)
        assert caught.value.exit_code == 4


class TestDefault:
    def test_feature_as_documented(self) -> None:
        assert LOADER["max_unreadable"].default == MAX_UNREADABLE


class TestFacts:
    def test_feature(self, training_data: Any) -> None:
        facts = training_data(dataset_enlarge_ratio=3).facts()
        assert {key: facts[key] for key in ("images", "batch", "world_size", "ratio")} == {
            "images": 8,
            "batch": 2,
            "world_size": 1,
            "ratio": 3,
        }
        assert facts["fingerprint"]["roots"].keys() == {"dataroot_gt", "dataroot_lq"}
        assert json.loads(json.dumps(facts)) == facts
