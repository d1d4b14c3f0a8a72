"""Check whether crops, patches, windows, scales and the discriminator's layers fit together."""

from collections.abc import Mapping
from typing import Any

from gramgan_plugin.archs import surge_critic_arch, unet_discriminator_taps_arch
from gramgan_plugin.archs.gramgan_discriminator_arch import STAGES, GramGANDiscriminator
from gramgan_plugin.archs.gramgan_realphoto_discriminator_arch import SMALLEST
from gramgan_plugin.archs.tapped_discriminator import TappedDiscriminator
from gramgan_plugin.config.consistency_texture import check_texture
from gramgan_plugin.config.construct import MASKED
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.config.schema_datasets import DATASETS
from gramgan_plugin.errors import OptionError
from gramgan_plugin.losses.masked_ragan_loss import MASKS
from gramgan_plugin.models.components import Component
from gramgan_plugin.registries import lookup
from gramgan_plugin.steps.terms import USM_OPTIONS
from gramgan_plugin.utils.sections import section

SMALLEST_SHARPENED = 26  # USM sharpening mirrors 25 pixels at each border
# Discriminators of a fixed input size -> its default.
FIXED_SIZE = {"GramGANDiscriminator": 192, "VGGStyleDiscriminator": 128, "SRGANDiscriminator": 96}
# Discriminators of this package that take any multiple of a side.
MULTIPLES = {
    "SuRGeCritic": surge_critic_arch.REDUCTION,
    "UNetDiscriminatorSNTaps": unet_discriminator_taps_arch.REDUCTION,
}


def check_sizes(opt: Mapping[str, Any], found: Findings) -> None:
    """Add an error for each size that cannot work in training.

    Args:
        opt: options whose keys are text; values may be of any type.
        found: gets the errors.
    """
    where, crop = _crop(opt)
    scale = opt.get("scale")
    _check_scale(opt, found)
    _check_channels(opt, found)
    _check_taps(opt, found)
    if not is_whole(crop) or crop < 1:
        check_texture(opt, where, None, found)
        return
    if is_whole(scale) and scale >= 1:
        if crop % scale:
            below = crop // scale * scale
            found.error(where, f"{crop:g} is not a multiple of scale {scale:g}; take {below + scale:g} or {below:g}")
        elif section(opt, "network_g").get("type") == "RRDBNet" and scale in (1, 2) and (crop // scale) % (4 // scale):
            found.error(where, f"RRDBNet takes LQ in blocks of {4 // scale:g}; take a multiple of 4")
        else:
            _check_windows(opt, where, int(crop), int(scale), found)
    network = section(opt, "network_d")
    kind = network.get("type")
    if isinstance(kind, str) and kind in FIXED_SIZE:
        size = network.get("input_size", FIXED_SIZE[kind])
        if is_whole(size) and size != crop:
            given = "is" if "input_size" in network else "is by default"
            found.error(where, f"{crop:g}, but network_d.input_size {given} {size:g}; they must be the same")
    if kind == "UNetDiscriminatorSN" and network.get("skip_connection", True) and crop % 8:
        found.error(where, f"UNetDiscriminatorSN takes multiples of 8, not {crop:g}")
    if isinstance(kind, str) and kind in MULTIPLES and crop % MULTIPLES[kind]:
        found.error(where, f"{kind} takes multiples of {MULTIPLES[kind]}, not {crop:g}")
    if kind == "GramGANRealPhotoDiscriminator" and crop < SMALLEST:
        found.error(where, f"{crop:g}, but {kind} takes {SMALLEST} pixels or more")
    sharpened = next((key for key in USM_OPTIONS if opt.get(key) is True), None)
    if sharpened is not None and crop < SMALLEST_SHARPENED:
        found.error(where, f"{crop:g}, but {sharpened} sharpens crops of {SMALLEST_SHARPENED} pixels or more")
    check_texture(opt, where, int(crop), found)
    _check_mask(opt, where, int(crop), found)
    _check_artifact_window(opt, where, int(crop), found)


def _crop(opt: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the key of the side of the training crop, and its value."""
    if section(opt, "datasets", "train").get("type") == "RealESRGANDataset":
        return "gt_size", opt.get("gt_size")
    return "datasets.train.gt_size", section(opt, "datasets", "train").get("gt_size")


def _check_windows(opt: Mapping[str, Any], where: str, crop: int, scale: int, found: Findings) -> None:
    """Check the crop of networks that divide LQ into windows, such as SwinIR."""
    generator = _generator(opt)
    if generator is None:
        return
    window, module = generator.get("window_size"), generator["__module__"]
    if not is_whole(window) or window < 1 or crop // scale % window == 0:
        return
    text = f"{crop} gives LQ of {crop // scale}, not a multiple of network_g.window_size {window:g}"
    advice = f"take a multiple of {scale * window:g}"
    if module.startswith("basicsr."):
        found.error(where, f"{text}; {advice}")
    else:
        found.warn(where, f"{text}; if the network does not pad it, {advice}")


def _check_artifact_window(opt: Mapping[str, Any], where: str, crop: int, found: Findings) -> None:
    """Check the windows of LDL's losses, whose images are reflected at the border."""
    train = section(opt, "train")
    blocks = {"train.ldl_opt": train.get("ldl_opt")}
    blocks |= {f"train.extra_terms.{name}": block for name, block in section(train, "extra_terms").items()}
    for key, block in blocks.items():
        window = section(block).get("window")
        if section(block).get("type") == "ArtifactMapLoss" and is_whole(window) and window // 2 >= crop:
            found.error(where, f"{crop} is too small for {key}.window {window:g}")


def _check_mask(opt: Mapping[str, Any], where: str, crop: int, found: Findings) -> None:
    adversarial = section(opt, "train", "gan_opt")
    if adversarial.get("type") not in MASKED:
        return
    mask = adversarial.get("mask", "gramgan" if adversarial["type"] == "MaskedRaGANLoss" else None)
    if isinstance(mask, str) and mask in MASKS:
        mask = {"window": MASKS[mask].window, "stride": MASKS[mask].stride}
    if not isinstance(mask, Mapping):
        return
    window, stride = mask.get("window"), mask.get("stride")
    if not is_whole(window) or window < 2:
        return
    if window == stride and crop % window:
        found.error(where, f"{crop} is not a multiple of train.gan_opt.mask.window {window:g}")
    elif stride == 1 and window // 2 >= crop:
        found.error(where, f"{crop} is too small for train.gan_opt.mask.window {window:g}")


def _check_scale(opt: Mapping[str, Any], found: Findings) -> None:
    """Check the enlargement of BasicSR's generators, and of ours, against ``scale``."""
    scale, block, generator = opt.get("scale"), section(opt, "network_g"), _generator(opt)
    if not is_whole(scale) or generator is None:
        return
    if not generator["__module__"].startswith(("basicsr.", "gramgan_plugin.")):
        return
    for key in ("scale", "upscale"):
        own = generator.get(key)
        if not is_whole(own) or own == scale:
            continue
        if key in block:
            found.error(f"network_g.{key}", f"{own:g}, but scale at the top of the file is {scale:g}")
        else:
            found.error(f"network_g.{key}", f"missing; {block['type']} enlarges by {own:g}, but scale is {scale:g}")


def _generator(opt: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the generator's options with its defaults and its ``__module__``; None if it is not known."""
    block = section(opt, "network_g")
    try:
        component = Component(("network_g",), "arch", block)
        defaults = {name: parameter.default for name, parameter in component.parameters().items()}
        given = {name: value for name, value in block.items() if name in defaults}
        return {**defaults, **given, "__module__": component.constructor().__module__}
    except (OptionError, TypeError, ValueError):  # reported elsewhere
        return None


def _check_channels(opt: Mapping[str, Any], found: Findings) -> None:
    data = section(opt, "datasets", "train")
    if isinstance(data.get("type"), str) and data["type"] in DATASETS:
        channels = 1 if data.get("color") == "y" else 3
        for key in ("num_in_ch", "num_out_ch"):
            own = section(opt, "network_g").get(key, channels)
            if is_whole(own) and own != channels:
                found.error(f"network_g.{key}", f"{own:g}, but images of datasets.train have {channels}")
    channels_g = section(opt, "network_g").get("num_out_ch", 3)
    channels_d = section(opt, "network_d").get("num_in_ch", 3)
    if is_whole(channels_g) and is_whole(channels_d) and channels_g != channels_d and opt.get("network_d"):
        found.error("network_d.num_in_ch", f"{channels_d:g}, but network_g.num_out_ch is {channels_g:g}")


def _check_taps(opt: Mapping[str, Any], found: Findings) -> None:
    block, network = section(opt, "train", "disc_perceptual_opt"), section(opt, "network_d")
    if block.get("type") != "DiscPerceptualLoss" or not isinstance(network.get("type"), str):
        return
    try:
        cls = lookup("arch", network["type"], "network_d.type")
    except OptionError:
        return
    if not hasattr(cls, "resolve_taps"):
        found.error(
            "network_d.type",
            f"{cls.__name__} does not give its features, which train.disc_perceptual_opt reads; "
            "use GramGANDiscriminator, or remove that block",
        )
        return
    size = network.get("input_size", FIXED_SIZE["GramGANDiscriminator"])
    taps = block.get("taps", ("conv2_0", "conv5_0"))
    if not isinstance(taps, list | tuple):
        return
    try:
        if cls is GramGANDiscriminator and is_whole(size) and size in STAGES:
            cls(num_in_ch=1, num_feat=1, input_size=int(size)).resolve_taps(taps)
        elif issubclass(cls, TappedDiscriminator):  # of every size the same taps
            cls.resolve_taps(taps)
    except (ValueError, TypeError) as error:
        found.error("train.disc_perceptual_opt.taps", str(error).removeprefix("taps: "))
