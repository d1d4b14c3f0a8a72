import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset

from gramgan_plugin.data import fingerprint as module
from gramgan_plugin.data.fingerprint import changes, fingerprint
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.lmdb_manifest import Digest, write_manifest
from gramgan_plugin.prepare.pack import Report


@pytest.fixture
def folder(prepared: Report, tmp_path: Path) -> Path:
    """Photos with some in a subfolder, one linked, and files that are no images."""
    images = LmdbImages(prepared.gt)
    root = tmp_path / "GT"
    (root / "sub").mkdir(parents=True)
    for number, key in enumerate(images.keys[:6]):
        (root / ("sub" if number > 3 else ".") / f"{key}.png").write_bytes(images.read(key))
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    (root / "linked.png").symlink_to(root / "sub" / f"{images.keys[4]}.png")
    return root


def of(path: Any) -> dict[str, Any]:
    (found,) = fingerprint({"dataroot_gt": str(path)})["roots"]["dataroot_gt"]
    return dict(found)


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    lines = changes({"roots": {"dataroot_gt": [before]}}, {"roots": {"dataroot_gt": [now]}})
    assert len(lines) <= 1
    return lines[0] if lines else None


def stored(path: Path, images: dict[str, bytes]) -> None:
    """Write the manifest of an LMDB that holds these."""
    digest = Digest()
    for key, data in images.items():
        digest.update(key, data)
    write_manifest(path, digest.hexdigest())


class TestFolder:
    def test_feature(self, folder: Path) -> None:
        files = [path for path in folder.rglob("*.png") if not path.name.startswith(".")]
        lines = sorted(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode() for path in files)
        assert of(folder) == {
            "kind": "folder",
            "files": 7,
            "bytes": sum(path.stat().st_size for path in files),
            "names": hashlib.sha256(b"".join(lines)).hexdigest(),
        }

    def test_feature_a_copy_is_the_same(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = of(folder)
        shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
        for path in (tmp_path / "elsewhere" / "copy").rglob("*.png"):
            os.utime(path, (1, 1))
        assert of(tmp_path / "elsewhere" / "copy") == before
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert of("~/GT") == of("GT") == of("elsewhere/../GT/") == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda some: some.unlink(), "dataroot_gt: 6 files, were 7"),
            (lambda some: shutil.copy(some, some.with_name("more.png")), "dataroot_gt: 8 files, were 7"),
            (lambda some: some.write_bytes(b"short"), "dataroot_gt: {bytes} bytes, were {before}"),
            (lambda some: some.rename(some.with_name("other.png")), "dataroot_gt: names or sizes of some"),
        ],
    )
    def test_feature_changes(self, folder: Path, change: Callable[[Path], object], message: str) -> None:
        before = of(folder)
        change(min((folder / "sub").iterdir()) if "bytes" in message else min(folder.glob("0*.png")))
        now = of(folder)
        line = difference(before, now)
        assert line is not None
        assert line.startswith(message.format(bytes=now["bytes"], before=before["bytes"]))
        (folder / "notes.txt").write_text("longer")
        (folder / ".hidden2.png").touch()
        assert difference(now, of(folder)) is None

    def test_feature_links_in_a_circle_and_broken_ones(self, folder: Path) -> None:
        before = of(folder)
        (folder / "sub" / "up").symlink_to(folder)
        (folder / "nothing.png").symlink_to(folder / "nowhere.png")
        (folder / "itself.png").symlink_to(folder / "itself.png")
        assert of(folder) == before

    def test_feature_names_that_are_no_unicode(self, folder: Path) -> None:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"x")
        assert of(folder)["files"] == 8


class TestLmdb:
    @pytest.fixture
    def copy(self, prepared: Report, tmp_path: Path) -> Path:
        return Path(shutil.copytree(prepared.gt, tmp_path / "copy.lmdb"))

    def write(self, path: Path, key: str, data: bytes) -> None:
        environment = lmdb.open(str(path), map_size=2**30, lock=False)
        with environment.begin(write=True) as transaction:
            transaction.put(key.encode(), data)
        environment.close()

    def test_feature(self, prepared: Report, copy: Path) -> None:
        found = of(prepared.gt)
        assert found["kind"] == "lmdb"
        assert found["entries"] == prepared.sub_images
        assert found["meta_info"] == hashlib.sha256((prepared.gt / "meta_info.txt").read_bytes()).hexdigest()
        assert 0 < found["bytes"] <= (prepared.gt / "data.mdb").stat().st_size
        assert of(copy) == found

    def test_feature_room_that_is_not_used_does_not_count(self, prepared: Report, copy: Path) -> None:
        """Some systems give the file the size of its map."""
        os.truncate(copy / "data.mdb", (copy / "data.mdb").stat().st_size + 2**20)
        assert of(copy) == of(prepared.gt)

    def test_feature_an_image_is_replaced(self, prepared: Report, copy: Path) -> None:
        key = LmdbImages(copy).keys[0]
        data = LmdbImages(copy).read(key)
        self.write(copy, key, data + data)
        line = difference(of(prepared.gt), of(copy))
        assert line is not None
        assert " bytes, were " in line

    def test_feature_an_image_is_replaced_by_one_of_its_size(self, prepared: Report, copy: Path) -> None:
        keys = LmdbImages(copy).keys
        self.write(copy, keys[0], b"0" * len(LmdbImages(copy).read(keys[0])))
        before, now = of(prepared.gt), of(copy)
        assert difference(before, now) is not None
        assert difference(before, {**now, "bytes": before["bytes"]}) == "dataroot_gt: written to since"

    def test_feature_other_changes(self, prepared: Report, copy: Path) -> None:
        before = of(copy)
        self.write(copy, "more", b"x")
        assert (
            difference(before, of(copy))
            == f"dataroot_gt: {prepared.sub_images + 1} entries, were {prepared.sub_images}"
        )
        (copy / "meta_info.txt").write_text((copy / "meta_info.txt").read_text().replace(" 1\n", " 9\n", 1) + "\n")
        line = difference({**of(copy), "meta_info": before["meta_info"]}, of(copy))
        assert line == "dataroot_gt: meta_info.txt is not the same"

    def test_feature_compacted_or_packed_again(self, copy: Path, tmp_path: Path) -> None:
        images = {key: LmdbImages(copy).read(key) for key in LmdbImages(copy).keys}
        for _ in range(4):
            self.write(copy, min(images), b"0")
            self.write(copy, min(images), images[min(images)])
        stored(copy, images)
        before = of(copy)
        again = tmp_path / "again.lmdb"
        again.mkdir()
        environment = lmdb.open(str(copy), lock=False, readonly=True)
        environment.copy(str(again), compact=True)
        environment.close()
        shutil.copy(copy / "meta_info.txt", again)
        stored(again, images)
        now = of(again)
        assert now["bytes"] != before["bytes"] or now["transactions"] != before["transactions"]
        assert difference(before, now) is None
        older = {key: value for key, value in before.items() if key != "content"}
        assert difference(older, before) is None
        assert difference(before, older) is None
        assert difference(older, now) is not None, "a checkpoint of before manifests goes by the pages"

    def test_feature_another_content_of_equal_extent(self, copy: Path, tmp_path: Path) -> None:
        images = {key: LmdbImages(copy).read(key) for key in LmdbImages(copy).keys}
        stored(copy, images)
        before = of(copy)
        one = min(images)
        data = bytearray((copy / "data.mdb").read_bytes())
        place = data.index(images[one][-64:])
        data[place] ^= 1
        (copy / "data.mdb").write_bytes(data)
        assert difference(before, of(copy)) is None, "not seen before it is read"
        images[one] = LmdbImages(copy).read(one)
        stored(copy, images)
        assert difference(before, of(copy)) == "dataroot_gt: its content is not the same"

    def test_feature_a_manifest_that_no_longer_fits_does_not_count(self, copy: Path) -> None:
        stored(copy, {})
        assert "content" in of(copy)
        self.write(copy, "more", b"x")
        assert "content" not in of(copy)
        (copy / "manifest.json").write_text("{")
        assert "content" not in of(copy)

    def test_feature_others_have_it_open(self, prepared: Report) -> None:
        opt = {"phase": "train", "scale": 4, "gt_size": 32, "use_hflip": True, "use_rot": True}
        roots = {"dataroot_gt": str(prepared.gt), "dataroot_lq": str(prepared.lq)}
        dataset = PairedImageDataset({**opt, **roots, "io_backend": {"type": "lmdb"}})
        whole = of(prepared.gt)
        assert dataset[0]["gt"].shape == (3, 32, 32), "the fingerprint has let it go"
        found = of(prepared.gt)
        assert found == {"kind": "lmdb", "meta_info": whole["meta_info"]}
        assert difference(whole, found) is None
        assert difference(found, whole) is None


class TestFingerprint:
    def test_feature_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "meta.txt"
        path.write_text("a.png\nb.png\n")
        found = fingerprint({"meta_info": str(path), "meta_info_file": str(path)})["roots"]
        expected = {"kind": "file", "bytes": 12, "content": hashlib.sha256(b"a.png\nb.png\n").hexdigest()}
        assert found == {"meta_info": [expected], "meta_info_file": [expected]}
        path.write_text("a.png\nc.png\n")
        before = {"roots": found}
        assert changes(before, fingerprint({"meta_info": str(path)})) == ["meta_info: its content is not the same"]
        monkeypatch.setattr(module, "WHOLE_FILE", 10)
        monkeypatch.setattr(module, "MIB", 4)
        large = of(path)
        assert large["content"] == hashlib.sha256(b"a.pnpng\n").hexdigest()

    def test_feature_lists(self, folder: Path, prepared: Report) -> None:
        both = fingerprint({"dataroot_gt": [str(folder), str(prepared.gt)]})
        assert both["roots"]["dataroot_gt"] == [of(folder), of(prepared.gt)]
        assert fingerprint({"dataroot_gt": [str(folder)]}) == fingerprint({"dataroot_gt": str(folder)})
        min(folder.glob("0*.png")).unlink()
        one = fingerprint({"dataroot_gt": str(folder)})
        assert changes(both, one) == ["dataroot_gt: 1 paths, were 2"]
        now = fingerprint({"dataroot_gt": [str(folder), str(prepared.gt)]})
        assert changes(both, now) == ["dataroot_gt[0]: 6 files, were 7"]
        turned = fingerprint({"dataroot_gt": [str(prepared.gt), str(folder)]})
        assert changes(now, turned) == [
            "dataroot_gt[0]: an LMDB, was a folder",
            "dataroot_gt[1]: a folder, was an LMDB",
        ]

    def test_feature_paths_that_are_not_there(self, folder: Path) -> None:
        options = {"dataroot_gt": str(folder), "dataroot_lq": str(folder / "none"), "meta_info": None}
        assert fingerprint(options)["roots"].keys() == {"dataroot_gt"}
        assert fingerprint({"dataroot_gt": [str(folder), "none"]})["roots"] == {}

    def test_feature_options(self) -> None:
        options = {
            "name": "a",
            "type": "PairedSRDataset",
            "phase": "train",
            "scale": 4,
            "gt_size": 128,
            "use_hflip": True,
            "mean": (0.5, 0.5, 0.5),
            "io_backend": {"type": "lmdb"},
            "num_worker_per_gpu": 6,
            "batch_size_per_gpu": 16,
            "dataset_enlarge_ratio": 100,
            "max_unreadable": 0.5,
            "kernels": "/some/where/kernels.npy",
            "list": [None],
            "tensor": torch.zeros(3),
            "inner": {"a": 1, "b": object()},
            "lq": None,
        }
        found = fingerprint(options)
        assert found == {
            "roots": {},
            "options": {
                "gt_size": 128,
                "inner": {"a": 1},
                "mean": [0.5, 0.5, 0.5],
                "scale": 4,
                "type": "PairedSRDataset",
                "use_hflip": True,
            },
        }
        assert json.loads(json.dumps(found)) == found
        now = fingerprint({**options, "gt_size": 192, "use_hflip": None, "use_rot": False})
        assert changes(found, now) == [
            "gt_size: 192, was 128",
            "use_hflip: not set, was True",
            "use_rot: False, was not set",
        ]
        assert changes(found, fingerprint({**options, "name": "b", "num_worker_per_gpu": 0})) == []

    def test_feature_through_a_checkpoint(self, folder: Path, prepared: Report) -> None:
        found = fingerprint({"dataroot_gt": [str(folder), str(prepared.gt)], "mean": (0.5, 0.5), "scale": 4})
        buffer = io.BytesIO()
        torch.save(found, buffer)
        buffer.seek(0)
        assert changes(torch.load(buffer, weights_only=True), found) == []

    @pytest.mark.parametrize("before", [{}, {"roots": None}, {"roots": {}}])
    def test_feature_what_was_not_recorded_is_not_compared(self, folder: Path, before: dict[str, Any]) -> None:
        now = fingerprint({"dataroot_gt": str(folder), "scale": 4})
        assert changes(before, now) == []
        assert changes({**before, "options": {}}, now) == ["scale: 4, was not set"]
