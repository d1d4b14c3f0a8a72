"""Draw the README's picture: photos of scikit-image that no network saw, enlarged by the networks of this package.

    python benchmarks/lite_picture.py docs/images/lite.png

LQ is MATLAB's bicubic reduction of the whole photo; the crops are enlarged twice by repeating pixels.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
import torch

from gramgan_plugin.evaluation.benchmark_models import bicubic
from gramgan_plugin.evaluation.measure import write_image
from gramgan_plugin.functional.matlab_bicubic import lq_levels
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.pictures import labelled

NAMES = ("4x-RRDB-Lite", "4x-GramGAN-Lite")
# Photo: top and left of the crop.
CROPS = {"astronaut": (20, 160), "chelsea": (60, 110)}
SIDE = 128


def main() -> None:
    networks = {name: Upscaler(name, engine="torch", precision="fp32") for name in NAMES}
    rows = []
    for name, (top, left) in CROPS.items():
        gt = getattr(skimage.data, name)()
        gt = gt[: gt.shape[0] // 4 * 4, : gt.shape[1] // 4 * 4]
        pixels = torch.from_numpy(gt.copy()).permute(2, 0, 1)[None].double()
        lq = lq_levels(pixels, 4)[0].permute(1, 2, 0).byte().numpy()
        images = {"bicubic": bicubic(lq, 4), **{label: net(lq) for label, net in networks.items()}, "original": gt}
        crops = {
            label: np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE, ::-1])
            for label, image in images.items()
        }
        rows.append(labelled(crops, zoom=2))
    write_image(np.vstack(rows), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
