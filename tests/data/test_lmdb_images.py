import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter


def write(path: Path, images: dict[str, bytes], map_size: int = 2**20) -> None:
    writer = LmdbWriter(path, map_size)
    for key, data in images.items():
        writer.put({key: data}, {key: (4, 5, 3)}, 3)
    writer.close()


def read_into(images: LmdbImages, key: str, queue: "multiprocessing.Queue[bytes]") -> None:
    queue.put(images.read(key))


def compare_into(images: LmdbImages, key: str, queue: "multiprocessing.Queue[bool]") -> None:
    inherited = images._environment
    images.read(key)
    queue.put(images._environment is inherited)


class TestLmdbWriter:
    def test_feature_outgrows_the_map(self, tmp_path: Path) -> None:
        random = np.random.RandomState(0)
        images = {f"00000{n}_s001": random.bytes(300_000) for n in range(9)}
        write(tmp_path / "a.lmdb", images, map_size=64 * 1024)  # smaller than one image
        assert (tmp_path / "a.lmdb" / "data.mdb").stat().st_size > 9 * 300_000
        reader = LmdbImages(tmp_path / "a.lmdb")
        assert reader.keys == list(images)
        assert all(reader.read(key) == data for key, data in images.items())

    def test_feature_meta_info(self, tmp_path: Path) -> None:
        write(tmp_path / "a.lmdb", {"000001_s001": b"x", "000001_s002": b"y"})
        lines = (tmp_path / "a.lmdb" / "meta_info.txt").read_text()
        assert lines == "000001_s001.png (4,5,3) 3\n000001_s002.png (4,5,3) 3\n"


class TestLmdbImages:
    def test_smoke_two_readers_of_one_path(self, tmp_path: Path) -> None:
        write(tmp_path / "a.lmdb", {"k": b"data"})
        one, two = LmdbImages(tmp_path / "a.lmdb"), LmdbImages(tmp_path / "a.lmdb")
        assert one.read("k") == two.read("k") == b"data"

    def test_feature_leaves_no_file(self, tmp_path: Path) -> None:
        write(tmp_path / "a.lmdb", {"k": b"data"})
        (tmp_path / "a.lmdb" / "data.mdb").chmod(0o444)
        assert LmdbImages(tmp_path / "a.lmdb").read("k") == b"data"
        assert sorted(p.name for p in (tmp_path / "a.lmdb").iterdir()) == ["data.mdb", "meta_info.txt"]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    @pytest.mark.parametrize("opened", [False, True])
    def test_feature_in_another_process(self, tmp_path: Path, method: str, opened: bool) -> None:
        write(tmp_path / "a.lmdb", {"k": b"data"})
        images = LmdbImages(tmp_path / "a.lmdb")
        if opened:
            images.read("k")
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=read_into, args=(images, "k", queue))
        process.start()
        assert queue.get(timeout=60) == b"data"
        process.join()
        assert images.read("k") == b"data"

    def test_feature_fork_opens_its_own(self, tmp_path: Path) -> None:
        """LMDB forbids the use of an environment that a fork has inherited."""
        write(tmp_path / "a.lmdb", {"k": b"data"})
        images = LmdbImages(tmp_path / "a.lmdb")
        images.read("k")
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=compare_into, args=(images, "k", queue))
        process.start()
        assert queue.get(timeout=60) is False
        process.join()

    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such LMDB"):
            LmdbImages(tmp_path / "none.lmdb")
        path = tmp_path / "a.lmdb"
        write(path, {"k": b"data"})
        meta = path / "meta_info.txt"
        meta.write_text("k.png (4,5,3) 3\nl.png (4,5,3) 3\n")
        with pytest.raises(UserError, match=r"lists 2 keys, data.mdb has 1"):
            LmdbImages(path)
        meta.write_text("other.png (4,5,3) 3\n")
        with pytest.raises(UserError, match=r"lists other, data.mdb does not hold it"):
            LmdbImages(path).read("other")
        meta.write_text("k.png\n")
        with pytest.raises(UserError, match="line 1: expected"):
            LmdbImages(path)
        meta.write_text("")
        with pytest.raises(UserError, match="lists no images"):
            LmdbImages(path)
        meta.unlink()
        with pytest.raises(UserError, match=r"has no meta_info.txt"):
            LmdbImages(path)

    def test_exception_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lmdb"
        write(path, {"k": b"data"})
        (path / "data.mdb").write_bytes(b"x" * 9000)
        with pytest.raises(UserError, match="cannot be opened as an LMDB"):
            LmdbImages(path)

    def test_exception_cut_short(self, tmp_path: Path) -> None:
        """Reading behind the end of the file would kill the process."""
        path = tmp_path / "a.lmdb"
        write(path, {f"k{n}": bytes(20_000) for n in range(9)})
        whole = (path / "data.mdb").read_bytes()
        (path / "data.mdb").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"data\.mdb: cut short, \d+ of \d+ bytes"):
            LmdbImages(path)

    def test_exception_damaged_inside(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lmdb"
        write(path, {f"k{n}": b"data" for n in range(3)})
        data = bytearray((path / "data.mdb").read_bytes())
        data[2 * 4096 :] = bytes(len(data) - 2 * 4096)  # the two head pages stay
        (path / "data.mdb").write_bytes(data)
        with pytest.raises(UserError, match=r"data\.mdb is damaged"):
            LmdbImages(path).read("k1")
