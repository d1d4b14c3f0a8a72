"""``basicsr plot RUN [RUN ...]``: draw the curves of one run, or compare several."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.text import did_you_mean

if TYPE_CHECKING:
    from gramgan_plugin.training.curves import Metrics

FILE = "metrics.jsonl"
RUNS = Path("experiments")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "plot",
        help="draw a run's losses and metrics, or compare runs",
        description="Draw what runs have logged. One run: similar curves share a panel. Several runs: a panel for each "
        "curve, a colour for each run.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help=f"a run's folder, its name in {RUNS}/, or a {FILE}"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="the picture: .png, .svg or .pdf (default: plot.png in the run's folder, or here for several)",
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME", help="only these curves, such as l_g_pix 'grad_*' psnr"
    )
    parser.add_argument(
        "--smooth", type=_at_least_one, default=1, metavar="N", help="draw means over N logged points, the points pale"
    )
    parser.add_argument("--csv", action="store_true", help="also write the curves as a table beside the picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the curves, and print where the picture is."""
    from gramgan_plugin.training.curves import read_metrics, write_csv
    from gramgan_plugin.training.plots import plot_runs
    from gramgan_plugin.utils.text import printable

    files = list(dict.fromkeys(find_metrics(path) for path in arguments.runs))
    found = {label: read_metrics(file) for label, file in zip(labels(files), files, strict=True)}
    if arguments.metrics:
        found = _selected(found, arguments.metrics)
    out = arguments.out or (files[0].parent if len(files) == 1 else Path()) / "plot.png"
    panels = plot_runs(found, out, arguments.smooth)
    what = "1 run" if len(files) == 1 else f"{len(files)} runs"
    print(f"{printable(str(out))}: {what}, {panels} {'panel' if panels == 1 else 'panels'}")
    if arguments.csv:
        table = out.with_suffix(".csv")
        write_csv({label: metrics.by_name() for label, metrics in found.items()}, table)
        print(f"{printable(str(table))}: the same as a table")
    return 0


def find_metrics(run: Path) -> Path:
    """Return the metrics.jsonl of a run: a folder, a name in experiments/, or the file itself.

    Raises:
        UserError: if there is no such run, or it has logged nothing yet.
    """
    run = expanded(run)
    candidates = [run, run / FILE]
    if len(run.parts) == 1:
        candidates.append(RUNS / run / FILE)
    for path in candidates:
        if path.is_file():
            return path
    for folder in (run, RUNS / run):
        if folder.is_dir():
            below = sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))
            hint = f"; there are runs in it: {', '.join(below)}" if below else "; has training started there?"
            raise UserError(f"{folder}: no {FILE} in it{hint}")
    known = sorted(path.parent.name for path in RUNS.glob(f"*/{FILE}"))
    hint = did_you_mean(run.name, known, f"; there are {', '.join(known[:10])}" if known else "")
    raise UserError(f"{run}: no such run, here or in {RUNS}/{hint}")


def labels(files: list[Path]) -> list[str]:
    """Return a label for each run: its folder's name, or as much of its path as is needed to distinguish them.

    >>> labels([Path("experiments/a/metrics.jsonl"), Path("experiments/b/metrics.jsonl")])
    ['a', 'b']
    >>> labels([Path("experiments/a/metrics.jsonl"), Path("old/a/metrics.jsonl")])
    ['experiments/a', 'old/a']
    """
    whole = [file.absolute().with_suffix("") if file.name != FILE else file.absolute().parent for file in files]
    for length in range(1, max(len(path.parts) for path in whole)):
        short = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(short)) == len(short):
            return short
    return [str(path) for path in whole]


def _selected(found: "dict[str, Metrics]", patterns: list[str]) -> "dict[str, Metrics]":
    """Return the curves of each run that match the patterns.

    Raises:
        UserError: if a pattern matches none.
    """
    from gramgan_plugin.training.curves import Metrics, matching

    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics.by_name()))
    wanted: set[str] = set()
    for pattern in patterns:
        matched = matching(names, pattern)
        if not matched:
            hint = did_you_mean(pattern, names, f"; there are {', '.join(names)}")
            raise UserError(f"--metrics {pattern}: no such curve{hint}")
        wanted.update(matched)
    return {
        label: Metrics(
            {key: curve for key, curve in metrics.training.items() if key in wanted},
            {key: curve for key, curve in metrics.validation.items() if " ".join(key) in wanted},
        )
        for label, metrics in found.items()
    }


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)
