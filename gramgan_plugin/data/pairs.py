"""Find the LQ image of each GT image in folders and LMDBs, checked when a dataset is built."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gramgan_plugin.data.image_list import read_image_list
from gramgan_plugin.data.images import list_images
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.photos import PhotoError, photo_info
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, MATLAB_UINT8
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.text import printable, shown_value

# Value of the option ``lq`` -> the kind of LQ to make from GT.
LQ_MADE = {"bicubic": MATLAB_BICUBIC, "bicubic-uint8": MATLAB_UINT8}


class FolderImages:
    """The image files of a folder; files in subfolders only if they are listed.

    Args:
        path: the folder.
        template: a file's name, without suffix, made from its partner's: ``{}`` or for example ``{}x4``.
        listed: relative paths of the files to use; None for all.

    Raises:
        UserError: if the folder is missing, empty, or lacks listed images. The message begins with the path.
    """

    def __init__(self, path: Path, template: str = "{}", listed: Sequence[str] | None = None) -> None:
        self.path = path
        self.template = template
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        self.files = list_images(path) if listed is None else list(listed)
        if not self.files:
            raise UserError(f"{path}: a folder without images")
        absent = [file for file in listed or () if not (path / file).is_file()]
        if absent:
            raise _not_there(path, absent, len(self.files))

    def read(self, key: str) -> bytes:
        """Return the bytes of a file, given its path from :meth:`names`."""
        return Path(key).read_bytes()

    def names(self, wanted: Collection[str] | None = None) -> dict[str, str]:
        """Return the files' paths by the name, without suffix, that a file shares with its partner.

        Args:
            wanted: the names to use, from now on also in :meth:`sizes`; None for all.

        Raises:
            UserError: if two files have the same name, or one does not fit the template.
        """
        head, tail = self.template.split("{}")
        found: dict[str, str] = {}
        files, self.files = self.files, []
        for file in files:
            stem = Path(file).stem
            fits = len(stem) > len(head + tail) and stem.startswith(head) and stem.endswith(tail)
            name = stem[len(head) : len(stem) - len(tail)]
            if wanted is not None and not (fits and name in wanted):
                continue
            if not fits:
                raise UserError(f"{self.path / file}: is not named after filename_tmpl '{self.template}'")
            if name in found:
                raise UserError(f"{self.path / file}: a second file of the name {stem}; keep one of them")
            found[name] = str(self.path / file)
            self.files.append(file)
        return found

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return (height, width) by path, from the files' headers.

        Raises:
            UserError: if a file is not an image.
        """
        found = {}
        for file in self.files:
            path = self.path / file
            try:
                info = photo_info(path)
            except PhotoError as error:
                raise UserError(f"{path}: {error}; remove it") from error
            found[str(path)] = (info.height, info.width)
        return found


Source = LmdbImages | FolderImages


class Pair(NamedTuple):
    """Where a GT image and its LQ image are stored; without LQ, it is made from GT."""

    gt: Source
    gt_key: str
    lq: Source | None
    lq_key: str


def find_pairs(opt: dict[str, Any]) -> list[Pair]:
    """Return all pairs of a dataset's options, in the order of the roots, then of the names or the list.

    Args:
        opt: ``phase``, ``dataroot_gt``, ``dataroot_lq`` or ``lq``, ``meta_info_file``, ``io_backend``,
            ``filename_tmpl``.

    Raises:
        OptionError: if a root cannot be read, or GT and LQ do not have the same names. The message names the option.
    """
    for key, mistake in pair_mistakes(opt):
        raise OptionError(f"{option(opt, key)}: {mistake}")
    gt_roots = _roots(opt, "dataroot_gt")
    if opt.get("lq") is not None:
        if str(opt["lq"]) not in LQ_MADE:
            known = " or ".join(map(repr, LQ_MADE))
            raise OptionError(f"{option(opt, 'lq')}: {opt['lq']!r} is not known; leave it out, or {known}")
        sources = [_gt(opt, root) for root in gt_roots]
        return [Pair(gt, key, None, key) for gt, names in sources for key in names.values()]
    lq_roots, pairs = _roots(opt, "dataroot_lq"), []
    for gt_root, lq_root in zip(gt_roots, lq_roots, strict=True):
        pairs += _pairs_of(opt, gt_root, lq_root)
    return pairs


def pair_mistakes(opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what does not fit together in a dataset's options: the key, and what is wrong and what to do.

    Args:
        opt: as for `find_pairs`; values may be of any type.
    """
    gt, lq, made = opt.get("dataroot_gt"), opt.get("dataroot_lq"), opt.get("lq")
    if lq is None and made is None:
        yield "dataroot_lq", "missing; give a path, or `lq: bicubic`"
    elif lq is not None and made is not None:
        yield "lq", "LQ comes from dataroot_lq or is made from GT; give one of the two"
    elif gt is not None and lq is not None:
        counts = [len(roots) if isinstance(roots, list | tuple) else 1 for roots in (gt, lq)]
        if counts[0] != counts[1]:
            yield "dataroot_lq", f"{counts[1]} paths for the {counts[0]} of dataroot_gt"
    template = opt.get("filename_tmpl", "{}")
    if not isinstance(template, str) or template.count("{}") != 1:
        yield "filename_tmpl", template_mistake(template)


def depth_mistake(opt: Mapping[str, Any], train: bool) -> str | None:
    """Return what is wrong with ``bit_depth`` and what to do, or None.

    Args:
        opt: a dataset's options; values may be of any type.
        train: whether it is the training set.
    """
    depth = opt.get("bit_depth")
    if depth in (None, 8):
        return None
    if depth != 16 or isinstance(depth, bool):
        return f"expected 8 or 16, got {shown_value(depth)}"
    if not train:
        return "16 only in training, since metrics compare 8 bits; leave it out here"
    if opt.get("lq") is not None:
        return "LQ is made in 8 bits; give 16-bit LQ as dataroot_lq"
    return "the cache holds 8 bits; set cache: false" if opt.get("cache") else None


def template_mistake(template: Any) -> str:
    """Return what is wrong with a ``filename_tmpl`` that has not one ``{}``, as the end of a message."""
    return f"expected one {{}} as in '{{}}x4', not {shown_value(template)}"


def template_hint(gt: Collection[str], lq: Collection[str]) -> str:
    """Return the end of a message that suggests a fitting ``filename_tmpl``, or "" if none fits.

    Args:
        gt: names without suffixes.
        lq: likewise.

    >>> template_hint({"0801", "0802"}, {"0801x4", "0802x4"})
    "; set filename_tmpl: '{}x4'"
    """
    first, there = min(gt, default=""), set(lq)
    for name in sorted(there):
        head, found, tail = name.partition(first)
        if found and all(f"{head}{one}{tail}" in there for one in gt):
            return f"; set filename_tmpl: '{head}{{}}{tail}'"
    return ""


def option(opt: dict[str, Any], key: str) -> str:
    """Return the key path of a dataset's option in the option file."""
    return f"datasets.{opt.get('phase', 'train')}.{key}"


def _pairs_of(opt: dict[str, Any], gt_root: Path, lq_root: Path) -> list[Pair]:
    gt, gt_names = _gt(opt, gt_root)
    lq = _source(opt, "dataroot_lq", lq_root, opt.get("filename_tmpl", "{}"))
    lq_names = _names(opt, "dataroot_lq", lq, None if opt.get("meta_info_file") is None else gt_names.keys())
    if gt_names.keys() != lq_names.keys():
        odd = min(gt_names.keys() ^ lq_names.keys())
        has, lacks = (gt_root, lq_root) if odd in gt_names else (lq_root, gt_root)
        hint = template_hint(gt_names, lq_names) if isinstance(lq, FolderImages) else ""
        raise OptionError(
            f"{option(opt, 'dataroot_lq')}: GT and LQ differ: {odd} is in {has} and not in {lacks} "
            f"({len(gt_names)} GT, {len(lq_names)} LQ images){hint}"
        )
    return [Pair(gt, key, lq, lq_names[name]) for name, key in gt_names.items()]


def _gt(opt: dict[str, Any], root: Path) -> tuple[Source, dict[str, str]]:
    """Return the GT of a root, and its keys by name: sorted, or those of ``meta_info_file`` in its order."""
    listed = _listed(opt)
    gt = _source(opt, "dataroot_gt", root, "{}", listed)
    if listed is None:
        return gt, dict(sorted(_names(opt, "dataroot_gt", gt).items()))
    wanted = [Path(name).stem for name in listed]
    names = _names(opt, "dataroot_gt", gt, frozenset(wanted))
    absent = [name for name in wanted if name not in names]
    if absent:
        raise OptionError(f"{option(opt, 'meta_info_file')}: {_not_there(root, absent, len(wanted))}")
    return gt, {name: names[name] for name in wanted}


def _listed(opt: dict[str, Any]) -> list[str] | None:
    path = opt.get("meta_info_file")
    if path is None:
        return None
    where = option(opt, "meta_info_file")
    if not isinstance(path, str | Path) or not str(path):
        raise OptionError(f"{where}: expected a path, got {path!r}")
    if len(_roots(opt, "dataroot_gt")) > 1:
        raise OptionError(f"{where}: lists the images of one root; give one dataroot_gt, or leave it out")
    try:
        return read_image_list(expanded(path))
    except UserError as error:
        raise OptionError(f"{where}: {error}") from error


def _not_there(path: Path, absent: Sequence[str], total: int) -> UserError:
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return UserError(f"{path}: has no {printable(absent[0])}{more} of the {total} images that meta_info_file lists")


def _roots(opt: dict[str, Any], key: str) -> list[Path]:
    value = opt.get(key)
    if value is None:
        raise OptionError(f"{option(opt, key)}: missing; give a path")
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(v, str | Path) and str(v) for v in values):
        raise OptionError(f"{option(opt, key)}: expected a path or a list of paths, got {value!r}")
    return [expanded(v) for v in values]


def _source(opt: dict[str, Any], key: str, root: Path, template: str, listed: Sequence[str] | None = None) -> Source:
    backend = (opt.get("io_backend") or {}).get("type", "lmdb" if root.suffix == ".lmdb" else "disk")
    if backend not in ("lmdb", "disk"):
        raise OptionError(f"{option(opt, 'io_backend')}: type {backend!r} is not known; take 'lmdb' or 'disk'")
    try:
        return LmdbImages(root) if backend == "lmdb" else FolderImages(root, template, listed)
    except (UserError, OSError) as error:
        raise OptionError(f"{option(opt, key)}: {error}") from error


def _names(opt: dict[str, Any], key: str, source: Source, wanted: Collection[str] | None = None) -> dict[str, str]:
    try:
        return source.names(wanted)
    except UserError as error:
        raise OptionError(f"{option(opt, key)}: {error}") from error
