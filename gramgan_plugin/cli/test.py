"""Test a network on benchmark sets. Exit code 3: some images could not be measured and are not in the means."""

import argparse
from pathlib import Path
from typing import Any

from gramgan_plugin.cli.options import add_launch_arguments, add_option_arguments, read_options

SOME_FAILED = 3


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("test", help="test a network on benchmark sets", description=__doc__)
    add_option_arguments(parser)
    add_launch_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Test the network, and print the table."""
    opt = read_options(arguments, is_train=False)
    from gramgan_plugin.evaluation.option_sets import markdown_table, measure_option_sets
    from gramgan_plugin.training.logs import run_logging
    from gramgan_plugin.training.run_folder import open_run_folder, record_run
    from gramgan_plugin.utils import distributed

    with distributed.joined(opt["launcher"], use_gpus=opt["num_gpu"] > 0) as (opt["rank"], opt["world_size"]):
        if opt["rank"] == 0:
            folder = Path(opt["path"]["results_root"])
            # The other processes do nothing: testing does not use several devices.
            opt["dist"] = False
            moved: list[str] = []  # before there is a log
            with (
                open_run_folder(folder, keep=False, report=lambda _, line: moved.append(line)),
                run_logging(folder / "test.log") as log,
            ):
                for line in moved:
                    log.info(line)
                record_run(folder, opt)
                results = measure_option_sets(opt, folder)
            print(markdown_table(results), end="")
            print(f"\nWritten to {folder}/results.json and results.md")
            if any(result.left_out for result in results):
                return SOME_FAILED
    return 0
