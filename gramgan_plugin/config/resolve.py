"""Fill in the options that BasicSR's models and datasets and our loop expect."""

import random
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from gramgan_plugin.config.keys import Key, is_whole
from gramgan_plugin.config.schema import SECTIONS, TOP, with_current_names
from gramgan_plugin.config.schema_datasets import DATASETS, LOADER, OF_BASICSR
from gramgan_plugin.config.schema_models import MODELS
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.text import shown_value

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")  # file systems allow 255, and some names get a suffix
# Real-ESRGAN's option files have a data set DF2K+OST.
NAME_OF_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\Z")
BESIDE_NUM_GPU = "not what num_gpu says, which is the number of CUDA devices; remove one of them"
NOT_A_NAME = (
    "cannot be a folder's name; use at most 200 letters, digits, '.', '_' and '-', and begin with a letter or digit"
)


def resolve_options(
    options: dict[str, Any],
    *,
    is_train: bool,
    launcher: str = "none",
    auto_resume: bool = False,
    debug: bool = False,
    root: Path | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Fill in what upstream's ``parse_options`` fills in, with paths under the working directory.

    Args:
        options: as ``load_options`` returns them; not modified.
        is_train: training, else testing.
        launcher: ``none``, ``pytorch`` or ``slurm``.
        auto_resume: resume from the newest complete checkpoint of this name.
        debug: as upstream: a ``debug_`` name, a log line each iteration, validation and checkpoints every 8.
        root: the folder of ``experiments/`` and ``results/``; the working directory if None.
        folder: the run's folder, if not ``experiments/NAME`` or ``results/NAME`` there.

    Returns:
        The resolved options. ``manual_seed`` is drawn if absent; ``device`` and ``num_gpu`` are those found.

    Raises:
        OptionError: if a name, the device or a data set cannot be used; the message names the key.
    """
    opt = deepcopy(with_current_names(options, OF_BASICSR)[0])
    check_name(opt.get("name"), "name")
    if debug and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    opt["is_train"] = is_train
    opt["auto_resume"] = auto_resume
    opt["dist"] = launcher != "none"
    opt["launcher"] = launcher
    _resolve_device(opt)
    # A resumed run uses the seed that was drawn when it began.
    opt["manual_seed_drawn"] = opt.get("manual_seed") is None
    if opt["manual_seed_drawn"]:
        opt["manual_seed"] = random.SystemRandom().randint(1, 10000)
    opt["logger"] = dict(opt.get("logger") or {})
    opt["path"] = dict(opt.get("path") or {})
    _floats_to_integers(opt)
    _resolve_datasets(opt)
    _resolve_paths(opt, root or Path.cwd(), folder, is_train)
    if is_train and debug:
        opt["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8}
        if opt.get("val"):
            opt["val"]["val_freq"] = 8
    return opt


def check_name(name: Any, key: str, plain: re.Pattern[str] = NAME) -> None:
    """Check that a run's or dataset's name can be a folder's name.

    Raises:
        OptionError: if it cannot.
    """
    if not isinstance(name, str) or not plain.match(name):
        raise OptionError(f"{key}: {shown_value(name)} {NOT_A_NAME}")


def _count_gpus(asked: Any) -> int:
    import torch

    present = torch.cuda.device_count()
    if asked == "auto":
        return present
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise OptionError(f"num_gpu: expected auto or a number of GPUs (0 for the CPU), not {shown_value(asked)}")
    if asked > present:
        raise OptionError(f"num_gpu: {asked} requested, {present} found; `num_gpu: auto` uses those found")
    return asked


def devices_disagree(device: Any, num_gpu: Any) -> bool:
    """Return whether ``device`` and ``num_gpu`` are both given and say different things, unlike a run's own record.

    >>> devices_disagree("cpu", 0), devices_disagree("cuda", 2), devices_disagree("cpu", "auto")
    (False, False, True)
    """
    if device is None or num_gpu is None:
        return False
    return bool(num_gpu == 0) if device == "cuda" else device == "auto" or num_gpu != 0


def _resolve_device(opt: dict[str, Any]) -> None:
    """Set ``device`` and ``num_gpu``, the number of CUDA devices."""
    from gramgan_plugin.utils.devices import find_device

    asked, gpus = opt.get("device"), opt.get("num_gpu")
    if devices_disagree(asked, gpus):
        raise OptionError(f"device: {BESIDE_NUM_GPU}")
    if asked is None and gpus is not None:
        opt["num_gpu"] = _count_gpus(gpus)
        opt["device"] = "cuda" if opt["num_gpu"] else "cpu"
        return
    opt["device"] = find_device(str(asked or "auto")).type
    opt["num_gpu"] = _count_gpus("auto" if gpus is None else gpus) if opt["device"] == "cuda" else 0
    if opt["dist"] and opt["device"] not in ("cpu", "cuda"):
        raise OptionError(f"device: {opt['device']}: several processes compute on cuda or cpu; start one, or set those")


def _floats_to_integers(opt: dict[str, Any]) -> None:
    """Convert whole numbers written as floats (``5e3``) to integers, which classes need."""
    model = MODELS.get(str(opt.get("model_type")))
    blocks: list[tuple[Any, dict[str, Key]]]
    blocks = [(opt, TOP | dict(model.top if model else {})), (opt.get("train"), dict(model.train if model else {}))]
    blocks += [(opt.get(name), keys) for name, keys in SECTIONS.items()]
    for block in opt["datasets"].values() if isinstance(opt.get("datasets"), dict) else ():
        if isinstance(block, dict):
            blocks.append((block, LOADER | DATASETS.get(str(block.get("type")), {})))
    for block, keys in blocks:
        for name, value in block.items() if isinstance(block, dict) else ():
            if name in keys and keys[name].kind == "whole" and isinstance(value, float) and is_whole(value):
                block[name] = int(value)


def _resolve_datasets(opt: dict[str, Any]) -> None:
    datasets = opt.get("datasets")
    if not isinstance(datasets, dict) or not datasets:
        raise OptionError("datasets: missing; give at least one")
    for key, dataset in datasets.items():
        if not isinstance(dataset, dict):
            raise OptionError(f"datasets.{key}: expected a section of options")
        check_name(dataset.get("name"), f"datasets.{key}.name", NAME_OF_DATASET)
        # `val_1`, `test_2`: the phase is the part before the underscore.
        dataset["phase"] = key.split("_")[0]
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        for root in ("dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info"):
            if dataset.get(root) is not None:
                roots = dataset[root] if isinstance(dataset[root], list) else [dataset[root]]
                paths = [str(expanded(one)) for one in roots]
                dataset[root] = paths if isinstance(dataset[root], list) else paths[0]


def _resolve_paths(opt: dict[str, Any], root: Path, folder: Path | None, is_train: bool) -> None:
    path = opt["path"]
    for key, value in path.items():
        if value is not None and ("resume_state" in key or "pretrain_network" in key):
            path[key] = str(expanded(value))
    opt["root_path"] = str(root)
    if is_train:
        run = folder or root / "experiments" / opt["name"]
        path["experiments_root"] = str(run)
        path["models"] = str(run / "models")
        path["training_states"] = str(run / "training_states")
    else:
        run = folder or root / "results" / opt["name"]
        path["results_root"] = str(run)
    path["log"] = str(run)
    path["visualization"] = str(run / "visualization")
