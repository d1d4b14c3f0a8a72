import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gramgan_plugin.checkpoints.headers import LEGACY_MAGIC, read_headers
from gramgan_plugin.checkpoints.inert_pickle import Opaque
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.errors import UserError
from tests.messages import assert_message

# A folder with checkpoints fetched elsewhere, such as realesr-animevideov3.pth.
FETCHED = Path(os.environ.get("GRAMGAN_TEST_WEIGHTS", "none"))


def _refusal(path: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        read_headers(path)
    with pytest.raises(UserError) as loading:
        load_tensors(path)
    assert str(loading.value) == str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def _archive(path: str, pickled: bytes, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"x/{name}", content)


class _FloatTensor:
    """Pickles into a tensor of the declared size, offset and strides over storage 0."""

    def __init__(self, numel: Any, size: Any, stride: Any, offset: Any = 0) -> None:
        self.arguments = (numel, size, stride, offset)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return (
            ("storage", torch.FloatStorage, "0", "cpu", value[1])
            if type(value) is tuple and value[:1] == (0,)
            else None
        )

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not _FloatTensor:
            return NotImplemented
        numel, size, stride, offset = value.arguments
        return torch._utils._rebuild_tensor_v2, ((0, numel), offset, size, stride, False, OrderedDict())


def _declared(path: str, *arguments: Any, data: bytes = bytes(40)) -> None:
    with Path("p").open("wb") as stream:
        _Pickler(stream, protocol=2).dump({"params": {"w": _FloatTensor(*arguments)}})
    _archive(path, Path("p").read_bytes(), {"data/0": data, "version": b"3\n"})


def _shapes(content: Any) -> Any:
    if isinstance(content, torch.Tensor):
        return tuple(content.shape), content.dtype, content.stride()
    if isinstance(content, dict):
        return {key: _shapes(value) for key, value in content.items()}
    return [_shapes(value) for value in content] if isinstance(content, list | tuple) else content


class _Data:
    """Pickles into the name of a part of storage 1, of 10 floats."""

    def __init__(self, view: tuple[str, int, int]) -> None:
        self.name = ("storage", torch.FloatStorage, "1", "cpu", 10, view)


class _Old:
    """Pickles into a tensor of so many of those."""

    def __init__(self, data: _Data, size: int) -> None:
        self.arguments = (data, 0, (size,), (1,))

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor, self.arguments


class TestHeaders:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_they_are_those_of_what_is_loaded(self, workdir, zipped):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        optimizer = torch.optim.Adam(net.parameters())
        net(torch.rand(2, 3, 8, 8)).sum().backward()
        optimizer.step()
        content = {
            "net": net.state_dict(),
            "optimizers": [optimizer.state_dict()],
            "milestones": Counter({250: 1}),
            "half": torch.ones(3, dtype=torch.bfloat16),
            "rng": torch.get_rng_state(),
            "parameter": nn.Parameter(torch.ones(2)),
            "view": torch.arange(10.0)[3:7].reshape(2, 2).t(),
            "empty": torch.empty(0, 3),
            "rare": [1 + 2j, bytearray(b"ab"), bytearray()],
            "plain": (1, -2.5, None, True, 10**30, "ü\n", b"\xff\x00", torch.Size([2, 3]), torch.float16),
        }
        torch.save(content, "x.pth", _use_new_zipfile_serialization=zipped)
        headers, loaded = read_headers("x.pth"), load_tensors("x.pth")
        assert _shapes(headers) == _shapes(loaded)
        assert torch.equal(loaded["net"]["0.weight"], net[0].weight)
        assert headers["net"]["0.weight"].device.type == "meta"

    @pytest.mark.skipif(not FETCHED.is_dir(), reason="GRAMGAN_TEST_WEIGHTS names no folder")
    @pytest.mark.parametrize("legacy", [False, True])
    def test_real_files(self, workdir, legacy):
        """One of them was zipped again, with compression."""
        for path in FETCHED.glob("*.pth"):
            if legacy:
                content = torch.load(path, map_location="cpu", weights_only=True)
                torch.save(content, "old.pth", _use_new_zipfile_serialization=False)
                path = Path("old.pth")
            assert _shapes(read_headers(path)) == _shapes(load_tensors(path))

    def test_no_data_is_read(self, workdir):
        """Nor allocated: the file's 40 GB are a hole in it."""
        torch.save({"params": {"w": torch.zeros(10)}}, "x.pth", _use_new_zipfile_serialization=False)
        data = Path("x.pth").read_bytes()
        at = data.rindex(struct.pack("<q", 10))
        large = data[:at].replace(b"K\nN", b"\x8a\x05" + (10**10).to_bytes(5, "little") + b"N")  # numel
        large = large.replace(b"K\x00K\n\x85", b"K\x00\x8a\x05" + (10**10).to_bytes(5, "little") + b"\x85")  # size
        with Path("large.pth").open("wb") as stream:
            stream.write(large + struct.pack("<q", 10**10))
            stream.truncate(stream.tell() + 4 * 10**10)
        assert read_headers("large.pth")["params"]["w"].shape == (10**10,)


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"", "an empty file"),
            (b"<!DOCTYPE html>\n<html><head><title>Google Drive</title>", "a web page"),
            (b"\n\n<!-- 1 -->  <HTML lang=en>", "a web page"),
            (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 67010245\n", "a Git LFS pointer"),
            (b'{"message": "Not Found"}', "a text file"),
            (b"Not Found", "a text file"),
            (
                struct.pack("<q", 80) + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(30),
                "a damaged checkpoint",
            ),
            (b"\x1f\x8b\x08\x00" + bytes(200), "a compressed file; unpack it"),
            (bytes(257) + b"ustar\x00" + bytes(500), "a tar archive; unpack it"),
            (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
            (b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(50), "an ONNX file"),
            (bytes(range(128, 256)) * 4, "as torch.save writes it"),
            (pickle.dumps({"a": 1}), "as torch.save writes it"),
            (b"PK\x03\x04 cut", "its end is missing"),
        ],
    )
    def test_each_has_its_own_line(self, workdir, content, kind):
        Path("f.pth").write_bytes(content)
        assert_message(_refusal("f.pth"), "f.pth", kind)

    def test_archives(self, workdir):
        with zipfile.ZipFile("photos.pth", "w") as archive:
            archive.writestr("a/b.png", b"x")
        assert "a zip archive without a checkpoint" in _refusal("photos.pth")
        _archive("jit.pth", b"\x80\x02}.", {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b""})
        assert "a TorchScript archive" in _refusal("jit.pth")
        with zipfile.ZipFile("empty.pth", "w"):
            pass
        assert "a zip archive without a checkpoint" in _refusal("empty.pth")

    def test_missing_folder_and_a_name_with_a_newline(self, workdir):
        assert_message(_refusal("no\n.pth"), "no\\n.pth", "no such checkpoint")
        Path("folder.pth").mkdir()
        assert_message(_refusal("folder.pth"), "folder.pth", "no such checkpoint")

    def test_a_name_that_is_nearly_one_of_the_public_ones(self, workdir):
        assert_message(_refusal("4x-RRDBLite"), "4x-RRDBLite", "no such checkpoint", "did you mean '4x-RRDB-Lite'")
        assert "did you mean" not in _refusal("models/4x-RRDBLite")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_no_permission(self, workdir):
        torch.save({}, "x.pth")
        Path("x.pth").chmod(0)
        assert "permission denied" in _refusal("x.pth")


class TestProtocols:
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_those_that_are_not_read(self, workdir, protocol):
        torch.save({"w": torch.ones(3)}, "x.pth", pickle_protocol=protocol)
        assert_message(_refusal("x.pth"), "x.pth", f"pickle protocol {protocol}")

    def test_one_that_is(self, workdir):
        torch.save({"w": torch.ones(3)}, "x.pth", pickle_protocol=3)
        assert torch.equal(load_tensors("x.pth")["w"], torch.ones(3))


class TestForeignObjects:
    def test_of_a_package_that_is_here(self, workdir):
        torch.save({"params": {}, "best": np.random.RandomState(3)}, "x.pth")
        assert_message(_refusal("x.pth"), "x.pth", "it holds numpy.", "torch.save(net.state_dict(), FILE)")

    def test_numbers_of_numpy_and_mmengines_log_are_left_out(self, workdir):
        """Each key names what is never called; what it would make has no content."""
        log = b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}(X\x01\x00\x00\x00akub"
        getter = b"c__builtin__\ngetattr\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00lowertR"
        content = (
            b"\x80\x02}(X\x03\x00\x00\x00log" + log.replace(b"k", b"K\x01") + b"X\x03\x00\x00\x00get" + getter + b"u."
        )
        _archive("x.pth", content, {"version": b"3\n"})
        torch.save({"best": np.float64(3), "all": np.ones(3), "params": {"w": torch.ones(2)}}, "y.pth")
        for name, keys in (("x.pth", ["log", "get"]), ("y.pth", ["best", "all"])):
            for read in (load_tensors, read_headers):
                found = read(name)
                assert [type(found[key]) for key in keys] == [Opaque, Opaque]
                assert [vars(found[key]) for key in keys] == [{}, {}]
        assert torch.equal(load_tensors("y.pth")["params"]["w"], torch.ones(2))

    def test_what_is_left_out_cannot_be_called(self, workdir):
        getter = b"c__builtin__\ngetattr\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00lowertR"
        _archive("x.pth", b"\x80\x02" + getter + b")R.", {})
        assert _refusal("x.pth").startswith("x.pth: a damaged checkpoint")

    def test_of_python_itself(self, workdir):
        torch.save({"params": {}, "kinds": frozenset("ab")}, "x.pth")
        assert_message(_refusal("x.pth"), "x.pth", "it holds builtins.frozenset", "can run code")

    def test_of_a_package_that_is_missing(self, workdir):
        _archive("x.pth", b"\x80\x02cno_such_package.config\nDictConfig\n)\x81.", {})
        assert_message(_refusal("x.pth"), "x.pth", "the package no_such_package, which is not installed")

    @pytest.mark.parametrize(
        "name",
        [b"posix\nsystem\n", b"__main__\nConfig\n", b"a\x1b[2Jb\nc\n", b"..\nx\n", b"\n\n", b"x" * 9999 + b"\ny\n"],
    )
    def test_whatever_it_is_called(self, workdir, name):
        _archive("x.pth", b"\x80\x02c" + name + b")R.", {})
        assert _refusal("x.pth").startswith("x.pth: ")
        assert len(_refusal("x.pth")) < 400


class TestTensorsThatAreNoWeights:
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            (lambda: torch.eye(3).to_sparse(), "a sparse tensor"),
            (lambda: torch.eye(3).to_sparse_csr(), "a sparse tensor"),
            (lambda: torch.empty(3, device="meta"), "a tensor without data"),
            (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a quantized tensor"),
            (lambda: torch.ones(1).expand(10**9), "share memory"),
            (lambda: torch.ones(3, dtype=torch.complex64).conj(), "a conjugated or negated view"),
        ],
    )
    def test_are_refused_by_name(self, workdir, make, kind):
        torch.save({"params": {"conv.weight": torch.ones(1), "conv.bi\nas": make()}}, "x.pth")
        text = _refusal("x.pth")
        assert text.startswith("x.pth: params.conv.bi\\nas is ")
        assert kind in text


class TestSizes:
    def test_what_is_declared_is_there(self, workdir):
        _declared("x.pth", 10, (5, 2), (2, 1))
        assert load_tensors("x.pth")["params"]["w"].shape == (5, 2)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((10, (5, 3), (3, 1)), "larger than its data"),
            ((10, (5, 2), (2, 1), 1), "larger than its data"),
            ((10, (10**6, 10**6), (10**6, 1)), "larger than its data"),
            ((10, (2,), (2**40,)), "larger than its data"),
            ((10, (-5, -2), (2, 1)), "shape is not valid"),
            ((10, (5, 2), (-2, 1)), "shape is not valid"),
            ((10, (5, 2), (2,)), "shape is not valid"),
            ((10, (2**70,), (1,)), "shape is not valid"),
            ((10, (2.0,), (1,)), "shape is not valid"),
            ((10, (2,), (1,), -1), "shape is not valid"),
            ((11, (5,), (1,)), "of another size than its shape says"),
            ((9, (5,), (1,)), "of another size than its shape says"),
            ((10**12, (5,), (1,)), "of another size than its shape says"),
            ((-1, (5,), (1,)), "a size is not a whole number"),
            ((None, (5,), (1,)), "a size is not a whole number"),
        ],
    )
    def test_what_is_declared_is_not_there(self, workdir, arguments, words):
        _declared("x.pth", *arguments)
        assert words in _refusal("x.pth")

    @pytest.mark.parametrize("member", ["data/0", "data.pkl", "else"])
    def test_an_archive_that_inflates(self, workdir, member):
        """A few hundred KB that become 100 MB."""
        _declared("x.pth", 10, (10,), (1,))
        with zipfile.ZipFile("x.pth") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members[f"x/{member}"] = bytes(100 * 10**6)
        with zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        assert "MB would inflate to 100.0 MB" in _refusal("bomb.pth")

    def test_a_directory_that_lies(self, workdir):
        """Its pickle is declared as short, and inflates to 100 MB."""
        _archive("x.pth", bytes(100 * 10**6), {}, zipfile.ZIP_DEFLATED)
        data = Path("x.pth").read_bytes()
        Path("x.pth").write_bytes(data.replace(struct.pack("<I", 100 * 10**6), struct.pack("<I", 500)))
        assert "a damaged checkpoint" in _refusal("x.pth")

    def test_members_of_one_name(self, workdir):
        """Which of them is read depends on the reader."""
        with zipfile.ZipFile("x.pth", "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02}.")
            archive.writestr("x/DATA.pkl", b"\x80\x02cposix\nsystem\n.")
        assert "two members of one name" in _refusal("x.pth")

    @pytest.mark.parametrize("order", [["0", "1"], [], ["0"], ["0", "0"], 3])
    def test_a_legacy_file_whose_list_of_data_is_wrong(self, workdir, order):
        """torch would hand out memory as it finds it."""
        torch.save({"a": torch.ones(2), "b": torch.ones(2)}, "x.pth", _use_new_zipfile_serialization=False)
        data = Path("x.pth").read_bytes()
        at = data.rindex(b"\x80\x02]")
        Path("x.pth").write_bytes(data[:at] + pickle.dumps(order, protocol=2) + bytes(100))
        assert "a damaged checkpoint" in _refusal("x.pth")
        assert pickle.loads(data[: data.index(b".") + 1]) == LEGACY_MAGIC


class TestViews:
    """Parts of one storage, as files older than torch 0.4 have them."""

    def _write(self, first: Any, second: Any, size: int = 5) -> None:
        """Tensors a, of ``size`` numbers, and b, of 5, over views (name, offset, length) of the numbers 0 to 9."""
        content = io.BytesIO()
        pickler = pickle._Pickler(content, protocol=2)
        pickler.persistent_id = lambda value: value.name if isinstance(value, _Data) else None
        pickler.dump({"a": _Old(_Data(first), size), "b": _Old(_Data(second), 5)})
        parts = [pickle.dumps(part, protocol=2) for part in (LEGACY_MAGIC, 1001, {"little_endian": True})]
        numbers = struct.pack("<q10f", 10, *range(10))
        Path("x.pth").write_bytes(b"".join(parts) + content.getvalue() + pickle.dumps(["1"], protocol=2) + numbers)

    def test_feature(self, workdir):
        self._write(("v", 0, 5), ("w", 5, 5))
        assert load_tensors("x.pth")["a"].tolist() == [0, 1, 2, 3, 4]
        assert load_tensors("x.pth")["b"].tolist() == [5, 6, 7, 8, 9]

    @pytest.mark.parametrize(
        ("first", "second", "size"),
        [(("v", 0, 5), ("w", 6, 5), 5), (("v", 0, 5), ("w", 5, 5), 6), (("v", 0, 2), ("v", 0, 10), 2)],
    )
    def test_exception(self, workdir, first, second, size):
        self._write(first, second, size)
        assert "a damaged checkpoint: " in _refusal("x.pth")


class TestStructures:
    @pytest.mark.parametrize(
        "pickled",
        [
            b"]q\x00h\x00a.",  # a list that holds itself
            b"}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dict that holds itself
            b"]" * 100_000 + b"a" * 99_999 + b".",
            b")" + b"\x85" * 100_000 + b".",
            b"}" + b")" + b"\x85" * 1_000_000 + b"Ns.",  # as a key: hashing it would overflow the stack
            b"]q\x00" + b"".join(b"]q%ch%ch%c\x87q%c" % (n, n - 1, n - 1, n) for n in range(1, 60)) + b".",
            b"]q\x00(" + b"h\x00" * 10_000 + b"e.",  # that holds itself many times
            b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.",
            b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",  # hides a method of the dict
            b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
            b"ctorch\nFloatStorage\n.",
        ],
    )
    def test_nothing_is_run_out_of_memory_or_stack(self, workdir, pickled):
        _archive("x.pth", b"\x80\x02" + pickled, {})
        assert "checkpoint" in _refusal("x.pth")


class TestHostilePickles:
    """Small files that take long to read: each is refused after a bounded number of steps."""

    KEY = b"}q\x00(" + b"".join(b"J" + struct.pack("<i", number) + b"N" for number in range(20_000)) + b"u"
    COPIES = b"(ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 300 + b"t."
    TEXT = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00c_codecs\nencode\nq\x01"

    @pytest.mark.parametrize(
        ("pickled", "words"),
        [
            (b"](" + b"N" * 700_000 + b"e.", "more than 600,000 instructions"),
            (KEY + COPIES, "copies the same data again and again"),
            (
                TEXT + b"](" + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 9 + b"e.",
                "copies the same data again and again",
            ),
            (b"}(\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"Nu.", "a large int as a key"),
        ],
        ids=["long", "dicts", "texts", "keys"],
    )
    def test_refused(self, workdir, pickled, words):
        _archive("x.pth", b"\x80\x02" + pickled, {})
        assert words in _refusal("x.pth")

    def test_a_large_training_state_is_read(self, workdir):
        """10,000 tensors of a network, and two moments of each."""
        tensor = torch.zeros(1)
        state = {number: {"step": 1, "exp_avg": tensor, "exp_avg_sq": tensor} for number in range(10_000)}
        torch.save({"optimizers": [{"state": state}], "params": {str(number): tensor for number in state}}, "x.state")
        assert len(read_headers("x.state")["params"]) == 10_000
