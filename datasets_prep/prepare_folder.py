"""Cut a folder of photos into an LMDB pair: python datasets_prep/prepare_folder.py PHOTOS --out DIR."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "folder", *sys.argv[1:]]))
