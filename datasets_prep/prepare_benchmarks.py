"""Convert test sets to one layout: python datasets_prep/prepare_benchmarks.py SRC... --out datasets."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "benchmarks", *sys.argv[1:]]))
