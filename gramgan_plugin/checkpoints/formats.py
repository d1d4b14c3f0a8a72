"""Recognise formats of the ESRGAN family's checkpoints that other programs write and that are not read yet."""

import re
from collections.abc import Iterable

_INSTEAD = (
    "which are not read yet; use a file with BasicSR's names (body.0.rdb1.conv1.weight), such as upstream's "
    "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth"
)

# The start of their tensors' names, and who writes them. None of BasicSR's networks has such names.
_FORMATS = (
    (re.compile(r"RRDB_trunk\.\d"), f"the original ESRGAN repository (RRDB_trunk.*), {_INSTEAD}"),
    (re.compile(r"model\.(0\.(weight|bias)$|1\.sub\.)"), f"the old ESRGAN architecture (model.1.sub.*), {_INSTEAD}"),
    (re.compile(r"generator(_ema)?\."), f"MMagic and MMEditing (generator.*), {_INSTEAD}"),
)


def recognise_format(names: Iterable[str]) -> str | None:
    """Return which format these names are of and what to do, or None for an unknown format.

    Args:
        names: of tensors that do not fit the network.
    """
    known = list(names)
    return next((what for pattern, what in _FORMATS if any(pattern.match(name) for name in known)), None)
