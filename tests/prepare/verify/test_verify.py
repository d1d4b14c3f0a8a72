import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from gramgan_plugin.data.fingerprint import changes, fingerprint
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.lmdb_manifest import Digest, read_manifest, write_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.lq_kind import lq_kind
from gramgan_plugin.prepare.verify import run
from gramgan_plugin.prepare.verify.outcome import Check, State, Verification
from gramgan_plugin.prepare.verify.run import verify
from gramgan_plugin.prepare.verify.targets import find_target
from tests.functional.matlab_reference import matlab_uint8
from tests.prepare.verify.lmdbs import Image, cuts, png, put, write, write_set

PAIRS = {scale: cuts(96, scale) for scale in (2, 4)}


def checked(path: Path, lq: Path | None = None, scale: int | None = None, **options: Any) -> Verification:
    return verify(find_target(path, lq, scale), progress=False, **options)


def of(result: Verification, name: str, of: str = "") -> Check:
    (found,) = [check for check in result.checks if check.name == name and of in check.of.split(" and ")[-1]]
    return found


def wrong(result: Verification) -> set[tuple[str, str]]:
    return {(check.of, check.name) for check in result.checks if check.state is State.WRONG}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("whole") / "set", PAIRS[4], 4)


@pytest.fixture
def prepared(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


BOTH = "GT.lmdb and LQ_x4.lmdb"


class TestFine:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_smoke(self, prepared: Path, workers: int) -> None:
        result = checked(prepared, workers=workers)
        assert result.fine
        assert {check.state for check in result.checks} == {State.OK}
        assert re.fullmatch(rf"MATLAB's bicubic within .* {len(PAIRS[4])} pairs", of(result, "downsampling").text)
        json.dumps(result.as_data(), allow_nan=False)

    def test_feature_stores_what_training_checks(self, prepared: Path) -> None:
        checked(prepared)
        expected = Digest()
        for key, (gt, _) in PAIRS[4].items():
            expected.update(key, png(gt))
        record = read_manifest(prepared / "GT.lmdb")
        assert record is not None
        assert record["content"] == expected.hexdigest()
        assert record["kind"] == "gt"
        record = read_manifest(prepared / "LQ_x4.lmdb")
        assert record is not None
        assert (record["kind"], record["scale"], record["lq"]) == ("lq", 4, "matlab-bicubic")
        assert of(checked(prepared), "content", "GT.lmdb").text.endswith(", as recorded")
        put(prepared / "GT.lmdb", "more", b"x")
        with pytest.raises(UserError, match=r"changed since .* `basicsr prepare verify"):
            LmdbImages(prepared / "GT.lmdb")

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_feature_matlab_uint8(self, tmp_path: Path, scale: int) -> None:
        pairs = cuts(96, scale, matlab_uint8)
        gray = np.full((96, 96, 3), 77, np.uint8)
        pairs["flat"] = (gray, gray[: 96 // scale, : 96 // scale])
        folder = write_set(tmp_path / "set", pairs, scale)
        result = checked(folder)
        assert result.fine
        check = of(result, "downsampling")
        assert check.state is State.OK
        assert re.fullmatch(rf"[^,]*matlab-uint8[^,]* {len(pairs)} pairs", check.text)
        record = read_manifest(folder / f"LQ_x{scale}.lmdb")
        assert record is not None
        assert record["lq"] == "matlab-uint8"
        assert lq_kind({"dataroot_gt": str(folder / "GT.lmdb"), "dataroot_lq": str(folder / f"LQ_x{scale}.lmdb")}) == (
            "matlab-uint8, made by basicsr prepare"
        )

    def test_feature_no_store(self, prepared: Path) -> None:
        result = checked(prepared, store=False)
        assert result.fine
        assert not list(prepared.rglob("manifest.json"))

    def test_feature_a_folder_that_cannot_be_written(self, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path, *_: object, **__: object) -> None:
            raise UserError(f"{path}: read-only")

        monkeypatch.setattr(run, "write_manifest", refuse)
        result = checked(prepared)
        assert result.fine
        check = of(result, "content", "GT.lmdb")
        assert check.state is State.NOTE
        assert check.text.endswith(f"cannot be stored: {prepared / 'GT.lmdb'}: read-only")

    def test_feature_pairs(self, prepared: Path) -> None:
        assert of(checked(prepared, pairs=3), "downsampling").facts["pairs"] == 3
        assert of(checked(prepared, pairs=10_000), "downsampling").facts["pairs"] == len(PAIRS[4])
        assert of(checked(prepared, pairs=0), "downsampling").state is State.SKIPPED

    def test_feature_upstream(self, tmp_path: Path) -> None:
        """LMDBs by BasicSR's own writer, under any name."""
        for number, name in enumerate(("train_HR_sub.lmdb", "train_LR_sub.lmdb")):
            folder = tmp_path / name.removesuffix(".lmdb")
            folder.mkdir()
            for key, pair in list(PAIRS[4].items())[:6]:
                cv2.imwrite(str(folder / f"{key}.png"), pair[number])
            files = sorted(path.name for path in folder.iterdir())
            make_lmdb_from_imgs(str(folder), str(tmp_path / name), files, [file.split(".")[0] for file in files])
        result = checked(tmp_path / "train_HR_sub.lmdb", tmp_path / "train_LR_sub.lmdb")
        assert result.fine
        assert of(result, "keys and sizes").text == "6 pairs, x4"
        assert checked(tmp_path / "train_LR_sub.lmdb").fine

    def test_feature_several_scales_in_one_folder(self, prepared: Path) -> None:
        write(prepared / "LQ_x2.lmdb", {key: lq for key, (_, lq) in PAIRS[2].items()})
        result = checked(prepared)
        assert result.fine
        assert [check.of for check in result.checks if check.name == "downsampling"] == [
            "GT.lmdb and LQ_x2.lmdb",
            BOTH,
        ]

    def test_feature_jpeg_quality_is_no_shift(self, tmp_path: Path) -> None:
        def degraded(gt: Image, lq: Image) -> tuple[Image, Image]:
            again = cv2.imdecode(cv2.imencode(".jpg", lq, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
            assert again is not None
            return gt, again

        out = write_set(tmp_path / "set", {key: degraded(*pair) for key, pair in PAIRS[2].items()}, 2)
        result = checked(out)
        assert result.fine
        assert of(result, "downsampling").state is State.NOTE
        record = read_manifest(out / "LQ_x2.lmdb")
        assert record is not None
        assert record["lq"] == "given"


class TestWrong:
    def test_feature_images(self, prepared: Path) -> None:
        keys = list(PAIRS[4])
        whole = png(PAIRS[4][keys[0]][0])
        put(prepared / "GT.lmdb", keys[0], whole[: len(whole) // 2])
        put(prepared / "LQ_x4.lmdb", keys[1], b"no image")
        put(prepared / "LQ_x4.lmdb", keys[2], png(PAIRS[4][keys[2]][1][:, :20]))
        result = checked(prepared)
        assert dict(of(result, "images", "GT.lmdb").items) == {keys[0]: "cut short"}
        assert dict(of(result, "images", "LQ_x4.lmdb").items) == {
            keys[1]: "not an image",
            keys[2]: "20x24, 3 channels, meta_info.txt says 24x24, 3 channels",
        }
        assert wrong(result) == {("GT.lmdb", "images"), ("LQ_x4.lmdb", "images")}
        assert not list(prepared.rglob("manifest.json")), "nothing is stored while something is wrong"

    def test_feature_keys(self, prepared: Path) -> None:
        first, second = list(PAIRS[4])[:2]
        put(prepared / "GT.lmdb", first, None)
        meta = prepared / "LQ_x4.lmdb" / "meta_info.txt"
        meta.write_text("".join(line for line in meta.open() if not line.startswith(second)))
        result = checked(prepared)
        assert dict(of(result, "keys", "GT.lmdb").items) == {first: "in meta_info.txt, not in data.mdb"}
        assert dict(of(result, "keys", "LQ_x4.lmdb").items) == {second: "in data.mdb, not in meta_info.txt"}
        assert dict(of(result, "keys and sizes").items) == {second: "without LQ"}

    def test_feature_content(self, prepared: Path) -> None:
        checked(prepared)
        key = list(PAIRS[4])[3]
        put(prepared / "GT.lmdb", key, bytes(cv2.imencode(".png", PAIRS[4][key][0], [16, 9])[1]))  # the same pixels
        result = checked(prepared)
        assert wrong(result) == {("GT.lmdb", "content")}
        assert "recorded" in of(result, "content", "GT.lmdb").text
        (prepared / "GT.lmdb" / "manifest.json").unlink()
        assert checked(prepared).fine
        assert checked(prepared).fine

    def test_feature_damaged_manifest(self, prepared: Path) -> None:
        (prepared / "LQ_x4.lmdb" / "manifest.json").write_text("{")
        result = checked(prepared)
        assert wrong(result) == {("LQ_x4.lmdb", "content")}
        assert "damaged" in of(result, "content", "LQ_x4.lmdb").items[0][1]

    def test_feature_pages(self, prepared: Path) -> None:
        data = prepared / "GT.lmdb" / "data.mdb"
        os.truncate(data, data.stat().st_size // 2)
        result = checked(prepared)
        assert wrong(result) == {("GT.lmdb", "pages")}
        assert "cut short" in of(result, "pages", "GT.lmdb").text
        assert of(result, "images", "GT.lmdb").state is State.SKIPPED
        assert of(result, "images", "LQ_x4.lmdb").state is State.OK
        assert of(result, "downsampling").state is State.SKIPPED

    def test_feature_swapped_keys(self, prepared: Path) -> None:
        one, *_, two = PAIRS[4]
        put(prepared / "LQ_x4.lmdb", one, png(PAIRS[4][two][1]))
        put(prepared / "LQ_x4.lmdb", two, png(PAIRS[4][one][1]))
        result = checked(prepared)
        assert wrong(result) == {(BOTH, "downsampling")}
        assert {key for key, _ in of(result, "downsampling").items} == {one, two}

    @pytest.mark.parametrize("scale", [2, 4])
    def test_feature_subsampled(self, tmp_path: Path, scale: int) -> None:
        out = write_set(tmp_path / "set", cuts(96, scale, lambda image, s: image[::s, ::s]), scale)
        result = checked(out)
        assert wrong(result) == {(f"GT.lmdb and LQ_x{scale}.lmdb", "downsampling")}
        check = of(result, "downsampling")
        assert f"[::{scale}]" in check.text
        assert check.facts["shift"]["x"] == pytest.approx((scale - 1) / 2, abs=0.1)

    def test_feature_one_sub_image_a_pixel_off(self, tmp_path: Path) -> None:
        pairs = dict(PAIRS[4])
        key = list(pairs)[4]
        gt, lq = pairs[key]
        pairs[key] = (np.roll(gt, -1, 1), lq)
        result = checked(write_set(tmp_path / "set", pairs, 4))
        (item,) = of(result, "downsampling").items
        assert item[0] == key
        assert "1.00 GT pixels further right" in item[1]

    def test_feature_another_scale(self, prepared: Path) -> None:
        result = checked(prepared / "GT.lmdb", prepared / "LQ_x4.lmdb", 2)
        assert of(result, "keys and sizes").count == len(PAIRS[4])

    def test_feature_listing_is_capped(self, tmp_path: Path) -> None:
        images = {f"k{n:04d}": b"no image" for n in range(60)}
        out = write(tmp_path / "a.lmdb", images, [f"{key}.png (4,4,3) 1" for key in images])
        lines = of(checked(out), "images").lines()
        assert len(lines) == 22
        assert lines[0].startswith("wrong   a.lmdb: images: 60 images ")
        assert lines[-1] == "    and 40 more"


class TestNames:
    @pytest.fixture
    def named(self, prepared: Path) -> Path:
        rows = "".join(json.dumps({"key": key, "photo": "a.png", "x": 0, "y": 0}) + "\n" for key in PAIRS[4])
        (prepared / "names.jsonl").write_text(rows)
        (prepared / "dataset.json").write_text(json.dumps({"format": 1, "sub_images": len(PAIRS[4])}))
        return prepared

    def test_smoke(self, named: Path) -> None:
        result = checked(named)
        assert result.fine
        assert {"names.jsonl", "dataset.json"} < {check.of for check in result.checks}
        assert not {"names.jsonl", "dataset.json"} & {check.of for check in checked(named / "GT.lmdb").checks}

    def test_feature_wrong(self, named: Path) -> None:
        path = named / "names.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[1:], lines[2], '{"key": 3}\n', '{"key": "\\u001b"}\n']))
        result = checked(named)
        assert wrong(result) == {("names.jsonl", "keys")}
        (check,) = [check for check in result.checks if check.of == "names.jsonl"]
        assert [what for _, what in check.items] == [
            f"line {len(lines)}: a repeated key",
            f"line {len(lines) + 1}: no key",
            "not in GT",
            "its photo is not named",
        ]
        path.write_text("[1]\n")
        assert wrong(checked(named)) == {("names.jsonl", "keys")}

    @pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"sub_images": 7}', '{"sub_images": "x"}'])
    def test_feature_another_count(self, named: Path, text: str) -> None:
        (named / "dataset.json").write_text(text)
        assert wrong(checked(named, pairs=0)) == {("dataset.json", "count")}


class TestDamage:
    def test_feature_bytes_overwritten_anywhere(self, tmp_path: Path) -> None:
        """It is found, or it has hit nothing that is ever read; with or without a manifest this process lives."""
        images = {key: gt for key, (gt, _) in list(PAIRS[4].items())[:8]}
        path = write(tmp_path / "a.lmdb", images)
        assert checked(path).fine
        data = (path / "data.mdb").read_bytes()
        draw, found = random.Random(7), 0
        for _ in range(15):
            damaged = bytearray(data)
            place = draw.randrange(len(data) - 64)
            damaged[place : place + 64] = draw.randbytes(64)
            (path / "data.mdb").write_bytes(damaged)
            result = checked(path, store=False)
            found += not result.fine
            if result.fine:
                (path / "manifest.json").rename(path / "aside")
                reader = LmdbImages(path)
                assert all(reader.read(key) == png(image) for key, image in images.items())
                del reader
                (path / "aside").rename(path / "manifest.json")
        assert found >= 12


class TestStoredAgain:
    def test_feature_compacted(self, prepared: Path, tmp_path: Path) -> None:
        """Other pages, the same images: the same data for a resumed run."""
        gt = prepared / "GT.lmdb"
        for _ in range(4):
            put(gt, "x", b"x")
            put(gt, "x", None)
        digest = Digest()
        for key in PAIRS[4]:
            digest.update(key, LmdbImages(gt).read(key))
        write_manifest(gt, digest.hexdigest(), kind="gt", encoding="png")
        before = fingerprint({"dataroot_gt": str(gt)})
        (tmp_path / "packed").mkdir()
        environment = lmdb.open(str(gt), readonly=True, lock=False)
        environment.copy(str(tmp_path / "packed"), compact=True)
        environment.close()
        (tmp_path / "packed" / "data.mdb").replace(gt / "data.mdb")
        with pytest.raises(UserError, match="changed since"):
            LmdbImages(gt)
        result = checked(prepared)
        assert result.fine
        assert of(result, "content", "GT.lmdb").text.endswith("; stored")
        record = read_manifest(gt)
        assert record is not None
        assert record["encoding"] == "png", "what was known of it stays"
        assert LmdbImages(gt).keys
        assert changes(before, fingerprint({"dataroot_gt": str(gt)})) == []


class TestTarget:
    def test_exception(self, whole: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "empty").mkdir()
        (tmp_path / "set.unfinished").symlink_to(whole)
        cases = [
            ((tmp_path / "none",), "no such folder"),
            ((tmp_path / "file",), "not a folder"),
            ((tmp_path / "empty",), "neither an LMDB .* nor a prepared folder"),
            ((tmp_path / "set.unfinished",), "still being written"),
            ((whole, whole / "LQ_x4.lmdb"), "with --lq, name the GT LMDB itself"),
            ((whole / "GT.lmdb", None, 4), "name the LQ LMDB with --lq"),
            ((whole, None, 0), "--scale 0"),
        ]
        for arguments, message in cases:
            with pytest.raises(UserError, match=message):
                find_target(*arguments)
        with pytest.raises(UserError, match="no such LMDB"):
            checked(whole / "GT.lmdb", tmp_path / "empty")

    def test_exception_options(self, whole: Path) -> None:
        for options, message in (({"pairs": -1}, "--pairs -1"), ({"workers": 0}, "--workers 0")):
            with pytest.raises(UserError, match=message):
                checked(whole, **options)


def everything(path: Path) -> dict[bytes, bytes]:
    """All that LMDB reads of a copy, key by key."""
    environment = lmdb.open(str(path), readonly=True, lock=False, create=False)
    with environment.begin() as transaction:
        found = {bytes(key): bytes(transaction.get(key)) for key in transaction.cursor().iternext(values=False)}
    environment.close()
    return found


class TestFlippedBits:
    @pytest.mark.parametrize("part", ["headers", "first 16 KB", "anywhere"])
    def test_feature_seen_or_never_read(self, prepared: Path, tmp_path: Path, part: str) -> None:
        """Much of a data.mdb is read by nothing: the older of its two headers, counts, free space within pages."""
        checked(prepared)  # stores the fingerprint
        path = prepared / "LQ_x4.lmdb"
        whole = (path / "data.mdb").read_bytes()
        before = everything(shutil.copytree(path, tmp_path / "before.lmdb"))
        draw = random.Random(part)
        seen = 0
        for number in range(24):
            data = bytearray(whole)
            place = draw.randrange({"headers": 8192, "first 16 KB": 16384, "anywhere": len(data)}[part])
            if part == "headers":
                place = place // 4096 * 4096 + place % 152  # what follows is empty
            data[place] ^= draw.choice((1 << draw.randrange(8), draw.randrange(1, 256)))
            (path / "data.mdb").write_bytes(data)
            try:
                fine = checked(path, store=False).fine
            except UserError:
                fine = False
            seen += not fine
            if fine:
                assert everything(shutil.copytree(path, tmp_path / f"{number}.lmdb")) == before, place
        assert seen > 2
