"""``basicsr prepare div2k``, ``flickr2k``, ``df2k``, ``folder`` and ``sample``: pack photos into an LMDB pair."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gramgan_plugin.cli.photo_options import SOME_FAILED, add_reading

if TYPE_CHECKING:
    from gramgan_plugin.prepare.folders import Photo
    from gramgan_plugin.prepare.pack import Report
    from gramgan_plugin.prepare.plan import FindLq, Plan, Settings

SAMPLE_OUT = Path("datasets/sample")
SCALES = (2, 3, 4, 8)
LQ_KINDS = ("matlab-bicubic", "matlab-uint8")  # the first is the default
# Form -> title, and number of folders.
KNOWN_SETS: dict[str, tuple[str, int | str]] = {
    "div2k": ("DIV2K", 1),
    "flickr2k": ("Flickr2K", 1),
    "df2k": ("DF2K, which is DIV2K and Flickr2K, each in a folder", "+"),
}


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the forms that cut photos to those of ``prepare``."""
    for form, (title, count) in KNOWN_SETS.items():
        known = forms.add_parser(form, help=f"from {title}", description=f"Prepare {title}.")
        known.add_argument("--hr", type=Path, nargs=count, required=True, metavar="DIR", help="GT photos")
        _add_folders(known, count)
        known.set_defaults(hold_out=())
        _add_options(known)

    folder = forms.add_parser("folder", help="from a folder of photos", description="Prepare a folder of photos.")
    folder.add_argument("hr", type=Path, nargs=1, metavar="PHOTOS", help="the folder")
    _add_folders(folder, count=1)
    folder.add_argument(
        "--hold-out",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="photos to write whole under DIR/test instead, named as in the folder, with or without suffix",
    )
    _add_options(folder)

    sample = forms.add_parser(
        "sample",
        help="from the photos in scikit-image's wheel, without a download",
        description="Prepare the photos in scikit-image's wheel: six as sub-images, two held out.",
    )
    sample.add_argument("--out", type=Path, default=SAMPLE_OUT, metavar="DIR", help="folder to write")
    sample.add_argument("--lq", choices=LQ_KINDS, nargs=1, help="kind of the LQ that is made (default: matlab-bicubic)")
    sample.set_defaults(hold_out=())
    _add_options(sample, "192, 96, 0, at most 30 of a photo")


def _add_folders(parser: argparse.ArgumentParser, count: int | str) -> None:
    several = "" if count == 1 else ", for each of --hr in the same order"
    parser.add_argument(
        "--lq",
        nargs=count,
        metavar="DIR",
        help=f"LQ photos{several}: 0001x4.png, as in DIV2K, or 0001.png for 0001.png. Otherwise LQ is made: "
        "matlab-bicubic (default), or matlab-uint8, rounded between the passes as in EDSR's benchmark sets",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--recursive", action="store_true", help="also read photos in subfolders")


def _add_options(parser: argparse.ArgumentParser, default: str = "preset paper") -> None:
    parser.add_argument(
        "--scale", type=int, choices=SCALES, default=4, help="factor between GT and LQ (default: %(default)s)"
    )
    grid = parser.add_argument_group("sub-images", f"Given numbers override the preset's. Default: {default}.")
    grid.add_argument(
        "--preset",
        choices=("paper", "esrgan"),
        help="crop size, step and thresh size: 192, 240, 0 as in Gram-GAN's paper, or 480, 240, 0 as for ESRGAN",
    )
    grid.add_argument("--crop-size", type=int, metavar="N", help="side of a GT sub-image in pixels")
    grid.add_argument("--step", type=int, metavar="N", help="pixels from one sub-image to the next")
    grid.add_argument(
        "--thresh-size", type=int, metavar="N", help="pixels at the right and lower border that may go unused"
    )
    grid.add_argument(
        "--max-per-photo",
        type=int,
        metavar="N",
        help="maximum number of sub-images of one photo, spread evenly over it",
    )
    grid.add_argument(
        "--keep-detailed",
        type=float,
        metavar="SHARE",
        help="keep the most detailed sub-images of all photos, such as 0.33 of them (default: all); photos are read "
        "twice, and DIR/detail.png shows what stays and what goes",
    )
    parser.add_argument(
        "--encoding",
        choices=("png", "fast"),
        help="of sub-images: png (default), or fast: BMP, which needs nearly twice the disk space but is quick to read",
    )
    parser.add_argument(
        "--compression-level", type=int, metavar="N", help="of PNG, 0 to 9; the default is quick to read"
    )
    parser.add_argument(
        "--to",
        choices=("lmdb", "shards"),
        default="lmdb",
        help="what to write: an LMDB pair (default), or shards for a StreamedSRDataset, for many millions of pairs",
    )
    parser.add_argument(
        "--shard",
        type=_share,
        default=(1, 1),
        metavar="I/N",
        help="pack part I of N of the photos, such as 2/16, to a DIR of its own: for packing on N machines",
    )
    add_reading(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace DIR once the new one is complete")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print how many sub-images the photos give, from their headers; write nothing",
    )
    parser.set_defaults(run=run)


def _share(text: str) -> tuple[int, int]:
    """Return I and N of I/N; argparse reports anything else."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected I/N, such as 2/16, got {text!r}")
    return int(part), int(parts)


def run(args: argparse.Namespace) -> int:
    """Prepare the data set and print what was written.

    Returns:
        0, or 3 if photos were skipped.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.prepare.pack import prepare_photos
    from gramgan_plugin.prepare.plan import check_usable, make_plan
    from gramgan_plugin.prepare.sample import HELD_OUT

    settings = _settings(args)
    photos, find_lq = _photos(args)
    hold_out = HELD_OUT if args.form == "sample" else args.hold_out
    if args.dry_run:
        plan = make_plan(photos, settings, hold_out, find_lq)
        check_usable(plan, len(photos), args.on_error)
        _print_plan(plan, args.form, len(photos))
        return SOME_FAILED if plan.refused else 0
    report = prepare_photos(
        photos,
        args.out,
        settings,
        find_lq=find_lq,
        hold_out=hold_out,
        form=args.form,
        workers=args.workers,
        overwrite=args.overwrite,
        on_error=args.on_error,
    )
    _print_report(report, args.form, len(photos))
    return SOME_FAILED if report.skipped else 0


def _photos(args: argparse.Namespace) -> "tuple[list[Photo], FindLq | None]":
    """Return the photos, and a function that finds the LQ of each, or None if LQ is made."""
    from gramgan_plugin.prepare.folders import Partners, folders_photos
    from gramgan_plugin.prepare.sample import sample_photos

    if args.form == "sample":
        return sample_photos(), None
    photos = folders_photos(args.hr, args.recursive)
    if args.lq is None or _lq_kind(args) is not None:
        return photos, None
    return photos, Partners(args.hr, [Path(folder) for folder in args.lq], args.scale, args.recursive)


def _lq_kind(args: argparse.Namespace) -> str | None:
    """Return the kind of LQ that ``--lq`` names, or None; a folder of that name is given as ``./NAME``."""
    return args.lq[0] if args.lq is not None and len(args.lq) == 1 and args.lq[0] in LQ_KINDS else None


def _settings(args: argparse.Namespace) -> "Settings":
    """Return the settings that determine the content of the data set."""
    from gramgan_plugin.prepare import sample
    from gramgan_plugin.prepare.encode import Encoding
    from gramgan_plugin.prepare.plan import Settings
    from gramgan_plugin.prepare.presets import PRESETS, Preset

    base = sample.SETTINGS if args.form == "sample" else Settings(args.scale, PRESETS["paper"])
    grid = base.grid if args.preset is None else PRESETS[args.preset]
    numbers = {name: getattr(args, name) for name in Preset._fields}
    grid = grid._replace(**{name: value for name, value in numbers.items() if value is not None})
    settings = replace(base, scale=args.scale, grid=grid, lq_kind=_lq_kind(args) or LQ_KINDS[0])
    settings = replace(settings, share=args.shard, as_shards=args.to == "shards")
    if args.max_per_photo is not None:
        settings = replace(settings, most=args.max_per_photo)
    if args.keep_detailed is not None:
        settings = replace(settings, keep_detailed=args.keep_detailed)
    if args.encoding is not None or args.compression_level is not None:
        settings = replace(settings, encoding=Encoding(args.encoding or "png", args.compression_level))
    return settings


def _print_plan(plan: "Plan", form: str, photos: int) -> None:
    from gramgan_plugin.prepare.presets import expected_sub_images

    _print_skipped(plan.refused)
    held_out = sum(entry.held for entry in plan.entries)
    count = plan.sub_images()
    share = plan.settings.keep_detailed
    stay = "" if share is None else f", of which {max(1, round(share * count))} would stay,"
    print(
        f"{count} sub-images{stay} of {len(plan.entries) - held_out} photos, {held_out} photos held out; nothing was "
        "written"
    )
    _print_expected(form, photos, count, expected_sub_images(form, plan.settings.grid))


def _print_skipped(skipped: list[tuple[str, str]]) -> None:
    from gramgan_plugin.utils.text import printable

    for name, reason in skipped:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)


def _print_expected(form: str, photos: int, sub_images: int, expected: int | None) -> None:
    from gramgan_plugin.prepare.presets import KNOWN_SETS as KNOWN

    known = KNOWN.get(form)
    if known is None:
        return
    if photos != known.photos:
        print(f"  {photos} photos, where {known.title} has {known.photos} for training")
    if expected is not None:
        print(f"  {sub_images} sub-images, {expected} expected: {_difference(sub_images - expected)}")


def _difference(number: int) -> str:
    return "no difference" if number == 0 else f"{abs(number)} {'more' if number > 0 else 'fewer'}"


def _print_report(report: "Report", form: str, photos: int) -> None:
    _print_skipped(report.skipped)
    lq_size = report.crop_size // report.scale
    print(
        f"{report.out}: {report.sub_images} sub-images of {report.photos} photos, "
        f"GT {report.crop_size}x{report.crop_size}, LQ {lq_size}x{lq_size}, "
        f"{report.held_out} photos held out, {report.size_in_bytes / 1e6:.1f} MB"
    )
    if report.selection is not None:
        measured, least = len(report.selection.details), report.selection.least
        print(f"  the most detailed of {measured}, with detail of at least {least:.2f}: {report.out / 'detail.png'}")
    _print_expected(form, photos, report.sub_images, report.expected)
    if report.as_shards:
        print("  datasets.train.type: StreamedSRDataset")
        print(f"  datasets.train.dataroot_shards: {report.shards}")
    else:
        print(f"  datasets.train.dataroot_gt: {report.gt}")
        print(f"  datasets.train.dataroot_lq: {report.lq}")
    if report.held_out:
        print(f"  datasets.val.dataroot_gt: {report.out / 'test' / 'GT'}")
        print(f"  datasets.val.dataroot_lq: {report.out / 'test' / f'LQ_x{report.scale}'}")
    if report.out == SAMPLE_OUT and report.scale == 4 and not report.as_shards:  # as in the sample's option files
        print("next: basicsr train -opt train_gramgan_sample.yml")
    elif report.as_shards:
        print("next: a copy of train_rrdb_psnr_x4.yml with these lines in place of its type, dataroots and io_backend")
    else:
        print("next, with these paths in a copy of the option file: basicsr train -opt train_rrdb_psnr_x4.yml")
