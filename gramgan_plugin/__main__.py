"""``python -m gramgan_plugin`` is the ``basicsr`` command."""

import sys

from gramgan_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
