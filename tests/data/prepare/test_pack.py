import errno
import json
import os
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import skimage.data
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.matlab_functions import imresize

from gramgan_plugin.data.lmdb_images import LmdbWriter
from gramgan_plugin.data.prepare import pack as module
from gramgan_plugin.data.prepare.pack import Report, prepare_photos
from gramgan_plugin.data.prepare.sample import HELD_OUT, TRAIN, folder_photos, sample_photos
from gramgan_plugin.errors import UserError

SMALL = {"crop_size": 96, "step": 64, "progress": False}


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Images of an LMDB by key, BGR, read with lmdb alone."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {
            key.decode(): cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            for key, data in transaction.cursor()
        }


def rows(report: Report) -> list[dict[str, object]]:
    return [json.loads(line) for line in (report.out / "names.jsonl").read_text().splitlines()]


class TestPreparePhotos:
    def test_smoke_layout(self, prepared: Report) -> None:
        files = sorted(p.relative_to(prepared.out).as_posix() for p in prepared.out.rglob("*") if p.is_file())
        assert files == [
            "GT.lmdb/data.mdb",
            "GT.lmdb/meta_info.txt",
            "LQ_x4.lmdb/data.mdb",
            "LQ_x4.lmdb/meta_info.txt",
            "names.jsonl",
            "test/GT/coffee.png",
            "test/LQ_x4/coffee.png",
        ]
        assert (prepared.photos, prepared.held_out, prepared.skipped) == (2, 1, [])

    def test_feature_at_most_so_many_per_photo(self, photo_folder: Path, tmp_path: Path) -> None:
        report = prepare_photos(folder_photos(photo_folder), tmp_path / "set", max_per_photo=4, **SMALL)
        per_photo = [row["photo"] for row in rows(report)]
        assert {name: per_photo.count(name) for name in per_photo} == dict.fromkeys(per_photo, 4)
        assert set(read_all(report.gt)) == {row["key"] for row in rows(report)}
        with pytest.raises(UserError, match="max per photo 0: must be at least 1"):
            prepare_photos(folder_photos(photo_folder), tmp_path / "none", max_per_photo=0, **SMALL)

    def test_feature_names(self, prepared: Report) -> None:
        # chelsea is 330x203 and émile 241x165: mod-cropped to 328x200 and 240x164.
        expected = [
            {"key": f"{number:06d}_s{count:03d}", "photo": photo, "x": x, "y": y, "width": 96, "height": 96}
            for number, photo, xs, ys in (
                (1, "chelsea.png", (0, 64, 128, 192, 232), (0, 64, 104)),
                (2, "émile.png", (0, 64, 128, 144), (0, 64, 68)),
            )
            for count, (y, x) in enumerate(((y, x) for y in ys for x in xs), start=1)
        ]
        assert rows(prepared) == expected
        assert prepared.sub_images == len(expected)

    def test_feature_meta_info(self, prepared: Report) -> None:
        for path, side in ((prepared.gt, 96), (prepared.lq, 24)):
            lines = (path / "meta_info.txt").read_text().splitlines()
            assert lines == [f"{row['key']}.png ({side},{side},3) 3" for row in rows(prepared)]

    def test_feature_pixels(self, prepared: Report, photo_folder: Path) -> None:
        gt, lq = read_all(prepared.gt), read_all(prepared.lq)
        photos = {}
        for path in photo_folder.iterdir():
            photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            photo = photo[: photo.shape[0] // 4 * 4, : photo.shape[1] // 4 * 4]
            small = imresize(photo.astype(np.float32) / 255, 1 / 4)
            photos[path.name] = photo, (small * 255).round().clip(0, 255)
        different = total = 0
        for row in rows(prepared):
            photo, small = photos[row["photo"]]
            x, y = row["x"], row["y"]
            assert np.array_equal(gt[row["key"]], photo[y : y + 96, x : x + 96])
            # The same window of the whole photo's LQ, up to BasicSR's float32 rounding.
            window = small[y // 4 : y // 4 + 24, x // 4 : x // 4 + 24]
            difference = np.abs(lq[row["key"]] - window)
            assert difference.max() <= 1
            different, total = different + (difference > 0).sum(), total + difference.size
        assert different / total < 1e-4

        photo, small = photos["coffee.png"]
        assert np.array_equal(cv2.imread(str(prepared.out / "test/GT/coffee.png")), photo)
        whole = cv2.imread(str(prepared.out / "test/LQ_x4/coffee.png"))
        assert np.abs(whole - small).max() <= 1
        assert (np.abs(whole - small) > 0).mean() < 1e-4

    def test_feature_overlapping_windows_agree(self, prepared: Report) -> None:
        """LQ is cut from one LQ photo: where sub-images overlap, they are equal to the bit."""
        lq = read_all(prepared.lq)
        seen: dict[tuple[object, int, int], np.ndarray] = {}
        overlaps = 0
        for row in rows(prepared):
            for (j, i), value in ((p, lq[row["key"]][p]) for p in np.ndindex(24, 24)):
                place = row["photo"], row["y"] // 4 + j, row["x"] // 4 + i
                overlaps += place in seen
                assert np.array_equal(seen.setdefault(place, value), value)
        assert overlaps > 1000

    def test_feature_basicsr_reads_it(self, prepared: Report) -> None:
        dataset = PairedImageDataset(
            {
                "phase": "val",
                "scale": 4,
                "dataroot_gt": str(prepared.gt),
                "dataroot_lq": str(prepared.lq),
                "io_backend": {"type": "lmdb"},
            }
        )
        assert len(dataset) == prepared.sub_images
        item = dataset[3]
        del dataset  # lmdb opens a path once in a process
        assert item["gt_path"] == "000001_s004"
        image = read_all(prepared.gt)["000001_s004"]
        assert np.array_equal((item["gt"] * 255).round().numpy(), image[..., ::-1].transpose(2, 0, 1))
        assert item["lq"].shape == (3, 24, 24)

    @pytest.mark.parametrize("scale", [2, 3])
    def test_cardinality_scale(self, photo_folder: Path, tmp_path: Path, scale: int) -> None:
        report = prepare_photos(
            folder_photos(photo_folder),
            tmp_path / "out",
            scale=scale,
            hold_out=["coffee.png"],
            **SMALL | {"step": 96},
        )
        assert report.lq.name == f"LQ_x{scale}.lmdb"
        assert {image.shape for image in read_all(report.lq).values()} == {(96 // scale, 96 // scale, 3)}
        assert (tmp_path / "out" / "test" / f"LQ_x{scale}" / "coffee.png").is_file()

    def test_feature_grows_past_the_first_map(
        self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LmdbWriter", lambda path: LmdbWriter(path, map_size=32 * 1024))
        report = prepare_photos(folder_photos(photo_folder), tmp_path / "out", **SMALL)
        assert len(read_all(report.gt)) == len(read_all(report.lq)) == report.sub_images

    def test_exception_stop_names_all_bad_photos(self, photo_folder: Path, tmp_path: Path) -> None:
        photos = self.with_bad_ones(photo_folder, tmp_path)
        with pytest.raises(UserError) as caught:
            prepare_photos(photos, tmp_path / "out", **SMALL)
        assert str(caught.value) == (
            "2 of 5 photos cannot be used: broken\\n.png (cannot be decoded); "
            "tiny.png (300x95, smaller than 96): remove them, or pass --on-error skip"
        )
        assert not any(path.name.startswith("out") for path in tmp_path.iterdir())

    def test_feature_skip(self, photo_folder: Path, tmp_path: Path, prepared: Report) -> None:
        photos = self.with_bad_ones(photo_folder, tmp_path)
        report = prepare_photos(photos, tmp_path / "out", on_error="skip", hold_out=["coffee"], **SMALL)
        assert [name for name, _ in report.skipped] == ["broken\n.png", "tiny.png"]
        # A photo keeps its number (here after "broken") whether or not others are left out.
        assert [(r["photo"], str(r["key"])[:6]) for r in rows(report) if str(r["key"]).endswith("s001")] == [
            ("chelsea.png", "000002"),
            ("émile.png", "000004"),
        ]
        assert report.sub_images == prepared.sub_images

    @staticmethod
    def with_bad_ones(photo_folder: Path, tmp_path: Path) -> list[tuple[str, Path]]:
        broken, tiny = tmp_path / "broken\n.png", tmp_path / "tiny.png"
        broken.write_bytes(b"\x89PNG nothing more")
        cv2.imwrite(str(tiny), np.zeros((95, 300, 3), np.uint8))
        return [*folder_photos(photo_folder), (broken.name, broken), (tiny.name, tiny)]

    def test_exception_all_skipped(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.png"
        broken.touch()
        with pytest.raises(UserError, match="none of the 1 photos can be used"):
            prepare_photos([("broken.png", broken)], tmp_path / "out", on_error="skip", **SMALL)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"crop_size": 94}, "crop size 94: not a multiple of the scale 4"),
            ({"step": 0}, "step 0"),
            ({"compression_level": 10}, "compression level 10"),
            ({"hold_out": ["coffe"]}, "--hold-out coffe: no photo has that name"),
            ({"hold_out": ["coffee", "chelsea", "émile"]}, "nothing to cut"),
        ],
    )
    def test_exception_options(
        self, photo_folder: Path, tmp_path: Path, options: dict[str, object], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            prepare_photos(folder_photos(photo_folder), tmp_path / "out", **{**SMALL, **options})
        assert list(tmp_path.iterdir()) == []

    def test_exception_held_out_names_collide(self, photo_folder: Path, tmp_path: Path) -> None:
        coffee = photo_folder / "coffee.png"
        photos = [("a/coffee.png", coffee), ("b/coffee.png", coffee), ("c.png", coffee)]
        with pytest.raises(UserError, match="two photos of the name coffee"):
            prepare_photos(photos, tmp_path / "out", hold_out=["a/coffee", "b/coffee.png"], **SMALL)

    def test_exception_would_replace_the_photos(self, tmp_path: Path, prepared: Report) -> None:
        photo = prepared.out / "test" / "GT" / "coffee.png"
        with pytest.raises(UserError, match="holds the photos themselves"):
            prepare_photos([("coffee.png", photo)], prepared.out, overwrite=True, **SMALL)

    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (RuntimeError("bug"), RuntimeError),
            (KeyboardInterrupt(), KeyboardInterrupt),
            (OSError(errno.ENOSPC, "full"), UserError),
            (lmdb.DiskError("full"), UserError),
        ],
    )
    def test_feature_killed_in_the_middle(
        self,
        photo_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        raised: type[BaseException],
    ) -> None:
        out = tmp_path / "out"
        put, calls = LmdbWriter.put, []

        def failing(self: LmdbWriter, *args: object) -> None:
            calls.append(1)
            assert (tmp_path / f"out.tmp-{os.getpid()}").is_dir()
            assert not out.exists()
            if len(calls) == 3:
                raise error
            put(self, *args)

        monkeypatch.setattr(LmdbWriter, "put", failing)
        with pytest.raises(raised):
            prepare_photos(folder_photos(photo_folder), out, **SMALL)
        assert len(calls) == 3
        assert list(tmp_path.iterdir()) == []

    def test_feature_failed_overwrite_keeps_the_old(
        self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos = folder_photos(photo_folder)
        first = prepare_photos(photos, tmp_path / "out", **SMALL)
        before = read_all(first.gt)
        with pytest.raises(UserError, match="exists already"):
            prepare_photos(photos, tmp_path / "out", **SMALL)
        monkeypatch.setattr(module, "lq_levels", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_photos(photos, tmp_path / "out", overwrite=True, **SMALL)
        assert read_all(first.gt).keys() == before.keys()
        monkeypatch.undo()
        again = prepare_photos(photos[:1], tmp_path / "out", overwrite=True, **SMALL)
        assert len(read_all(again.gt)) == again.sub_images < len(before)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


class TestSamplePhotos:
    def test_smoke(self) -> None:
        photos = sample_photos()
        assert sorted(name for name, _ in photos) == sorted(TRAIN + HELD_OUT)
        assert not set(TRAIN) & set(HELD_OUT)
        by_name = dict(photos)
        coffee = cv2.imread(str(by_name["coffee.png"]))
        assert np.array_equal(coffee[..., ::-1], skimage.data.coffee())


class TestFolderPhotos:
    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            folder_photos(tmp_path / "none")
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match="no images in it"):
            folder_photos(tmp_path)
