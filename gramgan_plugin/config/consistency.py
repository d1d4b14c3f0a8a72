"""Check that options fit together: names, phases, data sets; ``consistency_training`` has those of training."""

from collections.abc import Mapping
from typing import Any

from gramgan_plugin.config.consistency_degradation import WITHOUT_LQ, check_degradation, check_kernels
from gramgan_plugin.config.consistency_training import check_training, needs_gt
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_number
from gramgan_plugin.config.resolve import BESIDE_NUM_GPU, NAME, NAME_OF_DATASET, NOT_A_NAME, devices_disagree
from gramgan_plugin.config.schema_datasets import SCALED, WITHOUT_GT
from gramgan_plugin.config.schema_models import Model
from gramgan_plugin.config.sizes import check_sizes
from gramgan_plugin.data.pairs import depth_mistake, pair_mistakes, template_mistake
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean, shown_value

PHASES = ("train", "val", "test")


def check_consistency(opt: Mapping[str, Any], model: Model | None, is_train: bool, found: Findings) -> None:
    """Add an error for each combination of options that cannot work.

    Args:
        opt: options whose keys are text; values may be of any type.
        model: the declaration of the model class; None for a third party's.
        is_train: whether the options are for training.
        found: gets the errors and warnings.
    """
    _check_names(opt, found)
    if devices_disagree(opt.get("device"), opt.get("num_gpu")):
        found.error("device", BESIDE_NUM_GPU)
    _check_phases(opt, is_train, found)
    _check_data(opt, found)
    _check_metrics(opt, found)
    for key, value in section(opt, "path").items():
        network = key.removeprefix("pretrain_")
        if network != key and value is not None and not opt.get(network):
            found.warn(f"path.{key}", f"there is no {network} to load these weights")
    check_degradation(opt, model, is_train, found)
    if opt.get("model_type") == "SwinIRModel" and "window_size" not in section(opt, "network_g"):
        found.error("network_g.window_size", "missing; SwinIRModel needs it")
    if is_train:
        check_training(opt, model, found)
        check_sizes(opt, found)


def _check_names(opt: Mapping[str, Any], found: Findings) -> None:
    name = opt.get("name")
    if name is not None and not (isinstance(name, str) and NAME.match(name)):
        found.error("name", f"{shown_value(name)} {NOT_A_NAME}")
    taken: dict[tuple[str, str], str] = {}
    for key, block in section(opt, "datasets").items():
        name = section(block).get("name")
        if name is None:
            continue
        if not (isinstance(name, str) and NAME_OF_DATASET.match(name)):
            found.error(f"datasets.{key}.name", f"{shown_value(name)} {NOT_A_NAME}")
            continue
        first = taken.setdefault((key.split("_")[0], name), key)
        if first != key:
            found.error(
                f"datasets.{key}.name",
                f"{shown_value(name)} is also the name of datasets.{first}; their results would mix",
            )


def _check_phases(opt: Mapping[str, Any], is_train: bool, found: Findings) -> None:
    datasets = section(opt, "datasets")
    phases = {key.split("_")[0] for key in datasets}
    for key in datasets:
        phase = key.split("_")[0]
        if phase not in PHASES:
            found.error(
                f"datasets.{key}",
                f"unknown data set{did_you_mean(key, PHASES)} (train, val, val_1, ..., test, test_1, ...)",
            )
        elif phase == "train" and key != "train":
            found.error(f"datasets.{key}", "the only training set is `train`; PairedSRDataset accepts lists of roots")
    if is_train:
        if not section(opt, "train"):
            found.error("train", "missing, so this file can only be tested")
        if "train" not in datasets:
            found.error("datasets.train", "missing; training needs it")
        if opt.get("val") and "val" not in phases:
            found.warn("val", "there is no data set `val`, so nothing is validated")
        if "val" in phases and not opt.get("val"):
            found.warn("datasets.val", "there is no section `val`, so nothing is validated")
    elif not phases & {"val", "test"} and phases <= set(PHASES):
        found.error("datasets", "no test set; add one as test_1, test_2, ...")


def _check_data(opt: Mapping[str, Any], found: Findings) -> None:
    for key, block in section(opt, "datasets").items():
        where, options = f"datasets.{key}", section(block)
        kind = options["type"] if isinstance(options.get("type"), str) else ""
        if kind in SCALED and opt.get("scale") is None:
            found.error("scale", f"missing; {kind} needs it")
        if kind == "PairedSRDataset":
            for name, mistake in pair_mistakes(options):
                if name != "filename_tmpl" or isinstance(options.get(name), str):  # types are checked elsewhere
                    found.error(f"{where}.{name}", mistake)
            depth = depth_mistake(options, key.split("_")[0] == "train")
            if depth is not None and options["bit_depth"] == 16:  # other values are checked elsewhere
                found.error(f"{where}.bit_depth", depth)
        elif isinstance(template := options.get("filename_tmpl", "{}"), str) and template.count("{}") != 1:
            found.error(f"{where}.filename_tmpl", template_mistake(template))
        if kind in MAY_BE_LMDB and section(options, "io_backend").get("type") == "lmdb":
            for root in ("dataroot_gt", "dataroot_lq"):
                path = options.get(root)
                if isinstance(path, str) and not path.endswith(".lmdb"):
                    found.error(f"{where}.{root}", f"{kind} needs a name that ends in .lmdb, not {shown_value(path)}")
        for suffix in ("", "2"):
            kernels, odds = options.get(f"kernel_list{suffix}"), options.get(f"kernel_prob{suffix}")
            if isinstance(kernels, list) and isinstance(odds, list) and len(kernels) != len(odds):
                found.error(f"{where}.kernel_prob{suffix}", f"{len(odds)} values for {len(kernels)} kernels")
        if kind == WITHOUT_LQ:
            check_kernels(where, options, found)
        if kind == WITHOUT_LQ and options.get("gt_size", opt.get("gt_size")) != opt.get("gt_size"):
            found.warn(f"{where}.gt_size", "not used here; the gt_size at the top of the file is")
        on_disk = section(options, "io_backend").get("type") == "disk"
        if kind == WITHOUT_LQ and on_disk and options.get("meta_info") is None:
            found.error(f"{where}.meta_info", "missing; RealESRGANDataset needs it for folders")
        share = options.get("max_unreadable")
        if is_number(share) and share > 1:
            found.error(f"{where}.max_unreadable", f"must be a share of the images, at most 1, not {share:g}")
        elif share is not None and key != "train":
            found.warn(f"{where}.max_unreadable", "only for training; here every image must be readable")
        if kind == "SingleImageDataset" and "meta_info_file" in options and options["meta_info_file"] is None:
            found.error(f"{where}.meta_info_file", "null, which SingleImageDataset reads as a path; leave the key out")
        mean, std = options.get("mean"), options.get("std")
        if kind in MAY_BE_LMDB and (mean is None) != (std is None):
            found.error(f"{where}.{'mean' if mean is None else 'std'}", "missing; mean and std go together")


def _check_metrics(opt: Mapping[str, Any], found: Findings) -> None:
    """Warn of metrics that need GT, on sets without GT."""
    compare = [name for name, block in section(opt, "val", "metrics").items() if needs_gt(block)]
    for key, block in section(opt, "datasets").items():
        if compare and str(section(block).get("type")) in WITHOUT_GT:
            found.warn(f"datasets.{key}", f"has no GT; val.metrics that need it are not measured: {', '.join(compare)}")


MAY_BE_LMDB = frozenset({"PairedImageDataset", "SingleImageDataset", "RealESRGANDataset", "RealESRGANPairedDataset"})
