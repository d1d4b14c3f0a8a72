"""Check that the folders, LMDBs and lists of a data set exist and name the same images."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.config.files_images import Deadline, ImageSet, Stored, check_images
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.config.schema_datasets import DATASETS
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.pairs import find_pairs, template_hint
from gramgan_plugin.data.streamed_sr_dataset import StreamedSRDataset
from gramgan_plugin.data.unreadable import MAX_UNREADABLE
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import shown_value

ROOTS = ("dataroot_gt", "dataroot_lq")
LISTS = ("meta_info_file", "meta_info")
Pairs = list[tuple[Stored | None, Stored | None]]


def check_datasets(opt: Mapping[str, Any], is_train: bool | None, deadline: Deadline, found: Findings) -> None:
    """Check the data sets that options name.

    Args:
        opt: options that ``check_options`` accepts.
        is_train: True does not read test sets, False does not read training data; both skip unusable images unless
            ``val.on_error`` is ``stop``. None reads all sets, and every image must be usable unless ``val.on_error``
            is ``skip``.
        deadline: when reading images ends.
        found: gets the errors and warnings.
    """
    on_error = section(opt, "val").get("on_error", "stop" if is_train is None else "skip")
    unused = "test" if is_train else "train" if is_train is False else ""
    image_sets = []
    for key, value in section(opt, "datasets").items():
        block, before = section(value), len(found.errors)
        if block.get("type") == "StreamedSRDataset":
            _check_shards(key, block, opt, found)
        elif block.get("type") in DATASETS:
            pairs = _find_images(key, block, f"datasets.{key}", found)
            if len(found.errors) == before and key.split("_")[0] != unused:
                image_sets.append(_image_set(key, block, pairs, opt, on_error))
    # Validation images are few, and read whole; training images get the rest of the time.
    for images in sorted(image_sets, key=lambda images: images.training):
        check_images(images, deadline, found)


def _check_shards(key: str, block: Mapping[str, Any], opt: Mapping[str, Any], found: Findings) -> None:
    """Check the lists of shards in folders: the images are too many, and URLs are for the network."""
    roots = block.get("dataroot_shards")
    local = [root for root in (roots if isinstance(roots, list) else [roots]) if "://" not in str(root)]
    if not local and roots:
        return
    try:
        options = {"scale": opt.get("scale"), **block, "phase": key.split("_")[0], "dataroot_shards": local}
        StreamedSRDataset(options)
    except UserError as error:
        found.catch(error)


def _image_set(key: str, block: Mapping[str, Any], pairs: Pairs, opt: Mapping[str, Any], on_error: str) -> ImageSet:
    scale, crop = opt.get("scale"), block.get("gt_size")
    of_one_size = block["type"] != "RealESRGANDataset"  # it pads images smaller than its crop of 400
    tolerated = float(on_error == "skip")
    if key == "train":
        tolerated = block.get("max_unreadable", MAX_UNREADABLE)
    return ImageSet(
        f"datasets.{key}",
        pairs,
        scale=int(scale) if is_whole(scale) and scale >= 1 and of_one_size else None,
        crop=int(crop) if is_whole(crop) and key == "train" else None,
        training=key == "train",
        tolerated=tolerated,
    )


def _find_images(key: str, block: Mapping[str, Any], where: str, found: Findings) -> Pairs:
    """Return where the images are; empty, with an error, if a root or a list cannot be used."""
    before = len(found.errors)
    for root in ROOTS:
        value = block.get(root)
        for path in value if isinstance(value, list) else [value] if value is not None else []:
            _check_root(expanded(path), block, f"{where}.{root}", found)
    for name in LISTS:
        path = block.get(name)
        if path is not None and not expanded(path).is_file():
            found.error(f"{where}.{name}", f"{path}: no such file")
    if len(found.errors) > before:
        return []
    try:
        if block["type"] == "PairedSRDataset":
            return [
                (_stored(pair.gt, pair.gt_key), None if pair.lq is None else _stored(pair.lq, pair.lq_key))
                for pair in find_pairs({**block, "phase": key})
            ]
        if _is_lmdb(block, ""):
            return _pairs_of_lmdbs(block, where, found)
        by = next((name for name in LISTS if block.get(name) is not None), None)
        return _pairs_of_list(block, by, where, found) if by else _pairs_of_folders(block, where, found)
    except UserError as error:
        found.catch(error)
    except OSError as error:
        found.error(where, f"its images cannot be listed: {error}")
    return []


def _check_root(path: Path, block: Mapping[str, Any], where: str, found: Findings) -> None:
    if not path.is_dir():
        makes = "; basicsr prepare makes it" if path.suffix == ".lmdb" else ""
        found.error(where, f"{path}: {'not a folder' if path.exists() else f'no such folder{makes}'}")
        return
    try:
        if _is_lmdb(block, str(path)):
            problem = LmdbImages(path).disagreement()
            if problem is not None:
                found.error(where, f"{path}: {problem}; prepare it again")
        elif not any(path.iterdir()):
            found.error(where, f"{path}: a folder without images")
    except (UserError, OSError) as error:
        found.error(where, str(error))


def _is_lmdb(block: Mapping[str, Any], path: str) -> bool:
    backend = section(block, "io_backend").get("type")
    return backend == "lmdb" or (backend is None and path.endswith(".lmdb"))


def _stored(source: Any, key: str) -> Stored:
    return Stored(key, source if isinstance(source, LmdbImages) else None)


def _pairs_of_lmdbs(block: Mapping[str, Any], where: str, found: Findings) -> Pairs:
    """Pair LMDBs as BasicSR's data sets do."""
    gt, lq = (LmdbImages(expanded(block[root])) if block.get(root) else None for root in ROOTS)
    if gt is not None and lq is not None and set(gt.keys) != set(lq.keys):
        odd = min(set(gt.keys) ^ set(lq.keys))
        found.error(f"{where}.dataroot_lq", f"its keys are not those of GT: {odd} is only in one of them")
        return []
    keys = gt.keys if gt is not None else lq.keys if lq is not None else []
    return [(Stored(key, gt) if gt else None, Stored(key, lq) if lq else None) for key in keys]


def _pairs_of_folders(block: Mapping[str, Any], where: str, found: Findings) -> Pairs:
    """Pair the files of two folders, or list those of one, as BasicSR's data sets do."""
    gt_root, lq_root = (expanded(block[root]) if block.get(root) else None for root in ROOTS)
    if gt_root is None or lq_root is None:
        gt, lq = (sorted(_files(root)) if root else [] for root in (gt_root, lq_root))
        return [(Stored(str(path)), None) for path in gt] + [(None, Stored(str(path))) for path in lq]
    template = block.get("filename_tmpl", "{}")
    partners = {lq_root / _partner(path, template): path for path in _files(gt_root)}
    there = set(_files(lq_root))
    odd = sorted(partners.keys() - there)
    if odd:
        hint = template_hint({path.stem for path in partners.values()}, {path.stem for path in there})
        found.error(f"{where}.dataroot_lq", f"{odd[0]}: no such file, the LQ of {partners[odd[0]]}{_more(odd)}{hint}")
    elif there - partners.keys():
        odd = sorted(there - partners.keys())
        found.error(f"{where}.dataroot_lq", f"{odd[0]}: has no GT{_more(odd)}; remove it")
    return [(Stored(str(gt)), Stored(str(lq))) for lq, gt in sorted(partners.items())]


def _pairs_of_list(block: Mapping[str, Any], key: str, where: str, found: Findings) -> Pairs:
    """Read a list of names as BasicSR's data sets do."""
    gt_root, lq_root = (expanded(block[root]) if block.get(root) else None for root in ROOTS)
    at, path = f"{where}.{key}", expanded(block[key])
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found.error(at, f"{path}: cannot be read: {error}")
        return []
    pairs: Pairs = []
    for number, line in enumerate(lines, start=1):
        name = line.strip().split(" ")[0]
        if not name:
            found.error(at, f"{path}: {'lists no images' if lines == [''] else f'line {number} is blank; remove it'}")
            return []
        if block["type"] == "RealESRGANPairedDataset":
            both = line.strip().split(", ")
            if len(both) != 2:
                found.error(at, f"{path}: line {number}: expected 'GT, LQ', not {shown_value(line.strip())}")
                return []
            gt, lq = both
        else:
            gt, lq = name, name if gt_root is None else _partner(Path(name), block.get("filename_tmpl", "{}"))
        pairs.append((_in(gt_root, gt), _in(lq_root, lq)))
    absent = _absent([stored.key for pair in pairs for stored in pair if stored is not None])
    if absent:
        found.error(at, f"{path}: names {absent[0]}, which does not exist{_more(absent)}")
    return pairs


def _in(root: Path | None, name: str) -> Stored | None:
    return None if root is None else Stored(str(root / name))


def _partner(gt: Path, template: str) -> str:
    """Return the name of the LQ file."""
    return f"{template.replace('{}', gt.stem)}{gt.suffix}"


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder that BasicSR reads as images: all but hidden ones."""
    return [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()]


def _absent(paths: Iterable[str]) -> list[str]:
    """Return the paths that are not files, in their order; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    absent = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = {file.name for file in _files(Path(folder))} if Path(folder).is_dir() else set()
        if name not in listed[folder] and not Path(path).is_file():
            absent.append(path)
    return absent


def _more(names: list[Any]) -> str:
    return f" (and {len(names) - 1:,d} more)" if names[1:] else ""
