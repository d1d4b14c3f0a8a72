"""Cut DF2K into an LMDB pair: prepare_df2k.py --hr DIV2K_train_HR Flickr2K_HR --out datasets/DF2K."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "df2k", *sys.argv[1:]]))
