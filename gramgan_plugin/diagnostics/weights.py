"""Check weight files: which exist, whether they can be read, and from where missing ones are downloaded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.weights_cache import cache_folder, hub_folder
from gramgan_plugin.diagnostics.diagnosis import Finding, ok, problem
from gramgan_plugin.utils.io import file_sha256

VGG19 = WEIGHTS["vgg19"]
UPSTREAM_PLACE = Path("experiments/pretrained_models") / VGG19.file


def vgg19() -> Iterator[Finding]:
    """Yield a finding about VGG19 of the perceptual loss: in upstream's place, in torch's cache or ours, or missing."""
    again = "delete it; it is downloaded again"
    places = {
        UPSTREAM_PLACE: "replace it by torchvision's file, or remove it",
        hub_folder() / VGG19.file: again,
        cache_folder() / VGG19.file: again,
    }
    for file, cure in places.items():
        if file.is_file():
            yield _vgg19_file("VGG19", file, cure)
            return
    yield ok(
        "VGG19",
        f"will be downloaded from {VGG19.url} to {cache_folder()} when a run needs it; without a network, put the "
        f"file at {UPSTREAM_PLACE} or name one in train.perceptual_opt.vgg_weights",
    )


def named_weights(options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the weight files that an option file names; missing ones are reported by the check of the options."""
    for key, value in (options.get("path") or {}).items():
        if key.startswith("pretrain_network") or key == "resume_state":
            file = Path(str(value)).expanduser()
            if file.is_file():
                yield ok(f"path.{key}", f"{file}, {_megabytes(file)}")
    perceptual = (options.get("train") or {}).get("perceptual_opt") or {}
    file = Path(str(perceptual.get("vgg_weights"))).expanduser()
    if file.is_file():
        yield _vgg19_file("train.perceptual_opt.vgg_weights", file, "give a file with torchvision's key names")


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:,.1f} MB"


def _vgg19_file(topic: str, file: Path, cure: str) -> Finding:
    size = _megabytes(file)
    if file_sha256(file) == VGG19.sha256:
        return ok(topic, f"{file}, {size}, torchvision's")
    error = unreadable_as_vgg19(file)
    if error is None:
        return ok(topic, f"{file}, {size}, readable; not torchvision's file, but for example the MINC variant")
    return problem(topic, f"{file}: {error}", "the perceptual loss cannot be computed with it", cure)


def unreadable_as_vgg19(file: Path) -> str | None:
    """Return why a file cannot be used as VGG19's weights (at least its first layer), or None if it can."""
    from gramgan_plugin.checkpoints.headers import read_headers
    from gramgan_plugin.checkpoints.vgg19 import vgg19_misfit
    from gramgan_plugin.errors import UserError

    try:
        return vgg19_misfit(read_headers(file), ["conv1_1"])
    except UserError as error:
        return str(error).removeprefix(f"{file}: ")
