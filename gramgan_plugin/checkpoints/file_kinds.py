"""Recognise files that are not checkpoints: say what they are, and what to do."""

import re
import string
from collections.abc import Iterable

NOT_A_CHECKPOINT = "not a checkpoint as torch.save writes it; check where it comes from"

_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "a Git LFS pointer, not the file itself; run `git lfs pull` where it comes from, or use its download link",
    ),
    (
        re.compile(rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|\?xml|error)", re.DOTALL),
        "a web page, not a checkpoint; the link leads to a page about the file: use the one that downloads it",
    ),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd"), "a compressed file; unpack it first"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive; unpack it first"),
    (
        re.compile(rb"\x08[\x03-\x20]\x12.(pytorch|tf2onnx|onnx)", re.DOTALL),
        "an ONNX file, which is for other programs; give the file of weights that it comes from",
    ),
    (re.compile(rb"\x89HDF"), "an HDF5 file (of Keras?), which is not read"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array, not a checkpoint"),
)
_TEXT = frozenset(string.printable.encode("ascii"))


def other_kind(head: bytes) -> str | None:
    """Return what a file is, if not a checkpoint, and what to do; None if it may be one.

    Args:
        head: its first bytes: at least 512, or all of a shorter file.
    """
    if not head:
        return "an empty file; fetch it again"
    for pattern, what in _KINDS:
        if pattern.match(head):
            return what
    if set(head) <= _TEXT:
        return "a text file, not a checkpoint; was it fetched from the right link?"
    return None


def other_kind_of_archive(prefix: str, members: Iterable[str]) -> str | None:
    """Return the same as `other_kind`, for a zip archive.

    Args:
        prefix: the folder of its first member.
        members: the names of all members.
    """
    names = set(members)
    if f"{prefix}/constants.pkl" in names:
        return "a TorchScript archive (torch.jit.save), not a checkpoint; save the network's state_dict() instead"
    if f"{prefix}/data.pkl" not in names:
        return "a zip archive without a checkpoint; unpack it first"
    return None
