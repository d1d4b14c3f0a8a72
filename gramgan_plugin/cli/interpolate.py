"""Interpolate the weights of two or more networks: FIRST + ALPHA x (SECOND - FIRST)."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "interpolate",
        help="interpolate networks, such as a PSNR- and a GAN-trained one",
        description="Write the weighted mean of networks' weights: with --alpha 0.8 a fifth of the first file and four "
        "fifths of the second, as ESRGAN's authors do between a PSNR- and a GAN-trained network. With --alphas and "
        "--image, draw what each share gives instead.",
    )
    parser.add_argument("files", nargs="+", metavar="WEIGHTS", help="two or more files, of any formats, or names")
    parser.add_argument("--alpha", type=float, help="share of the second of two files (default: 0.8)")
    parser.add_argument("--weights", metavar="A,B,...", help="the share of each file")
    parser.add_argument("-o", "--out", metavar="OUT", help="the file to write (default: interpolated.pth or .png)")
    parser.add_argument("--alphas", metavar="FIRST:LAST:STEP", help="draw the results of several shares, 0:1:0.1")
    parser.add_argument("--image", metavar="IMAGE", help="with --alphas: the image to upscale")
    parser.add_argument("--gt", metavar="IMAGE", help="with --alphas: the true image, for PSNR")
    parser.add_argument("--param-key", metavar="KEY", help="key of the weights in the files")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the interpolated weights, or the picture."""
    from gramgan_plugin.checkpoints.interpolate import read_sources, save_interpolated, strangers_warning
    from gramgan_plugin.checkpoints.weights_cache import resolve_weights
    from gramgan_plugin.cli.failures import warn
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.utils.io import real_path
    from gramgan_plugin.utils.text import printable

    if len(arguments.files) < 2:
        raise UserError("give two or more files")
    sources = read_sources([resolve_weights(file) for file in arguments.files], arguments.param_key)
    warning = strangers_warning(sources)
    if warning is not None:
        warn("interpolate", warning)
    if arguments.alphas is not None:
        return _sweep(arguments, sources)
    shares = _shares(arguments, len(sources))
    out = Path(arguments.out or "interpolated.pth")
    if any(real_path(out) == real_path(source.file.path) for source in sources):
        raise UserError(f"{out}: is one of the files to interpolate; name another with -o")
    save_interpolated(sources, shares, out)
    named = " + ".join(f"{share:g} x {source.name}" for share, source in zip(shares, sources, strict=True))
    print(printable(f"{out}: {named}"))
    return 0


def _sweep(arguments: argparse.Namespace, sources: Any) -> int:
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.evaluation.interpolation_sweep import draw_sweep

    if arguments.image is None or len(sources) != 2:
        raise UserError("--alphas: needs two files and --image")
    out = Path(arguments.out or "interpolated.png")
    gt = None if arguments.gt is None else Path(arguments.gt)
    rows = draw_sweep(sources, _alphas(arguments.alphas), Path(arguments.image), gt, out)
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items() if value is not None))
    print(f"Written to {out} and {out.with_suffix('.json')}")
    return 0


def _shares(arguments: argparse.Namespace, count: int) -> list[float]:
    from gramgan_plugin.errors import UserError

    if arguments.weights is None:
        if count != 2:
            raise UserError("--weights: expected the share of each file, such as 0.2,0.5,0.3")
        alpha = 0.8 if arguments.alpha is None else arguments.alpha
        if not -1 <= alpha <= 2:
            raise UserError(f"--alpha: expected a number from 0 to 1 (at most -1 to 2), got {alpha}")
        return [1 - alpha, alpha]
    if arguments.alpha is not None:
        raise UserError("give --alpha or --weights, not both")
    shares = [_number("--weights", part) for part in arguments.weights.split(",")]
    if len(shares) != count:
        raise UserError(f"--weights: expected {count} numbers, got {len(shares)}")
    if abs(sum(shares) - 1) > 1e-6 or max(map(abs, shares)) > 2:
        raise UserError(f"--weights: expected numbers that add up to 1, got {sum(shares):g}")
    return shares


def _alphas(text: str) -> list[float]:
    from gramgan_plugin.errors import UserError

    parts = [_number("--alphas", part) for part in text.split(":")]
    if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0] or (parts[1] - parts[0]) / parts[2] > 100:
        raise UserError(f"--alphas: expected FIRST:LAST:STEP, such as 0:1:0.1, at most 101 of them; got {text!r}")
    first, last, step = parts
    return [first + number * step for number in range(int((last - first) / step + 1e-9) + 1)]


def _number(option: str, text: str) -> float:
    import math

    from gramgan_plugin.errors import UserError

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{option}: expected a number, got {text!r}")
    return value
