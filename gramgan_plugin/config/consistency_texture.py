"""Check that the options of the patch-wise texture loss fit each other, the crop and the database."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.archs.vgg19_arch import LAYERS, reduction
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.config.schema_texture import FEATURES, TEXTURE
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.patchdb.store import check_fits, open_store
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean, shown_value

PATCH_SIZE = 4  # the loss's default


def texture_blocks(opt: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path of each ``GramPatchLoss`` in the options, and its block."""
    train = section(opt, "train")
    blocks = {f"train.{key}": section(train, key) for key in train if key.endswith("_opt")}
    terms = section(train, "extra_terms")
    blocks |= {f"train.extra_terms.{name}": section(terms, name) for name in terms}
    for where, block in blocks.items():
        if block.get("type") == "GramPatchLoss":
            yield where, block


def check_values(where: str, block: Mapping[str, Any], found: Findings) -> bool:
    """Add an error for each value that the loss refuses; return whether there is none."""
    before = len(found.errors)
    for name, key in TEXTURE.items():
        if name in block and (problem := key.mistake(block[name])) is not None:
            found.error(f"{where}.{name}", problem)
    for name, value in section(block, "features").items():
        if name not in FEATURES:
            found.unknown(f"{where}.features", name, FEATURES)
        elif (problem := FEATURES[name].mistake(value)) is not None:
            found.error(f"{where}.features.{name}", problem)
    if isinstance(block.get("features"), Mapping):
        layer = block["features"].get("layer")
        if layer is None:
            found.error(f"{where}.features.layer", f"missing; {FEATURES['layer'].what}")
        elif isinstance(layer, str) and layer not in LAYERS:
            found.error(
                f"{where}.features.layer", f"VGG19 has no layer {shown_value(layer)}{did_you_mean(layer, LAYERS)}"
            )
    return len(found.errors) == before


def check_texture(opt: Mapping[str, Any], crop_at: str, crop: int | None, found: Findings) -> None:
    """Check the options of texture losses against each other and against the training crop.

    Args:
        opt: options whose keys are text; values may be of any type.
        crop_at: the key of the crop's side.
        crop: the side; None if not known.
        found: gets the errors and warnings.
    """
    for where, block in texture_blocks(opt):
        _check_database_options(where, block, found)
        if crop is not None:
            _check_grid(where, block, crop_at, crop, found)


def check_texture_files(opt: Mapping[str, Any], found: Findings) -> None:
    """Add an error for each database that is missing, damaged or does not fit its loss."""
    # The loss compares SR and GT, which have the channels of the network's output.
    channels = section(opt, "network_g").get("num_out_ch", 3)
    for where, block in texture_blocks(opt):
        if not block.get("database"):
            continue
        try:
            check_fits(
                open_store(Path(block["database"])),
                patch_size=block.get("patch_size", PATCH_SIZE),
                channels=channels,
                normalize=block.get("normalize", True),
                center=block.get("center", False),
                layer=section(block, "features").get("layer"),
            )
        except OptionError as error:  # its message begins with the option that differs
            key, _, text = str(error).partition(": ")
            found.error(f"{where}.{key.rpartition('.')[2]}", text)
        except UserError as error:
            found.error(f"{where}.database", str(error))


def _check_database_options(where: str, block: Mapping[str, Any], found: Findings) -> None:
    if block.get("database"):
        if block.get("select_by") == "pixel":
            found.error(f"{where}.select_by", "pixel, but a database is searched by Gram matrices; use gram")
        return
    most = block.get("top_k", 1)
    if is_whole(most) and most > 1:
        found.warn(f"{where}.top_k", "there is no `database`; targets are drawn from the crop's own candidates")
    for name, default in (("database_use", "also"), ("database_index", "auto")):
        if block.get(name, default) != default:
            found.warn(f"{where}.{name}", "has no effect without `database`")


def _check_grid(where: str, block: Mapping[str, Any], crop_at: str, crop: int, found: Findings) -> None:
    """Check that patches cover the crop: pixels outside all patches get no gradient."""
    patch = block.get("patch_size", PATCH_SIZE)
    stride = patch if block.get("stride") is None else block["stride"]
    if not is_whole(patch) or not is_whole(stride) or not 1 <= stride <= patch:
        return  # the loss itself refuses these
    layer, unit = section(block, "features").get("layer"), ""
    if isinstance(layer, str) and layer in LAYERS:  # patch_size and stride are in pixels of its smaller maps
        pixels = reduction(layer)
        patch, stride = pixels * patch, pixels * stride
        unit = f" (in pixels of the image, at {layer})" if pixels > 1 else ""
    if crop < patch:
        found.error(crop_at, f"{crop} is smaller than {where}.patch_size {patch:g}{unit}")
    elif stride == patch and crop % patch:
        found.error(crop_at, f"{crop} is not a multiple of {where}.patch_size {patch:g}{unit}")
    elif (crop - patch) % stride:
        found.error(crop_at, f"{crop} is not {where}.patch_size {patch:g} and a multiple of stride {stride:g}{unit}")
