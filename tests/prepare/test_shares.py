"""Packing a share of the photos, and packing to shards."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from gramgan_plugin.cli.main import main
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.shards import Shards
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare import pack
from gramgan_plugin.prepare.folders import folder_photos
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.presets import Preset
from tests.survival import in_child, killed_at


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, draw = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), draw.integers(0, 256, (96, 128, 3), np.uint8))
    return folder


def settings(**more: object) -> Settings:
    return Settings(4, Preset(48, 48, 0), **more)


def content(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    gt, lq = LmdbImages(folder / "GT.lmdb"), LmdbImages(folder / "LQ_x4.lmdb")
    return {key: (gt.read(key), lq.read(key)) for key in gt.keys}


def shard_content(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    shards = Shards([str(folder / "shards")])
    pairs = [shards.read(number) for number in range(len(shards))]
    return {pair.key: (pair.gt, pair.lq) for pair in pairs}


def test_shares_make_up_the_whole(photos: Path, tmp_path: Path) -> None:
    common = ["--crop-size", "48", "--step", "48", "--hold-out", "3", "--workers", "1"]
    assert main(["prepare", "folder", str(photos), "--out", str(tmp_path / "whole"), *common]) == 0
    parts = []
    for part in (1, 2, 3):
        out = tmp_path / f"part{part}"
        assert main(["prepare", "folder", str(photos), "--out", str(out), "--shard", f"{part}/3", *common]) == 0
        parts.append(content(out))
    assert [len(part) for part in parts] == [12, 6, 6]
    assert {key: value for part in parts for key, value in part.items()} == content(tmp_path / "whole")
    held = [sorted(path.name for path in (tmp_path / f"part{part}").rglob("test/GT/*")) for part in (1, 2, 3)]
    assert held == [["3.png"], [], []]


def test_shards_hold_what_the_lmdbs_would(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--crop-size", "48", "--step", "48", "--encoding", "fast", "--workers", "1"]
    assert main(["prepare", "folder", str(photos), "--out", str(tmp_path / "lmdb"), *common]) == 0
    capsys.readouterr()
    assert main(["prepare", "folder", str(photos), "--out", str(tmp_path / "sharded"), "--to", "shards", *common]) == 0
    assert f"datasets.train.dataroot_shards: {tmp_path / 'sharded' / 'shards'}" in capsys.readouterr().out
    assert shard_content(tmp_path / "sharded") == content(tmp_path / "lmdb")
    assert not list((tmp_path / "sharded").glob("*.lmdb"))
    assert (tmp_path / "sharded/names.jsonl").read_bytes() == (tmp_path / "lmdb/names.jsonl").read_bytes()


def test_killed_anywhere_it_is_resumed(photos: Path, tmp_path: Path) -> None:
    for name in "234":
        (photos / f"{name}.png").unlink()

    def work() -> None:
        pack.prepare_photos(folder_photos(photos), tmp_path / "out", settings(as_shards=True), progress=False)

    number, codes = 0, []
    while not codes or codes[-1] != 0:
        number += 1
        codes.append(in_child(killed_at(number, work, [(shutil, "rmtree")])))
        if not (tmp_path / "out").exists():  # it has this name once it is complete
            assert in_child(work) == 0
        assert len(shard_content(tmp_path / "out")) == 2 * 6
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "names.jsonl", "shards"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
        shutil.rmtree(tmp_path / "out")
    assert set(codes[:-1]) == {-9}
    assert number > 15, "each sync, rename and removal"


def test_what_is_in_shards_is_not_packed_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        pack.prepare_photos(folder_photos(photos), tmp_path / "out", settings(as_shards=True), progress=False)

    real = pack._to_shards

    def stopped(*arguments: object) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(pack, "_to_shards", stopped)
    with pytest.raises(KeyboardInterrupt):
        work()
    monkeypatch.setattr(pack, "_to_shards", real)
    monkeypatch.setattr(pack, "_pack_all", lambda *arguments: pytest.fail("packed again"))
    work()
    assert len(shard_content(tmp_path / "out")) == 5 * 6


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2"])
def test_a_share_that_is_none(text: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "folder", str(photos), "--out", "out", f"--shard={text}"])
    assert caught.value.code == 2
    assert "argument --shard: expected I/N, such as 2/16" in capsys.readouterr().err


def test_a_share_without_photos(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"share 7/7: none of the 5 photos is in it"):
        pack.prepare_photos(folder_photos(photos), tmp_path / "out", settings(share=(7, 7)), progress=False)
