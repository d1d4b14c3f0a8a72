import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch.utils.data import DataLoader

from gramgan_plugin.data import PairedSRDataset, image_cache
from gramgan_plugin.data.image_cache import ImageCache, ImageSizeError, available_memory
from gramgan_plugin.data.images import encode_png
from gramgan_plugin.data.lmdb_images import META_INFO
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.prepare.pack import Report
from gramgan_plugin.utils import system


def photo(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fail() -> np.ndarray:
    raise AssertionError("decoded again")


class TestImageCache:
    def test_feature_each_image_at_its_place(self) -> None:
        sizes = [(5, 7), (1, 1), (8, 2), (3, 3)]
        images = [photo(seed, *size) for seed, size in enumerate(sizes)]
        held = ImageCache(sizes)
        assert held.size_in_bytes == sum(image.size for image in images)
        for number in (2, 0, 3, 1):
            np.testing.assert_array_equal(held.image(number, lambda n=number: images[n]), images[number])
        for number in range(4):
            np.testing.assert_array_equal(held.image(number, fail), images[number])

    def test_feature_read_only(self) -> None:
        image = ImageCache([(2, 2)]).image(0, lambda: photo(0, 2, 2))
        with pytest.raises(ValueError, match="read-only"):
            image[0] = 0

    def test_exception_another_size(self) -> None:
        held = ImageCache([(2, 3), (4, 4)])
        with pytest.raises(ImageSizeError, match="is 2x3, listed as 3x2"):
            held.image(0, lambda: photo(0, 3, 2))
        np.testing.assert_array_equal(held.image(0, lambda: photo(1, 2, 3)), photo(1, 2, 3))  # nothing was kept

    def test_feature_a_failed_decoding_is_tried_again(self) -> None:
        held = ImageCache([(2, 3)])
        with pytest.raises(UserError, match="cannot"):
            held.image(0, self.cannot)
        np.testing.assert_array_equal(held.image(0, lambda: photo(1, 2, 3)), photo(1, 2, 3))

    @staticmethod
    def cannot() -> np.ndarray:
        raise UserError("cannot be read")

    def test_feature_forked_processes_share_it(self) -> None:
        held = ImageCache([(4, 4), (2, 2)])

        def decode_in_a_child() -> None:
            held.image(1, lambda: photo(3, 2, 2))

        child = multiprocessing.get_context("fork").Process(target=decode_in_a_child)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        np.testing.assert_array_equal(held.image(1, fail), photo(3, 2, 2))
        with pytest.raises(AssertionError, match="decoded again"):
            held.image(0, fail)

    def test_feature_a_pickled_one_begins_anew(self) -> None:
        held = ImageCache([(2, 2)])
        held.image(0, lambda: photo(0, 2, 2))
        copy = pickle.loads(pickle.dumps(held))
        np.testing.assert_array_equal(copy.image(0, lambda: photo(1, 2, 2)), photo(1, 2, 2))
        np.testing.assert_array_equal(held.image(0, fail), photo(0, 2, 2))

    @pytest.mark.parametrize(("processes", "fits"), [(None, True), ("2", False)])
    def test_exception_too_large(self, monkeypatch: pytest.MonkeyPatch, processes: str | None, fits: bool) -> None:
        """100 images of 30 kB: 3 MB for one process, 6 MB for two, of 5 MB."""
        monkeypatch.setattr(image_cache, "available_memory", lambda: 5_000_000)
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        if processes is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        if fits:
            ImageCache([(100, 100)] * 100)
        else:
            with pytest.raises(UserError, match=r"2 processes together, 0\.0 GB"):
                ImageCache([(100, 100)] * 100)

    def test_exception_leaves_some_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A fifth stays for batches and the model."""
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        for free, fits in ((3_800_000, True), (3_700_000, False)):
            monkeypatch.setattr(image_cache, "available_memory", lambda free=free: free)
            if fits:
                ImageCache([(100, 100)] * 100)
            else:
                with pytest.raises(UserError, match="leave the cache out"):
                    ImageCache([(100, 100)] * 100)

    def test_feature_available_memory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        whole = available_memory()
        assert whole is None or whole > 10_000_000
        limit, used = tmp_path / "max", tmp_path / "current"
        limit.write_text("5000\n")
        used.write_text("2000\n")
        monkeypatch.setattr(system, "_CGROUPS", ((str(limit), str(used)),))
        assert available_memory() == 3000
        limit.write_text("max\n")  # a container without a limit
        assert available_memory() != 3000


class TestPairedSRDataset:
    @pytest.fixture
    def opt(self, prepared: Report) -> dict[str, Any]:
        return {
            "name": "set",
            "phase": "train",
            "scale": 4,
            "gt_size": 64,
            "dataroot_gt": str(prepared.gt),
            "dataroot_lq": str(prepared.lq),
        }

    @pytest.mark.parametrize("changes", [{}, {"lq": "bicubic", "dataroot_lq": None}, {"phase": "val"}])
    def test_feature_same_samples(self, opt: dict[str, Any], changes: dict[str, Any]) -> None:
        options = {key: value for key, value in {**opt, **changes}.items() if value is not None}
        plain = SeededDataset(PairedSRDataset(options), 3)
        cached = SeededDataset(PairedSRDataset({**options, "cache": True}), 3)
        for epoch in range(2):  # the second pass comes from the cache
            for number in range(len(plain)):
                expected, item = (data[SampleIndex(number, epoch, number)] for data in (plain, cached))
                assert item.keys() == expected.keys()
                assert all(
                    torch.equal(item[k], v) if isinstance(v, torch.Tensor) else item[k] == v
                    for k, v in expected.items()
                )

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_feature_decoded_once(self, opt: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under fork what the workers decode is there for all; under spawn it works, too."""
        dataset = PairedSRDataset({**opt, "phase": "val", "cache": True})
        plain = PairedSRDataset({**opt, "phase": "val"})
        expected = [plain[number] for number in range(len(plain))]
        for item, same in zip(
            DataLoader(dataset, None, num_workers=2, multiprocessing_context=method), expected, strict=True
        ):
            assert torch.equal(item["gt"], same["gt"])
            assert torch.equal(item["lq"], same["lq"])
        if method == "fork":
            monkeypatch.setattr("gramgan_plugin.data.paired_sr_dataset.decode", lambda data: fail())
            assert all(torch.equal(dataset[number]["gt"], same["gt"]) for number, same in enumerate(expected))
            with pytest.raises(AssertionError, match="decoded again"):
                plain[0]

    def test_exception_listed_with_another_size(self, opt: dict[str, Any], tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        data = encode_png(np.ascontiguousarray(skimage.data.coffee()[:64, :64]), 3)
        writer.put({"000001_s001": data}, {"000001_s001": (64, 64, 3)}, 3)
        writer.close()
        meta = tmp_path / "GT.lmdb" / META_INFO
        meta.write_text(meta.read_text().replace("(64,64,3)", "(64,68,3)"))
        opt |= {"dataroot_gt": str(tmp_path / "GT.lmdb"), "lq": "bicubic", "cache": True}
        del opt["dataroot_lq"]
        with pytest.raises(UserError, match=r"GT\.lmdb: 000001_s001 is 64x64, listed as 68x64"):
            PairedSRDataset(opt)[0]

    def test_exception_a_file_without_header(self, opt: dict[str, Any], tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), skimage.data.coffee()[:64, :64])
        (tmp_path / "b.png").write_bytes(b"nothing")
        opt |= {"dataroot_gt": str(tmp_path), "lq": "bicubic", "cache": True}
        del opt["dataroot_lq"]
        with pytest.raises(OptionError, match=r"^datasets\.train\.cache: .*b\.png: not an image"):
            PairedSRDataset(opt)

    def test_exception_too_large(self, opt: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_cache, "available_memory", lambda: 1000)
        with pytest.raises(OptionError, match=r"^datasets\.train\.cache: .*images take"):
            PairedSRDataset({**opt, "cache": True})
