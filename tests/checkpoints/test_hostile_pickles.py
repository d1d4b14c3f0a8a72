"""Pickles made by hand that torch's own careful reader would follow into memory, time or a crash."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.errors import UserError

NONE, EMPTY, FALSE = b"N", b")", b"\x89"


def name(path: str) -> bytes:
    module, _, member = path.rpartition(".")
    return f"c{module}\n{member}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value: int) -> bytes:
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def row(*members: bytes) -> bytes:
    return b"(" + b"".join(members) + b"t"


def listed(*members: bytes) -> bytes:
    return b"](" + b"".join(members) + b"e"


def table(**members: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in members.items()) + b"u"


def call(path: str, *arguments: bytes) -> bytes:
    return name(path) + row(*arguments) + b"R"


def tensor(hooks: bytes = call("collections.OrderedDict")) -> bytes:
    storage = row(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), whole(4)) + b"Q"
    return call("torch._utils._rebuild_tensor_v2", storage, whole(0), row(whole(4)), row(whole(1)), FALSE, hooks)


LOG = "mmengine.logging.history_buffer.HistoryBuffer"
# torch would call bytearray(2**30) for it.
HUGE = call(
    "torch._tensor._rebuild_from_type_v2", *[name("__builtin__.bytearray")] * 2, row(whole(3 * 2**30 // 2)), NONE
)
DEEP = NONE + b"\x85" * 300_000
SHARED = listed(*[text("a" * 100)] * 50) + b"q\x00"
for place in (0, 1):
    again = b"h" + bytes([place])
    SHARED = listed(SHARED, *[again] * 59) + b"q" + bytes([place + 1])
CASES = {
    "in what is left out": table(log=call(LOG, HUGE)),
    "as its attributes": table(log=call(LOG) + HUGE + b"b"),
    "as a new object's arguments": table(log=name(LOG) + row(HUGE) + b"\x81"),
    "dropped": b"}(" + text("x") + HUGE + text("x") + whole(1) + b"u",
    "as a hook": table(w=tensor(hooks=table(a=HUGE))),
    "hooks that are none": table(w=tensor(hooks=whole(5))),
    "counted deep pair": table(log=call(LOG, call("collections.Counter", listed(row(text("a"), DEEP))))),
    "set of one hash": table(log=call("__builtin__.set", listed(*(whole(k * (2**61 - 1)) for k in range(1, 3000))))),
    "device of shared lists": table(log=call("torch.device", SHARED)),
    "dict that torch leaves empty": table(
        w=name("collections.OrderedDict") + row(listed(row(text("a"), tensor()))) + b"\x81"
    ),
    "device of a list": table(log=call("torch.device", listed(text("cpu")))),
    "size of other things": table(log=call("torch.Size", listed(text("a")))),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_before_torch_reads_it(case: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile("x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + CASES[case] + b".")
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")
    monkeypatch.setattr("torch.load", lambda *arguments, **more: pytest.fail("torch has read it"))
    with pytest.raises(UserError) as caught:
        load_tensors("x.pth")
    assert str(caught.value).startswith("x.pth: a damaged checkpoint: ")


def test_a_plain_one_is_read(workdir: Path) -> None:
    with zipfile.ZipFile("x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + table(w=tensor(), log=call(LOG)) + b".")
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    assert load_tensors("x.pth")["w"].tolist() == [0.0] * 4


@pytest.mark.parametrize("place", ["the system", "the keys", "the protocol"])
def test_in_what_torchs_older_format_has_besides(place: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "magic": whole(0x1950A86A20F9469CFC6C),
        "the protocol": whole(1001),
        "the system": table(),
        "content": table(a=whole(1)),
        "the keys": listed(),
    }
    parts[place] = b"}(" + text("0") + HUGE + b"u" if place == "the keys" else HUGE
    Path("x.pth").write_bytes(b"".join(b"\x80\x02" + part + b"." for part in parts.values()))
    monkeypatch.setattr("torch.load", lambda *arguments, **more: pytest.fail("torch has read it"))
    with pytest.raises(UserError, match=r"^x\.pth: "):
        load_tensors("x.pth")


def test_content_that_is_no_ordinary_tensor_is_called_so(workdir: Path) -> None:
    odd = call("torch._tensor._rebuild_from_type_v2", *[name("__builtin__.bytearray")] * 2, row(whole(2**30)), NONE)
    parts = whole(0x1950A86A20F9469CFC6C), whole(1001), table(), odd, listed()
    Path("x.pth").write_bytes(b"".join(b"\x80\x02" + part + b"." for part in parts))
    with pytest.raises(UserError, match=r"^x\.pth: its content is a tensor of a custom class"):
        load_tensors("x.pth")
