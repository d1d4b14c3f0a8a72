"""Train a model from an option file.

On a signal (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2) it finishes the iteration, saves its state and exits with code
75; the same command with --auto_resume resumes it. A second Ctrl-C ends it at once. Code 4: it stopped itself, because
of non-finite values or too many unreadable images. Code 2: bad input, or a full disk.
"""

import argparse
from typing import Any

from gramgan_plugin.cli.options import add_launch_arguments, add_option_arguments, read_options


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("train", help="train from an option file", description=__doc__)
    add_option_arguments(parser)
    add_launch_arguments(parser)
    parser.add_argument("--auto_resume", "--auto-resume", action="store_true", help="resume from the newest checkpoint")
    parser.add_argument("--debug", action="store_true", help="log each iteration, validate and save every 8")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the model."""
    opt = read_options(arguments, is_train=True)
    from gramgan_plugin.training.loop import train

    train(opt)
    return 0
