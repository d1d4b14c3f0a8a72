"""Read and write safetensors files, with metadata in one JSON text under ``metadata`` (traiNNer-redux's key)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gramgan_plugin.checkpoints.inert_pickle import Damaged
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import parse_json, replacing
from gramgan_plugin.utils.text import shown

MOST_HEADER = 2**23  # bytes
MOST_DIMENSIONS = 16
METADATA = "metadata"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
if hasattr(torch, "uint16"):  # from torch 2.3 on
    _DTYPES |= {"U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64}


def is_safetensors(head: bytes) -> bool:
    """Return whether a file with these first bytes is a safetensors file: a length, then JSON."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


def read_safetensors_header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors on the meta device (no data), and the file's metadata.

    Raises:
        Damaged: if the header is not valid or does not fit the size of the file.
        OSError: if the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise Damaged(f"its header of {length} bytes does not fit its size")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise Damaged("its header is not an object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Damaged("its metadata are not texts")
    places = sorted((_place(entry), name) for name, entry in header.items())
    end = 0
    for (begin, stop), name in places:
        if begin != end:
            raise Damaged(f"the data of {name} overlap others or leave a gap")
        end = stop
    if end != size - 8 - length:
        raise Damaged("its data are longer or shorter than its header says")
    return {name: _meta_tensor(entry) for name, entry in header.items()}, metadata


def _place(entry: Any) -> tuple[int, int]:
    """Return where a tensor's data begin and end, checked against its shape and type."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Damaged("a tensor without type, shape or place")
    shape, place, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Damaged(f"tensors of the type {dtype!r}")
    for numbers, most in ((shape, MOST_DIMENSIONS), (place, 2)):
        if not isinstance(numbers, list) or len(numbers) > most or not all(_is_size(number) for number in numbers):
            raise Damaged("a shape or place that is no list of sizes")
    if len(place) != 2 or place[1] - place[0] != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise Damaged("a tensor's data are of another size than its shape says")
    return place[0], place[1]


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**48


def _meta_tensor(entry: Mapping[str, Any]) -> Tensor:
    return torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]], device="meta")


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata to a file, atomically; the same content always gives the same bytes.

    Args:
        state: name -> tensor, on any device.
        path: the file.
        metadata: plain values, written as one JSON text under ``metadata``, beside ``format: pt``.

    Raises:
        UserError: if it cannot be written; an older file at ``path`` stays as it was.
    """
    names = {dtype: name for name, dtype in _DTYPES.items()}
    texts = {"format": "pt"} | ({METADATA: json.dumps(metadata, sort_keys=True)} if metadata else {})
    header: dict[str, Any] = {"__metadata__": texts}
    other = next((name for name, tensor in state.items() if tensor.dtype not in names), None)
    if other is not None:
        kind = str(state[other].dtype).removeprefix("torch.")
        raise UserError(f"{shown(other)} is {kind}, which is not written to safetensors; save it as float32")
    end = 0
    for name, tensor in state.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    with replacing(path, synced=True, shared=True) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in state.values():
            stream.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def saved_key(path: str | Path) -> str | None:
    """Return the key under which a safetensors file's weights stood before `basicsr convert` wrote it; None otherwise.

    Raises:
        Damaged, OSError: if it cannot be read.
    """
    with Path(path).open("rb") as stream:
        if not is_safetensors(stream.read(10)):
            return None
    key = plain_metadata(read_safetensors_header(Path(path))[1]).get("key")
    return key if isinstance(key, str) else None


def plain_metadata(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a file's metadata as plain values: the JSON object under ``metadata``, if any, and the other texts.

    Example:
        >>> plain_metadata({"format": "pt", "metadata": '{"iteration": 5}', "author": "A. Nonym"})
        {'author': 'A. Nonym', 'iteration': 5}
    """
    values: dict[str, Any] = {name: text for name, text in texts.items() if name not in ("format", METADATA)}
    try:
        own = parse_json(texts.get(METADATA, "{}"))
    except ValueError:
        own = texts[METADATA]
    return values | (own if isinstance(own, dict) else {METADATA: own})
