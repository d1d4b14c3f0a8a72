"""Write datasets/sample from the photos in scikit-image's wheel: no download. See --help."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "sample", *sys.argv[1:]]))
