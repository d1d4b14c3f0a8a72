import os
from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.data.lmdb_environment import extent
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.lmdb_manifest import read_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter

SHAPE = (4, 5, 3)


def images(first: int, last: int) -> dict[str, bytes]:
    return {f"{n:06d}_s001": np.random.RandomState(n).bytes(20_000) for n in range(first, last)}


def put(writer: LmdbWriter, given: dict[str, bytes], facts: dict[str, int] | None = None) -> None:
    writer.put(given, dict.fromkeys(given, SHAPE), 1, facts)


class TestLmdbWriter:
    def test_feature_continued(self, tmp_path: Path) -> None:
        path = tmp_path / "GT.lmdb"
        writer = LmdbWriter(path, map_size=64 * 1024)
        put(writer, images(0, 10), {"done": 1})
        put(writer, images(90, 95))  # which the other LMDB of the pair does not have
        writer.discard()
        writer = LmdbWriter(path, map_size=64 * 1024)
        assert (writer.puts, list(writer.facts())) == (2, [{"done": 1}, None])
        writer.rewind(1)
        put(writer, images(10, 20))
        writer.close()
        read = LmdbImages(path)
        assert {key: read.read(key) for key in read.keys} == images(0, 20)
        assert read.disagreement() is None

    def test_feature_the_same_as_without_a_pause(self, tmp_path: Path) -> None:
        for name, pauses in (("whole", 0), ("parts", 2)):
            writer = LmdbWriter(tmp_path / f"{name}.lmdb", map_size=64 * 1024)
            for number, first in enumerate(range(0, 30, 10)):
                put(writer, images(first, first + 10))
                if number < pauses:
                    writer.discard()
                    writer = LmdbWriter(tmp_path / f"{name}.lmdb", map_size=64 * 1024)
            writer.close({"kind": "gt"})
        whole, parts = (tmp_path / f"{name}.lmdb" for name in ("whole", "parts"))
        assert (parts / "meta_info.txt").read_bytes() == (whole / "meta_info.txt").read_bytes()
        assert read_manifest(parts) == read_manifest(whole)
        read = LmdbImages(parts)
        assert {key: read.read(key) for key in read.keys} == images(0, 30)
        assert extent(parts)["entries"] == 30, "no records are left"

    def test_feature_fewer_than_before(self, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        for first in range(0, 30, 10):
            put(writer, images(first, first + 10))
        writer.rewind(0)
        put(writer, images(0, 10))
        writer.close()
        read = LmdbImages(tmp_path / "GT.lmdb")
        assert sorted(read.keys) == sorted(images(0, 10))
        assert read.disagreement() is None

    def test_feature_nothing_to_read_before_it_is_closed(self, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        put(writer, images(0, 3))
        with pytest.raises(UserError, match=r"has no meta_info.txt"):
            LmdbImages(tmp_path / "GT.lmdb")
        writer.close()
        assert len(LmdbImages(tmp_path / "GT.lmdb").keys) == 3

    def test_exception_truncated(self, tmp_path: Path) -> None:
        """Reading beyond the end of a mapped file would kill the process."""
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        put(writer, images(0, 30))
        writer.discard()
        data = tmp_path / "GT.lmdb" / "data.mdb"
        os.truncate(data, data.stat().st_size // 2)
        with pytest.raises(UserError, match="cut short"):
            LmdbWriter(tmp_path / "GT.lmdb")
