"""Collect photos for training and sort them: python datasets_prep/prepare_collect.py SRC... --out DIR."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "collect", *sys.argv[1:]]))
