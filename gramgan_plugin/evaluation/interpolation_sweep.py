"""Draw what the interpolations of two networks make of one image, with PSNR and NIQE."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from gramgan_plugin.checkpoints.interpolate import Source, mixed_weights
from gramgan_plugin.checkpoints.networks import build_network
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.simple_metrics import from_rgb, niqe, psnr_y, same_size
from gramgan_plugin.inference.picture_files import open_picture
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.io import real_path, replace_file, save_json
from gramgan_plugin.utils.pictures import Image, detailed_window, labelled
from gramgan_plugin.utils.progress import tracked

CROP, ZOOM, COLUMNS = 128, 2, 6


def draw_sweep(
    sources: Sequence[Source], alphas: Sequence[float], image: Path, gt: Path | None, out: Path
) -> list[dict[str, float | None]]:
    """Upscale an image by each interpolation; write a labelled strip of crops, and the figures as JSON beside it.

    Args:
        sources: two, of `read_sources`.
        alphas: shares of the second.
        image: LQ.
        gt: the true image, of which the crop with the most detail is shown; None takes the first result's.
        out: a PNG.

    Returns:
        For each share ``alpha``, ``psnr_y`` (dB, without a border as wide as the scale; None without GT) and ``niqe``
        (None for a small or flat image).

    Raises:
        UserError: if a file cannot be used or written.
    """
    if out.suffix.lower() != ".png" or real_path(out) in (real_path(image), gt and real_path(gt)):
        raise UserError(f"{out}: give the name of a PNG file to write, not that of an input")
    lq = open_picture(image).pixels
    truth = None if gt is None else from_rgb(open_picture(gt).pixels)
    images: dict[str, Image] = {}
    rows: list[dict[str, float | None]] = []
    engine = None
    for alpha in tracked(alphas, "share"):
        upscaler = Upscaler(build_network(*mixed_weights(sources, [1 - alpha, alpha])), engine="torch")
        result = from_rgb(upscaler(lq))
        if truth is not None and engine is None:
            truth = same_size(result, truth)
            if truth.shape != result.shape:
                raise UserError(
                    f"{gt}: {truth.shape[1]}x{truth.shape[0]}, but SR has {result.shape[1]}x{result.shape[0]}"
                )
        engine = upscaler.engine
        psnr = None if truth is None else psnr_y(result, truth, crop=upscaler.network.scale)
        rows.append({"alpha": round(alpha, 10), "psnr_y": psnr, "niqe": niqe(result)})
        images[_label(rows[-1])] = result
    window = detailed_window(truth if truth is not None else next(iter(images.values())), CROP)
    if truth is not None:
        images["GT"] = truth
    strip = labelled({label: one[window] for label, one in images.items()}, zoom=ZOOM, columns=COLUMNS)
    replace_file(out, bytes(cv2.imencode(".png", strip)[1]))
    save_json({"files": [source.file.path.name for source in sources], "rows": rows}, out.with_suffix(".json"))
    return rows


def _label(row: dict[str, float | None]) -> str:
    psnr = "" if row["psnr_y"] is None else f" {row['psnr_y']:.2f} dB"
    quality = "" if row["niqe"] is None else f" NIQE {row['niqe']:.2f}"
    return f"alpha {row['alpha']:g}{psnr}{quality}"
