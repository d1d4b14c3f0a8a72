"""Upscale pictures and videos with any network of the ESRGAN family, or another architecture that spandrel knows.

Exit code 3: some inputs could not be upscaled; the others are written.
"""

import argparse
from typing import Any

SMOOTH, DEFAULT = "4x-RRDB-Lite", "4x-GramGAN-Lite"  # strength 0 and 1; the second was trained from the first


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("upscale", help="upscale pictures, folders and videos", description=__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, videos, folders, globs")
    parser.add_argument(
        "-o",
        "--output",
        dest="out",
        default="upscaled",
        metavar="OUT",
        help="folder of the results; for one input, a file (default: %(default)s)",
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="WEIGHTS",
        help=f"weights: a file, or a name of `basicsr weights list` (default: {DEFAULT}, in this package)",
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="0..1",
        help=f"of textures, without -m: 0 is {SMOOTH}, 1 (default) {DEFAULT}, between them a mean of their weights",
    )
    parser.add_argument("-s", "--scale", type=float, metavar="S", help="scale of the results (default: the network's)")
    _add_speed(parser.add_argument_group("speed and memory"))
    _add_files(parser.add_argument_group("files"))
    _add_video(parser.add_argument_group("video"))
    parser.set_defaults(run=run)


def _add_speed(group: Any) -> None:
    group.add_argument(
        "--tile",
        default="auto",
        metavar="auto|N|0",
        help="side of tiles in pixels of the input; 0: none",
    )
    group.add_argument(
        "--engine", default="auto", choices=("auto", "torch", "openvino", "onnx"), help="what runs the network"
    )
    group.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="of the network")
    group.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: a GPU if there is one)")
    group.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="pictures of one size at once (default: 4)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="threads that read, and as many that write")
    group.add_argument("--tta", action="store_true", help="average over 8 flips and turns; 8 times as slow")


def _add_files(group: Any) -> None:
    group.add_argument("--suffix", default="", help="put after the names of the results")
    group.add_argument(
        "--format",
        metavar="EXT",
        help="png, jpg, webp, tiff, bmp, avif, mp4, mkv or mov (default: the same)",
    )
    group.add_argument("--quality", type=int, metavar="1-100", help="of JPEG, WebP and AVIF")
    group.add_argument("--skip-existing", action="store_true", help="leave out inputs whose result exists")
    group.add_argument("--alpha", default="network", choices=("network", "bicubic"), help="what upscales transparency")
    group.add_argument("--param-key", metavar="KEY", help="key of the weights in the file (default: averaged weights)")


def _add_video(group: Any) -> None:
    group.add_argument("--codec", metavar="NAME", help="libx264 (default), libx265, libsvtav1 or libvpx-vp9")
    group.add_argument(
        "--crf", type=int, default=17, metavar="N", help="quality of videos, 0 is the best (default: 17)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Upscale the inputs, and print a summary."""
    import logging

    from gramgan_plugin.inference.inputs import find_inputs
    from gramgan_plugin.utils.text import printable

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    jobs = find_inputs(arguments.inputs, arguments.out, arguments.suffix, arguments.format)

    from gramgan_plugin.inference.jobs import Settings, run_jobs
    from gramgan_plugin.inference.upscaler import Upscaler
    from gramgan_plugin.inference.video import VideoSettings, run_videos

    upscaler = Upscaler(
        _model(arguments.model, arguments.strength, arguments.param_key),
        scale=arguments.scale,
        tile=_tile(arguments.tile),
        engine=arguments.engine,
        precision=arguments.precision,
        device=arguments.device,
        tta=arguments.tta,
        param_key=arguments.param_key,
        images=len(jobs),
        show=len(jobs) == 1,
    )
    settings = Settings(
        upscaler.scale,
        batch_size=arguments.batch_size,
        quality=arguments.quality,
        skip_existing=arguments.skip_existing,
        alpha=arguments.alpha,
        workers=arguments.workers,
        show=len(jobs) > 1,
    )
    summary = run_jobs([job for job in jobs if not job.is_video], upscaler.upscale, settings)
    videos = [job for job in jobs if job.is_video]
    if videos:
        options = VideoSettings(
            upscaler.scale, codec=arguments.codec, crf=arguments.crf, skip_existing=arguments.skip_existing
        )
        run_videos(videos, upscaler.upscale, options, summary)
    count, *failures = summary.lines()
    print(f"{count.removesuffix(':')}; results are in {printable(arguments.out)}")
    for line in failures:
        print(line)
    return summary.exit_code


def _model(named: str | None, strength: float | None, param_key: str | None) -> Any:
    """Return the named weights, or those of this package: not a file of their name in the working directory."""
    import logging

    from gramgan_plugin.checkpoints.interpolate import mixed_weights, read_sources
    from gramgan_plugin.checkpoints.networks import build_network
    from gramgan_plugin.checkpoints.public_weights import WEIGHTS
    from gramgan_plugin.checkpoints.weights_cache import ensure
    from gramgan_plugin.errors import UserError

    if named is not None:
        if strength is not None:
            raise UserError(
                "--strength: leave out --model, which names one network; `basicsr interpolate` mixes others"
            )
        return named
    strength = 1.0 if strength is None else strength
    if not 0 <= strength <= 1:
        raise UserError(f"--strength: expected a number from 0 to 1, got {strength}")
    logging.getLogger("gramgan_plugin").info(f"{DEFAULT}, strength {strength:g}; -m takes another network")
    if strength in (0, 1):
        return ensure(WEIGHTS[DEFAULT if strength else SMOOTH])
    sources = read_sources([ensure(WEIGHTS[name]) for name in (SMOOTH, DEFAULT)], param_key)
    return build_network(*mixed_weights(sources, [1 - strength, strength]))


def _tile(text: str) -> int | str:
    from gramgan_plugin.errors import UserError

    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--tile: expected auto, 0 or a number of pixels, got {text!r}") from error
