"""Whether the files and folders that options name are there, and LMDBs agree with their lists."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.config.schema import with_names_of_today
from gramgan_plugin.config.schema_datasets import DATASETS, OF_BASICSR
from gramgan_plugin.config.sense_texture import check_texture_files
from gramgan_plugin.data.lmdb_images import META_INFO, LmdbImages
from gramgan_plugin.data.pairs import find_pairs
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.files import expand_home
from gramgan_plugin.sections import section

ROOTS = ("dataroot_gt", "dataroot_lq")


def check_all(
    opt: Mapping[str, Any],
    warn: Callable[[str], object],
    *,
    is_train: bool | None = None,
    look_at_files: bool = True,
    goes_on: bool = False,
) -> None:
    """Check options and what they name, and tell all that is wrong at once.

    Args:
        opt: as ``load_options`` gives them; values may be of any type.
        warn: told each warning, one line.
        is_train: see ``check_options``.
        look_at_files: whether files and folders have to be there.
        goes_on: see ``check_files``.

    Raises:
        OptionError: one line a problem.
    """
    problems: list[str] = []
    try:
        for warning in check_options(opt, is_train=is_train):
            warn(warning)
    except OptionError as error:
        problems += str(error).splitlines()
    if look_at_files:
        try:
            check_files(_sound_part(opt, problems), goes_on=goes_on)
        except OptionError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise OptionError("\n".join(problems))


def _sound_part(opt: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The options without the sections that problems are about, whose files cannot be told apart from mistakes."""
    sound = dict(opt)
    for line in problems:
        name, _, rest = line.partition(": ")[0].partition(".")
        inner, key = sound.get(name), rest.partition(".")[0]
        if isinstance(inner, Mapping) and key in inner:
            sound[name] = {own: value for own, value in inner.items() if own != key}
        else:
            sound.pop(name, None)
    return sound


def check_files(opt: Mapping[str, Any], *, goes_on: bool = False) -> None:
    """Look at what options name: data sets, weights, a training state, patch databases.

    Args:
        opt: options that ``check_options`` has found right.
        goes_on: whether the run goes on from a checkpoint, whose networks then count and not ``pretrain_network_*``.

    Raises:
        OptionError: one line a problem.
    """
    found = Findings()
    whole, _ = with_names_of_today(opt, OF_BASICSR)
    for key, block in section(whole, "datasets").items():
        if section(block).get("type") in DATASETS:
            _check_dataset(key, block, found)
    _check_weights(whole, goes_on, found)
    check_texture_files(whole, found)
    found.raise_errors()


def _check_dataset(key: str, block: Mapping[str, Any], found: Findings) -> None:
    where, before = f"datasets.{key}", len(found.errors)
    for root in ROOTS:
        value = block.get(root)
        for path in value if isinstance(value, list) else [value] if value is not None else []:
            _check_root(expand_home(path), block, f"{where}.{root}", found)
    for name in ("meta_info_file", "meta_info"):
        path = block.get(name)
        if path is not None and not expand_home(path).is_file():
            found.error(f"{where}.{name}", f"{path}: no such file")
    if len(found.errors) > before:
        return
    if block["type"] == "PairedSRDataset":
        try:
            find_pairs({**block, "phase": key})
        except UserError as error:
            found.catch(error)
    elif _is_lmdb(block, str(block.get("dataroot_gt", ""))) and all(block.get(root) for root in ROOTS):
        gt, lq = (set(LmdbImages(expand_home(block[root])).keys) for root in ROOTS)
        if gt != lq:
            found.error(f"{where}.dataroot_lq", f"its keys are not those of GT: {min(gt ^ lq)} is in one of them only")


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
            elif where == "datasets.train.dataroot_gt":
                _check_room(path, block.get("gt_size"), where, found)
        elif not any(path.iterdir()):
            found.error(where, f"{path}: a folder without images")
    except (UserError, OSError) as error:
        found.error(where, str(error))


def _check_room(path: Path, crop: Any, where: str, found: Findings) -> None:
    """Whether each GT image is as large as the crop, as far as the LMDB's list says."""
    for line in (path / META_INFO).read_text(encoding="ascii").splitlines():
        size = re.search(r"\((\d+),(\d+),\d+\)", line)
        if size is not None and is_whole(crop) and min(int(size[1]), int(size[2])) < crop:
            name = line.partition(".")[0]
            found.error(where, f"{path}: {name}: GT of {size[2]}x{size[1]} is smaller than gt_size {crop:g}")
            return


def _is_lmdb(block: Mapping[str, Any], path: str) -> bool:
    backend = section(block, "io_backend").get("type")
    return backend == "lmdb" or (backend is None and path.endswith(".lmdb"))


def _check_weights(opt: Mapping[str, Any], goes_on: bool, found: Findings) -> None:
    paths = section(opt, "path")
    state = paths.get("resume_state")
    if state and not expand_home(state).is_file():
        found.error("path.resume_state", f"{state}: no such file")
    keep = paths.get("ignore_resume_networks") or []
    for key, path in paths.items():
        network = key.removeprefix("pretrain_")
        unread = (goes_on or state) and network not in keep
        if network != key and path and opt.get(network) and not unread and not expand_home(path).is_file():
            found.error(f"path.{key}", f"{path}: no such checkpoint file")
    train = section(opt, "train")
    blocks = {f"train.{key}": block for key, block in train.items() if key.endswith("_opt")}
    blocks |= {f"train.extra_terms.{key}": block for key, block in section(train, "extra_terms").items()}
    for where, block in blocks.items():
        path = section(block).get("vgg_weights")
        if path and not Path(path).is_file():
            found.error(f"{where}.vgg_weights", f"{path}: no such file")
