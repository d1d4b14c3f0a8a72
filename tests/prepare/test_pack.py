import errno
import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.matlab_functions import imresize

import gramgan_plugin
from gramgan_plugin.data.lmdb_manifest import Digest, read_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare import cut, data_set
from gramgan_plugin.prepare.encode import Encoding
from gramgan_plugin.prepare.folders import Partners, folder_photos
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.prepare.pack import Report, prepare_photos
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.presets import Preset
from gramgan_plugin.prepare.sample import HELD_OUT, TRAIN, prepare_sample, sample_photos

SETTINGS = Settings(4, Preset(96, 64, 0))
SMALL: dict[str, Any] = {"settings": SETTINGS, "progress": False}


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
            "GT.lmdb/manifest.json",
            "GT.lmdb/meta_info.txt",
            "LQ_x4.lmdb/data.mdb",
            "LQ_x4.lmdb/manifest.json",
            "LQ_x4.lmdb/meta_info.txt",
            "dataset.json",
            "names.jsonl",
            "test/GT/coffee.png",
            "test/LQ_x4/coffee.png",
        ]
        assert (prepared.photos, prepared.held_out, prepared.skipped) == (2, 1, [])

    def test_feature_at_most_so_many_per_photo(self, photo_folder: Path, tmp_path: Path) -> None:
        report = prepare_photos(
            folder_photos(photo_folder), tmp_path / "set", replace(SETTINGS, most=4), progress=False
        )
        per_photo = [row["photo"] for row in rows(report)]
        assert {name: per_photo.count(name) for name in per_photo} == dict.fromkeys(per_photo, 4)
        assert set(read_all(report.gt)) == {row["key"] for row in rows(report)}
        with pytest.raises(UserError, match=r"max per photo 0: .*at least 1"):
            prepare_photos(folder_photos(photo_folder), tmp_path / "none", replace(SETTINGS, most=0))

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
            assert lines == [f"{row['key']}.png ({side},{side},3) 1" for row in rows(prepared)]

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
        dataset = self.upstreams_dataset(prepared)
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
            Settings(scale, Preset(96, 96, 0)),
            hold_out=["coffee.png"],
            progress=False,
        )
        assert report.lq.name == f"LQ_x{scale}.lmdb"
        assert {image.shape for image in read_all(report.lq).values()} == {(96 // scale, 96 // scale, 3)}
        assert (tmp_path / "out" / "test" / f"LQ_x{scale}" / "coffee.png").is_file()

    def test_feature_grows_past_the_first_map(
        self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_set, "LmdbWriter", partial(LmdbWriter, map_size=32 * 1024))
        monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 1)
        report = prepare_photos(folder_photos(photo_folder), tmp_path / "out", **SMALL)
        assert (report.gt / "data.mdb").stat().st_size > 5 * 32 * 1024
        assert len(read_all(report.gt)) == len(read_all(report.lq)) == report.sub_images

    def test_exception_stop_names_all_bad_photos(self, photo_folder: Path, tmp_path: Path) -> None:
        photos = self.with_bad_ones(photo_folder, tmp_path)
        bad = r"^2 of 5 photos .*: broken\\n\.png \(not an image\); tiny\.png \(300x95, .* 96\): .*--on-error skip$"
        with pytest.raises(UserError, match=bad):
            prepare_photos(photos, tmp_path / "out", **SMALL)
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
            ({"settings": Settings(4, Preset(94, 64, 0))}, "crop size 94: .* scale 4"),
            ({"settings": Settings(4, Preset(96, 0, 0))}, "step 0"),
            ({"workers": 0}, "workers 0: must be at least 1"),
            ({"settings": replace(SETTINGS, most=0)}, "max per photo 0"),
            ({"hold_out": ["coffe"]}, "--hold-out coffe: no photo"),
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
        with pytest.raises(UserError, match="contains the photos"):
            prepare_photos([("coffee.png", photo)], prepared.out, overwrite=True, **SMALL)

    @pytest.mark.parametrize(
        ("error", "raised", "kept"),
        [
            (RuntimeError("bug"), RuntimeError, False),
            (KeyboardInterrupt(), KeyboardInterrupt, True),
            (OSError(errno.ENOSPC, "full"), UserError, True),
            (lmdb.DiskError("full"), UserError, True),
        ],
    )
    def test_feature_failure_in_the_middle(
        self,
        photo_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        raised: type[BaseException],
        kept: bool,
    ) -> None:
        out, staged = tmp_path / "out", tmp_path / "out.unfinished"
        put, calls = LmdbWriter.put, []

        def failing(self: LmdbWriter, *args: Any) -> None:
            calls.append(1)
            assert staged.is_dir()
            assert not out.exists()
            if len(calls) == 4:  # LQ of the second photo
                raise error
            put(self, *args)

        monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 1)
        monkeypatch.setattr(LmdbWriter, "put", failing)
        with pytest.raises(raised):
            prepare_photos(folder_photos(photo_folder), out, **SMALL)
        assert list(tmp_path.iterdir()) == ([staged] if kept else [])
        monkeypatch.setattr(LmdbWriter, "put", put)
        prepare_photos(folder_photos(photo_folder), out, **SMALL)
        assert list(tmp_path.iterdir()) == [out]

    def test_feature_failed_overwrite_keeps_the_old(
        self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos = folder_photos(photo_folder)
        first = prepare_photos(photos, tmp_path / "out", **SMALL)
        before = read_all(first.gt)
        with pytest.raises(UserError, match="exists already"):
            prepare_photos(photos, tmp_path / "out", **SMALL)
        monkeypatch.setattr(cut, "shrink", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_photos(photos, tmp_path / "out", overwrite=True, **SMALL)
        assert read_all(first.gt).keys() == before.keys()
        monkeypatch.undo()
        again = prepare_photos(photos[:1], tmp_path / "out", overwrite=True, **SMALL)
        assert len(read_all(again.gt)) == again.sub_images < len(before)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_feature_damage_that_no_header_shows(self, photo_folder: Path, tmp_path: Path) -> None:
        """What can be known of the photos before they are packed is reported before, the rest together at the end."""
        folder = tmp_path / "photos"
        folder.mkdir()
        whole = bytearray((photo_folder / "coffee.png").read_bytes())
        for name in ("a.png", "c.png"):
            whole[len(whole) // 2] ^= 1
            (folder / name).write_bytes(whole)
            whole[len(whole) // 2] ^= 1
        (folder / "b.png").write_bytes(whole)
        with pytest.raises(UserError, match=r"^2 of 3 photos .*: a.png \(damaged.*; c.png \(damaged"):
            prepare_photos(folder_photos(folder), tmp_path / "out", **SMALL)
        assert [path.name for path in tmp_path.iterdir()] == ["photos"]
        report = prepare_photos(folder_photos(folder), tmp_path / "out", on_error="skip", **SMALL)
        assert [name for name, _ in report.skipped] == ["a.png", "c.png"]
        assert {str(row["key"])[:6] for row in rows(report)} == {"000002"}
        facts = json.loads((report.out / "dataset.json").read_text())
        assert facts["skipped"] == [list(pair) for pair in report.skipped]

    def test_feature_workers_change_nothing(
        self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 300_000)
        found = []
        for workers in (1, 3):
            out = tmp_path / str(workers)
            prepare_photos(folder_photos(photo_folder), out, workers=workers, **SMALL)
            found.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.*") if path.is_file()})
        assert found[0] == found[1]

    def test_feature_lq_given(self, photo_folder: Path, tmp_path: Path, prepared: Report) -> None:
        """LQ that is given is cut as it is; where it is what would be made, the data set is the same."""
        lq = tmp_path / "lq"
        lq.mkdir()
        for path in photo_folder.iterdir():
            photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            photo = photo[: photo.shape[0] // 4 * 4, : photo.shape[1] // 4 * 4]
            cv2.imwrite(str(lq / f"{path.stem}x4.png"), cut.shrink(photo, 4))
        find = Partners([photo_folder], [lq], 4)
        report = prepare_photos(
            folder_photos(photo_folder), tmp_path / "out", find_lq=find, hold_out=["coffee"], **SMALL
        )
        ours, theirs = read_all(report.lq), read_all(prepared.lq)
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
        assert ours.keys() == theirs.keys()
        assert json.loads((report.out / "dataset.json").read_text())["lq"] == "given"
        assert [read_manifest(path).get("lq") for path in (report.gt, report.lq)] == [None, "given"]  # type: ignore[union-attr]

        (lq / "chelseax4.png").unlink()
        partners = {"its LQ photo chelseax4.png: ": find, "has no LQ photo": Partners([photo_folder], [lq], 4)}
        for why, finder in partners.items():
            with pytest.raises(UserError, match=rf"^1 of 3 photos .*: chelsea.png \({why}"):
                prepare_photos(folder_photos(photo_folder), tmp_path / "other", find_lq=finder, **SMALL)

    def test_feature_fast(self, photo_folder: Path, tmp_path: Path, prepared: Report) -> None:
        report = prepare_photos(
            folder_photos(photo_folder),
            tmp_path / "out",
            replace(SETTINGS, encoding=Encoding("fast")),
            hold_out=["coffee"],
            progress=False,
        )
        for ours, theirs in ((report.gt, prepared.gt), (report.lq, prepared.lq)):
            one, other = read_all(ours), read_all(theirs)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)
            assert (ours / "meta_info.txt").read_text().splitlines()[0].endswith(" 0")
        dataset = self.upstreams_dataset(report)
        assert np.array_equal((dataset[3]["gt"] * 255).round().numpy(), other_way(read_all(prepared.gt)["000001_s004"]))

    @staticmethod
    def upstreams_dataset(report: Report) -> PairedImageDataset:
        roots = {"dataroot_gt": str(report.gt), "dataroot_lq": str(report.lq)}
        return PairedImageDataset({"phase": "val", "scale": 4, "io_backend": {"type": "lmdb"}, **roots})

    def test_feature_manifest_and_facts(self, prepared: Report) -> None:
        for path, more in ((prepared.gt, {"kind": "gt"}), (prepared.lq, {"kind": "lq", "lq": "matlab-bicubic"})):
            digest = Digest()
            with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as reading:
                for key, data in reading.cursor():
                    digest.update(key.decode(), data)
            manifest = read_manifest(path)
            assert manifest is not None
            assert manifest["content"] == digest.hexdigest()
            assert manifest.items() >= {"scale": 4, "encoding": "png", **more}.items()
        assert json.loads((prepared.out / "dataset.json").read_text()) == {
            "format": 1,
            "made_by": f"gramgan-plugin {gramgan_plugin.__version__}",
            "form": "folder",
            "scale": 4,
            "crop_size": 96,
            "step": 64,
            "thresh_size": 0,
            "preset": None,
            "max_per_photo": None,
            "keep_detailed": None,
            "encoding": "png",
            "colours": "sRGB",
            "photos": 2,
            "held_out": 1,
            "sub_images": prepared.sub_images,
            "expected": None,
            "lq": "matlab-bicubic",
            "skipped": [],
        }

    def test_feature_names_of_all_kinds(self, photo_folder: Path, tmp_path: Path) -> None:
        source = tmp_path / "photos"
        names = ["a/same.png", "b/same.png", "写真 é.png", "x" * 251 + ".png", "line\nbreak.png", "dots.in.it.png"]
        for name in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo_folder / "coffee.png", source / name)
        (source / "link.png").symlink_to(source / "a" / "same.png")
        report = prepare_photos(folder_photos(source, recursive=True), tmp_path / "out", **SMALL)
        by_key = {str(row["key"])[:6]: row["photo"] for row in rows(report)}
        assert by_key == {f"{n:06d}": name for n, name in enumerate(sorted([*names, "link.png"]), start=1)}
        assert set(read_all(report.gt)) == {row["key"] for row in rows(report)}

    def test_feature_bounded_memory(self, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However slowly the disk takes them: at most twice as many photos as threads are decoded ahead."""
        begun, taken, ahead = [], [], []
        read, add = cut.read_photo, data_set.DataSet.add

        def counted(path: Path) -> Any:
            begun.append(path)
            return read(path)

        def slow(self: data_set.DataSet, cuts: Any) -> None:
            time.sleep(0.01)
            ahead.append(len(begun) - len(taken))
            taken.append(cuts)
            add(self, cuts)

        monkeypatch.setattr(cut, "read_photo", counted)
        monkeypatch.setattr(data_set.DataSet, "add", slow)
        photos = [(f"{n}.png", photo_folder / "coffee.png") for n in range(20)]
        prepare_photos(photos, tmp_path / "out", workers=2, **SMALL)
        assert len(taken) == 20
        assert max(ahead) <= 4

    def test_feature_torch_threads_are_as_before(self, photo_folder: Path, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            prepare_photos(folder_photos(photo_folder), tmp_path / "out", **SMALL)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)


def other_way(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) BGR -> (3, H, W) RGB."""
    return image[..., ::-1].transpose(2, 0, 1)


class TestPrepareSample:
    def test_feature_as_it_has_always_been(self, tmp_path: Path) -> None:
        """The docs' results were made with these very bytes, and with colours as they are stored."""
        report = prepare_sample(tmp_path / "out")
        assert (report.photos, report.held_out, report.sub_images) == (6, 2, 151)
        photos = {name: cv2.imread(str(path)) for name, path in sample_photos()}
        with lmdb.open(str(report.gt), readonly=True, lock=False) as environment, environment.begin() as reading:
            for row in rows(report):
                x, y = row["x"], row["y"]
                cut_out = np.ascontiguousarray(photos[row["photo"]][y : y + 192, x : x + 192])
                data = cv2.imencode(".png", cut_out, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
                assert reading.get(str(row["key"]).encode()) == data


class TestSamplePhotos:
    def test_smoke(self) -> None:
        photos = sample_photos()
        assert sorted(name for name, _ in photos) == sorted(TRAIN + HELD_OUT)
        assert not set(TRAIN) & set(HELD_OUT)
        by_name = dict(photos)
        coffee = cv2.imread(str(by_name["coffee.png"]))
        assert np.array_equal(coffee[..., ::-1], skimage.data.coffee())
