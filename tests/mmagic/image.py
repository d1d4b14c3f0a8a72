"""Take the checkpoint of tests/mmagic/compare.py over to BasicSR's form; its image must be the same.

Runs in the environment with BasicSR: ``python tests/mmagic/image.py FOLDER``.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import gramgan_plugin  # noqa: F401
from gramgan_plugin.cli.main import main as basicsr


def main(folder: Path) -> None:
    """Convert and compare."""
    from basicsr.archs.rrdbnet_arch import RRDBNet  # which imports once this package has

    os.chdir(folder)
    (checkpoint,) = Path("work").glob("iter_*.pth")
    assert basicsr(["inspect", str(checkpoint)]) == 0
    Path("net_g.pth").unlink(missing_ok=True)
    assert basicsr(["convert", str(checkpoint), "--to", "basicsr", "-o", "net_g.pth"]) == 0
    net = RRDBNet(3, 3, 4, num_feat=8, num_block=1, num_grow_ch=4)
    content = torch.load("net_g.pth", weights_only=True)
    print("keys:", list(content))
    net.load_state_dict(content.get("params_ema", content.get("params")))
    image = load_file("image.safetensors")
    with torch.no_grad():
        difference = float((net(image["lq"]) - image["sr"]).abs().max())
    print(f"largest difference of SR between MMagic's network and BasicSR's: {difference:.1e}")
    assert difference < 1e-5


if __name__ == "__main__":
    main(Path(sys.argv[1]))
