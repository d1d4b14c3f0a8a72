"""The option names of traiNNer-redux and neosr, and their equivalents here."""

from collections.abc import Callable, Mapping
from typing import Any

from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.registries import register_foreign_networks, registered
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean, shown_value

Hint = str | Callable[[Any, Mapping[str, Any]], str]  # or a function of (value, the whole options)


def _crop(value: Any, opt: Mapping[str, Any]) -> str:
    scale = opt.get("scale")
    if is_whole(value) and is_whole(scale):
        return f"write `gt_size: {value * scale:g}`, the side in GT: {value:g} times scale {scale:g}"
    return "write `gt_size`, the side in GT: scale times that in LQ"


def _accumulation(value: Any, opt: Mapping[str, Any]) -> str:
    batch = section(opt, "datasets", "train").get("batch_size_per_gpu")
    if is_whole(value) and is_whole(batch):
        return (
            f"write `train.accumulate: {value:g}` and `batch_size_per_gpu: {value * batch:g}`: here the batch is split"
        )
    return "write `train.accumulate`, which splits the batch; raise `batch_size_per_gpu` as much"


_PRECISION = "write `train.precision: bf16` (or fp16, or auto)"
_CLIP = "write `train.clip_grad_norm_g: 1` and `train.clip_grad_norm_d: 1`, the largest norms"
_ANYWHERE: dict[str, Hint] = {
    "use_amp": _PRECISION,
    "amp_bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "use_channels_last": "write `train.channels_last: true`",
    "use_compile": "write `train.compile: true`",
    "fast_matmul": "write `train.tf32: true`, which is the default",
    "accum_iter": _accumulation,
    "grad_clip": _CLIP,
}
# Section -> key there -> the equivalent here.
KEYS: dict[str, dict[str, Hint]] = {
    "": {**_ANYWHERE, "compile": "write `train.compile: true`"},
    "train": {
        **_ANYWHERE,
        "ema": "write `ema_decay`",
        "losses": "write a block for each loss: pixel_opt, perceptual_opt, gan_opt, any other under extra_terms",
    },
    "datasets": {
        "lq_size": _crop,
        "patch_size": _crop,
        "accum_iter": _accumulation,
        "accumulate": _accumulation,
        "batch_size": "write `batch_size_per_gpu`",
    },
    "val": {
        "val_enabled": "leave out the section `val` to validate nothing",
        "metrics_enabled": "leave out `metrics` to measure nothing",
    },
    "logger": {"total_iter": "write `train.total_iter`"},
}
# Kind of class -> name there, in lower case -> name here.
TYPES: dict[str, dict[str, str]] = {
    "arch": {
        "esrgan": "RRDBNet",
        "rrdb": "RRDBNet",
        "compact": "SRVGGNetCompact",
        "srresnet": "MSRResNet",
        "dunet": "UNetDiscriminatorSN",
        "unet": "UNetDiscriminatorSN",
        "vgg": "VGGStyleDiscriminator",
    },
    "dataset": {"paired": "PairedSRDataset", "single": "SingleImageDataset", "otf": "RealESRGANDataset"},
    "model": {"image": "GramGANModel", "default": "GramGANModel", "otf": "RealESRGANModel"},
}
# Whether the section is for a discriminator.
FOR_DISCRIMINATOR = {"network_d": True, "network_g": False}


def hints(opt: Mapping[str, Any]) -> dict[str, str]:
    """Return what to write instead of each key of traiNNer-redux or neosr in the options.

    Args:
        opt: options whose keys are text.

    Returns:
        The key's full path -> the end of a message. Whether the key is unknown here is not checked.
    """
    blocks = [("", "", opt), *((name, name, section(opt, name)) for name in ("train", "val", "logger"))]
    blocks += [("datasets", f"datasets.{key}", section(block)) for key, block in section(opt, "datasets").items()]
    found = {}
    for kind, where, block in blocks:
        for key in KEYS[kind].keys() & block.keys():
            hint = KEYS[kind][key]
            found[f"{where}.{key}" if where else key] = hint if isinstance(hint, str) else hint(block[key], opt)
    return found


def mistaken_type(kind: str, name: Any, where: str) -> str | None:
    """Return what is wrong with the name of a class, if there is more to report than that it is not registered.

    Args:
        kind: as for ``registries.lookup``.
        name: the name.
        where: its block: ``network_d`` must be a discriminator, and ``network_g`` must not.

    Returns:
        The end of a message, or None.
    """
    if not isinstance(name, str):
        return None
    known = {registered_name.removesuffix("_basicsr") for registered_name, _, _ in registered(kind)}
    plain = name.removesuffix("_basicsr")
    if kind == "arch" and plain not in known and name.lower() not in TYPES["arch"]:
        register_foreign_networks()
        known = {registered_name.removesuffix("_basicsr") for registered_name, _, _ in registered(kind)}
    for_discriminator = FOR_DISCRIMINATOR.get(where)
    if plain in known:
        if where in FOR_DISCRIMINATOR and plain not in networks(where):
            return f"{name} is {'not ' if for_discriminator else ''}a discriminator"
        return None
    what = "discriminator" if for_discriminator else kind
    here = TYPES.get(kind, {}).get(name.lower())
    if here is not None and for_discriminator in (None, _is_discriminator(here)):
        return f"no {what} named {shown_value(name)} is registered; here it is '{here}'"
    if for_discriminator is None:
        return None
    fitting = sorted(one for one in known if _is_discriminator(one) == for_discriminator)
    hint = did_you_mean(name, fitting, *([f"; there are {', '.join(fitting)}"] if for_discriminator else []))
    return f"no {what} named {shown_value(name)} is registered{hint}"


def networks(where: str) -> list[str]:
    """Return the registered networks that can be ``network_g`` or ``network_d``, sorted.

    Networks of third parties can be both, since their names are not known.
    """
    names = ((name.removesuffix("_basicsr"), package) for name, _, package in registered("arch"))
    return sorted(
        name
        for name, package in names
        if package not in ("basicsr", "gramgan_plugin") or _is_discriminator(name) == FOR_DISCRIMINATOR[where]
    )


def _is_discriminator(name: str) -> bool:
    return "Discriminator" in name or name.endswith("Critic")
