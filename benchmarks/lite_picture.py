"""Draw the README's picture: photos of scikit-image that no network saw, enlarged by the networks of this package.

    python benchmarks/lite_picture.py docs/images/lite.png

LQ is MATLAB's bicubic reduction of the whole photo; the crops are enlarged twice by repeating pixels.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import skimage.data
import torch

from gramgan_plugin.evaluation.benchmark_models import bicubic
from gramgan_plugin.evaluation.measure import write_image
from gramgan_plugin.functional.matlab_bicubic import lq_levels
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.pictures import labelled

Enlarge = Callable[[np.ndarray], np.ndarray]  # (h, w, 3) RGB -> (4 h, 4 w, 3)
NAMES = ("4x-RRDB-Lite", "4x-GramGAN-Lite")
# Photo: top and left of the crop.
CROPS = {"astronaut": (20, 160), "chelsea": (60, 110)}
SIDE = 128


def upscaler(named: str) -> Upscaler:
    return Upscaler(named, engine="torch", precision="fp32")


def draw(
    networks: Mapping[str, Enlarge], crops: Mapping[str, tuple[int, int]], side: int, columns: int | None = None
) -> np.ndarray:
    """Return a picture: of each photo the same crop by each network, under its label, and in the original."""
    rows = []
    for name, (top, left) in crops.items():
        gt = getattr(skimage.data, name)()
        gt = gt[: gt.shape[0] // 4 * 4, : gt.shape[1] // 4 * 4]
        pixels = torch.from_numpy(gt.copy()).permute(2, 0, 1)[None].double()
        lq = lq_levels(pixels, 4)[0].permute(1, 2, 0).byte().numpy()
        images = {**{label: enlarge(lq) for label, enlarge in networks.items()}, "original": gt}
        parts = {
            label: np.ascontiguousarray(image[top : top + side, left : left + side, ::-1])
            for label, image in images.items()
        }
        rows.append(labelled(parts, zoom=2, columns=columns))
    return np.vstack(rows)


def main() -> None:
    networks = {"bicubic": lambda lq: bicubic(lq, 4), **{name: upscaler(name) for name in NAMES}}
    write_image(draw(networks, CROPS, SIDE), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
