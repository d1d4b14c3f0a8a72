import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.lmdb_manifest import Digest, check_manifest, read_manifest, write_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter

ENTRIES = st.dictionaries(st.text(max_size=4), st.binary(max_size=6), min_size=1, max_size=6)
CONTENT = "0a" * 32


def digest(entries: dict[str, bytes]) -> str:
    one = Digest()
    for key, data in entries.items():
        one.update(key, data)
    return one.hexdigest()


class TestDigest:
    def test_feature_independent(self) -> None:
        """Against the sum written out."""
        entries = {"000001_s001": b"one", "é": b""}
        total = sum(
            int(hashlib.sha256(str(len(key.encode())).encode() + b"\0" + key.encode() + b"\0" + data).hexdigest(), 16)
            for key, data in entries.items()
        )
        assert digest(entries) == f"{total % 2**256:064x}"
        assert digest({}) == "0" * 64

    @given(ENTRIES, st.randoms(use_true_random=False))
    def test_feature_no_order(self, entries: dict[str, bytes], random: Any) -> None:
        turned = list(entries.items())
        random.shuffle(turned)
        assert digest(dict(turned)) == digest(entries)

    @given(ENTRIES, ENTRIES)
    def test_feature_tells_apart(self, one: dict[str, bytes], two: dict[str, bytes]) -> None:
        assert (digest(one) == digest(two)) == (one == two)

    @given(ENTRIES, st.data())
    def test_feature_any_change(self, entries: dict[str, bytes], data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(entries)))
        other = data.draw(st.binary(max_size=6).filter(lambda value: value != entries[key]))
        assert digest({**entries, key: other}) != digest(entries)
        assert digest({k: v for k, v in entries.items() if k != key}) != digest(entries)
        name = data.draw(st.text(max_size=4).filter(lambda value: value not in entries))
        renamed = {name if k == key else k: v for k, v in entries.items()}
        assert digest(renamed) != digest(entries)
        assert digest({**entries, name: other}) != digest(entries)

    def test_feature_swaps_and_borders(self) -> None:
        assert digest({"a": b"1", "b": b"2"}) != digest({"a": b"2", "b": b"1"})
        assert digest({"ab": b"c"}) != digest({"a": b"bc"})
        assert digest({"a\0b": b"c"}) != digest({"a": b"b\0c"})

    @given(ENTRIES, ENTRIES)
    def test_feature_merge(self, first: dict[str, bytes], then: dict[str, bytes]) -> None:
        then = {key: data for key, data in then.items() if key not in first}
        whole = Digest()
        for key, data in then.items():
            whole.update(key, data)
        whole.merge(digest(first))
        assert whole.hexdigest() == digest({**first, **then})

    def test_feature_threads(self) -> None:
        entries = {f"{n:06d}_s001": bytes([n % 251]) * 3000 for n in range(400)}
        shared = Digest()

        def add(some: list[str]) -> None:
            for key in some:
                shared.update(key, entries[key])

        keys = list(entries)
        threads = [threading.Thread(target=add, args=(keys[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shared.hexdigest() == digest(entries)

    @pytest.mark.parametrize("part", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", "-" + "0" * 63])
    def test_exception(self, part: str) -> None:
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            Digest().merge(part)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "a.lmdb"
    writer = LmdbWriter(path)
    images = {"k1": b"one", "k2": b"two" * 3000}
    writer.put(images, {"k1": (4, 5, 3), "k2": (4, 5, 3)}, 3)
    writer.close()
    write_manifest(path, digest(images), kind="gt", scale=4)
    return path


def put(path: Path, key: str, data: bytes) -> None:
    environment = lmdb.open(str(path), map_size=2**24, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(key.encode(), data)
    environment.close()


class TestManifest:
    def test_feature(self, packed: Path) -> None:
        record = read_manifest(packed)
        assert record is not None
        assert record["content"] == digest({"k1": b"one", "k2": b"two" * 3000})
        assert (record["format"], record["kind"], record["scale"], record["entries"]) == (1, "gt", 4, 2)
        assert record["meta_info"] == hashlib.sha256((packed / "meta_info.txt").read_bytes()).hexdigest()
        assert record["made_by"].startswith("gramgan-plugin ")
        assert sorted(p.name for p in packed.iterdir()) == ["data.mdb", "manifest.json", "meta_info.txt"]
        check_manifest(packed)
        assert LmdbImages(packed).read("k1") == b"one"

    def test_feature_none(self, packed: Path) -> None:
        (packed / "manifest.json").unlink()
        assert read_manifest(packed) is None
        check_manifest(packed)
        (packed / "manifest.json").mkdir()
        assert read_manifest(packed) is None

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
    def test_feature_a_pipe_is_not_waited_for(self, packed: Path) -> None:
        (packed / "manifest.json").unlink()
        os.mkfifo(packed / "manifest.json")
        assert read_manifest(packed) is None

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda path: put(path, "k3", b"three"), r"3 images, were 2"),
            (lambda path: put(path, "k2", b"two" * 9000), r"\d+ bytes, were \d+"),
            (lambda path: put(path, "k1", b"eno"), "written to since"),
            (lambda path: (path / "meta_info.txt").write_text("k1.png (4,5,3) 3\n"), "meta_info.txt is not the same"),
        ],
    )
    def test_feature_a_changed_lmdb_is_refused(self, packed: Path, change: Any, what: str) -> None:
        for _ in range(6):  # afterwards there are free pages, and the file grows no more with each transaction
            put(packed, "k1", b"one")
        write_manifest(packed, CONTENT)
        change(packed)
        pattern = rf"a\.lmdb: changed since it was prepared or verified \(.*{what}.*\); run `basicsr prepare verify "
        with pytest.raises(UserError, match=pattern):
            LmdbImages(packed)

    def test_feature_survives_a_failure(self, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = (packed / "manifest.json").read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            write_manifest(packed, CONTENT)
        assert (packed / "manifest.json").read_bytes() == before
        assert not list(packed.glob(".*"))

    @pytest.mark.parametrize("facts", [{"format": 2}, {"entries": 1}, {"meta_info": "x"}, {"made_by": "me"}])
    def test_exception_taken_names(self, packed: Path, facts: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            write_manifest(packed, CONTENT, **facts)

    @pytest.mark.parametrize("content", ["", "x" * 64, CONTENT.upper()])
    def test_exception_no_fingerprint(self, packed: Path, content: str) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            write_manifest(packed, content)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b"null",
            b"[1]",
            b'"text"',
            b"[" * 100_000,
            b"9" * 10_000,
            b'{"format": 1, "content": "' + b"a" * 2**20 + b'"}',
            b"{}",
            b'{"format": true}',
            b'{"format": "1"}',
            b'{"format": -1}',
            b'{"format": 1.0}',
        ],
        ids=range(14),
    )
    def test_exception_damaged(self, packed: Path, data: bytes) -> None:
        (packed / "manifest.json").write_bytes(data)
        with pytest.raises(UserError, match=r"manifest\.json: damaged \(") as raised:
            LmdbImages(packed)
        assert len(str(raised.value).splitlines()) == 1
        assert len(str(raised.value)) < 400

    @pytest.mark.parametrize("name", ["content", "meta_info", "entries", "bytes", "transactions"])
    @pytest.mark.parametrize("value", [None, True, -1, 0.5, "", "0" * 63, [], {}, "\x1b[2J"])
    def test_exception_a_wrong_value(self, packed: Path, name: str, value: Any) -> None:
        path = packed / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
        with pytest.raises(UserError, match=rf"manifest\.json: damaged \('{name}' is no"):
            read_manifest(packed)

    @given(data=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
    def test_exception_anything(self, tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
        folder = tmp_path_factory.getbasetemp() / "any"
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_bytes(data)
        with pytest.raises(UserError):
            read_manifest(folder)

    def test_exception_newer(self, packed: Path) -> None:
        path = packed / "manifest.json"
        path.write_text(json.dumps({"format": 2, "content": {"another": "form"}}))
        with pytest.raises(UserError, match=r"manifest\.json: .* newer .*\(format 2, known is 1\)"):
            check_manifest(packed)
