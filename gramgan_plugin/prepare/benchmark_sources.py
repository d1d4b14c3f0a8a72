"""Find the GT and LQ files of benchmark sets in the folder layouts in which they are distributed."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from gramgan_plugin.data.images import list_images
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.utils.io import real_path
from gramgan_plugin.utils.text import printable

# Number of images, by the name under which papers report the set.
KNOWN_SETS = {
    "Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100, "Manga109": 109, "PIRM": 100, "DIV2K100": 100,
}  # fmt: skip
_ALIASES = {
    **{name.lower(): name for name in KNOWN_SETS},
    **dict.fromkeys(("b100", "bsds100"), "BSD100"),
    **dict.fromkeys(("pirm_val", "pirm_test"), "PIRM"),
    **dict.fromkeys(("div2k_valid", "div2k_val"), "DIV2K100"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GT_FOLDERS = ("original", "HR", "GT")
_SELFEXSR = re.compile(r"(?P<stem>.+)_SRF_(?P<scale>\d+)_(?P<kind>HR|LR)")
_SELFEXSR_FOLDER = re.compile(r"image_SRF_(?P<scale>\d+)")


@dataclass
class SourceSet:
    """The files of one set.

    Attributes:
        name: the name under which it is reported.
        layout: "BasicSR", "EDSR", "SelfExSR", "HR alone" or "flat folder".
        root: its folder.
        gt: files by the name that GT and LQ share.
        lq: likewise for each scale with LQ.
    """

    name: str
    layout: str
    root: Path
    gt: dict[str, Path]
    lq: dict[int, dict[str, Path]] = field(default_factory=dict)

    @property
    def expected(self) -> int | None:
        """Number of images of a known set with this name, or None."""
        return KNOWN_SETS.get(self.name)


def find_sets(source: Path, scales: tuple[int, ...]) -> list[SourceSet]:
    """Return the sets in a folder, which is a set itself or contains several.

    Args:
        source: the folder; the GT folder of a set (``Set5/HR``) means the set.
        scales: scales of the LQ to find.

    Raises:
        UserError: if it is not a folder, or nothing in it has a known layout.
    """
    source = real_path(source)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; name an unpacked set, or a folder of sets")
    with file_errors(source):
        if _is_part(source.name) and source.parent.name:
            source = source.parent
        one = _recognised(source, scales)
        if one is not None:
            return [one]
        folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [found for path in folders if (found := _recognised(path, scales)) is not None]
    if not found:
        raise UserError(
            f"{source}: no benchmark set found in it; known are BasicSR's layout (original or GTmod12, LRbicx4), "
            "EDSR's (HR, LR_bicubic/X4), SelfExSR's (image_SRF_4), and a folder of images or with HR alone"
        )
    return found


def _is_part(name: str) -> bool:
    return name in _GT_FOLDERS or name.startswith("GTmod") or _SELFEXSR_FOLDER.fullmatch(name) is not None


def _recognised(folder: Path, scales: tuple[int, ...]) -> SourceSet | None:
    """Return the set in a folder, or None."""
    for find in (_basicsr, _edsr, _selfexsr, _alone):
        found = find(folder, scales)
        if found is not None:
            layout, gt, lq = found
            return SourceSet(_set_name(folder), layout, folder, gt, lq)
    return None


_Found = tuple[str, dict[str, Path], dict[int, dict[str, Path]]] | None


def _basicsr(folder: Path, scales: tuple[int, ...]) -> _Found:
    """Find ``original`` or ``GTmod12``, and ``LRbicx2``, ``LRbicx3``, ``LRbicx4``."""
    names = (*sorted(path.name for path in folder.glob("GTmod*")), *_GT_FOLDERS)
    gt = next((folder / name for name in names if (folder / name).is_dir()), None)
    lq = {scale: folder / f"LRbicx{scale}" for scale in scales}
    taken = {scale: _by_stem(path, "") for scale, path in lq.items() if path.is_dir()}
    if gt is None or not (taken or gt.name.startswith("GTmod")):
        return None
    return "BasicSR", _by_stem(gt, ""), taken


def _edsr(folder: Path, scales: tuple[int, ...]) -> _Found:
    """Find ``HR/baby.png``, ``LR_bicubic/X4/babyx4.png``."""
    gt, lq = folder / "HR", folder / "LR_bicubic"
    if not (gt.is_dir() and lq.is_dir()):
        return None
    taken = {scale: _by_stem(lq / f"X{scale}", f"x{scale}") for scale in scales if (lq / f"X{scale}").is_dir()}
    return "EDSR", _by_stem(gt, ""), taken


def _selfexsr(folder: Path, scales: tuple[int, ...]) -> _Found:
    """Find ``image_SRF_4/img_001_SRF_4_HR.png``, ``..._LR.png`` among the results of methods.

    Each factor has its own GT, cut to its multiples; the GT of the smallest factor has lost least.
    """
    folders = {}
    for path in folder.iterdir():
        match = _SELFEXSR_FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            folders[int(match["scale"])] = path
    if not folders:
        return None
    gt = _selfexsr_files(folders[min(folders)], "HR")
    lq = {scale: _selfexsr_files(folders[scale], "LR") for scale in scales if scale in folders}
    return "SelfExSR", gt, {scale: files for scale, files in lq.items() if files}


def _selfexsr_files(folder: Path, kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in list_images(folder):
        match = _SELFEXSR.fullmatch(Path(name).stem)
        if match and match["kind"] == kind:
            _put(found, match["stem"], folder / name)
    return found


def _alone(folder: Path, scales: tuple[int, ...]) -> _Found:
    """Find GT without LQ, in a subfolder or in the folder itself."""
    for name in _GT_FOLDERS:
        if (folder / name).is_dir():
            return "HR alone", _by_stem(folder / name, ""), {}
    return ("flat folder", _by_stem(folder, ""), {}) if list_images(folder) else None


def _by_stem(folder: Path, ending: str) -> dict[str, Path]:
    """Return image files by name, without suffix and without ``ending`` where present."""
    found: dict[str, Path] = {}
    for name in list_images(folder):
        _put(found, Path(name).stem.removesuffix(ending), folder / name)
    return found


def _put(found: dict[str, Path], stem: str, path: Path) -> None:
    if stem in found:
        raise UserError(f"{printable(str(path))}: a second file for {printable(stem)}; keep one of them")
    found[stem] = path


def _set_name(folder: Path) -> str:
    plain = re.sub(r"[_-](sr|hr)$", "", folder.name.lower())
    name = _ALIASES.get(plain, folder.name)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{printable(str(folder))}: the name of a set has letters, digits, '.', '_' and '-'; rename the folder"
        )
    return name
