import json
from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.data.lmdb_images import LmdbImages, LmdbWriter
from gramgan_plugin.data.lmdb_manifest import read_manifest
from gramgan_plugin.errors import UserError

SHAPE = (4, 5, 3)


def images(first: int, last: int) -> dict[str, bytes]:
    return {f"{n:06d}_s001": np.random.RandomState(n).bytes(20_000) for n in range(first, last)}


def put(writer: LmdbWriter, given: dict[str, bytes]) -> None:
    writer.put(given, dict.fromkeys(given, SHAPE), 1)


class TestLmdbWriter:
    def test_feature_goes_on_from_a_state(self, tmp_path: Path) -> None:
        whole = LmdbWriter(tmp_path / "whole.lmdb")
        for first in range(0, 30, 10):
            put(whole, images(first, first + 10))
        whole.close({"kind": "gt"})

        path = tmp_path / "GT.lmdb"
        writer = LmdbWriter(path, map_size=64 * 1024)
        put(writer, images(0, 10))
        state = json.loads(json.dumps(writer.state()))
        put(writer, images(10, 20))  # done, but not known to be
        writer.discard()
        writer = LmdbWriter(path, map_size=64 * 1024, state=state)
        put(writer, images(10, 20))
        put(writer, images(20, 30))
        writer.close({"kind": "gt"})
        assert (path / "meta_info.txt").read_bytes() == (tmp_path / "whole.lmdb" / "meta_info.txt").read_bytes()
        assert read_manifest(path) == read_manifest(tmp_path / "whole.lmdb")
        read = LmdbImages(path)
        assert {key: read.read(key) for key in read.keys} == images(0, 30)

    def test_feature_closed_and_opened_again(self, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        put(writer, images(0, 3))
        state = writer.state()
        writer.close({"kind": "gt"})
        writer = LmdbWriter(tmp_path / "GT.lmdb", state=state)
        assert not (tmp_path / "GT.lmdb" / "meta_info.txt").exists()
        put(writer, images(3, 4))
        writer.close({"kind": "gt"})
        assert len(LmdbImages(tmp_path / "GT.lmdb").keys) == 4

    def test_feature_nothing_to_read_before_it_is_closed(self, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        put(writer, images(0, 3))
        with pytest.raises(UserError, match=r"has no meta_info.txt"):
            LmdbImages(tmp_path / "GT.lmdb")
        writer.close()
        assert len(LmdbImages(tmp_path / "GT.lmdb").keys) == 3

    def test_exception_less_than_the_state(self, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        put(writer, images(0, 3))
        state = writer.state()
        writer.discard()
        (tmp_path / "GT.lmdb" / "data.mdb").unlink()
        with pytest.raises(ValueError, match="holds less than was written to it"):
            LmdbWriter(tmp_path / "GT.lmdb", state=state)
