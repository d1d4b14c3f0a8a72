"""``basicsr patchdb build``: make a database from photos."""

import argparse

from gramgan_plugin.cli.patchdb.common import add_making, add_output, add_sources, finish


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``build`` to the forms of ``patchdb``."""
    parser = forms.add_parser(
        "build",
        help="make a database from LMDBs or folders of photos",
        description="Choose patches of photos, as far as possible the same number of each photo and variant. Flat "
        "patches are left out; of nearly equal ones, one is kept.",
    )
    add_sources(parser)
    add_output(parser)
    parser.add_argument(
        "--max-patches",
        type=int,
        default=200_000,
        metavar="N",
        help="maximum number of patches, up to 10 million (default: %(default)s)",
    )
    parser.add_argument(
        "--patch-size", type=int, default=4, metavar="N", help="side in pixels, as in the loss (default: %(default)s)"
    )
    parser.add_argument(
        "--features",
        metavar="LAYER",
        help="Gram matrices of a layer of VGG19 for a loss with `features: {layer: LAYER}`, such as conv1_2; the patch "
        "size then counts pixels of its map (default: of the pixels themselves)",
    )
    parser.add_argument("--center", action="store_true", help="Gram matrices for a loss with `center: true`")
    parser.add_argument("--no-normalize", action="store_true", help="Gram matrices for a loss with `normalize: false`")
    parser.add_argument(
        "--variants",
        default="original,down,affine",
        metavar="LIST",
        help="where patches are cut from: the photo, its bicubic half, a slightly warped copy (default: %(default)s)",
    )
    parser.add_argument(
        "--min-contrast",
        type=float,
        default=0.01,
        metavar="X",
        help="leave out patches with a smaller standard deviation, for values in [0, 1] (default: %(default)s)",
    )
    parser.add_argument(
        "--thin",
        type=float,
        default=4.0,
        metavar="LEVELS",
        help="keep one of the patches whose colour and contrasts agree to this step, in levels of 255; 0 drops only "
        "equal ones (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for the places (default: %(default)s)")
    add_making(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the database and print what was written.

    Returns:
        0, or 3 if photos were skipped.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.patchdb.database_manifest import Definition
    from gramgan_plugin.patchdb.making.building import build
    from gramgan_plugin.patchdb.making.settings import Settings
    from gramgan_plugin.patchdb.making.source_photos import Reading

    names = tuple(name.strip() for name in args.variants.split(",") if name.strip())
    report = build(
        args.source,
        args.out,
        max_patches=args.max_patches,
        definition=Definition(args.patch_size, normalize=not args.no_normalize, center=args.center),
        features=args.features,
        vgg_weights=args.vgg_weights,
        settings=Settings.named(names, min_contrast=args.min_contrast, thin=args.thin, seed=args.seed),
        reading=Reading(args.recursive, args.on_error, args.workers),
        overwrite=args.overwrite,
    )
    code = finish(report, args.index)
    print(f"next: train.gram_patch_opt.database: {args.out}")
    return code
