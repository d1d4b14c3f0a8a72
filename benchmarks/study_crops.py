"""Draw crops of the study in docs/evidence.md: what each variant of options/ablation_lite.yml makes of two photos.

    python benchmarks/study_crops.py docs/images/study_crops.png [experiments]

The photos are scikit-image's, which no network saw; LQ is MATLAB's bicubic reduction of the whole photo; the networks
are the averaged ones of the first seed; the crops are enlarged twice by repeating pixels.
"""

import sys
from pathlib import Path

from lite_picture import draw, upscaler

from gramgan_plugin.evaluation.measure import write_image

VARIANTS = (
    *("base", "esrgan", "bebygan", "gramgan", "centred", "texture_100"),
    *("without_perceptual", "without_texture", "database", "pixel_loss"),
)
CROPS = {"astronaut": (30, 170), "chelsea": (75, 120)}  # photo: top and left
SIDE = 104


def main() -> None:
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "experiments")
    networks = {"start: 4x-RRDB-Lite": upscaler("4x-RRDB-Lite")}
    networks |= {name: upscaler(str(folder / f"lite-{name}-s0/models/net_g_latest.pth")) for name in VARIANTS}
    write_image(draw(networks, CROPS, SIDE, columns=6), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
