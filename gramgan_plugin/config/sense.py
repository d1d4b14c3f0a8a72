"""Whether options fit together: sizes, networks, losses, schedules and data sets."""

from collections.abc import Mapping
from typing import Any

from gramgan_plugin.config.findings import Findings, section
from gramgan_plugin.config.keys import is_number, is_whole
from gramgan_plugin.config.resolve import NAME, NAME_OF_DATASET, NOT_A_NAME
from gramgan_plugin.config.schema_datasets import SCALED
from gramgan_plugin.config.schema_models import DEGRADATION, LOSS_FORMS, MODELS, Model
from gramgan_plugin.config.sizes import check_sizes
from gramgan_plugin.registration import did_you_mean

PHASES = ("train", "val", "test")


def check_sense(opt: Mapping[str, Any], model: Model | None, is_train: bool, found: Findings) -> None:
    """Note what cannot work together.

    Args:
        opt: options whose keys are text; values may be of any type.
        model: what is declared of the model class; None for a third party's.
        is_train: whether they are to train.
        found: takes the errors and warnings.
    """
    _check_names(opt, found)
    _check_phases(opt, is_train, found)
    _check_data(opt, found)
    for key, value in section(opt, "path").items():
        network = key.removeprefix("pretrain_")
        if network != key and value is not None and not opt.get(network):
            found.warn(f"path.{key}", f"there is no {network} that takes these weights")
    if model is not None:
        _check_real_esrgan(opt, model, is_train, found)
    if opt.get("model_type") == "SwinIRModel" and "window_size" not in section(opt, "network_g"):
        found.error("network_g.window_size", "missing; SwinIRModel reads it here")
    if is_train:
        _check_training(opt, model, found)
        _check_scheduler(opt, found)
        check_sizes(opt, found)


def _check_names(opt: Mapping[str, Any], found: Findings) -> None:
    name = opt.get("name")
    if name is not None and not (isinstance(name, str) and NAME.match(name)):
        found.error("name", f"{name!r} {NOT_A_NAME}")
    taken: dict[tuple[str, str], str] = {}
    for key, block in section(opt, "datasets").items():
        name = section(block).get("name")
        if name is None:
            continue
        if not (isinstance(name, str) and NAME_OF_DATASET.match(name)):
            found.error(f"datasets.{key}.name", f"{name!r} {NOT_A_NAME}")
            continue
        first = taken.setdefault((key.split("_")[0], name), key)
        if first != key:
            found.error(f"datasets.{key}.name", f"'{name}' is the name of datasets.{first}, too; results would mix")


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
            found.error(f"datasets.{key}", "there is one training set, `train`; PairedSRDataset takes lists of roots")
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
        found.error("datasets", "no test set; name one test_1, test_2, ...")


def _check_data(opt: Mapping[str, Any], found: Findings) -> None:
    for key, block in section(opt, "datasets").items():
        where, options = f"datasets.{key}", section(block)
        kind = options["type"] if isinstance(options.get("type"), str) else ""
        if kind in SCALED and opt.get("scale") is None:
            found.error("scale", f"missing; {kind} needs it")
        template = options.get("filename_tmpl", "{}")
        if isinstance(template, str) and template.count("{}") != 1:
            found.error(f"{where}.filename_tmpl", f"expected one {{}} as in '{{}}x4', not {template!r}")
        if kind == "PairedSRDataset":
            _check_pairs(options, where, found)
        elif kind in MAY_BE_LMDB and section(options, "io_backend").get("type") == "lmdb":
            for root in ("dataroot_gt", "dataroot_lq"):
                path = options.get(root)
                if isinstance(path, str) and not path.endswith(".lmdb"):
                    found.error(f"{where}.{root}", f"{kind} asks for a name that ends in .lmdb, not {path!r}")
        for suffix in ("", "2"):
            kernels, odds = options.get(f"kernel_list{suffix}"), options.get(f"kernel_prob{suffix}")
            if isinstance(kernels, list) and isinstance(odds, list) and len(kernels) != len(odds):
                found.error(f"{where}.kernel_prob{suffix}", f"{len(odds)} values for {len(kernels)} kernels")
        if kind == "RealESRGANDataset" and options.get("gt_size", opt.get("gt_size")) != opt.get("gt_size"):
            found.warn(f"{where}.gt_size", "not read here; the gt_size at the top of the file counts")
        on_disk = section(options, "io_backend").get("type") == "disk"
        if kind == "RealESRGANDataset" and on_disk and options.get("meta_info") is None:
            found.error(f"{where}.meta_info", "missing; RealESRGANDataset needs it for folders")
        mean, std = options.get("mean"), options.get("std")
        if kind in MAY_BE_LMDB and (mean is None) != (std is None):
            found.error(f"{where}.{'mean' if mean is None else 'std'}", "missing; mean and std go together")


MAY_BE_LMDB = frozenset({"PairedImageDataset", "SingleImageDataset", "RealESRGANDataset", "RealESRGANPairedDataset"})


def _check_pairs(options: Mapping[str, Any], where: str, found: Findings) -> None:
    gt, lq, made = options.get("dataroot_gt"), options.get("dataroot_lq"), options.get("lq")
    if lq is None and made is None:
        found.error(f"{where}.dataroot_lq", "missing; give a path, or `lq: bicubic`")
    elif lq is not None and made is not None:
        found.error(f"{where}.lq", "LQ comes from dataroot_lq or is made; give one of the two")
    elif gt is not None and lq is not None:
        counts = [len(roots) if isinstance(roots, list) else 1 for roots in (gt, lq)]
        if counts[0] != counts[1]:
            found.error(f"{where}.dataroot_lq", f"{counts[1]} paths for the {counts[0]} of dataroot_gt")


def _check_real_esrgan(opt: Mapping[str, Any], model: Model, is_train: bool, found: Findings) -> None:
    if not is_train or "queue_size" not in model.top or opt.get("high_order_degradation", True) is False:
        return
    for key in sorted(DEGRADATION & set(model.top)):
        if opt.get(key) is None:
            found.error(key, f"missing; {model.top[key].what}")
    for key in ("resize_prob", "resize_prob2"):
        if isinstance(opt.get(key), list) and len(opt[key]) != 3:
            found.error(key, f"expected 3 probabilities (enlarge, reduce, keep), not {len(opt[key])}")
    for key in model.top:
        if "range" in key and isinstance(opt.get(key), list) and len(opt[key]) != 2:
            found.error(key, f"expected the smallest and the largest value, not {len(opt[key])} values")
    batch = section(opt, "datasets", "train").get("batch_size_per_gpu", 1)
    queue = opt.get("queue_size", 180)
    if is_whole(batch) and batch >= 1 and is_whole(queue) and queue % batch:
        found.error("queue_size", f"{queue} is no multiple of batch_size_per_gpu {batch}")


def _check_training(opt: Mapping[str, Any], model: Model | None, found: Findings) -> None:
    train, network_d = section(opt, "train"), opt.get("network_d")
    for key in ("optim_g", "optim_d"):
        if key == "optim_d" and network_d and train and model is not None and not train.get(key):
            found.error("train.optim_d", "missing; network_d needs an optimizer")
    if model is None or not train:
        return
    if not train.get("gan_opt") and not train.get("disc_perceptual_opt") and train.get("optim_d") and not network_d:
        found.warn("train.optim_d", "there is no network_d that it could train")
    _check_forms(train, model, found)
    if model is MODELS["GramGANModel"]:
        _check_gramgan(train, network_d, found)
        return
    if model.discriminator == "needed" and not network_d:
        found.error("network_d", f"missing; {opt.get('model_type')} needs it")
    if model.discriminator == "none" and not train.get("pixel_opt") and not train.get("perceptual_opt"):
        found.error("train", "no loss is on; give pixel_opt or perceptual_opt")
    ema = train.get("ema_decay", 0)
    if train.get("ldl_opt") and not (is_number(ema) and ema > 0):
        found.error("train.ldl_opt", "compares with the averaged weights; set train.ema_decay, such as 0.999")


def _check_forms(train: Mapping[str, Any], model: Model, found: Findings) -> None:
    """Losses whose call or answer does not suit the block."""
    blocks = {f"train.{key}": (key, train.get(key)) for key in model.forms if key != "extra_terms"}
    if "extra_terms" in model.forms:
        terms = section(train, "extra_terms")
        blocks |= {f"train.extra_terms.{name}": ("extra_terms", block) for name, block in terms.items()}
    for where, (key, block) in blocks.items():
        name = section(block).get("type")
        form = LOSS_FORMS.get(name) if isinstance(name, str) else None
        if form is not None and form not in model.forms[key]:
            fitting = [loss for loss, its_form in LOSS_FORMS.items() if its_form in model.forms[key]]
            found.error(f"{where}.type", f"{name} cannot stand here; {' or '.join(fitting)} can")


def _check_gramgan(train: Mapping[str, Any], network_d: Any, found: Findings) -> None:
    losses = [key for key in MODELS["GramGANModel"].forms if train.get(key)]
    if not losses:
        found.error("train", "no loss is on; give at least one block such as pixel_opt")
    if not network_d:
        needs = [f"train.{key}" for key in ("gan_opt", "disc_perceptual_opt") if train.get(key)]
        if needs:
            found.error("network_d", f"missing, but {' and '.join(needs)} {'need' if needs[1:] else 'needs'} it")
    elif not train.get("gan_opt"):
        found.error("train.gan_opt", "missing, so that network_d would not be trained")


# torch's whose steps need what a plain `step()` does not bring.
ASKS_FOR_MORE = {
    "ReduceLROnPlateau": "a measured value at each step",
    "LBFGS": "a function that computes the loss anew",
    "SparseAdam": "sparse gradients",
}


def _check_scheduler(opt: Mapping[str, Any], found: Findings) -> None:
    """Schedules that end before the run does: the rate is set total_iter - 1 times after the first."""
    options, total = section(opt, "train", "scheduler"), section(opt, "train").get("total_iter")
    for key in ("scheduler", "optim_g", "optim_d"):
        name = section(opt, "train", key).get("type")
        if isinstance(name, str) and name in ASKS_FOR_MORE:
            found.error(f"train.{key}.type", f"{name} asks for {ASKS_FOR_MORE[name]}, which training does not give it")
    if not is_whole(total):
        return
    where, kind = "train.scheduler", options.get("type")
    if kind == "CosineAnnealingRestartLR":
        periods = options.get("periods")
        if isinstance(periods, list) and all(map(is_number, periods)) and sum(periods) < total - 1:
            found.error(f"{where}.periods", f"they sum to {sum(periods):g}, less than train.total_iter {total:g}")
    elif kind == "OneCycleLR":
        steps, key = options.get("total_steps"), "total_steps"
        epochs, each = options.get("epochs"), options.get("steps_per_epoch")
        if steps is None and is_whole(epochs) and is_whole(each):
            steps, key = int(epochs) * int(each), "steps_per_epoch"
        if is_whole(steps) and steps < total - 1:
            found.error(f"{where}.{key}", f"the schedule ends after {steps:g} steps, train.total_iter is {total:g}")
