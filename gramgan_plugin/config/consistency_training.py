"""Check that the options of a training run fit together: networks, losses, schedules, checkpoints."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from gramgan_plugin.building.loss_options import check_penalty
from gramgan_plugin.checkpoints.restore_schedules import OWN_RATES
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_number, is_whole
from gramgan_plugin.config.schema_datasets import WITHOUT_GT
from gramgan_plugin.config.schema_models import MODELS, Model
from gramgan_plugin.errors import OptionError
from gramgan_plugin.functional.divergences import LEAST_BATCH
from gramgan_plugin.losses.wavelet_loss import MOST_LEVELS
from gramgan_plugin.models.components import Component
from gramgan_plugin.registries import lookup, registered
from gramgan_plugin.steps.terms import FORMS, PENALTY, PENALTY_FORM, form_of, term_mistakes
from gramgan_plugin.utils.sections import section


def check_training(opt: Mapping[str, Any], model: Model | None, found: Findings) -> None:
    """Add an error for each combination of options that cannot work in training.

    Args:
        opt: options whose keys are text; values may be of any type.
        model: the declaration of the model class; None for a third party's.
        found: gets the errors and warnings.
    """
    _check_model(opt, model, found)
    _check_scheduler(opt, found)
    _check_wandb(opt, found)
    _check_keep_best(opt, found)


def _check_model(opt: Mapping[str, Any], model: Model | None, found: Findings) -> None:
    train, network_d = section(opt, "train"), opt.get("network_d")
    for key in ("optim_g", "optim_d"):
        if key == "optim_d" and network_d and train and model is not None and not train.get(key):
            found.error("train.optim_d", "missing; network_d needs an optimizer")
    if model is None or not train:
        return
    if not train.get("gan_opt") and not train.get("disc_perceptual_opt") and train.get("optim_d") and not network_d:
        found.warn("train.optim_d", "there is no network_d to train")
    _check_forms(train, model, found)
    if model is MODELS["GramGANModel"]:
        for key, mistake in term_mistakes(train, bool(network_d)):
            found.error(key, mistake)
        _check_speed(opt, found)
        _check_penalty(opt, found)
        _check_average(train, found)
        return
    if model.discriminator == "needed" and not network_d:
        found.error("network_d", f"missing; {opt.get('model_type')} needs it")
    if model.discriminator == "none" and not train.get("pixel_opt") and not train.get("perceptual_opt"):
        found.error("train", "no loss is on; give pixel_opt or perceptual_opt")
    ema = train.get("ema_decay", 0)
    if train.get("ldl_opt") and not (is_number(ema) and ema > 0):
        found.error("train.ldl_opt", "needs the averaged weights; set train.ema_decay, such as 0.999")


def _check_forms(train: Mapping[str, Any], model: Model, found: Findings) -> None:
    """Check that each block has a loss of a form (its inputs and outputs) that the model accepts there."""
    blocks = {f"train.{key}": (key, train.get(key)) for key in model.forms if key != "extra_terms"}
    if "extra_terms" in model.forms:
        terms = section(train, "extra_terms")
        blocks |= {f"train.extra_terms.{name}": ("extra_terms", block) for name, block in terms.items()}
    for where, (key, block) in blocks.items():
        name = section(block).get("type")
        classes = {one: cls for one, cls, _ in registered("loss")}
        form = form_of(classes[name]) if isinstance(name, str) and name in classes else None
        if form is not None and form not in {*FORMS, PENALTY_FORM, "other"}:
            found.error(f"{where}.type", f"{name} has the form {form!r}, which is not one of {', '.join(FORMS)}")
        elif form is not None and form not in model.forms[key]:
            fitting = [one for one, cls in classes.items() if form_of(cls) in model.forms[key]]
            found.error(f"{where}.type", f"{name} cannot be used here; {' or '.join(fitting)} can")


def _check_speed(opt: Mapping[str, Any], found: Findings) -> None:
    """Check compilation, clipping and accumulation for GramGANModel."""
    train = section(opt, "train")
    if not train.get("compile"):
        idle = [f"train.{key}" for key in ("compile_networks", "compile_mode", "compile_backend") if train.get(key)]
        if idle:
            found.warn(", ".join(idle), "has no effect without train.compile: true")
    for letter in "gd":
        clip = train.get(f"clip_grad_norm_{letter}")
        if is_number(clip) and clip == 0:
            found.error(f"train.clip_grad_norm_{letter}", "0 would remove all gradients; null clips nothing")
        if clip is not None and not opt.get(f"network_{letter}"):
            found.warn(f"train.clip_grad_norm_{letter}", f"there is no network_{letter}")
    if train.get(PENALTY) and train.get("compile") and "d" in _compiled(train):
        found.error("train.compile_networks", f"leave out d: train.{PENALTY} differentiates D's gradient again")
    turns = [train.get(key, 1) for key in ("net_d_every", "net_d_iters")]
    if all(is_whole(every) and every > 1 for every in turns):
        found.error("train.net_d_every", "cannot be above 1 together with train.net_d_iters; use one of them")
    crop = section(opt, "datasets", "train").get("gt_size")
    for name, block in section(train, "extra_terms").items():
        levels = section(block).get("levels", 2)
        if section(block).get("type") != "WaveletLoss" or not is_whole(crop) or not is_whole(levels):
            continue
        if 1 <= levels <= MOST_LEVELS and 2**levels > crop:  # other numbers are refused by the class
            sides = f"{levels} need sides of {2**levels} pixels, and datasets.train.gt_size is {crop}"
            found.error(f"train.extra_terms.{name}.levels", f"too many: {sides}")
    parts, batch = train.get("accumulate", 1), section(opt, "datasets", "train").get("batch_size_per_gpu", 1)
    if not (is_whole(parts) and is_whole(batch) and parts >= 1):
        return
    if batch % parts:
        found.error("train.accumulate", f"a batch_size_per_gpu of {batch} cannot be split into {parts} equal parts")
    elif batch // parts < LEAST_BATCH:
        for name, block in section(train, "extra_terms").items():
            if section(block).get("type") == "GromovWassersteinLoss":
                whole = "batch_size_per_gpu" + (" / train.accumulate" if parts > 1 else "")
                found.error(
                    f"train.extra_terms.{name}",
                    f"compares the images of a batch, of at least {LEAST_BATCH}; {whole} is {batch // parts}",
                )


def _compiled(train: Mapping[str, Any]) -> list[Any]:
    names = train.get("compile_networks")
    return names if isinstance(names, list) else ["d"]


def _check_penalty(opt: Mapping[str, Any], found: Findings) -> None:
    """Check that D has no BatchNorm where its penalty is of each sample."""
    block, network = section(opt, "train", PENALTY), section(opt, "network_d")
    if block.get("kind") != "wgan_gp" or not isinstance(network.get("type"), str):
        return
    options = {key: value for key, value in network.items() if key != "type"}
    try:
        with torch.device("meta"):
            net_d = lookup("arch", network["type"], "network_d.type")(**options)
    except Exception:  # an unknown name, and what its constructor refuses, are reported elsewhere
        return
    try:
        check_penalty(block, net_d)
    except OptionError as error:
        found.catch(error)


def _check_average(train: Mapping[str, Any], found: Findings) -> None:
    """Check that the averaged weights exist that a further term reads."""
    classes = {one: cls for one, cls, _ in registered("loss")}
    for name, block in section(train, "extra_terms").items():
        cls = classes.get(str(section(block).get("type")))
        if cls is not None and form_of(cls) == "image_average" and not train.get("ema_decay"):
            where = f"train.extra_terms.{name}"
            found.error("train.ema_decay", f"missing, but {where} needs the averaged weights; set it, such as 0.999")


# torch's optimizers and schedules whose `step()` needs an argument or special gradients.
NEEDS_MORE = {
    "ReduceLROnPlateau": "a measured value at each step",
    "LBFGS": "a function that computes the loss again",
    "SparseAdam": "sparse gradients",
}


def _check_scheduler(opt: Mapping[str, Any], found: Findings) -> None:
    """Check that schedules do not end before the run, which makes total_iter - 1 scheduler steps."""
    options, total = section(opt, "train", "scheduler"), section(opt, "train").get("total_iter")
    for key in ("scheduler", "optim_g", "optim_d"):
        name = section(opt, "train", key).get("type")
        if isinstance(name, str) and name in NEEDS_MORE:
            found.error(f"train.{key}.type", f"{name} needs {NEEDS_MORE[name]}, which training does not provide")
    _check_rates(opt, found)
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


# Options of schedules that count iterations.
LENGTHS = (
    "T_max",
    "T_0",
    "T_mult",
    "step_size",
    "step_size_up",
    "step_size_down",
    "total_iters",
    "total_steps",
    "period",
)


def _check_rates(opt: Mapping[str, Any], found: Findings) -> None:
    """Check the lengths of a schedule, and warn of a learning rate that it does not use."""
    schedule = section(opt, "train", "scheduler")
    for name in LENGTHS:
        length = schedule.get(name)
        if is_number(length) and length < 1:
            found.error(f"train.scheduler.{name}", f"must be at least 1, not {length:g}")
    key = OWN_RATES.get(str(schedule.get("type")))
    for optimizer in ("optim_g", "optim_d"):
        rate = section(opt, "train", optimizer).get("lr")
        if key is not None and rate is not None and rate != schedule.get(key):
            found.warn(
                f"train.{optimizer}.lr",
                f"has no effect: {schedule['type']} sets the rate by train.scheduler.{key}; change that",
            )


def _check_keep_best(opt: Mapping[str, Any], found: Findings) -> None:
    """Check that the metric of ``logger.keep_best`` is measured in validation."""
    metric = section(opt, "logger").get("keep_best")
    if not isinstance(metric, str):
        return
    metrics = section(opt, "val", "metrics")
    if not section(opt, "val") or not any(key.split("_")[0] == "val" for key in section(opt, "datasets")):
        found.error("logger.keep_best", "nothing is validated; add a section `val` and a data set `val`")
    elif metric not in metrics:
        known = f"it has {', '.join(map(str, metrics))}" if metrics else "that is missing"
        found.error("logger.keep_best", f"'{metric}' is not under val.metrics; {known}")
    elif needs_gt(metrics[metric]):
        sets = [section(block) for key, block in section(opt, "datasets").items() if key.split("_")[0] == "val"]
        if all(str(block.get("type")) in WITHOUT_GT for block in sets):
            found.error(
                "logger.keep_best", f"'{metric}' needs GT, which no data set `val` has; use one that needs none"
            )


def needs_gt(metric: Any) -> bool:
    """Check whether a metric compares two images; False for one that is not registered."""
    try:
        constructor = Component(("val", "metrics"), "metric", metric).constructor()
        return "img2" in inspect.signature(constructor).parameters
    except (OptionError, TypeError, ValueError):
        return False


def _check_wandb(opt: Mapping[str, Any], found: Findings) -> None:
    """Check before the run whether it can be sent to Weights & Biases."""
    options = section(opt, "logger", "wandb")
    if not options.get("project"):
        if options.get("resume_id"):
            found.warn("logger.wandb.resume_id", "there is no logger.wandb.project, so the run is not sent there")
        return
    from gramgan_plugin.training.wandb_log import NOT_INSTALLED, is_installed

    if not is_installed():
        found.error("logger.wandb.project", NOT_INSTALLED)
