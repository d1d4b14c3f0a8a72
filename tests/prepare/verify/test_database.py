import os
import random
import shutil
import struct
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.verify import database as module
from gramgan_plugin.prepare.verify.database import Database, decoded, walk
from gramgan_plugin.prepare.verify.outcome import Check, State
from tests.prepare.verify.lmdbs import photos, png, write

PHOTO = photos()[0][:48, :64]
PAGE = 4096


def found(check: Check) -> dict[str, str]:
    return dict(check.items)


class TestDecoded:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
    def test_smoke(self, suffix: str) -> None:
        data = cv2.imencode(suffix, PHOTO)[1].tobytes()
        pixels, problem = decoded(data, (48, 64, 3))
        assert problem is None
        assert pixels is not None
        assert np.array_equal(pixels, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))

    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
    @pytest.mark.parametrize("lost", [1, 12, 20, 1000])
    def test_feature_cut_short(self, suffix: str, lost: int, capfd: pytest.CaptureFixture[str]) -> None:
        data = cv2.imencode(suffix, PHOTO)[1].tobytes()
        assert decoded(data[:-lost], (48, 64, 3))[1] is not None
        assert capfd.readouterr().err == ""

    def test_feature_flipped_bits_of_a_png(self, capfd: pytest.CaptureFixture[str]) -> None:
        data = png(PHOTO)
        for place in range(8, len(data), 97):
            broken = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
            assert decoded(broken, (48, 64, 3))[1] is not None, place
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"BM", bytes(1000), b"\xff\xd8\xff\xe0"])
    def test_feature_no_image(self, data: bytes) -> None:
        assert decoded(data, (48, 64, 3))[1] is not None

    def test_feature_sizes_and_channels(self) -> None:
        assert decoded(png(PHOTO), (64, 48, 3))[1] == "64x48, 3 channels, meta_info.txt says 48x64, 3 channels"
        gray = png(PHOTO[..., 0])
        assert decoded(gray, (48, 64, 1))[1] is None
        assert decoded(gray, (48, 64, 3))[1] == "64x48, 1 channels, meta_info.txt says 64x48, 3 channels"
        alpha = png(cv2.cvtColor(PHOTO, cv2.COLOR_BGR2BGRA))
        assert decoded(alpha, (48, 64, 4))[1] is None
        deep = png(PHOTO[..., 0].astype(np.uint16) * 257)
        pixels, problem = decoded(deep, (48, 64, 1))
        assert problem is None
        assert pixels is not None
        assert pixels.dtype == np.uint8


class TestLook:
    def inspect(self, path: Path) -> dict[str, Check]:
        database = Database(path)
        database.inspect(False)
        return {check.name: check for check in database.checks}

    def test_feature(self, tmp_path: Path) -> None:
        checks = self.inspect(write(tmp_path / "a.lmdb", {"a": PHOTO, "b": PHOTO}))
        assert {check.state for check in checks.values()} == {State.OK}
        assert checks["list"].text == "2 images in meta_info.txt"

    def test_feature_keys(self, tmp_path: Path) -> None:
        lines = ["a.png (48,64,3) 1", "c.png (48,64,3) 1", "a.png (48,64,3) 1", "d (1,1,1)", "é.png (48,64,3) 1", ""]
        checks = self.inspect(write(tmp_path / "a.lmdb", {"a": PHOTO, "b": PHOTO, "k\x00ö": PHOTO}, lines))
        assert found(checks["keys"]) == {
            "b": "in data.mdb, not in meta_info.txt",
            "c": "in meta_info.txt, not in data.mdb",
            "k\x00ö": "in data.mdb, not in meta_info.txt",
            "\\xc3\\xa9": "in meta_info.txt, not in data.mdb",
        }
        assert checks["list"].count == 3
        assert ("a", "line 3: listed a second time") in checks["list"].items

    def test_feature_nothing_in_it(self, tmp_path: Path) -> None:
        assert self.inspect(write(tmp_path / "a.lmdb", {}))["list"].items == [("", "lists no images")]

    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such LMDB"):
            Database(tmp_path)
        path = write(tmp_path / "a.lmdb", {"a": PHOTO})
        (path / "meta_info.txt").unlink()
        with pytest.raises(UserError, match=r"a\.lmdb: has no meta_info\.txt"):
            Database(path)


class TestWalk:
    @pytest.fixture(scope="class")
    @staticmethod
    def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
        rng = np.random.default_rng(0)
        images = {f"{n:06d}_s{n % 7:03d}": rng.bytes(int(rng.integers(100, 9000))) for n in range(500)}
        return write(tmp_path_factory.mktemp("whole") / "a.lmdb", images, [f"{key}.png (1,1,3) 1" for key in images])

    def test_smoke(self, whole: Path) -> None:
        keys = list(walk(whole, False))
        assert keys == [line.partition(".")[0] for line in (whole / "meta_info.txt").read_text().splitlines()]

    def test_feature_random_damage(self, whole: Path, tmp_path: Path) -> None:
        """Whatever is overwritten, this process lives; what is called readable can be read."""
        data = (whole / "data.mdb").read_bytes()
        inner = [n for n in range(2, len(data) // PAGE) if self.is_inner(data, n)]
        broken = tmp_path / "b.lmdb"
        shutil.copytree(whole, broken)
        draw, refused = random.Random(3), 0
        for number in range(40):
            damaged = bytearray(data)
            page = draw.choice([0, 1, 1] if number < 6 else inner)
            place = page * PAGE + draw.choice([draw.randrange(150), draw.randrange(PAGE)])
            junk = draw.randbytes(min(draw.choice([1, 2, 8, 300]), len(data) - place))
            damaged[place : place + len(junk)] = junk
            (broken / "data.mdb").write_bytes(damaged)
            database = Database(broken)
            database.inspect(False)
            if database.stored is None:
                pages = database.checks[1]
                assert pages.text.startswith(f"{broken / 'data.mdb'}: damaged (")
                assert len(pages.text.splitlines()) == 1
                refused += 1
                continue
            keys = database.stored
            del database
            environment = lmdb.open(str(broken), readonly=True, lock=False)
            with environment.begin() as transaction:
                assert all(transaction.get(key.encode("utf-8", "surrogateescape")) is not None for key in keys)
            environment.close()
        assert refused >= 5

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="other systems end otherwise")
    def test_feature_what_would_kill_this_process(self, whole: Path, tmp_path: Path) -> None:
        """An image that claims to end far behind the end of the file."""
        data = bytearray((whole / "data.mdb").read_bytes())
        for page in range(2, len(data) // PAGE):
            if self.is_inner(data, page) and struct.unpack_from("<H", data, page * PAGE + 10)[0] == 2:
                node = page * PAGE + struct.unpack_from("<H", data, page * PAGE + 16)[0]
                struct.pack_into("<H", data, node + 2, 0x0800)  # the high half of its length: 128 MiB
        shutil.copytree(whole, tmp_path / "b.lmdb")
        (tmp_path / "b.lmdb" / "data.mdb").write_bytes(data)
        with pytest.raises(UserError, match=r"damaged \(LMDB crashed on it after \d+ images\)"):
            list(walk(tmp_path / "b.lmdb", False))

    def is_inner(self, data: bytes | bytearray, page: int) -> bool:
        """A branch or leaf, not a page of an image."""
        number, _, flags = struct.unpack_from("<QHH", data, page * PAGE)
        return number == page and flags in (1, 2)

    @pytest.mark.parametrize("share", [0.0, 0.0005, 0.3, 0.9, 0.9999])
    def test_feature_cut_short(self, whole: Path, tmp_path: Path, share: float) -> None:
        shutil.copytree(whole, tmp_path / "b.lmdb")
        data = (whole / "data.mdb").read_bytes()
        (tmp_path / "b.lmdb" / "data.mdb").write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match=r"data\.mdb: damaged \("):
            list(walk(tmp_path / "b.lmdb", False))

    def test_feature_a_crash(self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "walk.py"
        program.write_text("import os\nprint('entries 9')\nprint('key', b'a'.hex(), flush=True)\nos.abort()\n")
        monkeypatch.setattr(module.lmdb_walk, "__file__", str(program))
        with pytest.raises(UserError, match=r"damaged \(LMDB crashed on it after 1 images"):
            list(walk(whole, False))
        program.write_text("import os\nos.abort()\n")
        with pytest.raises(UserError, match=r"damaged \(LMDB crashed on it after 0 images"):
            list(walk(whole, False))
