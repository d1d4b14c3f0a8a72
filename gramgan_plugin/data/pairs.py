"""Which GT image belongs to which LQ image: folders and LMDBs, checked when a dataset is built."""

from pathlib import Path
from typing import Any, NamedTuple

from gramgan_plugin.data.images import list_images
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.photos import PhotoError, photo_info
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.files import expanded
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, MATLAB_UINT8

# What the option ``lq`` can be -> the kind of LQ that is made from GT then.
LQ_MADE = {"bicubic": MATLAB_BICUBIC, "bicubic-uint8": MATLAB_UINT8}


class FolderImages:
    """The image files of a folder, not of its subfolders.

    Args:
        path: the folder.
        template: how a file here is called after its partner without suffix: ``{}`` or for example ``{}x4``.

    Raises:
        UserError: if the folder is missing or has no images. The message begins with the path.
    """

    def __init__(self, path: Path, template: str = "{}") -> None:
        self.path = path
        self.template = template
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        self.files = list_images(path)
        if not self.files:
            raise UserError(f"{path}: a folder without images")

    def read(self, key: str) -> bytes:
        """The bytes of a file, by its path as in :meth:`names`."""
        return Path(key).read_bytes()

    def names(self) -> dict[str, str]:
        """File's path by the name, without suffix, that it shares with its partner.

        Raises:
            UserError: if two files have the same name, or one does not fit the template.
        """
        head, tail = self.template.split("{}")
        found: dict[str, str] = {}
        for file in self.files:
            stem = Path(file).stem
            if len(stem) <= len(head + tail) or not (stem.startswith(head) and stem.endswith(tail)):
                raise UserError(f"{self.path / file}: is not named after filename_tmpl '{self.template}'")
            name = stem[len(head) : len(stem) - len(tail)]
            if name in found:
                raise UserError(f"{self.path / file}: a second file of the name {stem}; keep one of them")
            found[name] = str(self.path / file)
        return found

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) by file's path, from the files' headers.

        Raises:
            UserError: if a file is no image.
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
    """Where a GT image and its LQ image lie; without LQ, it is made from GT."""

    gt: Source
    gt_key: str
    lq: Source | None
    lq_key: str


def find_pairs(opt: dict[str, Any]) -> list[Pair]:
    """All pairs that a dataset's options name, in the order of the roots, then of the names.

    Args:
        opt: ``phase``, ``dataroot_gt``, ``dataroot_lq`` or ``lq``, ``io_backend``,
            ``filename_tmpl``.

    Raises:
        OptionError: if a root cannot be read, or GT and LQ do not have the same names; names the option.
    """
    gt_roots = _roots(opt, "dataroot_gt")
    if opt.get("lq") is not None:
        if str(opt["lq"]) not in LQ_MADE:
            known = " or ".join(map(repr, LQ_MADE))
            raise OptionError(f"{option(opt, 'lq')}: {opt['lq']!r} is not known; leave it out, or {known}")
        if opt.get("dataroot_lq") is not None:
            raise OptionError(f"{option(opt, 'lq')}: LQ comes from 'dataroot_lq' or is made; give one of the two")
        sources = [_source(opt, "dataroot_gt", root, "{}") for root in gt_roots]
        return [Pair(s, key, None, key) for s in sources for _, key in sorted(_names(opt, "dataroot_gt", s).items())]

    lq_roots = _roots(opt, "dataroot_lq")
    if len(lq_roots) != len(gt_roots):
        raise OptionError(f"{option(opt, 'dataroot_lq')}: {len(lq_roots)} paths for the {len(gt_roots)} of dataroot_gt")
    pairs = []
    for gt_root, lq_root in zip(gt_roots, lq_roots, strict=True):
        pairs += _pairs_of(opt, gt_root, lq_root)
    return pairs


def option(opt: dict[str, Any], key: str) -> str:
    """The full path of a dataset's option, as a user finds it in the option file."""
    return f"datasets.{opt.get('phase', 'train')}.{key}"


def _pairs_of(opt: dict[str, Any], gt_root: Path, lq_root: Path) -> list[Pair]:
    gt = _source(opt, "dataroot_gt", gt_root, "{}")
    lq = _source(opt, "dataroot_lq", lq_root, _template(opt))
    gt_names, lq_names = _names(opt, "dataroot_gt", gt), _names(opt, "dataroot_lq", lq)
    if gt_names.keys() != lq_names.keys():
        odd = min(gt_names.keys() ^ lq_names.keys())
        has, lacks = (gt_root, lq_root) if odd in gt_names else (lq_root, gt_root)
        raise OptionError(
            f"{option(opt, 'dataroot_lq')}: GT and LQ differ: {odd} is in {has} and not in {lacks} "
            f"({len(gt_names)} GT, {len(lq_names)} LQ images)"
        )
    return [Pair(gt, gt_names[name], lq, lq_names[name]) for name in sorted(gt_names)]


def _roots(opt: dict[str, Any], key: str) -> list[Path]:
    value = opt.get(key)
    if value is None:
        hint = "give a path, or 'lq: bicubic'" if key == "dataroot_lq" else "give a path"
        raise OptionError(f"{option(opt, key)}: is missing; {hint}")
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(v, str | Path) and str(v) for v in values):
        raise OptionError(f"{option(opt, key)}: expected a path or a list of paths, got {value!r}")
    return [expanded(v) for v in values]


def _source(opt: dict[str, Any], key: str, root: Path, template: str) -> Source:
    backend = (opt.get("io_backend") or {}).get("type", "lmdb" if root.suffix == ".lmdb" else "disk")
    if backend not in ("lmdb", "disk"):
        raise OptionError(f"{option(opt, 'io_backend')}: type {backend!r} is not known; take 'lmdb' or 'disk'")
    try:
        return LmdbImages(root) if backend == "lmdb" else FolderImages(root, template)
    except (UserError, OSError) as error:
        raise OptionError(f"{option(opt, key)}: {error}") from error


def _names(opt: dict[str, Any], key: str, source: Source) -> dict[str, str]:
    try:
        return source.names()
    except UserError as error:
        raise OptionError(f"{option(opt, key)}: {error}") from error


def _template(opt: dict[str, Any]) -> str:
    template = opt.get("filename_tmpl", "{}")
    if not isinstance(template, str) or template.count("{}") != 1:
        raise OptionError(f"{option(opt, 'filename_tmpl')}: expected one {{}} as in '{{}}x4', got {template!r}")
    return template
