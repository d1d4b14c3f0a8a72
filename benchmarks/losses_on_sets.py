"""Print the losses themselves, of the results of several networks on test sets: what each system optimises.

    python benchmarks/losses_on_sets.py l1=A.pth gramgan=B.pth --data datasets --sets Set5 Set14 --vgg-weights vgg19.pth

The columns: VGG19's conv2_2 (L1) and relu2_2 (MSE), Gram matrices of 4x4 patches (centred), pixels of the nearest 3x3
patches (Beby-GAN's), and the Jensen-Shannon divergence. Each is the mean over the images of a set.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.evaluation.benchmark_sets import benchmark_sets
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.losses import GramPatchLoss, JensenShannonLoss, VGGPerceptualLoss
from gramgan_plugin.utils.progress import tracked

SIDE = 480  # larger images are cut: the patch losses compare all places with all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="LABEL=FILE")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--vgg-weights", help="VGG19's; torchvision's if left out")
    args = parser.parse_args()
    vgg = load_vgg19(args.vgg_weights, ["relu2_2"])
    losses = {
        "VGG L1": VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=vgg),
        "VGG MSE": VGGPerceptualLoss(layer_weights={"relu2_2": 1.0}, criterion="mse", vgg_weights=vgg),
        "Gram": GramPatchLoss(center=True),
        "best buddies": GramPatchLoss(
            patch_size=3, select_by="pixel", loss_on="pixel", downsample=[2, 4], antialias=False, affine_copies=0
        ),
        "JS": JensenShannonLoss(),
    }
    print(f"| set | model | {' | '.join(losses)} |")
    print("|---|---|" + "---:|" * len(losses))
    models = dict(model.partition("=")[::2] for model in args.models)
    for one in benchmark_sets(args.data, 4, args.sets):
        for label, file in models.items():
            upscaler = Upscaler(file, engine="torch", precision="fp32")
            rows = []
            for image in tracked(one.images, f"{one.name} {label}", sys.stderr.isatty()):
                lq, gt = image.read(4)
                sr = upscaler(lq)
                rows.append([float(loss(_tensor(sr), _tensor(gt))) for loss in losses.values()])
            means = torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()
            print(f"| {one.name} | {label} | {' | '.join(f'{mean:.4g}' for mean in means)} |", flush=True)


def _tensor(image: object) -> Tensor:
    pixels = torch.from_numpy(image[:SIDE, :SIDE].copy())  # type: ignore[index]
    sides = [side - side % 12 for side in pixels.shape[:2]]
    return pixels[: sides[0], : sides[1]].permute(2, 0, 1)[None].float() / 255


if __name__ == "__main__":
    with torch.no_grad():
        main()
