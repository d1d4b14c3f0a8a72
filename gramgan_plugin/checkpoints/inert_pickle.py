"""Read the pickle of a checkpoint without running or importing anything; tensors are returned without their data.

``torch.load(weights_only=True)`` runs no foreign code either, but trusts the sizes that a file declares, and allocates
memory before it checks them. This reader interprets the few opcodes that ``torch.save`` writes, and compares each
tensor's declared size with the size of its data.
"""

import math
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable, Sized
from dataclasses import dataclass
from types import NoneType
from typing import IO, Any

import torch
from torch import Tensor

# Types of a dict's keys. Others, such as deep tuples, can crash the interpreter when they are hashed.
KEY_TYPES = (str, bytes, int, float, bool, NoneType)

# A training state of 10,000 tensors has 340,000 opcodes. More take seconds, as does copying large members many times.
MOST_OPCODES, MOST_COPIED = 600_000, 2**22
LARGEST_KEY = 2**53  # of integers; larger ones can be chosen to have one hash

# Those that `torch.load(weights_only=True)` reads.
_VALUES = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"})
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,
}
_UNUSABLE = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data (of the meta device)",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a custom class",
    "torch._utils._rebuild_parameter_with_state": "a tensor with attributes",
    "torch._tensor._rebuild_from_type_v2": "a tensor of a custom class or with attributes",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of a device that torch does not have here",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of a device that torch does not have here",
}


# What MMEngine's checkpoints have in their log besides numbers: the classes and functions are never called, and what
# they would make is `Opaque`.
OPAQUE = frozenset(
    {
        "mmengine.logging.history_buffer.HistoryBuffer",
        "__builtin__.getattr",
        "builtins.getattr",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }
)


class Opaque:
    """Stands for an object of a training log: it has no content."""

    def __new__(cls, *content: Any) -> "Opaque":
        return super().__new__(cls)

    def __init__(self, *content: Any) -> None:
        pass

    def __setstate__(self, content: Any) -> None:
        pass


class Damaged(Exception):  # noqa: N818
    """The bytes are not what ``torch.save`` writes."""


class ForeignObject(Exception):  # noqa: N818
    """The pickle names a class or function that a plain checkpoint does not have: ``package.module.name``."""


class OtherProtocol(Exception):  # noqa: N818
    """The pickle has a protocol that a weights-only load does not read: its number."""


@dataclass(frozen=True)
class Unusable:
    """A placeholder for a tensor of a kind that no network's weights have."""

    kind: str


@dataclass(frozen=True)
class Storage:
    """The data of one or more tensors: the type and the number of its elements."""

    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class _Global:
    name: str


def load_inert(
    stream: IO[bytes], find_storage: Callable[[tuple[Any, ...], torch.dtype], Storage], *, with_tensors: bool = True
) -> Any:
    """Read one pickle, and leave the stream at its end.

    Args:
        stream: positioned at the pickle's first byte.
        find_storage: takes the persistent id of a tensor's data, without its first two members (``storage`` and the
            type), and the type; returns the storage or raises ``Damaged``.
        with_tensors: whether an ``Unusable`` may be in what is returned, for the caller to refuse it by its place.

    Returns:
        Plain Python data; subclasses of dict become dicts. Tensors are on the meta device, or ``Unusable``; objects of
        an MMEngine log are ``Opaque``.

    Raises:
        Damaged: if the pickle is not valid. Any other exception but the next two means the same.
        OtherProtocol: for protocols 4 and 5.
        ForeignObject: if reading it would take a class or function that is not one of torch's own.
    """
    machine = _Machine(find_storage)
    content = machine.run(stream)
    # torch would make it, though nothing in the file keeps it.
    if machine.unusable and not (with_tensors and _has_unusable(content)):
        raise Damaged("its pickle makes a tensor of a kind that no weights have, in a place where none is")
    return content


def _has_unusable(content: Any) -> bool:
    """Return whether an ``Unusable`` is in plain data, however it is nested."""
    left, seen = [content], set[int]()
    while left:
        value = left.pop()
        if isinstance(value, Unusable):
            return True
        if isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left.extend(value.values() if isinstance(value, dict) else value)
    return False


class _Machine:
    """The stack machine of the pickle format, for the opcodes that torch writes."""

    def __init__(self, find_storage: Callable[[tuple[Any, ...], torch.dtype], Storage]) -> None:
        self.find_storage = find_storage
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        self.unusable = False

    def run(self, stream: IO[bytes]) -> Any:
        argument: Any
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            name = opcode.name
            if number == MOST_OPCODES:
                raise Damaged(f"its pickle has more than {MOST_OPCODES:,d} instructions")
            if name == "STOP":
                return self.stack.pop()
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack[-_TUPLES[name] :] = [tuple(self._top(_TUPLES[name]))]
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name == "MARK":
                self.marks.append(self.stack)
                self.stack = []
            else:
                self._run_rare(name, argument)
        raise Damaged("its pickle has no end")

    def _run_rare(self, name: str, argument: Any) -> None:
        if name == "TUPLE":
            members = self._pop_mark()
            self.stack.append(tuple(members))
        elif name in ("APPEND", "APPENDS"):
            members = self._pop_mark() if name == "APPENDS" else [self.stack.pop()]
            self._top_of_type(list).extend(members)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_mark() if name == "SETITEMS" else [self.stack.pop() for _ in range(2)][::-1]
            _put(self._top_of_type(dict), zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            self.stack.append(_global(argument))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.stack.pop(), self.stack.pop()
            copied = (arguments, *arguments) if isinstance(arguments, tuple) else ()
            self.copied += sum(len(member) for member in copied if isinstance(member, Sized))
            if self.copied > MOST_COPIED:
                raise Damaged("its pickle copies the same data again and again")
            if name == "NEWOBJ" and arguments != () and getattr(function, "name", "") in _DICTS:
                raise Damaged("its pickle fills a dict in a way that torch does not")
            self.stack.append(_call(function, arguments))
            self.unusable |= isinstance(self.stack[-1], Unusable)
        elif name == "BUILD":
            self._build()
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.stack.pop()))
        elif name != "PROTO":
            raise Damaged(f"its pickle uses {name}, which torch.save does not write")
        elif argument in (4, 5):
            raise OtherProtocol(argument)

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise Damaged("its pickle reads beyond its own stack")
        return self.stack[-count:]

    def _pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _top_of_type(self, kind: type) -> Any:
        (target,) = self._top(1)
        if type(target) is not kind:
            raise Damaged(f"its pickle has a {type(target).__name__} where a {kind.__name__} should be")
        return target

    def _build(self) -> None:
        """Check the attributes of a dict. torch keeps them, and one that hides a method would break its callers."""
        state = self.stack.pop()
        if type(self._top(1)[0]) is Opaque:
            return
        self._top_of_type(dict)
        if not isinstance(state, dict) or any(type(key) is not str or _is_method(key) for key in state):
            raise Damaged("its pickle gives a dict attributes that no dict has")

    def _storage(self, name: Any) -> Storage:
        if not isinstance(name, tuple) or len(name) < 5 or name[0] != "storage" or not isinstance(name[1], _Global):
            raise Damaged("its pickle refers to data in an unknown way")
        dtype = _STORAGES.get(name[1].name.rpartition(".")[2])
        if dtype is None:
            raise Damaged("its pickle has data of an unknown type")
        return self.find_storage(name[2:], dtype)


def _is_method(name: str) -> bool:
    return hasattr(OrderedDict, name) or hasattr(Counter, name)


def _put(target: dict[Any, Any], items: Any) -> None:
    for key, value in items:
        if type(key) not in KEY_TYPES or (type(key) is int and abs(key) > LARGEST_KEY):
            raise Damaged(f"its pickle has {'a large int' if type(key) is int else type(key).__name__} as a key")
        target[key] = value


def _global(argument: str) -> Any:
    module, _, name = argument.partition(" ")
    path = f"{module}.{name}"
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    is_storage = module.partition(".")[0] == "torch" and name in _STORAGES
    if is_storage or path in OPAQUE or path in _CALLS or path in _UNUSABLE or path in _NAMED_IN_ARGUMENTS:
        return _Global(path)
    raise ForeignObject(path)


def _call(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, _Global) else ""
    if name in _UNUSABLE:
        return Unusable(_UNUSABLE[name])
    if name in OPAQUE:
        return Opaque()
    if name not in _CALLS or not isinstance(arguments, tuple):
        raise Damaged("its pickle calls something that it must not call")
    return _CALLS[name](*arguments)


def _dict(*members: Any) -> dict[Any, Any]:
    """Return a dict for an OrderedDict: empty, from pairs, or from a dict."""
    result: dict[Any, Any] = {}
    for member in members:
        _put(result, member.items() if isinstance(member, dict) else member)
    return result


def _counter(members: Any = None) -> dict[Any, Any]:
    """Return a dict for a Counter, which would count the members of anything but a dict."""
    if members is not None and not isinstance(members, dict):
        raise Damaged("its pickle counts what is not a dict")
    return _dict(members or {})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Damaged("its pickle names a device or layout by something else than text")
    return value


def _size(value: Any = ()) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or any(type(side) is not int for side in value):
        raise Damaged("its pickle has a size that is no list of integers")
    return tuple(value)


def _bytearray(content: bytes | str = b"", *encoding: str) -> bytes:
    return content if isinstance(content, bytes) else _encode(content, *encoding)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes, which protocol 2 writes as text."""
    if encoding not in ("latin1", "latin-1"):
        raise Damaged("its pickle has bytes in an unknown encoding")
    return text.encode("latin1")


def _set(members: list[Any]) -> list[Any]:
    if any(type(member) not in KEY_TYPES or (type(member) is int and abs(member) > LARGEST_KEY) for member in members):
        raise Damaged("its pickle has an unusual set")
    return list(members)


def _tensor(storage: Storage, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor | Unusable:
    """Rebuild a tensor of ``_rebuild_tensor`` or ``_rebuild_tensor_v2`` (rest: requires_grad, hooks, metadata)."""
    _check_hooks(rest[1:2])
    return _view(storage, storage.dtype, offset, size, stride, rest[2:3])


def _tensor_v3(storage: Storage, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor | Unusable:
    """Rebuild a tensor of ``_rebuild_tensor_v3`` (rest: requires_grad, hooks, dtype, metadata); storage is in bytes."""
    _check_hooks(rest[1:2])
    return _view(storage, rest[2], offset, size, stride, rest[3:4])


def _check_hooks(hooks: tuple[Any, ...]) -> None:
    """Refuse a tensor with functions to call in backward; plain ones have an empty dict there, or None."""
    if any(found is not None and found != {} for found in hooks):
        raise Damaged("a tensor has hooks")


def _view(
    storage: Storage, dtype: torch.dtype, offset: int, size: Any, stride: Any, metadata: tuple[Any, ...]
) -> Tensor | Unusable:
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        raise Damaged("a tensor's shape is not valid")
    room = storage.numel * storage.dtype.itemsize // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > 0 and last >= room:
        raise Damaged("a tensor is larger than its data")
    if math.prod(size) > room:
        return Unusable("a tensor whose elements share memory (expanded)")
    if dtype in (torch.qint8, torch.quint8, torch.qint32) or any(metadata):
        return Unusable("a quantized tensor" if not any(metadata) else "a conjugated or negated view")
    return torch.empty_strided(size, stride, dtype=dtype, device="meta")


def _parameter(data: Tensor | Unusable, requires_grad: bool, hooks: Any) -> Tensor | Unusable:
    if not isinstance(data, Tensor | Unusable):
        raise Damaged("a parameter is not a tensor")
    _check_hooks((hooks,))
    return data


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _counter,
    "_codecs.encode": _encode,
    "__builtin__.set": _set,
    "__builtin__.complex": complex,
    "__builtin__.bytearray": _bytearray,
    "torch.Size": _size,
    "torch.device": _text,
    "torch.serialization._get_layout": _text,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
}
_DICTS = frozenset({"collections.OrderedDict", "collections.Counter"})
# Types of tensors and quantization schemes: arguments of the calls that give `Unusable`.
_NAMED_IN_ARGUMENTS = frozenset(
    {
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.per_channel_affine",
        "torch.per_channel_symmetric",
        "torch.per_channel_affine_float_qparams",
    }
)
