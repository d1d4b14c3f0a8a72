"""Cut Flickr2K into an LMDB pair: python datasets_prep/prepare_flickr2k.py --hr Flickr2K_HR --out datasets/Flickr2K."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "flickr2k", *sys.argv[1:]]))
