"""Check that Real-ESRGAN's degradation, the data set and the model fit together."""

from collections.abc import Mapping
from typing import Any

from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_number, is_whole
from gramgan_plugin.config.schema_datasets import DATASETS, KERNELS
from gramgan_plugin.config.schema_models import DEGRADATION, MODELS, Model
from gramgan_plugin.steps.terms import USM_OPTIONS
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean, shown

WITHOUT_LQ = "RealESRGANDataset"
CROP = 400  # it crops or pads each GT image to this side
PROBABILITIES = ("gaussian_noise_prob", "gray_noise_prob", "second_blur_prob")


def check_degradation(opt: Mapping[str, Any], model: Model | None, is_train: bool, found: Findings) -> None:
    """Add an error for each option of the degradation that is missing, out of range or without a data set for it.

    Args:
        opt: options whose keys are text; values may be of any type.
        model: the declaration of the model class; None for a third party's.
        is_train: whether the options are for training.
        found: gets the errors and warnings.
    """
    for key, block in section(opt, "datasets").items():
        if key != "train" and section(block).get("type") == WITHOUT_LQ:
            found.error(f"datasets.{key}.type", f"{WITHOUT_LQ} is only for training: it has no LQ")
    if model is None or not is_train:
        return
    if _makes_lq(opt, model, found):
        _check_values(opt, model, found)
    if model is MODELS["GramGANModel"]:
        _check_sharpened(opt, found)


def _makes_lq(opt: Mapping[str, Any], model: Model, found: Findings) -> bool:
    """Return whether the model makes LQ; add an error if the data set does not fit that."""
    kind, name = section(opt, "datasets", "train").get("type"), opt.get("model_type")
    if not isinstance(kind, str):
        return False
    switched_off = opt.get("high_order_degradation", True) is False
    if kind == WITHOUT_LQ:
        if "queue_size" not in model.top:
            makers = " or ".join(one for one, declared in MODELS.items() if "queue_size" in declared.top)
            found.error("datasets.train.type", f"{kind} has no LQ, and {name} does not make it; {makers} does")
        elif switched_off:
            found.error("high_order_degradation", f"false, but {kind} has no LQ; set it to true")
        return "queue_size" in model.top and not switched_off
    if "queue_size" not in model.top:
        return False
    if model is MODELS["GramGANModel"]:
        given = sorted(key for key in DEGRADATION & set(model.top) if opt.get(key) is not None)
        if given and kind in DATASETS:
            more = f" and {len(given) - 1} more keys of the degradation" if given[1:] else ""
            found.error(given[0], f"{kind} of datasets.train has its own LQ; remove this{more}, or use {WITHOUT_LQ}")
            return False
        return bool(given)
    if not switched_off and kind in DATASETS:
        found.error(
            "datasets.train.type",
            f"{name} makes LQ from GT, which needs {WITHOUT_LQ}; `high_order_degradation: false` uses the LQ of {kind}",
        )
    return not switched_off


def _check_values(opt: Mapping[str, Any], model: Model, found: Findings) -> None:
    for key in sorted(DEGRADATION & set(model.top)):
        if opt.get(key) is None:
            found.error(key, f"missing; {model.top[key].what}")
    for suffix in ("", "2"):
        _check_resize(opt, suffix, found)
        for key in (f"noise_range{suffix}", f"poisson_scale_range{suffix}"):
            _range(opt, key, found)
        if (jpeg := _range(opt, f"jpeg_range{suffix}", found)) and not 1 <= jpeg[0] <= jpeg[1] <= 100:
            found.error(f"jpeg_range{suffix}", "JPEG qualities are from 1 to 100")
    for key in [f"{name}{suffix}" for name in PROBABILITIES for suffix in ("", "2")]:
        if is_number(opt.get(key)) and opt[key] > 1:
            found.error(key, f"must be a probability, at most 1, not {opt[key]:g}")
    batch, queue = section(opt, "datasets", "train").get("batch_size_per_gpu", 1), opt.get("queue_size", 180)
    if is_whole(batch) and batch >= 1 and is_whole(queue) and queue % batch:
        found.error("queue_size", f"{queue} is not a multiple of batch_size_per_gpu {batch}")
    if section(opt, "datasets", "train").get("type") == WITHOUT_LQ:
        crop, scale = opt.get("gt_size"), opt.get("scale")
        if is_whole(crop) and crop > CROP:
            found.error("gt_size", f"{crop:g}, but images of {WITHOUT_LQ} have sides of {CROP}")
        if is_whole(scale) and scale >= 1 and CROP % scale:
            found.error("scale", f"{scale:g} does not divide {CROP}, the sides of images of {WITHOUT_LQ}")


def check_kernels(where: str, block: Mapping[str, Any], found: Findings) -> None:
    """Add an error for each option of a data set's blur kernels that BasicSR could not draw from.

    Args:
        where: the data set's key.
        block: its options, whose types are checked elsewhere.
        found: gets the errors.
    """
    for suffix in ("", "2"):
        kernels, odds = block.get(f"kernel_list{suffix}"), block.get(f"kernel_prob{suffix}")
        for name in kernels if isinstance(kernels, list) else ():
            if name not in KERNELS:
                hint = did_you_mean(str(name), KERNELS, f"; there are {', '.join(KERNELS)}")
                found.error(f"{where}.kernel_list{suffix}", f"no kind of kernel {shown(str(name))!r}{hint}")
        if isinstance(odds, list) and all(map(is_number, odds)) and not sum(odds) > 0:
            found.error(f"{where}.kernel_prob{suffix}", "all probabilities are 0")
        for key in (f"blur_sigma{suffix}", f"betag_range{suffix}", f"betap_range{suffix}"):
            ends = _range(block, key, found, f"{where}.{key}")
            if ends and not (ends[0] > 0 and (ends[0] < ends[1] or key.startswith("beta"))):
                found.error(f"{where}.{key}", "expected two different numbers above 0, the smaller one first")
    for key in ("sinc_prob", "sinc_prob2", "final_sinc_prob"):
        if is_number(block.get(key)) and block[key] > 1:
            found.error(f"{where}.{key}", f"must be a probability, at most 1, not {block[key]:g}")


def _check_resize(opt: Mapping[str, Any], suffix: str, found: Findings) -> None:
    odds, factors = opt.get(f"resize_prob{suffix}"), _range(opt, f"resize_range{suffix}", found)
    if isinstance(odds, list) and len(odds) != 3:
        found.error(f"resize_prob{suffix}", f"expected 3 probabilities (enlarge, reduce, keep), not {len(odds)}")
    elif isinstance(odds, list) and all(map(is_number, odds)) and not sum(odds) > 0:
        found.error(f"resize_prob{suffix}", "all probabilities are 0")
    if factors and not 0 < factors[0] <= 1 <= factors[1]:
        found.error(f"resize_range{suffix}", "expected a factor above 0 and at most 1, and one of at least 1")


def _range(opt: Mapping[str, Any], key: str, found: Findings, where: str = "") -> list[float] | None:
    """Return the ends of a range, or None; add an error if a list is not a range."""
    ends = opt.get(key)
    if not isinstance(ends, list):
        return None
    if len(ends) != 2:
        found.error(where or key, f"expected the smallest and the largest value, not {len(ends)} values")
    elif all(map(is_number, ends)):
        if ends[0] <= ends[1]:
            return ends
        found.error(where or key, f"the smallest value, {ends[0]:g}, is above the largest, {ends[1]:g}")
    return None


def _check_sharpened(opt: Mapping[str, Any], found: Findings) -> None:
    for key, block in USM_OPTIONS.items():
        if opt.get(key) is True and not section(opt, "train").get(block):
            found.warn(key, f"there is no train.{block}, whose target it sharpens")
