"""Upscale one image by several models, and draw the comparison."""

from collections.abc import Sequence
from pathlib import Path

from gramgan_plugin.checkpoints.networks import load_network
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.comparison import without_suffix, write_comparison
from gramgan_plugin.evaluation.simple_metrics import from_rgb, niqe, psnr_y, same_size
from gramgan_plugin.inference.picture_files import Samples, open_picture
from gramgan_plugin.inference.resize import resized, scaled_size
from gramgan_plugin.inference.upscaler import Upscaler, check_scale
from gramgan_plugin.utils.io import real_path
from gramgan_plugin.utils.pictures import Image
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.text import printable

BICUBIC = "bicubic"
LONGEST_LABEL = 28


def compare_models(
    image: Path, models: Sequence[str], gt: Path | None, out: Path, scale: float | None = None
) -> tuple[Path, Path]:
    """Write a picture and a page that compare what models make of an image.

    Args:
        image: LQ.
        models: files of weights, names of public ones, or "bicubic".
        gt: the true image, or None.
        out: the path of both files, without suffix.
        scale: of all results; None for the largest of the networks' own (4 if there is no network).

    Returns:
        ``OUT.png`` and ``OUT.html``.

    Raises:
        UserError: if a file cannot be used or written.
    """
    check_scale(scale)
    picture = real_path(out.with_name(f"{without_suffix(out).name}.png"))
    for given in (image, gt):
        if given is not None and real_path(given) == picture:
            raise UserError(f"{given}: would be overwritten by the comparison; choose another -o")
    lq = open_picture(image).pixels
    truth = None if gt is None else from_rgb(open_picture(gt).pixels)
    networks = {model: None if model == BICUBIC else load_network(resolve_weights(model)) for model in models}
    own = [network.scale for network in networks.values() if network is not None]
    scale = float(scale or max(own, default=4))
    images: dict[str, Image] = {}
    for model, network in tracked(list(networks.items()), "model"):
        result = _bicubic(lq, scale) if network is None else Upscaler(network, scale=scale)(lq)
        images[_label(model, images)] = from_rgb(result)
    if truth is not None:
        size = next(iter(images.values()))
        truth = same_size(size, truth)
        if truth.shape != size.shape:
            raise UserError(
                f"{printable(str(gt))}: {truth.shape[1]}x{truth.shape[0]} pixels, smaller than the results "
                f"({size.shape[1]}x{size.shape[0]}); give the image of which LQ is the reduction by {scale:g}"
            )
        images["GT"] = truth
    columns, rows = _table(images, truth, scale)
    return write_comparison(images, out, f"{image.name}, x{scale:g}", columns, rows)


def _bicubic(lq: Samples, scale: float) -> Image:
    return resized(lq, *scaled_size(lq.shape, scale), bicubic=True)


def _label(model: str, taken: dict[str, Image]) -> str:
    """Return a model's name for the picture: the file's, with a number if it is there already."""
    stem = printable(Path(model).stem if model != BICUBIC else model)
    stem = stem if len(stem) <= LONGEST_LABEL else f"{stem[: LONGEST_LABEL - 11]}...{stem[-8:]}"
    number = 2
    label = stem
    while label in taken or label == "GT":
        label, number = f"{stem} ({number})", number + 1
    return label


def _table(images: dict[str, Image], truth: Image | None, scale: float) -> tuple[list[str], list[list[str]]]:
    rows = []
    for label, image in images.items():
        if image is truth:
            continue
        psnr = [] if truth is None else [f"{psnr_y(image, truth, crop=round(scale)):.2f}"]
        quality = niqe(image)
        rows.append([label, *psnr, "" if quality is None else f"{quality:.2f}"])
    return ["model", *([] if truth is None else ["PSNR-Y, dB"]), "NIQE (lower is better)"], rows
