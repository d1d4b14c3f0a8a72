"""Draw crops of the study in docs/evidence.md: what each variant of options/ablation_lite.yml makes of two photos.

    python benchmarks/study_crops.py docs/images/study_crops.png [experiments]

The photos are scikit-image's, which no network saw; LQ is MATLAB's bicubic reduction of the whole photo; the networks
are the averaged ones of the first seed; the crops are enlarged twice by repeating pixels.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
import torch

from gramgan_plugin.evaluation.measure import write_image
from gramgan_plugin.functional.matlab_bicubic import lq_levels
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.pictures import labelled

VARIANTS = (
    *("base", "esrgan", "bebygan", "gramgan", "centred", "texture_100"),
    *("without_perceptual", "without_texture", "database", "pixel_loss"),
)
CROPS = {"astronaut": (30, 170), "chelsea": (75, 120)}  # photo: top and left
SIDE = 104


def main() -> None:
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "experiments")
    files = {name: folder / f"lite-{name}-s0/models/net_g_latest.pth" for name in VARIANTS}
    networks = {
        name: Upscaler(str(file), engine="torch", precision="fp32")
        for name, file in {"start: 4x-RRDB-Lite": Path("4x-RRDB-Lite"), **files}.items()
    }
    rows = []
    for name, (top, left) in CROPS.items():
        gt = getattr(skimage.data, name)()
        gt = gt[: gt.shape[0] // 4 * 4, : gt.shape[1] // 4 * 4]
        pixels = torch.from_numpy(gt.copy()).permute(2, 0, 1)[None].double()
        lq = lq_levels(pixels, 4)[0].permute(1, 2, 0).byte().numpy()
        images = {"original": gt, **{label: net(lq) for label, net in networks.items()}}
        crops = {
            label: np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE, ::-1])
            for label, image in images.items()
        }
        rows.append(labelled(crops, zoom=2, columns=6))
    write_image(np.vstack(rows), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
