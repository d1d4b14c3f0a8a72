"""Convert downloaded benchmark sets to the layout that ``basicsr test`` reads.

The result is ``OUT/SET/GTmod12`` and ``OUT/SET/LRbicx4``, as in BasicSR, and ``benchmark.json``, which describes them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC
from gramgan_plugin.prepare.benchmark_set import SetReport, SetWriter
from gramgan_plugin.prepare.benchmark_sources import SourceSet, find_sets
from gramgan_plugin.prepare.prepared_folder import DATA_SET
from gramgan_plugin.utils.staging import check_free


def default_mod_crop(scales: Sequence[int]) -> int:
    """Return 12 as in BasicSR, which fits x2, x3 and x4, or its least multiple that fits all scales, such as 24."""
    return math.lcm(12, *scales)


def prepare_benchmarks(
    sources: Sequence[Path],
    out: Path,
    scales: Sequence[int] = (4,),
    *,
    mod_crop_to: int | None = None,
    make_lq: bool = False,
    kind: str = MATLAB_BICUBIC,
    overwrite: bool = False,
    progress: bool = True,
) -> list[SetReport]:
    """Convert benchmark sets to one layout. Each set is written atomically.

    Args:
        sources: folders, each one set or a folder of sets.
        out: the folder for all sets; each gets a folder of its own in it.
        scales: scales of the LQ to write.
        mod_crop_to: GT is cut to multiples of it; None for :func:`default_mod_crop`.
        make_lq: make LQ even if the source has it.
        kind: kind of the LQ that is made: ``matlab-bicubic`` or ``matlab-uint8``.
        overwrite: replace sets that were prepared earlier.
        progress: report on stderr.

    Raises:
        UserError: if a source has no known layout, GT and LQ do not belong together, an image is unusable, two
            sources contain the same set, or a set exists in ``out`` already.
    """
    scales = tuple(dict.fromkeys(scales))
    mod = mod_crop_to or default_mod_crop(scales)
    if not scales or min(scales) < 2:
        raise UserError(f"scale {min(scales, default=None)}: must be at least 2")
    odd = [scale for scale in scales if mod % scale]
    if odd or mod < 1:
        raise UserError(f"mod-crop {mod}: not a multiple of the scale {odd[0]}; take {default_mod_crop(scales)}")
    found: dict[str, SourceSet] = {}
    for source in sources:
        for one in find_sets(source, scales):
            if one.name in found:
                raise UserError(f"{one.root}: a second {one.name}, after {found[one.name].root}; give one of them")
            found[one.name] = one
    for name in found:
        check_free(out / name, DATA_SET, overwrite)
    writers = [SetWriter(one, scales, mod, make_lq, kind) for one in found.values()]  # all are inspected first
    return [writer.write(out / writer.source.name, overwrite, progress) for writer in writers]
