"""safetensors files: against the reference package, and files that lie about themselves."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from gramgan_plugin.checkpoints.headers import read_headers
from gramgan_plugin.checkpoints.safetensors_files import plain_metadata, read_safetensors_header, save_safetensors
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.errors import UserError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}


def test_what_others_wrote(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors", metadata={"author": "A. Nonym"})
    headers, metadata = read_safetensors_header(tmp_path / "x.safetensors")
    assert headers.keys() == STATE.keys()
    assert all((t.shape, t.dtype) == (STATE[name].shape, STATE[name].dtype) for name, t in headers.items())
    assert all(tensor.is_meta for tensor in read_headers(tmp_path / "x.safetensors").values())
    assert metadata == {"author": "A. Nonym"}
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in STATE.items())


def test_what_others_read(tmp_path):
    shared = torch.ones(4)
    state = STATE | {"x": shared, "y": shared[1:]}
    save_safetensors(state, tmp_path / "x.safetensors", {"iteration": 5, "key": "params"})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "metadata": '{"iteration": 5, "key": "params"}'}
        assert torch.equal(file.get_tensor("a.weight"), STATE["a.weight"])
        assert torch.equal(file.get_tensor("y"), torch.ones(3))
    assert plain_metadata(read_safetensors_header(tmp_path / "x.safetensors")[1]) == {"iteration": 5, "key": "params"}


def test_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        save_safetensors(STATE, tmp_path / name, {"iteration": 5, "b": "c", "a": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("text", "expected"), [("[1, 2]", {"metadata": [1, 2]}), ("{cut", {"metadata": "{cut"})])
def test_metadata_of_other_forms(text, expected):
    assert plain_metadata({"metadata": text}) == expected


def _file(path: Path, header: object, data: bytes = bytes(4), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ({"w": ENTRY | {"shape": [2**40]}}, "another size than its shape says"),
        ({"w": ENTRY | {"shape": [-1]}}, "no list of sizes"),
        ({"w": ENTRY | {"shape": [True]}}, "no list of sizes"),
        ({"w": ENTRY | {"shape": [1] * 17}}, "no list of sizes"),
        ({"w": ENTRY | {"dtype": "F4"}}, "tensors of the type 'F4'"),
        ({"w": ENTRY | {"dtype": ["F32"]}}, "tensors of the type"),
        ({"w": ENTRY | {"data_offsets": [4, 8]}}, "overlap others or leave a gap"),
        ({"w": ENTRY, "v": ENTRY}, "overlap others or leave a gap"),
        ({"w": {"dtype": "F32"}}, "a tensor without type, shape or place"),
        ({"w": 3}, "a tensor without type, shape or place"),
        ({"w": ENTRY, "__metadata__": {"a": 1}}, "metadata are not texts"),
        ({"__metadata__": {}, "w": ENTRY | {"shape": [0], "data_offsets": [0, 0]}}, "longer or shorter"),
        (b"{" + b'"a":[' * 90_000, "damaged"),
        (b"{'w'}", "damaged"),
    ],
)
def test_exception(tmp_path, header, problem):
    path = _file(tmp_path / "x.safetensors", header)
    with pytest.raises(UserError, match=problem) as caught:
        load_tensors(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**39])
def test_length_of_the_header(tmp_path, length):
    with pytest.raises(UserError):
        load_tensors(_file(tmp_path / "x.safetensors", {"w": ENTRY}, length=length))


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), cut=st.integers(0, 300))
def test_damaged(tmp_path_factory, flips, cut):
    """It loads, or is refused in one line."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file(STATE, path)
    data = bytearray(path.read_bytes())
    for place, byte in flips:
        data[place % len(data)] = byte
    path.write_bytes(bytes(data[: len(data) - cut] if cut < len(data) else data))
    try:
        assert isinstance(load_tensors(path), dict)
    except UserError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "complex64"])
def test_rare_types(tmp_path, dtype):
    state = {"w": torch.arange(4).to(getattr(torch, dtype))}
    save_file(state, tmp_path / "x.safetensors")
    loaded = load_tensors(tmp_path / "x.safetensors")["w"]
    assert loaded.dtype == state["w"].dtype
    assert torch.equal(loaded.view(torch.uint8), state["w"].view(torch.uint8))
