"""Cut DIV2K into an LMDB pair: python datasets_prep/prepare_div2k.py --hr DIV2K_train_HR --out datasets/DIV2K."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "div2k", *sys.argv[1:]]))
