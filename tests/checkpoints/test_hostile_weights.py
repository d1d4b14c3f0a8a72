"""Files that an attacker made: each ends in one line, after little time and memory."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from gramgan_plugin.checkpoints.foreign_networks import load_foreign
from gramgan_plugin.checkpoints.formats import match_format
from gramgan_plugin.checkpoints.headers import read_headers
from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from tests.checkpoints import generators as given_as


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["inspect", "x.pth", *arguments])
    printed = capsys.readouterr()
    assert code == 0 or len(printed.err.splitlines()) == 1
    return code, printed.out + printed.err


def test_two_directories_in_one_archive(workdir):
    """Python's zipfile finds the directory before its record, torch where the record says it is."""
    buffers = []
    for count in (10, 1000):
        stream = io.BytesIO()
        torch.save({"w": torch.zeros(count)}, stream)
        buffers.append(stream.getvalue())
    data = bytearray(buffers[1] + buffers[0])
    end = data.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<I", data, end + 16)
    assert zipfile.ZipFile(io.BytesIO(data)).infolist(), "zipfile reads it"
    Path("x.pth").write_bytes(bytes(data))
    with pytest.raises(UserError, match="its directory is not where it says"):
        read_headers("x.pth")
    assert offset < len(buffers[0])
    # Also where zip64's locator names the true place of its record.
    struct.pack_into("<Q", data, end - 12, data.rindex(b"PK\x06\x06"))
    assert zipfile.ZipFile(io.BytesIO(data)).infolist(), "zipfile reads it"
    Path("x.pth").write_bytes(bytes(data))
    with pytest.raises(UserError, match="its directory is not where it says"):
        read_headers("x.pth")


def with_end(data: bytes, comment: bytes, zip64: bool, shift: int = 0, gap: bytes = b"") -> bytes:
    """The archive with other end records: zip64's as well, as torch writes them, or only the last one."""
    last = data[data.rindex(b"PK\x05\x06") :][:20] + struct.pack("<H", len(comment)) + comment
    entries, size, offset = struct.unpack_from("<H2L", last, 10)
    end = offset + size
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end + len(gap) + shift, 1)
    return data[:end] + gap + (record + locator if zip64 else b"") + last


@pytest.mark.parametrize("comment", [b"", b"by a tool"])
def test_end_records(workdir, comment):
    """Of zip64 or not, with and without a comment; versions of Python differ in what they make of zip64's."""
    torch.save({"w": torch.ones(3)}, "small.pth")
    data = Path("small.pth").read_bytes()
    assert b"PK\x06\x06" in data, "torch always writes zip64's"
    for zip64 in (True, False):
        Path("x.pth").write_bytes(with_end(data, comment, zip64))
        assert torch.equal(torch.load("x.pth", weights_only=True)["w"], torch.ones(3))
        assert list(read_headers("x.pth")) == ["w"]
        Path("x.pth").write_bytes(with_end(data, comment, zip64, gap=b"gap"))
        with pytest.raises(UserError, match="a damaged checkpoint"):
            read_headers("x.pth")
    Path("x.pth").write_bytes(with_end(data, comment, zip64=True, shift=-1))
    with pytest.raises(UserError, match="a damaged checkpoint"):
        read_headers("x.pth")


def test_tensors_that_share_their_data(workdir):
    one = torch.zeros(10**6)
    torch.save({f"w{number}": one for number in range(6)}, "few.pth")
    assert len(read_headers("few.pth")) == 6
    torch.save({f"w{number}": one for number in range(20)}, "x.pth")
    with pytest.raises(UserError, match="many times the size of the file"):
        read_headers("x.pth")


@pytest.mark.parametrize(
    "state",
    [
        {"m_head.0.weight": torch.zeros(64, 3, 0, 0), "m_tail.0.weight": torch.zeros(3), "m_body.0.x": torch.zeros(1)},
        {
            "m_head.0.weight": torch.ones(64, 3, 3, 3),
            "m_tail.0.weight": torch.ones(3),
            "m_body.100000.x": torch.ones(1),
        },
        {"body.0.weight": torch.zeros(10000, 3, 0, 0), "body.2.weight": torch.zeros(12, 3, 3, 3)},
    ],
)
def test_shapes_and_names_that_claim_much(state):
    with pytest.raises(ValueError, match="no known architecture"):
        load_foreign(state)


def test_many_names_of_many_blocks():
    assert match_format({f"body.{number}.a" for number in range(9999)}) is None


@pytest.mark.parametrize(("levels", "shown"), [(3, True), (6, False)])
def test_nested_lists(workdir, capsys, levels, shown):
    value: object = 7
    for _ in range(levels):
        value = [value]
    torch.save({"params": given_as.rrdbnet().state_dict(), "nested": value}, "x.pth")
    code, printed = inspect(capsys)
    assert code == 0
    assert ("nested: [[[7]]]" in printed) == shown
    assert ("nested" in printed) == shown


def test_one_list_many_times(workdir, capsys):
    """A few hundred bytes that stand for billions of values."""
    value: list[object] = ["lol"]
    for _ in range(12):
        value = [value] * 8
    torch.save({"params": given_as.rrdbnet().state_dict(), "laugh": value}, "x.pth")
    code, printed = inspect(capsys)
    assert code == 2
    assert "nested without end" in printed


def test_keys_of_several_types(workdir, capsys):
    facts = {"params": given_as.rrdbnet().state_dict(), "cfg": {1: "a", "b": 2}, "raw": b"\xff", "scale": 4}
    torch.save(facts, "x.pth")
    assert main(["convert", "x.pth", "--to", "safetensors", "-o", "x.safetensors"]) == 0
    assert main(["inspect", "x.safetensors", "--json"]) == 0
    assert '"cfg"' not in capsys.readouterr().out


@pytest.mark.parametrize(
    "state",
    [
        {"body.0.weight": torch.zeros(4, 3, 3, 3), "body.2.weight": torch.zeros(())},
        {"w": torch.zeros(4, dtype=torch.complex64)},
        {"w\ud800\x1b[2J": torch.zeros(4)},
    ],
)
def test_tensors_of_odd_kinds(workdir, capsys, state):
    torch.save(state, "x.pth")
    inspect(capsys)
    assert main(["convert", "x.pth", "--to", "safetensors", "-o", "y.safetensors"]) in (0, 2)
    assert main(["upscale", "none.png", "-o", "out.png", "-m", "x.pth"]) == 2
