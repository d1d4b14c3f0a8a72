import contextlib
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.data.images import encode_png
from gramgan_plugin.data.photos import decode_photo
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.archives import Limits, images_in, is_archive

PNG = encode_png(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), 3)
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def taken(path: Path, limits: Limits | None = None) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """What is taken and what is refused."""
    refused: list[tuple[str, str]] = []
    options = {} if limits is None else {"limits": limits}
    return dict(images_in(path, on_refused=lambda name, reason: refused.append((name, reason)), **options)), refused


def write_zip(
    path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data, compress_type=method)
    return path


def tar_member(name: str, size: int = 0, **facts: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for fact, value in facts.items():
        setattr(member, fact, value)
    return member


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str | None = None) -> Path:
    with tarfile.open(path, mode or TAR_MODES["".join(path.suffixes)]) as archive:
        for name, data in members:
            member = tar_member(name, len(data)) if isinstance(name, str) else name
            archive.addfile(member, io.BytesIO(data))
    return path


def write_any(path: Path, members: list[tuple[str, bytes]]) -> Path:
    return write_zip(path, members) if path.suffix == ".zip" else write_tar(path, members)


@pytest.fixture(params=[".zip", *TAR_MODES])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"photos{request.param}"


class TestTaken:
    def test_smoke(self, archive: Path) -> None:
        write_any(
            archive,
            [
                ("b/one.png", PNG),
                ("a.JPG", b"not looked into"),
                ("b/notes.txt", b"text"),
                ("b/.hidden.png", PNG),
                ("__MACOSX/b/._one.png", b"\0\5\x16\7"),
                ("./b/./two.png", PNG),
            ],
        )
        images, refused = taken(archive)
        assert list(images) == ["b/one.png", "a.JPG", "b/two.png"]  # in the archive's order
        assert refused == []
        assert decode_photo(images["b/two.png"]).shape == (3, 3, 3)
        assert sorted(archive.parent.iterdir()) == [archive]  # nothing else was written

    def test_feature_kind_is_detected_by_content(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "real.tar", [("a.png", PNG)], "w:xz")
        (tmp_path / "real.tar").rename(tmp_path / "named.zip")
        assert list(taken(tmp_path / "named.zip")[0]) == ["a.png"]

    @pytest.mark.parametrize("name", ["фото/写真 é.png", "a" * 3000 + ".png", "sp ace;$(x).png", "new\nline.png"])
    def test_feature_names(self, archive: Path, name: str) -> None:
        assert taken(write_any(archive, [(name, PNG)])) == ({name: PNG}, [])

    def test_feature_utf8_without_the_mark(self, tmp_path: Path) -> None:
        """As old programs and macOS write it."""
        path = write_zip(tmp_path / "a.zip", [("f__o.png", PNG)])
        path.write_bytes(path.read_bytes().replace(b"f__o.png", "fäo.png".encode()))
        assert list(taken(path)[0]) == ["fäo.png"]

    def test_feature_names_in_no_utf8(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [("fxo.png", PNG)])
        path.write_bytes(path.read_bytes().replace(b"fxo.png", b"f\xffo.png"))
        (name,) = taken(path)[0]
        assert name.encode().endswith(b"o.png")
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(tar_member("f\xffo.png", len(PNG)), io.BytesIO(PNG))
        assert list(taken(path)[0]) == ["f\ufffdo.png"]

    def test_feature_suffixes(self, tmp_path: Path) -> None:
        for name in ("a.zip", "b.TAR", "c.tar.gz", "d.tgz", "e.txt", "f.gz"):
            (tmp_path / name).touch()
        (tmp_path / "folder.zip").mkdir()
        assert [path.name for path in sorted(tmp_path.iterdir()) if is_archive(path)] == [
            "a.zip",
            "b.TAR",
            "c.tar.gz",
            "d.tgz",
        ]

    @pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
    def test_feature_memory_is_that_of_one_member(self, tmp_path: Path, suffix: str) -> None:
        archive = tmp_path / f"a{suffix}"
        noise = np.random.default_rng(0).bytes(2**20)
        write_any(archive, [(f"{number}.png", noise) for number in range(24)])
        tracemalloc.start()
        assert sum(len(data) for _, data in images_in(archive)) == 24 * 2**20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 2**20


class TestRefusedMembers:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("/etc/a.png", "an absolute path"),
            ("../a.png", "a path with '..'"),
            ("b/../../a.png", "a path with '..'"),
            ("b\\..\\..\\a.png", "a path with '..'"),
            ("\\\\server\\share\\a.png", "an absolute path"),
            ("C:\\a.png", "an absolute path"),
            ("c:a.png", "an absolute path"),
            ("more.zip", "an archive in the archive"),
            ("more.tar.gz", "an archive in the archive"),
        ],
    )
    def test_feature_paths(self, archive: Path, name: str, reason: str) -> None:
        images, refused = taken(write_any(archive, [(name, PNG), ("good.png", PNG)]))
        assert list(images) == ["good.png"]
        assert [(found, why[: len(reason)]) for found, why in refused] == [(name, reason)]

    def test_feature_backslashes_are_separators(self, archive: Path) -> None:
        """Programs of Windows write them."""
        assert taken(write_any(archive, [("b\\a.png", PNG)])) == ({"b/a.png": PNG}, [])

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_feature_duplicates(self, archive: Path) -> None:
        images, refused = taken(write_any(archive, [("a.png", PNG), ("./a.png", b"other")]))
        assert images == {"a.png": PNG}
        assert [reason for _, reason in refused] == ["a second member of this name"]

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_feature_zip_links(self, tmp_path: Path) -> None:
        link, pipe = zipfile.ZipInfo("link.png"), zipfile.ZipInfo("pipe.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        pipe.external_attr = (stat.S_IFIFO | 0o644) << 16
        images, refused = taken(write_zip(tmp_path / "a.zip", [(link, b"/etc/passwd"), (pipe, b""), ("link.png", PNG)]))
        assert images == {"link.png": PNG}  # the link did not take the name
        assert refused == [("link.png", "a symbolic link"), ("pipe.png", "not a regular file")]

    def test_feature_tar_links_and_devices(self, tmp_path: Path) -> None:
        path = write_tar(
            tmp_path / "a.tar",
            [
                (tar_member("real.png", len(PNG)), PNG),
                (tar_member("soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
                (tar_member("hard.png", type=tarfile.LNKTYPE, linkname="real.png"), b""),
                (tar_member("disk.png", type=tarfile.BLKTYPE), b""),
                (tar_member("terminal.png", type=tarfile.CHRTYPE), b""),
                (tar_member("pipe.png", type=tarfile.FIFOTYPE), b""),
                (tar_member("folder.png", type=tarfile.DIRTYPE), b""),
            ],
        )
        images, refused = taken(path)
        assert images == {"real.png": PNG}
        assert dict(refused) == {
            "soft.png": "a symbolic link",
            "hard.png": "a hard link",
            "disk.png": "not a regular file",
            "terminal.png": "not a regular file",
            "pipe.png": "not a regular file",
        }

    def test_feature_too_large(self, archive: Path) -> None:
        write_any(archive, [("large.png", bytes(1001)), ("good.png", bytes(1000))])
        images, refused = taken(archive, Limits(member_bytes=1000))
        assert list(images) == ["good.png"]
        assert refused == [("large.png", "1001 bytes, above the limit of 1000")]

    def test_feature_encrypted(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [("secret.png", PNG), ("open.png", PNG)])
        data = bytearray(path.read_bytes())
        data[6] |= 1  # the flags in the member's own header, and in the directory
        data[data.index(b"PK\1\2") + 8] |= 1
        path.write_bytes(data)
        images, refused = taken(path)
        assert list(images) == ["open.png"]
        assert refused == [("secret.png", "encrypted; unpack the archive yourself")]

    def test_feature_damaged_zip_member(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [("bad.png", PNG), ("good.png", PNG)], zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
        images, refused = taken(path)
        assert list(images) == ["good.png"]
        assert refused[0][0] == "bad.png"
        assert refused[0][1].startswith("damaged: Bad CRC-32")

    def test_feature_unknown_method(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [("a.png", PNG)], zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        data[8:10] = data[data.index(b"PK\1\2") + 10 :][:2] = struct.pack("<H", 9)
        directory = data.index(b"PK\1\2")
        data[directory + 10 : directory + 12] = struct.pack("<H", 9)
        path.write_bytes(data)
        images, ((name, reason),) = taken(path)
        assert (images, name) == ({}, "a.png")
        assert "packed by a method" in reason


class TestBombs:
    @pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
    def test_exception_too_many(self, tmp_path: Path, suffix: str) -> None:
        path = write_any(tmp_path / f"a{suffix}", [(f"{number}.txt", b"") for number in range(11)])
        assert taken(path, Limits(members=11)) == ({}, [])
        with pytest.raises(UserError, match=r"a\.\S+: more than 10 members"):
            taken(path, Limits(members=10))

    def test_exception_too_many_bytes(self, archive: Path) -> None:
        noise = np.random.default_rng(0).bytes(60_000)
        write_any(archive, [(f"{number}.png", noise) for number in range(10)])
        with pytest.raises(UserError, match=f"{archive.name}: more than 300000 bytes"):
            taken(archive, Limits(bytes=300_000))

    def test_feature_ratio_of_a_zip_member(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        noise = np.random.default_rng(0).bytes(2**20)
        write_zip(path, [("blank.png", bytes(65 * 2**20)), ("noise.png", noise)])
        images, refused = taken(path)
        assert list(images) == ["noise.png"]
        assert refused[0][0] == "blank.png"
        assert refused[0][1].endswith("above the limit of the ratio")

    def test_exception_ratio_of_many_small_members(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [(f"{number}.png", bytes(10 * 2**20)) for number in range(7)])
        with pytest.raises(UserError, match=r"a\.zip: .*more than 100 times"):
            taken(path)

    @pytest.mark.parametrize("name", ["blank.png", "blank.bin"])
    def test_exception_ratio_of_a_tar(self, tmp_path: Path, name: str) -> None:
        """What is passed over has to be unpacked all the same."""
        path = write_tar(tmp_path / "a.tar.gz", [(name, bytes(70 * 2**20))])
        with pytest.raises(UserError, match=r"a\.tar\.gz: .*more than 100 times"):
            taken(path)

    def test_feature_overlapping_members(self, tmp_path: Path) -> None:
        """Many entries of the directory for the same bytes."""
        path = write_zip(tmp_path / "a.zip", [("a.png", PNG)], zipfile.ZIP_STORED)
        data = path.read_bytes()
        begin, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
        entry = data[begin:end]
        directory = b"".join(entry.replace(b"a.png", b"%c.png" % letter) for letter in b"abcdefgh")
        tail = data[end:][:8] + struct.pack("<HHIIH", 8, 8, len(directory), begin, 0)
        path.write_bytes(data[:begin] + directory + tail)
        images, refused = taken(path)
        assert list(images) == ["a.png"]
        assert len(refused) == 7

    @pytest.mark.parametrize("claimed", [10, 100_000])
    def test_feature_zip_header_lies(self, tmp_path: Path, claimed: int) -> None:
        data_of = np.random.default_rng(0).bytes(1000)
        path = write_zip(tmp_path / "a.zip", [("a.png", data_of), ("b.png", PNG)])
        data = bytearray(path.read_bytes())
        data[22:26] = struct.pack("<I", claimed)
        directory = data.index(b"PK\1\2")
        data[directory + 24 : directory + 28] = struct.pack("<I", claimed)
        path.write_bytes(data)
        images, refused = taken(path)
        assert images == {"b.png": PNG}
        assert refused[0][0] == "a.png"
        assert refused[0][1].startswith("damaged")

    def test_feature_zip_header_lies_to_unpack_more(self, tmp_path: Path) -> None:
        """Ten bytes claimed, 50 MB within: they are never all in memory."""
        path = write_zip(tmp_path / "a.zip", [("a.png", bytes(50 * 10**6))])
        data = bytearray(path.read_bytes())
        directory = data.index(b"PK\1\2")
        data[22:26] = data[directory + 24 : directory + 28] = struct.pack("<I", 10)
        path.write_bytes(data)
        tracemalloc.start()
        images, refused = taken(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert images == {}
        assert refused[0][1].startswith("damaged")
        assert peak < 5 * 10**6

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
    def test_exception_tar_header_without_end(self, tmp_path: Path, kind: bytes) -> None:
        """A name of 60 MB: tarfile would read it whole."""
        header = tar_member("././@LongLink", 60 * 10**6, type=kind)
        content = header.tobuf(tarfile.GNU_FORMAT) + b"A" * (60 * 10**6) + bytes(-60 * 10**6 % 512)
        path = tmp_path / "a.tar"
        path.write_bytes(content + tar_member("a.png").tobuf() + bytes(1024))
        tracemalloc.start()
        with pytest.raises(UserError, match=r"a\.tar: a header of more than"):
            taken(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * 10**6

    def test_feature_sparse(self, tmp_path: Path) -> None:
        """A few bytes that stand for terabytes."""
        with (tmp_path / "holes.png").open("wb") as file:
            os.truncate(file.fileno(), 10**9)
        header = tarfile.TarInfo("holes.png")
        header.type, header.size = tarfile.GNUTYPE_SPARSE, 0
        data = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        data[386:410] = b"%011o\0%011o\0" % (0, 0)
        data[483:495] = b"%011o\0" % 10**9
        data[148:156] = b"        "
        data[148:156] = b"%06o\0 " % sum(data)
        (tmp_path / "a.tar").write_bytes(bytes(data) + bytes(1024))
        assert taken(tmp_path / "a.tar") == ({}, [("holes.png", "a sparse file")])


def pax_tar(path: Path, records: bytes, kind: bytes = tarfile.XHDTYPE) -> Path:
    """A tar whose second member has a PAX header of these records, as they are."""
    header = tar_member("PaxHeaders/b.png", len(records), type=kind).tobuf()
    members = [tar_member(name, len(PNG)).tobuf() + PNG + bytes(-len(PNG) % 512) for name in ("a.png", "b.png")]
    path.write_bytes(members[0] + header + records + bytes(-len(records) % 512) + members[1] + bytes(1024))
    return path


def record(text: bytes) -> bytes:
    """A record of a PAX header with its length."""
    length = len(text) + 3 if len(text) < 97 else len(text) + 4
    return b"%d %b\n" % (length, text)


class TestHostile:
    """Whatever tarfile and zipfile raise, it is the archive's fault."""

    @pytest.mark.parametrize(
        "records",
        [
            b"9" * 5000 + b" path=b.png\n",
            record(b"GNU.sparse.map=1,x"),
            record(b"GNU.sparse.numblocks=x") + record(b"GNU.sparse.offset=y"),
            record(b"GNU.sparse.major=1") + record(b"GNU.sparse.minor=0") + record(b"GNU.sparse.name=b.png"),
            record(b"GNU.sparse.size=x"),
            record(b"size=" + b"9" * 30),
            record(b"size=-512"),
            record(b"path="),
            b"-7 a=b\n",
            b"\xff" * 40,
        ],
    )
    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
    def test_feature_headers_of_pax(self, tmp_path: Path, records: bytes, kind: bytes) -> None:
        images: list[str] = []
        with contextlib.suppress(UserError):
            images.extend(name for name, _ in images_in(pax_tar(tmp_path / "a.tar", records, kind)))
        assert images[:1] == ["a.png"]

    def test_exception_reason_is_short(self, tmp_path: Path) -> None:
        path = pax_tar(tmp_path / "a.tar", b"9" * 5000 + b" path=b.png\n")
        with pytest.raises(UserError, match=r"a\.tar: .*not an archive: ") as raised:
            taken(path)
        assert len(str(raised.value).removeprefix(str(path))) < 200

    def test_exception_headers_of_headers(self, tmp_path: Path) -> None:
        name = tar_member("././@LongLink", 2, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) + bytes(512)
        path = tmp_path / "a.tar"
        path.write_bytes(name * 1500 + tar_member("a.png", len(PNG)).tobuf() + PNG.ljust(512, b"\0") + bytes(1024))
        with pytest.raises(UserError, match=r"a\.tar: damaged"):
            taken(path)

    @pytest.mark.parametrize("size", [2**40, 2**62, 2**80])
    @pytest.mark.parametrize("name", ["b.png", "notes.txt"])
    def test_exception_member_without_end(self, tmp_path: Path, size: int, name: str) -> None:
        """tarfile looks for what follows it by reading on, 10 kB at a time, behind the end of the file, too."""
        header = tar_member("a.png", len(PNG)).tobuf() + PNG.ljust(512, b"\0")
        path = tmp_path / "a.tar"
        path.write_bytes(header + tar_member(name, size).tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(UserError, match=r"a\.tar: "):
            taken(path)

    def test_feature_zip_member_without_a_name(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", [("x", PNG), ("b.png", PNG)])
        data = bytearray(path.read_bytes())
        directory = data.index(b"PK\1\2")
        data[directory + 28 : directory + 30] = bytes(2)  # the length of its name
        del data[directory + 46]
        end = data.index(b"PK\5\6")
        size = int.from_bytes(data[end + 12 : end + 16], "little")
        data[end + 12 : end + 16] = struct.pack("<I", size - 1)
        path.write_bytes(data)
        assert list(taken(path)[0]) == ["b.png"]


class TestDamage:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
    def test_exception_cut_short(self, archive: Path, share: float) -> None:
        noise = np.random.default_rng(0).bytes(30_000)
        write_any(archive, [(f"{number}.png", noise) for number in range(4)])
        data = archive.read_bytes()
        archive.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match=rf"{archive.name}: .*not an archive: ") as raised:
            taken(archive)
        assert "\n" not in str(raised.value)

    def test_exception_cut_between_members(self, tmp_path: Path) -> None:
        """tarfile takes this for the end."""
        path = write_tar(tmp_path / "a.tar", [("a.png", bytes(512)), ("b.png", bytes(512))])
        path.write_bytes(path.read_bytes()[:1024])
        with pytest.raises(UserError, match="its end is missing"):
            taken(path)

    @pytest.mark.parametrize("damage", [lambda data: data[:-12] + bytes(12), lambda data: data[:-2]])
    def test_exception_wrong_sum_of_gzip(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = write_tar(tmp_path / "a.tar.gz", [("a.png", PNG)])
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UserError, match="damaged"):
            taken(path)

    @pytest.mark.parametrize("data", [b"", b"<html>Not found</html>", b"PK", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", PNG])
    def test_exception_no_archive(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.zip: damaged, cut short or not"):
            taken(tmp_path / "a.zip")

    def test_exception_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"a\.zip: no such file"):
            taken(tmp_path / "a.zip")

    def test_exception_flipped_bytes(self, archive: Path) -> None:
        random = np.random.default_rng(0)
        write_any(archive, [("a.png", PNG), ("b/c.png", random.bytes(3000))])
        whole = archive.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 3):
                data[place] = random.integers(256)
            archive.write_bytes(data)
            with contextlib.suppress(UserError):
                taken(archive)
